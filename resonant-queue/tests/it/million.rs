//! Many messages, failures, delays and four workers: every message once at least, and no inversion.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use resonant_queue::backend::Backend;
use resonant_queue::{
    Backoff, Delivery, Durability, HandlerError, Memory, PartitionedQueue, PublishOptions,
    RetryConfig, SequenceCheck, Sqlite,
};

const KEYS: u64 = 10_000;
const WORKERS: usize = 4;

/// Publishes `count` numbers, one in a thousand with a delay, while four workers handle them; one in a hundred deliveries
/// fails, and some handlers pause.
pub(crate) async fn through(backend: impl Backend + Clone, count: u64) {
    let backoff =
        Backoff { initial: Duration::from_millis(1), max: Duration::from_millis(20), factor: 2.0 };
    let open = async || {
        let builder = PartitionedQueue::<u64>::builder("million")
            .partitions(16)
            .key(|number: &u64| number % KEYS)
            .retry(RetryConfig { max_attempts: 1000, backoff });
        builder.backend(backend.clone()).build().await.unwrap()
    };
    let queue = open().await;
    let check = SequenceCheck::new("million");
    let times: Arc<Vec<AtomicU8>> = Arc::new((0..count).map(|_| AtomicU8::new(0)).collect());
    let done = Arc::new(AtomicU64::new(0));
    let began = tokio::time::Instant::now();
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        let (check, times, done) = (check.clone(), Arc::clone(&times), Arc::clone(&done));
        let handler = async move |delivery: Delivery<u64>| {
            check.observe(&delivery);
            let chance = rand::random::<u32>();
            if chance % 500 == 1 {
                tokio::time::sleep(Duration::from_millis(u64::from(chance % 5))).await;
            }
            if chance % 100 == 2 {
                return Err(HandlerError::retry("by chance"));
            }
            let number = usize::try_from(*delivery.message())?;
            if times[number].fetch_add(1, Ordering::Relaxed) == 0 {
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        workers.push(open().await.worker(handler).start().await.unwrap());
    }
    let mut next = 0;
    while next < count {
        let end = (next + 1000).min(count);
        // The last one of each thousand comes later.
        queue.publish_many(next..end - 1).await.unwrap();
        let later = PublishOptions::new().delay(Duration::from_millis(5));
        queue.publish_with(&(end - 1), later).await.unwrap();
        next = end;
    }
    let finished = async {
        while queue.depth().await.unwrap().unfinished() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(1800), finished).await.unwrap();
    let took = began.elapsed();
    let mut retried = 0;
    for worker in workers {
        retried += worker.drain().await.unwrap().retried;
    }
    let report = check.report();
    println!(
        "FIGURE {count} messages, {retried} failures, {WORKERS} workers in {took:.1?}: {:.0}/s; {report:?}",
        count as f64 / took.as_secs_f64()
    );
    assert_eq!(done.load(Ordering::Relaxed), count, "each was handled");
    assert!(report.in_order(), "{report:?}");
    assert!(retried > 0 && report.seen >= count);
}

async fn in_a_file(count: u64) {
    let directory = tempfile::tempdir().unwrap();
    let file = Sqlite::builder(directory.path().join("q.db")).durability(Durability::Normal);
    through(file.exclusive(true).open().await.unwrap(), count).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_messages_come_in_order_from_memory() {
    through(Memory::new(), 30_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_messages_come_in_order_from_a_file() {
    in_a_file(10_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: scripts/soak --release queue"]
async fn a_million_messages_come_in_order_from_memory() {
    through(Memory::new(), 1_000_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: scripts/soak --release queue"]
async fn a_million_messages_come_in_order_from_a_file() {
    in_a_file(1_000_000).await;
}
