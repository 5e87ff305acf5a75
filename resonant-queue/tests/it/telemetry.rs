//! Metrics and findings.

use std::collections::BTreeMap;
use std::time::Duration;

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use resonant_queue::backend::Backend;
use resonant_queue::{
    Delivery, HandlerError, Memory, PartitionedQueue, RetryConfig, SequenceCheck, Sqlite,
};
use tokio::time::Instant;

async fn queue(name: &str) -> PartitionedQueue<u64> {
    let retry = RetryConfig { max_attempts: 1, ..RetryConfig::default() };
    let builder = PartitionedQueue::builder(name).partitions(2).retry(retry).max_depth(10);
    builder.key(|number: &u64| number % 10).backend(Memory::new()).build().await.unwrap()
}

fn codes(queue: &PartitionedQueue<u64>) -> Vec<&'static str> {
    queue.findings().iter().map(|finding| finding.code).collect()
}

/// The guide's `queue_depth{queue="…"}` and the others tell what happened, also to a recorder installed late.
#[tokio::test(start_paused = true)]
async fn metrics_tell_what_happened() {
    let queue = queue("session-tasks").await;
    let recorder = DebuggingRecorder::new();
    let snapshots = recorder.snapshotter();
    // Everything runs on this thread.
    let _installed = metrics::set_default_local_recorder(&recorder);
    queue.publish_many([1, 2, 3, 11]).await.unwrap();
    queue.depth().await.unwrap();
    let value = |name: &str, labels: &[(&str, &str)]| {
        let all = snapshots.snapshot().into_vec();
        let found = all.into_iter().find(|(key, ..)| {
            let carried: BTreeMap<_, _> =
                key.key().labels().map(|label| (label.key(), label.value())).collect();
            key.key().name() == name && labels.iter().all(|(k, v)| carried.get(k) == Some(v))
        });
        found.map(|(_, _, _, value)| value)
    };
    let this = ("queue", "session-tasks");
    assert_eq!(value("queue_depth", &[this]), Some(DebugValue::Gauge(4.0.into())));
    let check = SequenceCheck::new("session-tasks");
    let handler = async move |delivery: Delivery<u64>| {
        check.observe(&delivery);
        match delivery.message() {
            2 => Err(HandlerError::reject("no")),
            1 => Err(HandlerError::retry("no")),
            _ => Ok(()),
        }
    };
    let worker = queue.worker(handler).start().await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    worker.drain().await.unwrap();
    queue.depth().await.unwrap();
    let snapshot = snapshots.snapshot().into_vec();
    let get = |name: &str, outcome: Option<&str>| {
        let found = snapshot.iter().find(|(key, ..)| {
            let labels: BTreeMap<_, _> =
                key.key().labels().map(|label| (label.key(), label.value())).collect();
            key.key().name() == name
                && labels.get("queue") == Some(&"session-tasks")
                && outcome.is_none_or(|outcome| labels.get("outcome") == Some(&outcome))
        });
        found.map(|(_, _, _, value)| value)
    };
    // Message 1 parked its key with message 11 behind it.
    assert_eq!(get("queue_depth", None), Some(&DebugValue::Gauge(2.0.into())));
    assert_eq!(get("resonant_queue_parked_keys", None), Some(&DebugValue::Gauge(1.0.into())));
    assert_eq!(get("resonant_queue_inflight", None), Some(&DebugValue::Gauge(0.0.into())));
    let finished = |outcome| get("resonant_queue_finished_total", Some(outcome));
    assert_eq!(finished("done"), Some(&DebugValue::Counter(1)));
    assert_eq!(finished("dead"), Some(&DebugValue::Counter(1)));
    assert_eq!(finished("parked"), Some(&DebugValue::Counter(1)));
    let times = get("resonant_queue_process_duration_seconds", None);
    assert!(matches!(times, Some(DebugValue::Histogram(times)) if times.len() == 3), "{times:?}");
}

/// Findings name what somebody should look at, by stable codes.
#[tokio::test(start_paused = true)]
async fn findings_name_what_to_look_at() {
    let queue = queue("findings").await;
    queue.depth().await.unwrap();
    assert_eq!(codes(&queue), ["queue.ok"]);
    queue.publish_many(0..9).await.unwrap();
    queue.depth().await.unwrap();
    assert_eq!(codes(&queue), ["queue.filling"]);
    queue.publish(&9).await.unwrap();
    queue.depth().await.unwrap();
    assert_eq!(codes(&queue), ["queue.full"]);
    queue.pause().await.unwrap();
    assert_eq!(codes(&queue), ["queue.full", "queue.paused"]);
    queue.resume().await.unwrap();
    let handler = async move |delivery: Delivery<u64>| match delivery.message() {
        0 => Err(HandlerError::retry("no")),
        1 => Err(HandlerError::reject("no")),
        _ => Ok(()),
    };
    let worker = queue.worker(handler).start().await.unwrap();
    // The queue looks at itself.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(codes(&queue), ["queue.parked", "queue.dead_letters"]);
    worker.drain().await.unwrap();
    queue.close().await;
    assert_eq!(codes(&queue), ["queue.closed"]);
}

/// What an autoscaler goes by is right within two seconds and there without any worker, also while much happens.
#[tokio::test(start_paused = true)]
async fn what_an_autoscaler_asks_is_told_without_a_worker() {
    let retry = RetryConfig { max_attempts: 1, ..RetryConfig::default() };
    let builder = PartitionedQueue::<u64>::builder("scaled").partitions(8).retry(retry);
    let builder = builder.key(|number: &u64| number % 100).messages_per_worker(50);
    let recorder = DebuggingRecorder::new();
    let snapshots = recorder.snapshotter();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let queue = builder.backend(Memory::new()).build().await.unwrap();
    // A snapshot takes the values away.
    let told = || -> BTreeMap<String, f64> {
        let all = snapshots.snapshot().into_vec().into_iter();
        all.filter_map(|(key, .., value)| match value {
            DebugValue::Gauge(value) => Some((key.key().name().to_owned(), value.into_inner())),
            _ => None,
        })
        .collect()
    };
    let two_seconds = || tokio::time::sleep(Duration::from_secs(2));
    for (publish, depth, wanted) in
        [(0, 0.0, 0.0), (1, 1.0, 1.0), (120, 121.0, 3.0), (9000, 9121.0, 8.0)]
    {
        if publish > 0 {
            queue.publish_many(0..publish).await.unwrap();
        }
        two_seconds().await;
        let told = told();
        assert_eq!((told["queue_depth"], told["resonant_queue_wanted_workers"]), (depth, wanted));
    }
    // What is handed out counts, what is delayed or parked does not ask for workers.
    let handler = async move |delivery: Delivery<u64>| match delivery.message() % 100 {
        0 => std::future::pending().await,
        _ => Err(HandlerError::retry("no")),
    };
    let worker = queue.worker(handler).start().await.unwrap();
    two_seconds().await;
    let told = told();
    assert_eq!(told["resonant_queue_parked_keys"], 99.0);
    assert_eq!(told["resonant_queue_inflight"], 1.0);
    let waiting = queue.depth().await.unwrap();
    assert_eq!((waiting.ready, waiting.in_flight), (92, 1), "the rest of one key");
    assert_eq!(told["resonant_queue_wanted_workers"], 2.0);
    assert!(told["resonant_queue_oldest_age_seconds"] >= 2.0);
    drop(worker);
}

/// The same on any engine, whose counts come from where the messages are: within two in a hundred, and soon. For a runtime of
/// one thread.
pub(crate) async fn told_without_a_worker(backend: impl Backend) {
    let engine = backend.capabilities().engine;
    let recorder = DebuggingRecorder::new();
    let snapshots = recorder.snapshotter();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let builder = PartitionedQueue::<u64>::builder("scaled").partitions(8);
    let builder = builder.key(|number: &u64| number % 100).messages_per_worker(50);
    let queue = builder.backend(backend).build().await.unwrap();
    // A snapshot takes the values away.
    let mut known = BTreeMap::<String, f64>::new();
    let mut told = |depth: f64, wanted: f64| {
        for (key, .., value) in snapshots.snapshot().into_vec() {
            if let DebugValue::Gauge(value) = value {
                known.insert(key.key().name().to_owned(), value.into_inner());
            }
        }
        let get = |name: &str| known.get(name).copied().unwrap_or(f64::NAN);
        (get("queue_depth") - depth).abs() <= depth / 50.0
            && get("resonant_queue_wanted_workers") == wanted
    };
    let mut slowest = Duration::ZERO;
    let mut soon = async |depth: f64, wanted: f64| {
        let began = Instant::now();
        while !told(depth, wanted) {
            assert!(began.elapsed() < Duration::from_secs(60), "{engine}: {depth} {wanted}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        slowest = slowest.max(began.elapsed());
    };
    soon(0.0, 0.0).await;
    for (publish, depth, wanted) in [(1, 1.0, 1.0), (120, 121.0, 3.0), (2000, 2121.0, 8.0)] {
        queue.publish_many(0..publish).await.unwrap();
        soon(depth, wanted).await;
    }
    // And down again, once somebody has done it and is gone.
    let handler = async move |_: Delivery<u64>| Ok::<(), HandlerError>(());
    let worker = queue.worker(handler).start().await.unwrap();
    let empty = async {
        while queue.depth().await.unwrap().unfinished() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), empty).await.unwrap();
    worker.drain().await.unwrap();
    soon(0.0, 0.0).await;
    println!("FIGURE an autoscaler was told by {engine} within {slowest:?}");
}

#[tokio::test]
async fn an_autoscaler_is_told_by_a_file_without_a_worker() {
    let directory = tempfile::tempdir().unwrap();
    told_without_a_worker(Sqlite::open(directory.path().join("q.db")).await.unwrap()).await;
}
