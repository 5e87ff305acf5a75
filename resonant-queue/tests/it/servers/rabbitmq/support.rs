//! What the tests against a broker share: a queue of numbers, workers that note what they handled, publishers that do not
//! give up.

use std::sync::Arc;
use std::time::Duration;

use resonant_common::join::MemoryLeaseStore;
use resonant_queue::backend::Backend;
use resonant_queue::{Delivery, HandlerError, PartitionedQueue, RabbitMq, SequenceCheck, Worker};
use resonant_testkit::rabbitmq::Vhost;
use tokio::time::{Instant, sleep};

pub(crate) use crate::servers::{LIMIT, Seen, until};

pub(crate) async fn rabbit(vhost: &Vhost, confirm: Duration) -> RabbitMq {
    let leases = Arc::new(MemoryLeaseStore::new());
    let builder = RabbitMq::connect(vhost.urls()).leases(leases).heartbeat(Duration::from_secs(2));
    builder.confirm_timeout(confirm).answer_timeout(Duration::from_secs(4)).await.unwrap()
}

pub(crate) async fn queue(rabbit: impl Backend, partitions: u32) -> PartitionedQueue<u64> {
    let builder = PartitionedQueue::builder("faults").partitions(partitions);
    builder.key(|number: &u64| number % 10).backend(rabbit).build().await.unwrap()
}

pub(crate) async fn work(queue: &PartitionedQueue<u64>, seen: &Seen) -> (Worker, SequenceCheck) {
    let check = SequenceCheck::new("faults");
    let handler = {
        let (seen, check) = (seen.clone(), check.clone());
        async move |delivery: Delivery<u64>| {
            check.observe(&delivery);
            sleep(Duration::from_millis(2)).await;
            seen.push(delivery.into_message());
            Ok::<(), HandlerError>(())
        }
    };
    (queue.worker(handler).start().await.unwrap(), check)
}

/// Publishes numbers until told to end, key by key in order; returns those that were confirmed. A number whose publish
/// failed is published again before its key goes on.
pub(crate) async fn publish(queue: &PartitionedQueue<u64>, per_key: u64) -> Vec<u64> {
    let keys = (0..10).map(|key| {
        let queue = queue.clone();
        tokio::spawn(async move {
            let mut confirmed = Vec::new();
            for turn in 0..per_key {
                let number = turn * 10 + key;
                let began = Instant::now();
                while let Err(error) = queue.publish(&number).await {
                    assert!(began.elapsed() < LIMIT, "{error}");
                    assert!(error.is_transient(), "{error:?}");
                    sleep(Duration::from_millis(50)).await;
                }
                confirmed.push(number);
            }
            confirmed
        })
    });
    let confirmed = futures::future::join_all(keys.collect::<Vec<_>>()).await;
    confirmed.into_iter().flat_map(|of_key| of_key.unwrap()).collect()
}
