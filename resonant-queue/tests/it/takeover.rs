//! Two processes on one file: one is frozen or killed in the middle of a message, the other takes over. This binary runs
//! itself as the child.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use resonant_queue::{Delivery, Durability, HandlerError, PartitionedQueue, Sqlite};
use tokio::time::{sleep, timeout};

use super::other_process::{OtherProcess, hold_messages};

const CHILD: &str = "RESONANT_QUEUE_TAKEOVER_CHILD";
const LIMIT: Duration = Duration::from_secs(60);

async fn open(directory: &Path) -> PartitionedQueue<u64> {
    let file = Sqlite::builder(directory.join("queue.db")).durability(Durability::Normal);
    PartitionedQueue::builder("takeover")
        .partitions(1)
        .key(|_: &u64| "one")
        .lease_ttl(Duration::from_secs(1))
        .backend(file.open().await.unwrap())
        .build()
        .await
        .unwrap()
}

/// The child: begins messages, and finishes none before it is told to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(directory) = std::env::var(CHILD) else { return };
    let queue = open(Path::new(&directory)).await;
    hold_messages(queue, Path::new(&directory)).await;
}

/// What a frozen or killed process held is handled by another one, in order; what the frozen one finishes when it thaws is
/// refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_takes_over_and_a_thawed_one_is_refused() {
    for freezes in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let queue = open(directory.path()).await;
        queue.publish_many(0..5).await.unwrap();
        let held = directory.path().to_str().unwrap();
        let mut child = OtherProcess::run("takeover::child", CHILD, held);
        assert!(child.line_with("began").await.contains("began 0 at 1"));
        if freezes {
            loop {
                child.freeze().await;
                // Frozen inside a transaction it would hold the file as well; that is not what is tested.
                if timeout(Duration::from_secs(2), queue.ping()).await.is_ok() {
                    break;
                }
                child.thaw().await;
            }
        } else {
            child.kill().await;
        }
        let seen = Arc::new(Mutex::new(Vec::new()));
        let handler = {
            let seen = Arc::clone(&seen);
            async move |delivery: Delivery<u64>| {
                assert!(delivery.epoch() > 1, "it owns what the child did");
                seen.lock().unwrap().push(*delivery.message());
                Ok::<(), HandlerError>(())
            }
        };
        let worker = queue.worker(handler).start().await.unwrap();
        let empty = async {
            while queue.depth().await.unwrap().unfinished() > 0 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LIMIT, empty).await.expect("it is taken over");
        assert_eq!(*seen.lock().unwrap(), [0, 1, 2, 3, 4]);
        if freezes {
            queue.publish(&5).await.unwrap();
            std::fs::write(directory.path().join("go on"), "").unwrap();
            child.thaw().await;
            child.line_with("fenced").await;
            timeout(LIMIT, async {
                while queue.depth().await.unwrap().unfinished() > 0 {
                    sleep(Duration::from_millis(5)).await;
                }
            })
            .await
            .unwrap();
            assert_eq!(*seen.lock().unwrap(), [0, 1, 2, 3, 4, 5], "the zombie changed nothing");
            child.kill().await;
        }
        worker.drain().await.unwrap();
    }
}
