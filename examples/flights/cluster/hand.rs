//! A worker process: stores what the queue gives it, until the job lets go of its standard input.

use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;

use super::addresses::{Addresses, Tables};
use crate::failure::{Failure, While};
use crate::worker::Hands;

/// How the job tells a process of its own program that it is a worker. Not an argument, which everybody on the machine
/// can read: the URLs may hold passwords.
pub(super) const TASK: &str = "FLIGHTS_WORKER";

/// What a worker process is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(super) addresses: Addresses,
    pub(super) concurrency: usize,
}

impl Task {
    /// The task of this process, if it is a worker.
    pub(crate) fn given() -> Result<Option<Self>, Failure> {
        match std::env::var(TASK) {
            Ok(task) => serde_json::from_str(&task).doing("reading a worker's task").map(Some),
            Err(_) => Ok(None),
        }
    }
}

/// Works until told to end.
pub(crate) async fn run(task: Task) -> Result<(), Failure> {
    let store = task.addresses.store(Tables::AreThere).await?;
    let queue = task.addresses.queue(&store).await?;
    let hands = Hands::new(&store)?;
    let worker = hands.start(&queue, task.concurrency).await?;
    // It ends with the job, too, however the job ends.
    let mut nothing = Vec::new();
    let _ = tokio::io::stdin().read_to_end(&mut nothing).await;
    worker.drain().await.doing("draining a worker")?;
    hands.close().await;
    queue.close().await;
    store.close().await;
    Ok(())
}
