//! PartitionedQueue: strict order per key, also through retries; other keys go on meanwhile.
//!
//! `cargo run --example queue`

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use resonant_queue::{
    Delivery, HandlerError, PartitionedQueue, PublishOptions, SequenceCheck, Sqlite,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Task {
    agent_id: String,
    step: u32,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let queue = PartitionedQueue::<Task>::builder("session-tasks")
        .partitions(16)
        .partition_key("agent_id")
        .backend(Sqlite::open(folder.path().join("queue.db")).await?)
        .build()
        .await?;

    // A publish answers when the message is on disk.
    let tasks = (0..50).flat_map(|step| {
        (0..8).map(move |agent| Task { agent_id: format!("agent_{agent}"), step })
    });
    queue.publish_many(tasks).await?;
    let once = Task { agent_id: "agent_0".into(), step: 50 };
    for _ in 0..2 {
        let options = PublishOptions::new().unique_id("agent_0/50");
        queue.publish_with(&once, options).await?;
    }
    assert_eq!(queue.depth().await?.unfinished(), 401);

    let check = Arc::new(SequenceCheck::new("session-tasks"));
    let worker = queue
        .worker({
            let check = Arc::clone(&check);
            async move |delivery: Delivery<Task>| {
                // The first attempt of one task fails: its agent waits for the retry, the others do not.
                if delivery.message().step == 10
                    && delivery.message().agent_id == "agent_3"
                    && delivery.attempt() == 1
                {
                    return Err(HandlerError::retry_after(Duration::from_millis(50), "not yet"));
                }
                check.observe(&delivery);
                Ok(())
            }
        })
        .concurrency(8)
        .start()
        .await?;
    while queue.depth().await?.unfinished() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("{:?}", worker.drain().await?);
    let report = check.report();
    println!("{report:?}");
    assert!(report.in_order());
    queue.close().await;
    Ok(())
}
