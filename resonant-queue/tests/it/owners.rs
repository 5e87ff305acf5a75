//! Several workers on one queue: shares, takeover, fencing, and order through all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use resonant_common::join::testing;
use resonant_queue::backend::{Backend, QueueSpec};
use resonant_queue::{
    Delivery, Memory, PartitionedQueue, PublishOptions, SequenceCheck, Sqlite, Worker,
};
use tokio::sync::Semaphore;

async fn queue(memory: &Memory) -> PartitionedQueue<u64> {
    let builder = PartitionedQueue::builder("owners").partitions(16);
    builder.key(|number: &u64| number % 40).backend(memory.clone()).build().await.unwrap()
}

/// Which partitions a worker was given messages of.
#[derive(Debug, Clone, Default)]
struct Seen(Arc<Mutex<BTreeMap<usize, BTreeSet<u32>>>>);

async fn start(queue: &PartitionedQueue<u64>, name: usize, seen: &Seen) -> Worker {
    let seen = seen.clone();
    let handler = async move |delivery: Delivery<u64>| {
        seen.0.lock().unwrap().entry(name).or_default().insert(delivery.partition());
        Ok(())
    };
    queue.worker(handler).start().await.unwrap()
}

/// How many partitions each worker serves: publishes one message to each and looks who got it.
async fn shares(queue: &PartitionedQueue<u64>, seen: &Seen) -> Vec<usize> {
    seen.0.lock().unwrap().clear();
    for number in 0..16 {
        queue.publish_with(&number, PublishOptions::new().unkeyed()).await.unwrap();
    }
    idle(queue).await;
    let seen = seen.0.lock().unwrap();
    let mut shares: Vec<_> = seen.values().map(BTreeSet::len).collect();
    shares.sort_unstable();
    shares
}

async fn idle(queue: &PartitionedQueue<u64>) {
    let wait = async {
        while queue.depth().await.unwrap().unfinished() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(600), wait).await.unwrap();
}

async fn until(holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap();
}

/// Shares differ by at most one a few seconds after workers came or went, however they went.
#[tokio::test(start_paused = true)]
async fn workers_share_partitions_evenly() {
    let (memory, seen) = (Memory::new(), Seen::default());
    let queue = queue(&memory).await;
    let settle = || tokio::time::sleep(Duration::from_secs(5));
    let mut workers = vec![start(&queue, 0, &seen).await];
    assert_eq!(shares(&queue, &seen).await, [16]);
    workers.push(start(&queue, 1, &seen).await);
    settle().await;
    assert_eq!(shares(&queue, &seen).await, [8, 8]);
    workers.push(start(&queue, 2, &seen).await);
    settle().await;
    assert_eq!(shares(&queue, &seen).await, [5, 5, 6]);
    workers.remove(0).drain().await.unwrap();
    settle().await;
    assert_eq!(shares(&queue, &seen).await, [8, 8]);
    drop(workers.remove(0));
    settle().await;
    assert_eq!(shares(&queue, &seen).await, [16]);
}

/// Order is kept while workers come, drain and are dropped under load, and nothing is lost.
#[tokio::test(start_paused = true)]
async fn order_is_kept_while_workers_come_and_go() {
    let memory = Memory::new();
    let queue = queue(&memory).await;
    let check = SequenceCheck::new("owners");
    let finished = Arc::new(Mutex::new(BTreeMap::<u64, Vec<u64>>::new()));
    let begin = async || {
        let (check, finished) = (check.clone(), Arc::clone(&finished));
        let handler = async move |delivery: Delivery<u64>| {
            check.observe(&delivery);
            let number = *delivery.message();
            if number.is_multiple_of(7) {
                tokio::time::sleep(Duration::from_millis(number % 50)).await;
            }
            finished.lock().unwrap().entry(number % 40).or_default().push(number);
            Ok(())
        };
        queue.worker(handler).concurrency(8).start().await.unwrap()
    };
    let mut workers = vec![begin().await];
    for round in 0..12_u64 {
        queue.publish_many((0..400).map(|n| round * 400 + n)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(700)).await;
        match round % 3 {
            0 => workers.push(begin().await),
            1 => drop(workers.remove(0)),
            _ => {
                workers.push(begin().await);
                workers.remove(0).drain().await.unwrap();
            }
        }
    }
    idle(&queue).await;
    assert!(check.report().in_order(), "{:?}", check.report());
    for (key, numbers) in finished.lock().unwrap().iter() {
        let all: BTreeSet<_> = numbers.iter().copied().collect();
        let expected: BTreeSet<_> = (0..4800).filter(|number| number % 40 == *key).collect();
        assert_eq!(all, expected, "key {key}");
    }
}

/// A partition that somebody else took is let go; what its handler had done is refused, and comes again.
#[tokio::test(start_paused = true)]
async fn a_worker_that_lost_a_partition_settles_nothing() {
    let memory = Memory::new();
    let queue: PartitionedQueue<u64> = PartitionedQueue::builder("fenced")
        .partitions(1)
        .key(|_: &u64| "k")
        .backend(memory.clone())
        .build()
        .await
        .unwrap();
    queue.publish(&7).await.unwrap();
    let (epochs, gate) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Semaphore::new(0)));
    let handler = {
        let (epochs, gate) = (Arc::clone(&epochs), Arc::clone(&gate));
        async move |delivery: Delivery<u64>| {
            epochs.lock().unwrap().push(delivery.epoch());
            gate.acquire().await?.forget();
            Ok(())
        }
    };
    let worker = queue.worker(handler).start().await.unwrap();
    until(|| !epochs.lock().unwrap().is_empty()).await;
    // Another owner opens the partition behind its back.
    let store = memory.declare(&QueueSpec::new("fenced", 1)).await.unwrap();
    let epoch = epochs.lock().unwrap()[0];
    store.open(0, epoch + 1).await.unwrap();
    gate.add_permits(1);
    until(|| worker.report().fenced > 0).await;
    assert_eq!(queue.depth().await.unwrap().unfinished(), 1, "its settlement changed nothing");
    gate.add_permits(1);
    idle(&queue).await;
    let epochs = epochs.lock().unwrap().clone();
    assert_eq!(epochs.len(), 2);
    assert!(epochs[1] > epochs[0], "{epochs:?}");
    worker.drain().await.unwrap();
}

/// The SQLite file's leases keep the family's contract.
#[tokio::test]
async fn leases_in_a_file_conform() {
    let directory = tempfile::tempdir().unwrap();
    let file = Sqlite::open(directory.path().join("q.db")).await.unwrap();
    let store = file.declare(&QueueSpec::new("leases", 1)).await.unwrap();
    testing::suite(store.leases(), "sqlite", Duration::from_millis(400)).await;
}
