//! Mistakes other batchers made, one test each.
//!
//! Others of their kind are tested where they belong: the last handle aborting what runs and deadlocks after a panic (`ending`,
//! `failures`), deadlines noticed only when a slot frees and overflow instead of back-pressure (`pressure`), a load that goes on
//! although everybody has left (`cancel`), idle wake-ups and memory of keys long gone (the core's own tests).

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use resonant_batch::{BatchProcessor, ErrorKind, Policy};
use tokio::time::{Instant, sleep};

use crate::support::{Script, ms, settle};

/// A timer restarted by every arrival lets a steady trickle wait until a batch is full, or for ever.
#[tokio::test(start_paused = true)]
async fn a_trickle_does_not_put_the_dispatch_off() {
    let script = Script::open();
    let batch = script.builder().policy(Policy::Fixed).build().unwrap();
    let start = Instant::now();
    let first = tokio::spawn({
        let batch = batch.clone();
        async move {
            batch.submit(0).await.unwrap();
            start.elapsed()
        }
    });
    for item in 1..10 {
        sleep(ms(30)).await;
        let batch = batch.clone();
        tokio::spawn(async move { batch.submit(item).await });
    }
    assert_eq!(first.await.unwrap(), ms(100));
}

/// A window that starts with the loop and not with the item makes the first item wait less or longer, by luck.
#[tokio::test(start_paused = true)]
async fn the_wait_starts_with_the_first_item() {
    let batch = Script::open().builder().policy(Policy::Fixed).build().unwrap();
    batch.submit(0).await.unwrap();
    for pause in [1, 50, 99, 101, 1234] {
        sleep(ms(pause)).await;
        let start = Instant::now();
        batch.submit(1).await.unwrap();
        assert_eq!(start.elapsed(), ms(100), "after a pause of {pause} ms");
    }
}

/// A timer armed for a batch that filled up in the meantime must not flush the next one early.
#[tokio::test(start_paused = true)]
async fn an_old_timer_does_not_flush_a_younger_batch() {
    let script = Script::open();
    let batch = script.builder().policy(Policy::Fixed).max_batch_size(3).build().unwrap();
    let first = batch.try_submit(0).unwrap();
    sleep(ms(90)).await;
    let full = batch.submit_many([1, 2]).await;
    assert!(full.into_iter().all(|result| result.is_ok()));
    first.await.unwrap();
    let start = Instant::now();
    batch.submit(3).await.unwrap();
    assert_eq!(start.elapsed(), ms(100));
    assert_eq!(script.calls(), [vec![0, 1, 2], vec![3]]);
}

/// One failed batch must not kill the service for good.
#[tokio::test(start_paused = true)]
async fn an_error_then_success() {
    let calls = Arc::new(AtomicUsize::new(0));
    let batch = BatchProcessor::builder(async move |items: Vec<u64>| {
        if calls.fetch_add(1, Ordering::SeqCst) < 5 { Err("down") } else { Ok(items) }
    });
    let batch = batch.build().unwrap();
    for _ in 0..5 {
        assert_eq!(batch.submit(1).await.unwrap_err().kind(), ErrorKind::BatchFailed);
    }
    assert_eq!(batch.submit(1).await.unwrap(), 1);
}

/// A panic of the processor must not panic its callers, nor close the queue.
#[tokio::test(start_paused = true)]
async fn a_panic_then_success() {
    let calls = Arc::new(AtomicUsize::new(0));
    let batch = BatchProcessor::builder(async move |items: Vec<u64>| {
        assert!(calls.fetch_add(1, Ordering::SeqCst) >= 5, "not yet");
        Ok::<_, std::io::Error>(items)
    });
    let batch = batch.max_in_flight(1).build().unwrap();
    for _ in 0..5 {
        assert_eq!(batch.submit(1).await.unwrap_err().kind(), ErrorKind::Panicked);
    }
    assert_eq!(batch.submit(1).await.unwrap(), 1);
}

/// The size must be a cap, not only a trigger that one big submission runs over.
#[tokio::test(start_paused = true)]
async fn one_big_submission_is_split() {
    let script = Script::open();
    let batch = script.builder().build().unwrap();
    assert_eq!(batch.submit_many(0..1042).await.len(), 1042);
    assert!(script.sizes().iter().all(|size| *size <= 100), "{:?}", script.sizes());
    assert_eq!(script.sizes().len(), 11);
}

/// A burst must not become as many concurrent loads as it fills batches.
#[tokio::test(start_paused = true)]
async fn a_burst_does_not_run_unbounded() {
    let script = Script::held();
    let batch = script.builder().max_batch_size(10).max_in_flight(3).build().unwrap();
    let burst = tokio::spawn({
        let batch = batch.clone();
        async move { batch.submit_many(0..1000).await }
    });
    settle().await;
    assert_eq!(script.sizes().len(), 3);
    script.release(1000);
    assert_eq!(burst.await.unwrap().len(), 1000);
}

/// Items of callers who have gone must not be processed.
#[tokio::test(start_paused = true)]
async fn the_cancelled_are_not_processed() {
    let script = Script::held();
    let batch = script.builder().max_in_flight(1).build().unwrap();
    let running = batch.try_submit(0).unwrap();
    settle().await;
    let (kept, dropped) = (batch.try_submit(1).unwrap(), batch.try_submit(2).unwrap());
    drop(dropped);
    script.release(2);
    running.await.unwrap();
    kept.await.unwrap();
    assert_eq!(script.items(), [0, 1]);
}

/// Where the first caller runs the load, or lends it its context, dropping that caller loses the batch of all.
#[tokio::test(start_paused = true)]
async fn the_first_caller_may_leave_at_any_time() {
    for after_dispatch in [false, true] {
        let script = Script::held();
        let batch = script.builder().policy(Policy::Fixed).build().unwrap();
        let first = batch.try_submit(0).unwrap();
        let second = batch.try_submit(1).unwrap();
        if after_dispatch {
            sleep(ms(150)).await;
        }
        drop(first);
        script.release(1);
        assert_eq!(second.await.unwrap(), 1001);
    }
}

/// Collecting must not stop while a batch runs.
#[tokio::test(start_paused = true)]
async fn batches_overlap() {
    let script = Script::held();
    let batch = script.builder().policy(Policy::Fixed).max_in_flight(2).build().unwrap();
    let first = batch.try_submit(0).unwrap();
    sleep(ms(150)).await;
    let second = batch.try_submit(1).unwrap();
    sleep(ms(150)).await;
    assert_eq!(script.calls(), [[0], [1]], "the second runs beside the first");
    script.release(2);
    first.await.unwrap();
    second.await.unwrap();
}

/// Spawning tasks for each batch is what makes small ones slow.
#[tokio::test(start_paused = true)]
async fn no_task_is_spawned_for_a_batch() {
    let ids = Arc::new(Mutex::new(HashSet::new()));
    let batch = BatchProcessor::builder({
        let ids = Arc::clone(&ids);
        async move |items: Vec<u64>| {
            ids.lock().unwrap().insert(tokio::task::id());
            Ok::<_, std::io::Error>(items)
        }
    });
    let batch = batch.max_in_flight(4).build().unwrap();
    let own = tokio::spawn(async move {
        for item in 0..100 {
            batch.submit(item).await.unwrap();
        }
        tokio::task::id()
    });
    let own = own.await.unwrap();
    let ids = ids.lock().unwrap();
    assert!(ids.len() <= 4, "{ids:?}");
    assert!(!ids.contains(&own), "nor does a batch run in its submitter");
}

/// A drain that keeps accepting never ends under traffic.
#[tokio::test(start_paused = true)]
async fn a_drain_ends_under_traffic() {
    let batch = Script::open().builder().build().unwrap();
    let traffic = tokio::spawn({
        let batch = batch.clone();
        async move { while batch.submit(1).await.is_ok() {} }
    });
    settle().await;
    assert!(batch.drain(ms(1000)).await.is_clean());
    traffic.await.unwrap();
}

/// Equal items must not use up the cap.
#[tokio::test(start_paused = true)]
async fn duplicates_do_not_count_against_the_size() {
    let script = Script::open();
    let batch = script.builder().max_batch_size(4).single_flight(|item| *item).build().unwrap();
    let results = batch.submit_many([1, 1, 1, 2, 2, 3, 1, 4]).await;
    let results: Vec<_> = results.into_iter().map(Result::unwrap).collect();
    assert_eq!(results, [1001, 1001, 1001, 1002, 1002, 1003, 1001, 1004]);
    assert_eq!(script.calls(), [[1, 2, 3, 4]]);
}
