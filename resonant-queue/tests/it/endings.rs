//! How workers end and pause when something else goes on at the same time: a close, a hanging lease store, a look.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use resonant_common::join::{Acquired, Lease, LeaseError, LeaseStore, LeaseView};
use resonant_queue::backend::{Backend, QueueStore};
use resonant_queue::{Delivery, ErrorKind, Memory, PartitionedQueue, QueueBuilder, Result};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use crate::wrap::{Change, Changed};

fn builder(backend: impl Backend) -> QueueBuilder<u64> {
    let builder = PartitionedQueue::builder("endings").partitions(1).prefetch(16);
    builder.key(|number: &u64| *number).backend(backend)
}

async fn queue(backend: impl Backend) -> PartitionedQueue<u64> {
    builder(backend).build().await.unwrap()
}

/// Says when the handler that holds it was stopped.
struct Stopped(Arc<Mutex<Option<Instant>>>);

impl Drop for Stopped {
    fn drop(&mut self) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(Instant::now());
    }
}

/// A close ends workers that wait for nothing of the engine: of a paused queue, and with memory full of what does not end.
#[tokio::test(start_paused = true)]
async fn a_close_ends_workers_that_ask_the_engine_nothing() {
    for paused in [true, false] {
        let queue = queue(Memory::new()).await;
        if paused {
            queue.pause().await.unwrap();
        }
        queue.publish_many(0..100).await.unwrap();
        let stuck = async move |_: Delivery<u64>| std::future::pending().await;
        let worker = queue.worker(stuck).start().await.unwrap();
        sleep(Duration::from_secs(1)).await;
        assert_eq!(queue.depth().await.unwrap().in_flight > 0, !paused);
        timeout(Duration::from_secs(60), queue.close()).await.expect("the close ends");
        let drained = timeout(Duration::from_secs(60), worker.drain()).await.unwrap();
        assert_eq!(drained.unwrap_err().kind(), ErrorKind::Closed, "it was not drained");
    }
}

/// A worker goes on when the handles of its queue are gone, and still minds a pause.
#[tokio::test(start_paused = true)]
async fn a_worker_without_handles_still_minds_a_pause() {
    let memory = Memory::new();
    let (first, second) = (queue(memory.clone()).await, queue(memory).await);
    let seen = Arc::new(AtomicUsize::new(0));
    let handler = {
        let seen = Arc::clone(&seen);
        async move |_: Delivery<u64>| {
            seen.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    };
    let worker = first.worker(handler).start().await.unwrap();
    drop(first);
    second.publish(&1).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(seen.load(Ordering::SeqCst), 1);
    second.pause().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    second.publish(&2).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(seen.load(Ordering::SeqCst), 1, "the queue is paused");
    second.resume().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(seen.load(Ordering::SeqCst), 2);
    worker.drain().await.unwrap();
}

/// Answers whether the queue is paused with what was true a second ago.
#[derive(Debug)]
struct LooksSlowly;

#[async_trait]
impl Change for LooksSlowly {
    async fn paused(&self, inner: &dyn QueueStore) -> Result<bool> {
        let paused = inner.paused().await;
        sleep(Duration::from_secs(1)).await;
        paused
    }
}

/// A look that began before a pause does not undo it.
#[tokio::test(start_paused = true)]
async fn a_pause_is_not_undone_by_a_look_that_began_before_it() {
    let queue = queue(Changed::new(LooksSlowly)).await;
    for _ in 0..10 {
        queue.pause().await.unwrap();
        for _ in 0..20 {
            sleep(Duration::from_millis(100)).await;
            assert!(queue.is_paused());
        }
        queue.resume().await.unwrap();
        sleep(Duration::from_millis(270)).await;
    }
}

/// A lease store that stops answering about what the flags say.
#[derive(Debug, Default)]
struct Hanging {
    renewals: AtomicBool,
    looks: AtomicBool,
}

#[derive(Debug)]
struct HangingLeases {
    inner: Arc<dyn LeaseStore>,
    hanging: Arc<Hanging>,
}

impl HangingLeases {
    async fn answer(&self, hangs: &AtomicBool) {
        if hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl LeaseStore for HangingLeases {
    async fn acquire(&self, name: &str, by: &str, ttl: Duration) -> Result<Acquired, LeaseError> {
        self.answer(&self.hanging.looks).await;
        self.inner.acquire(name, by, ttl).await
    }
    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<Lease, LeaseError> {
        self.answer(&self.hanging.renewals).await;
        self.inner.renew(lease, ttl).await
    }
    async fn release(&self, lease: &Lease) -> Result<(), LeaseError> {
        self.inner.release(lease).await
    }
    async fn inspect(&self, name: &str) -> Result<Option<LeaseView>, LeaseError> {
        self.answer(&self.hanging.looks).await;
        self.inner.inspect(name).await
    }
}

#[derive(Debug, Default)]
struct Hangs(Arc<Hanging>);

impl Change for Hangs {
    fn leases(&self, inner: &dyn QueueStore) -> Arc<dyn LeaseStore> {
        Arc::new(HangingLeases { inner: inner.leases(), hanging: Arc::clone(&self.0) })
    }
}

/// A handler is stopped before somebody else can own its partition, also while the lease store hangs: while it is asked
/// to renew, while it is asked who else is there, and during a drain.
#[tokio::test(start_paused = true)]
async fn handlers_are_stopped_before_their_lease_runs_out() {
    for (drains, looks) in [(false, false), (false, true), (true, false)] {
        for offset in 0..20 {
            let hangs = Hangs::default();
            let hanging = Arc::clone(&hangs.0);
            let queue = queue(Changed::new(hangs)).await;
            queue.publish(&1).await.unwrap();
            let stopped = Arc::new(Mutex::new(None));
            let handler = {
                let stopped = Arc::clone(&stopped);
                async move |_: Delivery<u64>| {
                    let _stopped = Stopped(stopped);
                    std::future::pending().await
                }
            };
            let worker = queue.worker(handler).start().await.unwrap();
            // At all points of the rhythm in which leases are renewed.
            sleep(Duration::from_millis(10_000 + 250 * offset)).await;
            hanging.looks.store(looks, Ordering::SeqCst);
            hanging.renewals.store(true, Ordering::SeqCst);
            let hung = Instant::now();
            let drain = drains.then(|| tokio::spawn(worker.drain()));
            sleep(Duration::from_secs(20)).await;
            let stopped = stopped.lock().unwrap().expect("it was stopped");
            // No renewal was granted after that moment.
            let ran_on = stopped.duration_since(hung);
            assert!(ran_on <= Duration::from_millis(5_001), "{ran_on:?}, drain {drains}, {looks}");
            if let Some(drain) = drain {
                assert!(drain.await.unwrap().unwrap().fenced > 0);
            }
        }
    }
}

/// A partition is given back only once its handlers have really stopped: one that is busy between two awaits cannot be.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_partition_is_given_back_when_its_handlers_have_stopped() {
    let queue = queue(Memory::new()).await;
    queue.publish(&7).await.unwrap();
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (began, go_on) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicBool::new(false)));
    let handler = {
        let (running, most) = (Arc::clone(&running), Arc::clone(&most));
        let (began, go_on) = (Arc::clone(&began), Arc::clone(&go_on));
        async move |_: Delivery<u64>| {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            began.add_permits(1);
            while !go_on.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            running.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        }
    };
    let first = queue.worker(handler.clone()).start().await.unwrap();
    began.acquire().await.unwrap().forget();
    drop(first);
    let second = queue.worker(handler).start().await.unwrap();
    // Time enough to begin, were it allowed to; less than the lease runs.
    let again = timeout(Duration::from_millis(1500), began.acquire()).await;
    go_on.store(true, Ordering::SeqCst);
    assert!(again.is_err(), "the key is with two handlers");
    timeout(Duration::from_secs(30), async {
        while queue.depth().await.unwrap().unfinished() > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    second.drain().await.unwrap();
    assert_eq!(most.load(Ordering::SeqCst), 1);
}
