//! Caps, the line at the door, deadlines.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use resonant_batch::{BatchProcessor, ErrorKind};
use tokio::time::{Instant, sleep};

use crate::support::{Script, ms, settle};

#[tokio::test(start_paused = true)]
async fn no_batch_exceeds_its_caps_and_an_oversize_item_fails_alone() {
    for seed in 0..200 {
        let mut rng = StdRng::seed_from_u64(seed);
        let script = Script::open();
        let batch = script
            .builder()
            .max_batch_size(7)
            .max_queued(20)
            .weight(30, |item| *item)
            .build()
            .unwrap();
        let lots: Vec<Vec<u64>> = (0..5)
            .map(|_| (0..rng.random_range(0..60)).map(|_| rng.random_range(0..33)).collect())
            .collect();
        let results = join_all(lots.iter().map(|lot| batch.submit_many(lot.iter().copied()))).await;
        for (item, result) in lots.concat().into_iter().zip(results.into_iter().flatten()) {
            match result {
                Ok(output) => assert!(item <= 30 && output == item + 1000),
                Err(error) => {
                    assert!(item > 30 && error.kind() == ErrorKind::TooHeavy, "{item}: {error}")
                }
            }
        }
        for call in script.calls() {
            assert!(call.len() <= 7 && call.iter().sum::<u64>() <= 30, "{call:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn submit_many_keeps_its_order_through_a_full_queue() {
    let script = Script::open();
    let batch =
        script.builder().max_batch_size(10).max_queued(25).max_in_flight(1).build().unwrap();
    let results = batch.submit_many(0..1000).await;
    let results: Vec<_> = results.into_iter().map(Result::unwrap).collect();
    assert_eq!(results, (1000..2000).collect::<Vec<_>>());
    assert_eq!(script.items(), (0..1000).collect::<Vec<_>>());
    assert!(batch.submit_many([]).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_line_is_first_come_first_served() {
    let script = Script::held();
    let batch = script.builder().max_batch_size(1).max_queued(1).max_in_flight(1).build().unwrap();
    let mut tasks = Vec::new();
    for item in 0..20 {
        let batch = batch.clone();
        tasks.push(tokio::spawn(async move { batch.submit(item).await }));
        settle().await;
    }
    assert_eq!(batch.stats().waiting, 18);
    script.release(20);
    join_all(tasks).await;
    assert_eq!(script.items(), (0..20).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_those_who_do_not_wait() {
    let script = Script::held();
    let batch = script.builder().max_batch_size(2).max_queued(2).max_in_flight(1).build().unwrap();
    let running = batch.try_submit(0).unwrap();
    settle().await;
    let queued = [batch.try_submit(1).unwrap(), batch.try_submit(2).unwrap()];
    let rejected = batch.try_submit(3).unwrap_err();
    assert_eq!((rejected.item, rejected.error.kind()), (3, ErrorKind::Overloaded));
    assert!(rejected.error.is_transient());
    script.release(2);
    running.await.unwrap();
    join_all(queued).await;
    assert_eq!(script.items(), [0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn somebody_asleep_in_line_does_not_stop_the_others() {
    let script = Script::held();
    let batch = script.builder().max_batch_size(1).max_queued(1).max_in_flight(1).build().unwrap();
    let first = batch.try_submit(0).unwrap();
    settle().await;
    let second = batch.try_submit(1).unwrap();
    // Polled once, then left alone: it stands in line before the last one.
    let mut asleep = Box::pin(batch.submit(2));
    assert!((&mut asleep).now_or_never().is_none());
    let last = tokio::spawn({
        let batch = batch.clone();
        async move { batch.submit(3).await }
    });
    settle().await;
    script.release(4);
    first.await.unwrap();
    second.await.unwrap();
    assert_eq!(last.await.unwrap().unwrap(), 1003);
    assert_eq!(asleep.await.unwrap(), 1002);
    assert_eq!(script.items(), [0, 1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn in_flight_batches_are_bounded_in_all_and_per_key() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let per_key: Arc<[AtomicUsize; 3]> = Arc::default();
    let batch = BatchProcessor::keyed({
        let (most, per_key) = (most.clone(), per_key.clone());
        async move |key: usize, items: Vec<usize>| {
            assert!(per_key[key].fetch_add(1, Ordering::SeqCst) < 2);
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            sleep(ms(10)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            per_key[key].fetch_sub(1, Ordering::SeqCst);
            Ok::<_, std::io::Error>(items)
        }
    })
    .key(|item: &usize| item % 3)
    .max_batch_size(5)
    .max_in_flight(5)
    .max_in_flight_per_key(2)
    .build()
    .unwrap();
    assert!(batch.submit_many(0..600).await.into_iter().all(|result| result.is_ok()));
    assert_eq!(most.load(Ordering::SeqCst), 5);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_the_wait_at_once_and_not_when_a_slot_frees() {
    let script = Script::held();
    let batch = script.builder().max_in_flight(1).max_queued(100).build().unwrap();
    let _running = batch.try_submit(0).unwrap();
    settle().await;
    let start = Instant::now();
    let error = batch.submit_timeout(1, ms(20)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(!error.may_have_applied(), "it was taken back");
    assert!((ms(20)..=ms(21)).contains(&start.elapsed()), "{:?}", start.elapsed());
    assert_eq!(batch.stats().queued, 0);

    script.release(10);
    batch.submit(2).await.unwrap();
    assert_eq!(script.items(), [0, 2], "the item that timed out is not processed");
}

#[tokio::test(start_paused = true)]
async fn a_limit_longer_than_time_itself_is_no_limit() {
    let batch = Script::open().builder().build().unwrap();
    assert_eq!(batch.submit_timeout(1, Duration::MAX).await.unwrap(), 1001);
    assert!(batch.drain(Duration::MAX).await.is_clean());
}

#[tokio::test(start_paused = true)]
async fn a_deadline_during_processing_says_that_it_may_have_applied() {
    let script = Script::held();
    let batch = script.builder().build().unwrap();
    let error = batch.submit_timeout(1, ms(20)).await.unwrap_err();
    assert_eq!((error.kind(), error.may_have_applied()), (ErrorKind::TimedOut, true));
    assert_eq!(script.items(), [1]);
}

/// Three times as many items as the processor can take, the surplus refused: the processor is never out of work, and a
/// short queue means a short wait for those who got in.
#[tokio::test(start_paused = true)]
async fn overload_keeps_the_processor_busy_and_the_wait_bounded() {
    // Four batches of ten in 10 ms: four items each millisecond.
    let batch = BatchProcessor::builder(async |items: Vec<u64>| {
        sleep(ms(10)).await;
        Ok::<_, std::io::Error>(items)
    });
    let batch = batch.max_batch_size(10).max_queued(50).build().unwrap();
    let mut tasks = Vec::new();
    for item in 0..12_000 {
        if item % 12 == 0 {
            sleep(ms(1)).await;
        }
        let batch = batch.clone();
        tasks.push(tokio::spawn(async move {
            let start = Instant::now();
            let outcome = batch.try_submit(item)?.await;
            assert!(batch.stats().queued <= 50);
            outcome.map(|_| start.elapsed())
        }));
    }
    let outcomes: Vec<_> = join_all(tasks).await.into_iter().map(Result::unwrap).collect();
    let waits: Vec<_> = outcomes.iter().flatten().copied().collect();
    assert!(waits.len() >= 3900, "{} of 4000 possible", waits.len());
    // 50 before it at four each millisecond, a slot that is busy for 10 ms, and its own 10 ms.
    assert!(waits.iter().all(|wait| *wait <= ms(35)), "{:?}", waits.iter().max());
    let refused = outcomes.into_iter().filter_map(Result::err);
    assert!(refused.into_iter().all(|error| error.kind() == ErrorKind::Overloaded));
}
