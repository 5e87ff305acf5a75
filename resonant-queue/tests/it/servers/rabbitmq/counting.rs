//! What a process counts that has no worker, while others hold messages.

use std::sync::Arc;
use std::time::Duration;

use resonant_common::join::MemoryLeaseStore;
use resonant_queue::{Delivery, Depth, HandlerError, PartitionedQueue, RabbitMq};
use resonant_testkit::rabbitmq::Vhost;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use super::broker;
use super::support::{Seen, until};

const PARTITIONS: u32 = 4;

async fn open(vhost: &Vhost, leases: &Arc<MemoryLeaseStore>) -> PartitionedQueue<u64> {
    let rabbit = RabbitMq::connect(vhost.urls()).leases(Arc::clone(leases) as _);
    let builder = PartitionedQueue::builder("counted").partitions(PARTITIONS);
    let builder = builder.key(|number: &u64| number % 100).messages_per_worker(100);
    builder.backend(rabbit.await.unwrap()).build().await.unwrap()
}

/// One process holds all that its workers may take; another one, which has no worker, counts these messages, too, and asks
/// for as many workers; when they are handled it counts none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_without_a_worker_counts_what_others_hold() {
    let vhost = broker().await.vhost().await.unwrap();
    let leases = Arc::new(MemoryLeaseStore::new());
    let (working, looking) = (open(&vhost, &leases).await, open(&vhost, &leases).await);
    let (seen, gate) = (Seen::default(), Arc::new(Semaphore::new(0)));
    let handler = {
        let (seen, gate) = (seen.clone(), Arc::clone(&gate));
        async move |delivery: Delivery<u64>| {
            drop(gate.acquire().await?);
            seen.push(delivery.into_message());
            Ok::<(), HandlerError>(())
        }
    };
    let worker = working.worker(handler).start().await.unwrap();
    // Fewer than its channels take, so that the broker has none of them left.
    let mut slowest = Duration::ZERO;
    for (publish, total) in [(1, 1_u64), (299, 300), (700, 1000)] {
        working.publish_many(0..publish).await.unwrap();
        let began = Instant::now();
        let (mut told, mut since) = (Depth::default(), None::<Instant>);
        // For a while, so that it is no accident.
        until("all are counted", async || {
            told = looking.depth().await.unwrap();
            let right = told.unfinished().abs_diff(total) <= total / 50;
            since = if right { since.or(Some(Instant::now())) } else { None };
            since.is_some_and(|since| since.elapsed() > Duration::from_secs(1))
        })
        .await;
        slowest = slowest.max(began.elapsed() - Duration::from_secs(1));
        assert_eq!(told.wanted_workers(100, PARTITIONS), total.div_ceil(100).min(4) as u32);
        assert!(told.oldest_age.is_some());
    }
    println!("FIGURE what another process holds is counted within {slowest:?}");
    gate.add_permits(2000);
    until("all are handled", async || seen.all().len() == 1000).await;
    until("none is counted", async || looking.depth().await.unwrap().unfinished() == 0).await;
    sleep(Duration::from_millis(700)).await;
    assert_eq!(looking.depth().await.unwrap().unfinished(), 0, "nor comes it back");
    worker.drain().await.unwrap();
}
