//! How soon a handler that waits gets a message, by engine: some 300 messages a second, one at a time.

use std::time::{Duration, Instant};

use resonant_queue::backend::Backend;
use resonant_queue::{Delivery, Durability, Memory, PartitionedQueue, Sqlite};
use tokio::runtime::Runtime;

use crate::Outcome;
use crate::harness::{Case, now, percentiles};
use crate::report::Report;

/// Messages of one turn, those before them that do not count, and the pause between two.
const WAKES: usize = 400;
const FIRST: usize = 50;
const PACE: Duration = Duration::from_micros(3300);

pub(super) fn run(runtime: &Runtime, report: &mut Report) -> Outcome {
    case("queue.memory.wake_p99_us", "memory, a handler that waits gets a message")
        .goal(100.0)
        .run("PartitionedQueue", || {
            let memory = Memory::new();
            runtime.block_on(between(memory.clone(), memory))
        })
        .measure(report)?;
    case("queue.sqlite.wake_p99_us", "SQLite full, a handler that waits gets a message")
        .run("PartitionedQueue", || {
            let files = tempfile::tempdir()?;
            let file = Sqlite::builder(files.path().join("wake.db")).durability(Durability::Full);
            runtime.block_on(async {
                let file = file.exclusive(true).open().await?;
                between(file.clone(), file).await
            })
        })
        .measure(report)
}

/// The time that 99 of 100 messages do not exceed, from the begin of the publish to the begin of the handler.
pub(crate) fn case<'a>(name: &'static str, about: &'static str) -> Case<'a> {
    Case::of_microseconds(name, about).turns(3)
}

/// That time in microseconds, published through one backend and handled through the other.
pub(crate) async fn between(publisher: impl Backend, owner: impl Backend) -> Outcome<f64> {
    let (publisher, owner) = (stamps(publisher).await?, stamps(owner).await?);
    let started: Instant = now();
    let (send, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let handler = async move |delivery: Delivery<u64>| {
        let _ =
            send.send(started.elapsed().saturating_sub(Duration::from_nanos(*delivery.message())));
        Ok(())
    };
    let worker = owner.worker(handler).start().await?;
    let mut samples = Vec::with_capacity(WAKES);
    for turn in 0..WAKES + FIRST {
        tokio::time::sleep(PACE).await;
        publisher.publish(&(started.elapsed().as_nanos() as u64)).await?;
        let took = seen.recv().await.ok_or("the worker ended")?;
        if turn >= FIRST {
            samples.push(took);
        }
    }
    worker.drain().await?;
    publisher.close().await;
    owner.close().await;
    Ok(percentiles(&mut samples).1 / 1000.0)
}

/// A queue of numbers.
async fn stamps(backend: impl Backend) -> Outcome<PartitionedQueue<u64>> {
    let builder = PartitionedQueue::builder("wake").partitions(16).key(|number: &u64| number % 100);
    Ok(builder.backend(backend).build().await?)
}
