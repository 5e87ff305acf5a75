//! Workers in this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use resonant_scale::testing::{FakeMetric, FakeTarget};
use resonant_scale::{Autoscaler, ErrorKind, Reason, ScaleTarget, WorkerPool, guide};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// Counts what is started, ended and dropped.
#[derive(Debug, Clone, Default)]
struct Books {
    started: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
    dropped: Arc<AtomicUsize>,
    fails: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Worker(Books);

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

impl Books {
    fn read(&self) -> (usize, usize, usize) {
        let of = |count: &AtomicUsize| count.load(Ordering::SeqCst);
        (of(&self.started), of(&self.ended), of(&self.dropped))
    }

    /// Workers that each take `start` to start, and a permit to end.
    fn pool(&self, start: Duration, gate: &Arc<Semaphore>) -> WorkerPool<Worker> {
        let (books, gate) = (self.clone(), Arc::clone(gate));
        WorkerPool::new(
            move || {
                let books = books.clone();
                async move {
                    sleep(start).await;
                    if books.fails.load(Ordering::SeqCst) {
                        return Err("told to fail");
                    }
                    books.started.fetch_add(1, Ordering::SeqCst);
                    Ok(Worker(books))
                }
            },
            move |worker: Worker| {
                let gate = Arc::clone(&gate);
                async move {
                    gate.acquire().await.unwrap().forget();
                    worker.0.ended.fetch_add(1, Ordering::SeqCst);
                    if worker.0.fails.load(Ordering::SeqCst) { Err("told to fail") } else { Ok(()) }
                }
            },
        )
    }
}

fn open() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(Semaphore::MAX_PERMITS))
}

#[tokio::test(start_paused = true)]
async fn up_down_and_closed() {
    let books = Books::default();
    let pool = books.pool(Duration::ZERO, &open());
    for (to, books_say) in [(3, (3, 0)), (3, (3, 0)), (1, (3, 2)), (2, (4, 2)), (0, (4, 4))] {
        pool.set(to).await.unwrap();
        while pool.ending() > 0 {
            sleep(Duration::from_millis(1)).await;
        }
        let scale = pool.read().await.unwrap().scale;
        assert_eq!((scale.wanted, scale.existing, scale.ready), (to, to, Some(to)));
        assert_eq!((books.read().0, books.read().1), books_say);
    }
    pool.set(5).await.unwrap();
    pool.close().await;
    pool.close().await;
    assert_eq!(books.read(), (9, 9, 9));
    assert_eq!(pool.set(1).await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(pool.read().await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn those_that_finish_are_not_waited_for_but_by_close() {
    let (books, gate) = (Books::default(), Arc::new(Semaphore::new(0)));
    let pool = books.pool(Duration::ZERO, &gate);
    pool.set(4).await.unwrap();
    pool.set(1).await.unwrap();
    assert_eq!((pool.running(), pool.ending(), books.read().1), (1, 3, 0));
    // Up again meanwhile: those that finish are not called back.
    pool.set(2).await.unwrap();
    assert_eq!((pool.running(), books.read().0), (2, 5));
    assert!(timeout(Duration::from_secs(60), pool.close()).await.is_err(), "it waits");
    assert_eq!((pool.running(), pool.ending()), (0, 5), "and gave back what it waited for");
    gate.add_permits(5);
    pool.close().await;
    assert_eq!(books.read(), (5, 5, 5));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_does_not_start_leaves_those_that_did() {
    let books = Books::default();
    let pool = books.pool(Duration::ZERO, &open());
    pool.set(2).await.unwrap();
    books.fails.store(true, Ordering::SeqCst);
    let error = pool.set(5).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("2 of 5"), "{error}");
    assert_eq!(pool.read().await.unwrap().scale.wanted, 2);
    // One that does not end well is counted, and gone.
    pool.set(1).await.unwrap();
    while pool.ending() > 0 {
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!((pool.failures(), books.read().2), (1, 1));
    books.fails.store(false, Ordering::SeqCst);
    pool.set(5).await.unwrap();
    assert_eq!(pool.running(), 5);
    pool.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_dropped_change_leaves_whole_workers() {
    let books = Books::default();
    let pool = books.pool(Duration::from_secs(1), &open());
    for patience in 0..=4_u64 {
        let _ = timeout(Duration::from_millis(500 + 1000 * patience), pool.set(4)).await;
        let (started, ..) = books.read();
        assert_eq!(pool.running(), started, "none is lost and none is started twice");
    }
    assert_eq!(pool.running(), 4);
    pool.close().await;
    assert_eq!(books.read(), (4, 4, 4));
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_takes_the_workers_with_it() {
    let (books, gate) = (Books::default(), Arc::new(Semaphore::new(0)));
    let pool = books.pool(Duration::ZERO, &gate);
    pool.set(4).await.unwrap();
    pool.set(2).await.unwrap();
    drop(pool.clone());
    assert_eq!(books.read().2, 0);
    drop(pool);
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(books.read(), (4, 0, 4));
}

#[tokio::test(start_paused = true)]
async fn workers_are_brought_to_the_minimum_and_again_after_a_failed_start() {
    let books = Books::default();
    let pool = books.pool(Duration::ZERO, &open());
    let scaler = Autoscaler::builder("workers")
        .policy(guide::workers())
        .source("queue_depth", FakeMetric::new(42.0))
        .target(pool.clone())
        .build()
        .unwrap();
    books.fails.store(true, Ordering::SeqCst);
    assert_eq!(scaler.evaluate().await.reason, Reason::FailedUpdateScale);
    assert_eq!(pool.running(), 0);
    books.fails.store(false, Ordering::SeqCst);
    let decision = scaler.evaluate().await;
    assert_eq!((decision.from, decision.to, pool.running()), (0, 2, 2));
    assert_eq!(decision.reason, Reason::BelowMinimum);
    assert_eq!(scaler.evaluate().await.to, 4);
    // Elsewhere none is still what Kubernetes takes it for: switched off.
    let scaler = Autoscaler::builder("off")
        .policy(guide::workers())
        .source("queue_depth", FakeMetric::new(42.0))
        .target(FakeTarget::new(0))
        .build()
        .unwrap();
    assert_eq!(scaler.evaluate().await.reason, Reason::ScalingDisabled);
    pool.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_made_in_part_says_so_and_is_counted() {
    let started = Arc::new(AtomicUsize::new(0));
    let pool = WorkerPool::new(
        {
            let started = Arc::clone(&started);
            move || {
                let number = started.fetch_add(1, Ordering::SeqCst);
                // Every third start fails.
                std::future::ready(if number % 3 == 2 { Err("told to fail") } else { Ok(()) })
            }
        },
        async |()| Ok::<_, std::io::Error>(()),
    );
    let error = pool.set(5).await.unwrap_err();
    assert!(error.may_have_applied() && pool.running() == 2, "{error}");
    started.store(2, Ordering::SeqCst);
    let error = pool.set(5).await.unwrap_err();
    assert!(!error.may_have_applied() && pool.running() == 2, "{error}");
    let scaler = Autoscaler::builder("workers")
        .policy(guide::workers())
        .source("queue_depth", FakeMetric::new(90.0))
        .target(pool.clone())
        .build()
        .unwrap();
    started.store(4, Ordering::SeqCst);
    assert_eq!(scaler.evaluate().await.reason, Reason::FailedUpdateScale);
    assert_eq!(pool.running(), 3);
    scaler.evaluate().await;
    let changes: Vec<_> = scaler.history().iter().map(|it| (it.from, it.to)).collect();
    assert_eq!(changes[0], (2, 3), "{changes:?}");
    pool.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_panics_while_it_finishes_is_counted() {
    let pool = WorkerPool::new(
        async || Ok::<_, std::io::Error>(()),
        async |()| -> Result<(), std::io::Error> { panic!("told to panic") },
    );
    pool.set(2).await.unwrap();
    pool.set(1).await.unwrap();
    while pool.ending() > 0 {
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(pool.failures(), 1);
    pool.close().await;
    assert_eq!(pool.failures(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_closure_that_ends_workers_may_look_at_the_pool() {
    let kept: Arc<std::sync::Mutex<Option<WorkerPool<()>>>> = Arc::default();
    let seen = Arc::clone(&kept);
    let pool = WorkerPool::new(
        async || Ok::<_, std::io::Error>(()),
        move |()| {
            // Under the pool's own lock this would wait for ever.
            let running = seen.lock().unwrap().as_ref().map(WorkerPool::running);
            std::future::ready(running.map(drop).ok_or("no pool"))
        },
    );
    kept.lock().unwrap().replace(pool.clone());
    pool.set(2).await.unwrap();
    pool.set(0).await.unwrap();
    pool.close().await;
    assert_eq!(pool.failures(), 0);
    kept.lock().unwrap().take();
}

#[tokio::test(start_paused = true)]
async fn workers_that_never_finish_do_not_pile_up() {
    let (books, gate) = (Books::default(), Arc::new(Semaphore::new(0)));
    let pool = books.pool(Duration::ZERO, &gate).most_ending(3);
    pool.set(4).await.unwrap();
    pool.set(0).await.unwrap();
    let error = pool.set(1).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && error.message().contains("4 workers"));
    assert_eq!((pool.running(), pool.ending(), error.may_have_applied()), (0, 4, false));
    gate.add_permits(1);
    sleep(Duration::from_millis(1)).await;
    pool.set(1).await.unwrap();
    gate.add_permits(4);
    pool.close().await;
    assert_eq!(books.read(), (5, 5, 5));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_does_not_finish_in_time_is_cut_off_and_the_others_are_not() {
    let (books, gate) = (Books::default(), Arc::new(Semaphore::new(0)));
    let minute = Duration::from_secs(60);
    let pool = books.pool(Duration::ZERO, &gate).end_within(minute);
    pool.set(3).await.unwrap();
    pool.set(1).await.unwrap();
    sleep(minute - Duration::from_secs(1)).await;
    // One of two finishes within its minute.
    gate.add_permits(1);
    sleep(Duration::from_millis(500)).await;
    assert_eq!((pool.ending(), pool.cut_off(), books.read()), (1, 0, (3, 1, 1)));
    sleep(Duration::from_secs(1)).await;
    assert_eq!((pool.ending(), pool.cut_off(), books.read()), (0, 1, (3, 1, 2)));
    // Not finishing is not finishing badly, and the one that runs knows nothing of it.
    assert_eq!((pool.failures(), pool.running()), (0, 1));
    // So a pool that is closed is closed in that time, whatever its workers do.
    timeout(minute + Duration::from_secs(1), pool.close()).await.unwrap();
    assert_eq!((pool.cut_off(), books.read()), (2, (3, 1, 3)));
}

#[tokio::test(start_paused = true)]
async fn for_ever_is_a_limit_too() {
    let (books, gate) = (Books::default(), Arc::new(Semaphore::new(0)));
    let pool = books.pool(Duration::ZERO, &gate).end_within(Duration::MAX);
    pool.set(1).await.unwrap();
    pool.set(0).await.unwrap();
    sleep(Duration::from_secs(30 * 24 * 3600)).await;
    assert_eq!((pool.ending(), pool.cut_off()), (1, 0));
    gate.add_permits(1);
    pool.close().await;
    assert_eq!(books.read(), (1, 1, 1));
}
