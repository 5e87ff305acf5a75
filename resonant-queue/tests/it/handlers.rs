//! How handlers may end, on a clock that stands still while nothing waits.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use resonant_queue::{
    Backoff, Delivery, ErrorKind, HandlerError, Memory, PartitionedQueue, PublishOptions,
    QueueBuilder, RetryConfig, Run,
};
use tokio::time::Instant;

fn builder(memory: &Memory) -> QueueBuilder<u64> {
    let backoff =
        Backoff { initial: Duration::from_secs(1), max: Duration::from_secs(8), factor: 2.0 };
    PartitionedQueue::builder("handlers")
        .partitions(2)
        .key(|_: &u64| "one")
        .retry(RetryConfig { max_attempts: 4, backoff })
        .backend(memory.clone())
}

async fn queue(memory: &Memory) -> PartitionedQueue<u64> {
    builder(memory).build().await.unwrap()
}

async fn idle<T>(queue: &PartitionedQueue<T>) {
    let wait = async {
        loop {
            let depth = queue.depth().await.unwrap();
            if depth.ready + depth.in_flight + depth.delayed == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(600), wait).await.unwrap();
}

/// A panic is a failure of its message, whether the closure or its future panics; the worker goes on.
#[tokio::test(start_paused = true)]
async fn a_panic_is_a_failure() {
    let memory = Memory::new();
    let queue = queue(&memory).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let handler = {
        let seen = Arc::clone(&seen);
        async move |delivery: Delivery<u64>| {
            let (number, attempt) = (*delivery.message(), delivery.attempt());
            if number == 1 && attempt < 3 {
                panic!("attempt {attempt} of {number}");
            }
            seen.lock().unwrap().push((number, attempt));
            Ok::<(), HandlerError>(())
        }
    };
    queue.publish_many([0, 1, 2]).await.unwrap();
    let worker = queue.worker(handler).start().await.unwrap();
    idle(&queue).await;
    let report = worker.drain().await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [(0, 1), (1, 3), (2, 1)]);
    assert_eq!((report.done, report.retried), (3, 2));
}

/// The closure that makes the future may panic too.
#[tokio::test(start_paused = true)]
async fn a_panic_before_the_future_is_a_failure() {
    let memory = Memory::new();
    let queue = queue(&memory).await;
    queue.publish(&7).await.unwrap();
    let handler = |delivery: Delivery<u64>| {
        assert!(delivery.attempt() > 1, "not at once");
        std::future::ready(Ok(()))
    };
    let worker = queue.worker(handler).start().await.unwrap();
    idle(&queue).await;
    let report = worker.drain().await.unwrap();
    assert_eq!((report.done, report.retried, report.parked), (1, 1, 0));
}

/// A handler that takes longer than its limit is stopped, and its message tried again.
#[tokio::test(start_paused = true)]
async fn a_handler_over_its_limit_is_stopped() {
    let memory = Memory::new();
    let queue = queue(&memory).await;
    queue.publish(&7).await.unwrap();
    let handler = async move |delivery: Delivery<u64>| {
        if delivery.attempt() == 1 {
            std::future::pending::<()>().await;
        }
        Ok(())
    };
    let limit = Duration::from_secs(5);
    let began = Instant::now();
    let worker = queue.worker(handler).handler_timeout(limit).start().await.unwrap();
    idle(&queue).await;
    assert!(began.elapsed() >= limit);
    assert_eq!(worker.drain().await.unwrap().retried, 1);
}

/// Attempts are as many as `max_attempts`, each after at most the backoff's ceiling; then the key is parked with its
/// error.
#[tokio::test(start_paused = true)]
async fn attempts_are_counted_and_spaced() {
    let memory = Memory::new();
    let queue = queue(&memory).await;
    let times = Arc::new(Mutex::new(Vec::new()));
    let handler = {
        let times = Arc::clone(&times);
        async move |delivery: Delivery<u64>| {
            times.lock().unwrap().push((delivery.attempt(), Instant::now()));
            Err::<(), _>(HandlerError::retry("no luck\nwith details"))
        }
    };
    queue.publish_many([1, 2]).await.unwrap();
    let worker = queue.worker(handler).start().await.unwrap();
    idle(&queue).await;
    worker.drain().await.unwrap();
    let times = std::mem::take(&mut *times.lock().unwrap());
    assert_eq!(times.iter().map(|(attempt, _)| *attempt).collect::<Vec<_>>(), [1, 2, 3, 4]);
    for (retry, pair) in times.windows(2).enumerate() {
        let waited = pair[1].1 - pair[0].1;
        let ceiling = Duration::from_secs(1 << retry);
        assert!(waited <= ceiling + Duration::from_millis(20), "{waited:?} before retry {retry}");
    }
    // Chance makes all three waits as good as nothing less than once in ten million runs.
    assert!(times[3].1 - times[0].1 > Duration::from_millis(20));
    let parked = queue.parked(10).await.unwrap();
    assert_eq!((parked.len(), parked[0].messages), (1, 2));
    assert_eq!(parked[0].error, "no luck", "one line is kept");
}

/// A body that is not the message is not tried again: nothing would change.
#[tokio::test(start_paused = true)]
async fn a_body_that_cannot_be_read_is_parked_at_once() {
    let memory = Memory::new();
    let numbers = queue(&memory).await;
    let texts: PartitionedQueue<String> = PartitionedQueue::builder("handlers")
        .partitions(2)
        .key(|_: &String| "one")
        .backend(memory.clone())
        .build()
        .await
        .unwrap();
    numbers.publish_many([0, 1]).await.unwrap();
    texts.publish(&"secret".to_owned()).await.unwrap();
    numbers.publish(&2).await.unwrap();
    let runs = Arc::new(Mutex::new(Vec::new()));
    let handler = {
        let runs = Arc::clone(&runs);
        async move |run: Run<u64>| {
            runs.lock()
                .unwrap()
                .push(run.into_iter().map(Delivery::into_message).collect::<Vec<_>>());
            Ok(())
        }
    };
    let worker = numbers.worker_runs(10, handler).start().await.unwrap();
    idle(&numbers).await;
    let report = worker.drain().await.unwrap();
    assert_eq!(*runs.lock().unwrap(), [[0, 1]], "what comes before it is a run of its own");
    assert_eq!((report.done, report.retried, report.parked), (2, 0, 1));
    let parked = numbers.parked(1).await.unwrap();
    assert_eq!(parked[0].messages, 2);
    assert!(!parked[0].error.contains("secret"), "{}", parked[0].error);
}

/// What a panicking or stopped run had reported as done stays done.
#[tokio::test(start_paused = true)]
async fn progress_survives_a_panic_and_a_limit() {
    let memory = Memory::new();
    let queue = queue(&memory).await;
    let calls = Arc::new(AtomicU32::new(0));
    let runs = Arc::new(Mutex::new(Vec::new()));
    let handler = {
        let (calls, runs) = (Arc::clone(&calls), Arc::clone(&runs));
        async move |run: Run<u64>| {
            let progress = run.progress();
            runs.lock()
                .unwrap()
                .push(run.into_iter().map(Delivery::into_message).collect::<Vec<_>>());
            progress.done(2);
            match calls.fetch_add(1, Ordering::SeqCst) {
                0 => panic!("after two"),
                1 => std::future::pending().await,
                _ => Ok(()),
            }
        }
    };
    queue.publish_many(0..6).await.unwrap();
    let limit = Duration::from_secs(5);
    let worker = queue.worker_runs(10, handler).handler_timeout(limit).start().await.unwrap();
    idle(&queue).await;
    worker.drain().await.unwrap();
    let expected: [&[u64]; 3] = [&[0, 1, 2, 3, 4, 5], &[2, 3, 4, 5], &[4, 5]];
    assert_eq!(*runs.lock().unwrap(), expected);
}

/// Handlers with captured state, and publishes, compile and run inside spawned tasks.
#[tokio::test(start_paused = true)]
async fn closures_and_publishes_can_be_spawned() {
    let memory = Memory::new();
    let queue = queue(&memory).await;
    let sum = Arc::new(AtomicU32::new(0));
    let spawned = tokio::spawn({
        let (queue, sum) = (queue.clone(), Arc::clone(&sum));
        async move {
            let handler = async move |delivery: Delivery<u64>| {
                let number: u32 = delivery.message().to_string().parse()?;
                sum.fetch_add(number, Ordering::SeqCst);
                tokio::task::yield_now().await;
                Ok(())
            };
            queue.worker(handler).concurrency(4).start().await
        }
    });
    let worker = spawned.await.unwrap().unwrap();
    // The future owns what it needs: the message may go before it is awaited.
    let publish = {
        let message = 5;
        queue.publish(&message)
    };
    tokio::spawn(publish).await.unwrap().unwrap();
    idle(&queue).await;
    worker.drain().await.unwrap();
    assert_eq!(sum.load(Ordering::SeqCst), 5);
}

#[tokio::test(start_paused = true)]
async fn a_worker_with_a_bad_setting_is_refused_by_its_rule() {
    let memory = Memory::new();
    let queue = queue(&memory).await;
    let nothing = async move |_: Delivery<u64>| Ok(());
    let error = queue.worker(nothing).concurrency(0).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("concurrency must"), "{error}");
    let nothing = async move |_: Run<u64>| Ok(());
    let error = queue.worker_runs(0, nothing).start().await.unwrap_err();
    assert!(error.to_string().contains("maximum must"), "{error}");
    queue.close().await;
    let nothing = async move |_: Delivery<u64>| Ok(());
    let error = queue.worker(nothing).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

/// Messages whose reading panics, as a hand-written `Deserialize` may.
#[derive(Debug, Clone, Copy)]
struct Touchy(u64);

impl serde::Serialize for Touchy {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> serde::Deserialize<'de> for Touchy {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u64::deserialize(deserializer)?;
        assert!(number != 1, "one is not welcome");
        Ok(Self(number))
    }
}

/// An error that cannot even be written down.
#[derive(Debug)]
struct Unspeakable;

impl std::fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::panic::resume_unwind(Box::new("no words"))
    }
}

impl std::error::Error for Unspeakable {}

/// Whatever of the user's code panics, its message has failed: no key waits for ever.
#[tokio::test(start_paused = true)]
async fn a_panic_outside_the_handler_is_a_failure_too() {
    let memory = Memory::new();
    let queue: PartitionedQueue<Touchy> = PartitionedQueue::builder("touchy")
        .partitions(1)
        .key(|message: &Touchy| message.0)
        .retry(RetryConfig { max_attempts: 2, ..RetryConfig::default() })
        .backend(memory)
        .build()
        .await
        .unwrap();
    queue.publish_many([Touchy(1), Touchy(2), Touchy(3)]).await.unwrap();
    let handler = async move |delivery: Delivery<Touchy>| {
        if delivery.message().0 == 2 {
            Err(Unspeakable)?
        }
        Ok(())
    };
    let worker = queue.worker(handler).start().await.unwrap();
    idle(&queue).await;
    let report = worker.drain().await.unwrap();
    assert_eq!((report.done, report.retried, report.parked), (1, 2, 2));
    let parked = queue.parked(10).await.unwrap();
    assert!(parked.iter().any(|key| key.error.contains("one is not welcome")), "{parked:?}");
    assert!(parked.iter().any(|key| key.error.contains("no words")), "{parked:?}");
}

/// Waits without end are waits, not overflows.
#[tokio::test(start_paused = true)]
async fn waits_without_end_are_allowed() {
    let memory = Memory::new();
    let queue = builder(&memory)
        .publish_timeout(Duration::MAX)
        .drain_timeout(Duration::MAX)
        .dedup_window(Duration::MAX)
        .key(|number: &u64| *number)
        .build()
        .await
        .unwrap();
    let calls = Arc::new(AtomicU32::new(0));
    let handler = {
        let calls = Arc::clone(&calls);
        async move |delivery: Delivery<u64>| {
            calls.fetch_add(1, Ordering::SeqCst);
            if *delivery.message() == 1 {
                return Err(HandlerError::retry_after(Duration::MAX, "some day"));
            }
            Ok(())
        }
    };
    let worker =
        queue.worker(handler.clone()).handler_timeout(Duration::MAX).start().await.unwrap();
    queue.publish_many([1, 2]).await.unwrap();
    let later = PublishOptions::new().delay(Duration::MAX).unique_id("id");
    queue.publish_with(&3, later).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    worker.drain().await.unwrap();
    // Also for the owner that reads it after.
    let worker = queue.worker(handler).start().await.unwrap();
    queue.publish(&4).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    worker.drain().await.unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 3);
    let depth = queue.depth().await.unwrap();
    assert_eq!((depth.ready, depth.delayed), (1, 1));
}
