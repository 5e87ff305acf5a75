//! What the tests against a broker share: a queue of numbers, workers that note what they handled, publishers that do not
//! give up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use resonant_common::join::MemoryLeaseStore;
use resonant_queue::backend::Backend;
use resonant_queue::{Delivery, HandlerError, PartitionedQueue, RabbitMq, SequenceCheck, Worker};
use resonant_testkit::rabbitmq::Vhost;
use tokio::time::{Instant, sleep, timeout};

pub(crate) const LIMIT: Duration = Duration::from_secs(60);

pub(crate) async fn rabbit(vhost: &Vhost, confirm: Duration) -> RabbitMq {
    let leases = Arc::new(MemoryLeaseStore::new());
    let builder = RabbitMq::connect(vhost.urls()).leases(leases).heartbeat(Duration::from_secs(2));
    builder.confirm_timeout(confirm).answer_timeout(Duration::from_secs(4)).await.unwrap()
}

pub(crate) async fn queue(rabbit: impl Backend, partitions: u32) -> PartitionedQueue<u64> {
    let builder = PartitionedQueue::builder("faults").partitions(partitions);
    builder.key(|number: &u64| number % 10).backend(rabbit).build().await.unwrap()
}

/// What handlers finished, in order.
#[derive(Clone, Default)]
pub(crate) struct Seen(pub(crate) Arc<Mutex<Vec<u64>>>);

impl Seen {
    pub(crate) fn all(&self) -> Vec<u64> {
        self.0.lock().unwrap().clone()
    }

    /// How many different ones.
    pub(crate) fn count(&self) -> usize {
        let mut all = self.all();
        all.sort_unstable();
        all.dedup();
        all.len()
    }

    /// First deliveries of each key rise.
    pub(crate) fn assert_in_order(&self) {
        let mut highest: BTreeMap<u64, u64> = BTreeMap::new();
        let mut known = BTreeSet::new();
        for number in self.all() {
            if known.insert(number) {
                let before = highest.insert(number % 10, number);
                assert!(before.is_none_or(|before| before < number), "{before:?} before {number}");
            }
        }
    }
}

pub(crate) async fn work(queue: &PartitionedQueue<u64>, seen: &Seen) -> (Worker, SequenceCheck) {
    let check = SequenceCheck::new("faults");
    let handler = {
        let (seen, check) = (seen.clone(), check.clone());
        async move |delivery: Delivery<u64>| {
            check.observe(&delivery);
            sleep(Duration::from_millis(2)).await;
            seen.0.lock().unwrap().push(delivery.into_message());
            Ok::<(), HandlerError>(())
        }
    };
    (queue.worker(handler).start().await.unwrap(), check)
}

pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(timeout(LIMIT, wait).await.is_ok(), "{what} did not happen");
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
