//! process_all.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::{FutureExt, StreamExt, stream};
use resonant_batch::{ErrorKind, process_all, process_stream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use crate::support::{ms, settle};

type Io = std::io::Error;

/// Counts how many run at a time and how many have ended.
#[derive(Clone, Default)]
struct Gauge {
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
}

struct Running(Gauge);

impl Gauge {
    fn enter(&self) -> Running {
        self.most.fetch_max(self.now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        Running(self.clone())
    }

    fn now(&self) -> usize {
        self.now.load(Ordering::SeqCst)
    }

    fn ended(&self) -> usize {
        self.ended.load(Ordering::SeqCst)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
        self.0.ended.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn never_more_than_the_limit_and_every_outcome_once() {
    for ordered in [true, false] {
        let gauge = Gauge::default();
        let work = {
            let gauge = gauge.clone();
            async move |item: u64| {
                let _running = gauge.enter();
                tokio::task::yield_now().await;
                Ok::<_, Io>(item)
            }
        };
        let all = process_all(0..20_000, work).limit(64);
        let mut outputs = if ordered { all } else { all.unordered() }.try_collect().await.unwrap();
        assert!(gauge.most.load(Ordering::SeqCst) <= 64);
        if !ordered {
            outputs.sort_unstable();
        }
        assert_eq!(outputs, (0..20_000).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn ordered_waits_its_turn_and_unordered_gives_what_is_ready() {
    let slow_first = async |item: u64| {
        sleep(ms(100 - 10 * item)).await;
        Ok::<_, Io>(item)
    };
    let ordered = process_all(0..5, slow_first).map(Result::unwrap).collect::<Vec<_>>().await;
    assert_eq!(ordered, [0, 1, 2, 3, 4]);
    let unordered = process_all(0..5, slow_first).unordered();
    let unordered = unordered.map(Result::unwrap).collect::<Vec<_>>().await;
    assert_eq!(unordered, [4, 3, 2, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn collect_gives_every_outcome_and_try_collect_stops_at_the_first_error() {
    let gauge = Gauge::default();
    let work = {
        let gauge = gauge.clone();
        async move |item: u64| {
            let _running = gauge.enter();
            sleep(ms(item)).await;
            match item {
                3 => Err(Io::other("three")),
                5 => panic!("five"),
                _ => Ok(item),
            }
        }
    };
    let outcomes = process_all(0..8, work.clone()).limit(8).collect().await;
    let kinds: Vec<_> =
        outcomes.iter().map(|outcome| outcome.as_ref().map_err(|error| error.kind())).collect();
    let (failed, panicked) = (Err(ErrorKind::ItemFailed), Err(ErrorKind::Panicked));
    assert_eq!(kinds, [Ok(&0), Ok(&1), Ok(&2), failed, Ok(&4), panicked, Ok(&6), Ok(&7)]);
    assert_eq!(outcomes[3].as_ref().unwrap_err().operation(), "process_all");

    let start = Instant::now();
    let error = process_all(0..1000, work).limit(100).try_collect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ItemFailed);
    assert!(start.elapsed() <= ms(4));
    settle().await;
    assert_eq!(gauge.now(), 0, "the others are aborted");
}

#[tokio::test(start_paused = true)]
async fn a_slow_consumer_does_not_stall_what_runs_and_input_is_pulled_lazily() {
    for ordered in [true, false] {
        let (gauge, pulled) = (Gauge::default(), Arc::new(AtomicUsize::new(0)));
        let input = (0..1000).inspect({
            let pulled = pulled.clone();
            move |_| {
                pulled.fetch_add(1, Ordering::SeqCst);
            }
        });
        let work = {
            let gauge = gauge.clone();
            async move |item: u64| {
                let _running = gauge.enter();
                sleep(ms(10)).await;
                Ok::<_, Io>(item)
            }
        };
        let mut all = process_all(input, work).limit(10);
        if !ordered {
            all = all.unordered();
        }
        assert_eq!(pulled.load(Ordering::SeqCst), 0);
        all.next().await.unwrap().unwrap();
        // The consumer is busy elsewhere: what runs comes to its end, and nothing new is pulled.
        sleep(ms(1000)).await;
        assert_eq!(gauge.now(), 0);
        let so_far = pulled.load(Ordering::SeqCst);
        assert!(gauge.ended() == so_far && so_far <= 20, "{} of {so_far}", gauge.ended());
        assert_eq!(all.count().await, 999);
    }
}

#[tokio::test(start_paused = true)]
async fn one_slow_item_holds_back_no_more_than_the_limit() {
    let (gauge, gate) = (Gauge::default(), Arc::new(Semaphore::new(0)));
    let work = {
        let (gauge, gate) = (gauge.clone(), gate.clone());
        async move |item: u64| {
            let _running = gauge.enter();
            if item == 0 {
                drop(gate.acquire().await);
            }
            Ok::<_, Io>(item)
        }
    };
    let mut all = process_all(0..100, work).limit(4);
    let mut next = Box::pin(all.next());
    for _ in 0..10 {
        assert!((&mut next).now_or_never().is_none());
        settle().await;
    }
    drop(next);
    assert_eq!((gauge.now(), gauge.ended()), (1, 7), "twice the limit is pulled, and no more kept");
    gate.add_permits(1);
    assert_eq!(all.map(Result::unwrap).collect::<Vec<_>>().await, (0..100).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn streams_that_pause_and_items_that_hang() {
    let (sender, receiver) = tokio::sync::mpsc::channel::<u64>(1);
    let input =
        stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
    let work = async |item: u64| {
        if item == 1 {
            std::future::pending::<()>().await;
        }
        Ok::<_, Io>(item)
    };
    let all = tokio::spawn(process_stream(input, work).item_timeout(ms(50)).collect());
    for item in 0..3 {
        sleep(ms(500)).await;
        sender.send(item).await.unwrap();
    }
    drop(sender);
    let outcomes = all.await.unwrap();
    assert_eq!(outcomes.len(), 3);
    assert_eq!(outcomes[1].as_ref().unwrap_err().kind(), ErrorKind::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn dropping_it_aborts_what_runs() {
    let gauge = Gauge::default();
    let work = {
        let gauge = gauge.clone();
        async move |_: u64| {
            let _running = gauge.enter();
            std::future::pending::<Result<(), Io>>().await
        }
    };
    let mut all = process_all(0.., work).limit(3);
    assert!(all.next().now_or_never().is_none());
    settle().await;
    assert_eq!(gauge.now(), 3);
    drop(all);
    settle().await;
    assert_eq!(gauge.now(), 0);
}

#[test]
fn without_a_runtime_items_fail_and_say_why() {
    let outcomes = futures::executor::block_on(
        process_all([1], async |item: u64| Ok::<_, Io>(item)).collect(),
    );
    assert_eq!(outcomes[0].as_ref().unwrap_err().kind(), ErrorKind::Config);
}
