//! Workers of a real queue, scaled up and down while it is used: nothing is lost and nothing comes out of order.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use resonant_queue::{Delivery, Memory, PartitionedQueue, SequenceCheck, Worker};
use resonant_scale::{
    Autoscaler, Behavior, HpaConfig, MetricSpec, ScaleTarget, ScalingPolicy, ScalingRules,
    WorkerPool,
};
use tokio::time::sleep;

const KEYS: u64 = 32;

/// How often each message was handled, and whether the queue's own check is content.
#[derive(Clone)]
pub(crate) struct Books {
    handled: Arc<Mutex<HashMap<u64, u32>>>,
    check: Arc<SequenceCheck>,
}

pub(crate) async fn queue() -> PartitionedQueue<u64> {
    let builder = PartitionedQueue::<u64>::builder("scaled").partitions(16);
    builder
        .key(|number: &u64| (number % KEYS).to_string())
        .backend(Memory::new())
        .build()
        .await
        .unwrap()
}

pub(crate) fn pool(
    queue: &PartitionedQueue<u64>,
    books: &Books,
    takes: Duration,
) -> WorkerPool<Worker> {
    let (queue, books) = (queue.clone(), books.clone());
    WorkerPool::new(
        move || {
            let (queue, books) = (queue.clone(), books.clone());
            async move {
                let handler = async move |delivery: Delivery<u64>| {
                    books.check.observe(&delivery);
                    sleep(takes).await;
                    *books.handled.lock().unwrap().entry(*delivery.message()).or_default() += 1;
                    Ok(())
                };
                queue.worker(handler).concurrency(4).start().await
            }
        },
        |worker: Worker| async move { worker.drain().await },
    )
}

pub(crate) fn books() -> Books {
    Books { handled: Arc::default(), check: Arc::new(SequenceCheck::new("scaled")) }
}

async fn until_done(queue: &PartitionedQueue<u64>) {
    for _ in 0..6000 {
        if queue.depth().await.unwrap().unfinished() == 0 {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("never done: {:?}", queue.depth().await);
}

fn every_one_once(books: &Books, count: u64) {
    let handled = books.handled.lock().unwrap();
    assert_eq!(handled.len() as u64, count, "every message was handled");
    assert!(handled.values().all(|times| *times == 1), "and, as all drained in time, once");
    let report = books.check.report();
    assert!(report.in_order(), "{report:?}");
}

#[tokio::test]
async fn a_queue_loses_nothing_while_its_workers_come_and_go() {
    let (queue, books) = (queue().await, books());
    let pool = pool(&queue, &books, Duration::from_millis(2));
    let mut published = 0;
    for round in [1, 5, 2, 8, 0, 3, 1, 6, 2] {
        queue.publish_many(published..published + 200).await.unwrap();
        published += 200;
        pool.set(round).await.unwrap();
        assert_eq!(pool.running(), round as usize);
        sleep(Duration::from_millis(30)).await;
    }
    until_done(&queue).await;
    pool.close().await;
    every_one_once(&books, published);
}

/// Ten messages to a worker, one at least and eight at most, in a hurry.
pub(crate) fn scaler(queue: &PartitionedQueue<u64>, pool: &WorkerPool<Worker>) -> Autoscaler {
    let moment = Duration::from_millis(100);
    let policy = HpaConfig::new(1, 8)
        .metric(MetricSpec::external_average("queue_depth", 10.0))
        .behavior(Behavior {
            scale_up: ScalingRules::new(Duration::ZERO, [ScalingPolicy::pods(4, moment)]),
            scale_down: ScalingRules::new(Duration::ZERO, [ScalingPolicy::percent(100, moment)]),
        });
    Autoscaler::builder("scaled-workers")
        .policy(policy)
        .measure("queue_depth", {
            let queue = queue.clone();
            move || {
                let queue = queue.clone();
                async move { queue.depth().await.map(|depth| depth.unfinished() as f64) }
            }
        })
        .interval(Duration::from_millis(20))
        .target(pool.clone())
        .build()
        .unwrap()
}

#[tokio::test]
async fn depth_brings_workers_and_its_end_sends_them_away() {
    let (queue, books) = (queue().await, books());
    let pool = pool(&queue, &books, Duration::from_millis(10));
    let scaler = scaler(&queue, &pool);
    queue.publish_many(0..2000).await.unwrap();
    scaler.start().unwrap();
    until_done(&queue).await;
    for _ in 0..6000 {
        if pool.running() == 1 {
            break;
        }
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(pool.running(), 1, "{:?}", scaler.status());
    scaler.stop().await;
    pool.close().await;
    every_one_once(&books, 2000);
    let history = scaler.history();
    assert!(history.iter().any(|change| change.to == 8), "{history:?}");
    assert_eq!(history.last().unwrap().to, 1);
}
