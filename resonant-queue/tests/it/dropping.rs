//! Futures dropped at every await: a call is done or not done.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use futures::future::poll_fn;
use resonant_queue::backend::{Backend, Fetch, QueueSpec};
use resonant_queue::{
    Delivery, Depth, ErrorKind, HandlerError, Memory, Outgoing, PartitionedQueue, Poison,
    RetryConfig, Sqlite,
};

/// Polls a future up to `polls` times, letting everything else run in between, then drops it.
pub(crate) async fn drop_after<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..polls {
        let once = poll_fn(|context| Poll::Ready(future.as_mut().poll(context)));
        if let Poll::Ready(output) = once.await {
            return Some(output);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    None
}

async fn on(backend: impl Backend) -> PartitionedQueue<u64> {
    let retry = RetryConfig { max_attempts: 1, ..RetryConfig::default() };
    let builder = PartitionedQueue::builder("drop").partitions(4).retry(retry);
    builder.key(|number: &u64| number % 3).max_depth(30).backend(backend).build().await.unwrap()
}

async fn publishes(queue: PartitionedQueue<u64>) {
    let mut before = 0;
    for polls in 0..4 {
        let published = drop_after(polls, queue.publish_many(0..5)).await;
        // What was handed over is carried out, whoever waits for it: this goes the same way behind it.
        queue.ping().await.unwrap();
        let after = queue.depth().await.unwrap().unfinished();
        assert!(after == before || after == before + 5, "{before} became {after}");
        assert!(published.is_none() || after == before + 5);
        before = after;
    }
    assert!(before >= 5, "at least the one that was awaited to its end");
}

#[tokio::test]
async fn a_dropped_publish_stores_all_or_nothing() {
    publishes(on(Memory::new()).await).await;
    let directory = tempfile::tempdir().unwrap();
    publishes(on(Sqlite::open(directory.path().join("q.db")).await.unwrap()).await).await;
}

/// A publisher that waits for room and is dropped leaves nothing behind, and no room taken.
#[tokio::test(start_paused = true)]
async fn a_publish_dropped_while_it_waits_for_room_stores_nothing() {
    let queue = on(Memory::new()).await;
    queue.publish_many(0..30).await.unwrap();
    for polls in 0..5 {
        assert!(drop_after(polls, queue.publish(&1)).await.is_none());
    }
    assert_eq!(queue.depth().await.unwrap().ready, 30);
    let error = queue.try_publish(&1).await.unwrap_err();
    assert_eq!((error.kind(), error.is_transient()), (ErrorKind::Full, true));
    let worker = queue.worker(async move |_: Delivery<u64>| Ok(())).start().await.unwrap();
    queue.publish_many(0..30).await.unwrap();
    worker.drain().await.unwrap();
}

/// A read that was dropped while it waited has taken nothing with it.
async fn reads(backend: impl Backend) {
    let store = backend.declare(&QueueSpec::new("raw", 1)).await.unwrap();
    let feed = store.open(0, 1).await.unwrap().feed;
    for polls in 0..4 {
        assert!(drop_after(polls, feed.fetch(Fetch::after(0, 10))).await.is_none());
    }
    let message = || Outgoing::new(0, Some("a".into()), "1".into());
    store.publish(Arc::new(vec![message(), message()])).await.unwrap();
    for polls in 0..2 {
        let _ = drop_after(polls, feed.fetch(Fetch::after(0, 10))).await;
    }
    let read = tokio::time::timeout(Duration::from_secs(20), feed.fetch(Fetch::after(0, 10)));
    assert_eq!(read.await.unwrap().unwrap().messages.len(), 2);
}

#[tokio::test]
async fn a_dropped_read_takes_nothing() {
    reads(Memory::new()).await;
    let directory = tempfile::tempdir().unwrap();
    reads(Sqlite::open(directory.path().join("q.db")).await.unwrap()).await;
}

/// Resuming, redriving and purging are done or not done.
async fn administration(queue: PartitionedQueue<u64>) {
    let depth = async || -> Depth {
        queue.ping().await.unwrap();
        queue.depth().await.unwrap()
    };
    let settled = async |ready: u64| {
        let wait = async {
            loop {
                let now = depth().await;
                if now.unfinished() - now.parked <= ready {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap();
    };
    // Key 0 is parked with both of its messages, key 1 has one dead letter.
    queue.publish_many([0, 3, 1]).await.unwrap();
    let handler = async move |delivery: Delivery<u64>| {
        if *delivery.message() == 1 {
            return Err(HandlerError::reject("no"));
        }
        Err(HandlerError::retry("no"))
    };
    let worker = queue.worker(handler).start().await.unwrap();
    settled(0).await;
    worker.drain().await.unwrap();
    let depth_now = depth().await;
    assert_eq!((depth_now.parked, depth_now.parked_keys, depth_now.dead), (2, 1, 1));
    for polls in 0..4 {
        let _ = drop_after(polls, queue.resume_key("0")).await;
        let now = depth().await;
        assert!(
            matches!((now.parked, now.parked_keys, now.ready), (2, 1, 0) | (0, 0, 2)),
            "{now:?}"
        );
    }
    assert_eq!(depth().await.ready, 2);
    for polls in 0..4 {
        let _ = drop_after(polls, queue.redrive(10)).await;
        let now = depth().await;
        assert!(matches!((now.dead, now.ready), (1, 2) | (0, 3)), "{now:?}");
    }
    assert_eq!(depth().await.dead, 0);
    for polls in 0..4 {
        let _ = drop_after(polls, queue.pause()).await;
    }
    // Stored each time, but this handle was told only if the call ended in time: else it learns of it when it looks again.
    let told = async {
        while !queue.is_paused() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), told).await.unwrap();
}

#[tokio::test]
async fn dropped_administration_is_done_or_not_done() {
    administration(on(Memory::new()).await).await;
    let directory = tempfile::tempdir().unwrap();
    administration(on(Sqlite::open(directory.path().join("q.db")).await.unwrap()).await).await;
}

/// A drain that is dropped stops its worker; a start that is dropped leaves none. Nothing is lost, nothing stays held.
#[tokio::test(start_paused = true)]
async fn dropped_starts_and_drains_leave_no_worker() {
    let queue = on(Memory::new()).await;
    queue.publish_many(0..9).await.unwrap();
    for polls in 0..6 {
        let stuck = async move |_: Delivery<u64>| std::future::pending().await;
        let Some(worker) = drop_after(polls, queue.worker(stuck).start()).await else { continue };
        // Its handlers do not end, but it may not have any yet.
        let _ = drop_after(polls, worker.unwrap().drain()).await;
    }
    let seen = Arc::new(Mutex::new(Vec::new()));
    let handler = {
        let seen = Arc::clone(&seen);
        async move |delivery: Delivery<u64>| {
            seen.lock().unwrap().push(*delivery.message());
            Ok(())
        }
    };
    let worker = queue.worker(handler).start().await.unwrap();
    let wait = async {
        while queue.depth().await.unwrap().unfinished() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap();
    worker.drain().await.unwrap();
    let mut seen = std::mem::take(&mut *seen.lock().unwrap());
    seen.sort_unstable();
    assert_eq!(seen, (0..9).collect::<Vec<_>>());
}

/// A close that is dropped after its first poll has closed the queue, and its workers end.
#[tokio::test(start_paused = true)]
async fn a_dropped_close_has_closed() {
    let queue = on(Memory::new()).await;
    let worker = queue.worker(async move |_: Delivery<u64>| Ok(())).start().await.unwrap();
    let _ = drop_after(1, queue.close()).await;
    assert_eq!(queue.publish(&1).await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(queue.findings()[0].code, "queue.closed");
    tokio::time::timeout(Duration::from_secs(60), queue.close()).await.unwrap();
    let _ = tokio::time::timeout(Duration::from_secs(60), worker.drain()).await.unwrap();
}

/// With `Poison::DeadLetter` a spent message does not hold up its key; redriven, it comes behind what waits.
#[tokio::test(start_paused = true)]
async fn a_redriven_message_comes_behind_what_waits() {
    let retry = RetryConfig { max_attempts: 1, ..RetryConfig::default() };
    let queue: PartitionedQueue<u64> = PartitionedQueue::builder("behind")
        .key(|_: &u64| "k")
        .retry(retry)
        .poison(Poison::DeadLetter)
        .backend(Memory::new())
        .build()
        .await
        .unwrap();
    queue.publish_many(0..3).await.unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let handler = {
        let seen = Arc::clone(&seen);
        async move |delivery: Delivery<u64>| {
            let number = *delivery.message();
            let mut seen = seen.lock().unwrap();
            seen.push(number);
            if number == 0 && seen.len() == 1 { Err(HandlerError::retry("no")) } else { Ok(()) }
        }
    };
    let worker = queue.worker(handler).start().await.unwrap();
    let idle = async || {
        while queue.depth().await.unwrap().unfinished() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    idle().await;
    queue.pause().await.unwrap();
    queue.publish(&3).await.unwrap();
    assert_eq!(queue.redrive(10).await.unwrap(), 1);
    queue.resume().await.unwrap();
    idle().await;
    worker.drain().await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [0, 1, 2, 3, 0]);
}
