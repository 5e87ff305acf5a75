//! What a dropped future leaves behind, dropped at every await.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use resonant_batch::BatchProcessor;

use crate::support::{Script, ms, settle};

/// Where the submission is when it is dropped.
#[derive(Debug, Clone, Copy)]
enum At {
    Unpolled,
    InLine,
    Queued,
    Running,
    Delivered,
}

#[tokio::test(start_paused = true)]
async fn a_dropped_submit_is_taken_back_until_it_is_dispatched() {
    for (at, processed) in [
        (At::Unpolled, false),
        (At::InLine, false),
        (At::Queued, false),
        (At::Running, true),
        (At::Delivered, true),
    ] {
        let script = Script::held();
        let batch =
            script.builder().max_batch_size(2).max_queued(2).max_in_flight(1).build().unwrap();
        let mut before = Vec::new();
        let in_front = match at {
            At::Unpolled | At::Queued => 1,
            At::InLine => 3,
            At::Running | At::Delivered => 0,
        };
        for item in 0..in_front {
            before.push(batch.try_submit(item).unwrap());
            settle().await;
        }
        let mut submit = Box::pin(batch.submit(99));
        if !matches!(at, At::Unpolled) {
            assert!((&mut submit).now_or_never().is_none());
            settle().await;
        }
        if let At::Delivered = at {
            script.release(1);
            settle().await;
        }
        drop(submit);
        let queued = batch.stats().queued;
        assert_eq!(queued, in_front.saturating_sub(1) as usize, "{at:?}");
        assert_eq!(batch.stats().waiting, 0, "{at:?}");
        script.release(10);
        batch.flush().await;
        assert_eq!(script.items().contains(&99), processed, "{at:?}");
        for submitted in before {
            submitted.await.unwrap();
        }
        // Nothing of it stays.
        assert_eq!(batch.submit(5).await.unwrap(), 1005, "{at:?}");
        assert_eq!((batch.stats().queued, batch.stats().in_flight), (0, 0), "{at:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_submit_many_is_taken_back_as_far_as_it_is_queued() {
    let script = Script::held();
    let batch = script.builder().max_batch_size(3).max_queued(6).max_in_flight(1).build().unwrap();
    let mut many = Box::pin(batch.submit_many(0..20));
    assert!((&mut many).now_or_never().is_none());
    settle().await;
    assert_eq!((batch.stats().queued, batch.stats().waiting), (6, 1));
    drop(many);
    assert_eq!((batch.stats().queued, batch.stats().waiting), (0, 0));
    script.release(10);
    assert_eq!(batch.submit(50).await.unwrap(), 1050);
    assert_eq!(script.items(), [0, 1, 2, 50]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_everybody_left_is_not_run() {
    let script = Script::held();
    let batch = script.builder().max_in_flight(1).build().unwrap();
    let running = batch.try_submit(0).unwrap();
    settle().await;
    let leaving: Vec<_> = (1..=10).map(|item| batch.try_submit(item).unwrap()).collect();
    drop(leaving);
    script.release(10);
    running.await.unwrap();
    settle().await;
    assert_eq!(script.calls(), [[0]]);
}

#[tokio::test(start_paused = true)]
async fn room_left_by_the_dropped_goes_to_those_in_line() {
    let script = Script::held();
    let batch = script.builder().max_batch_size(2).max_queued(2).max_in_flight(1).build().unwrap();
    let running = batch.try_submit(0).unwrap();
    settle().await;
    let leaving = [batch.try_submit(1).unwrap(), batch.try_submit(2).unwrap()];
    let in_line = tokio::spawn({
        let batch = batch.clone();
        async move { batch.submit(3).await }
    });
    settle().await;
    assert_eq!((batch.stats().queued, batch.stats().waiting), (2, 1));
    drop(leaving);
    assert_eq!((batch.stats().queued, batch.stats().waiting), (1, 0));
    script.release(2);
    running.await.unwrap();
    assert_eq!(in_line.await.unwrap().unwrap(), 1003);
}

/// Any subset of submitters is dropped at any time: the others get their own results, and what was dropped before
/// dispatch never reaches the processor.
#[tokio::test(start_paused = true)]
async fn whoever_is_dropped_whenever_the_others_get_their_own() {
    for seed in 0..1500 {
        let mut rng = StdRng::seed_from_u64(seed);
        let seen: Arc<Mutex<HashSet<u64>>> = Arc::default();
        let batch = BatchProcessor::builder({
            let seen = seen.clone();
            async move |items: Vec<u64>| {
                seen.lock().unwrap().extend(&items);
                for _ in 0..items[0] % 5 {
                    tokio::task::yield_now().await;
                }
                Ok::<_, std::io::Error>(items.into_iter().map(|item| item * 2).collect::<Vec<_>>())
            }
        })
        .max_batch_size(rng.random_range(1..6))
        .max_queued(rng.random_range(6..12))
        .max_in_flight(rng.random_range(1..3))
        .build()
        .unwrap();
        let mut live = Vec::new();
        let mut dropped_in_time = Vec::new();
        for item in 0..rng.random_range(1..25) {
            let submit = batch.submit(item);
            live.push((item, Box::pin(submit)));
            for _ in 0..rng.random_range(0..4) {
                let index = rng.random_range(0..live.len());
                if let Some(result) = (&mut live[index].1).now_or_never() {
                    assert_eq!(result.unwrap(), live[index].0 * 2, "seed {seed}");
                    drop(live.swap_remove(index));
                    if live.is_empty() {
                        break;
                    }
                }
            }
            if rng.random_range(0..3) == 0 && !live.is_empty() {
                let (item, submit) = live.swap_remove(rng.random_range(0..live.len()));
                if !seen.lock().unwrap().contains(&item) {
                    dropped_in_time.push(item);
                }
                drop(submit);
            }
            if rng.random_range(0..2) == 0 {
                tokio::task::yield_now().await;
            }
        }
        for (item, submit) in live {
            let result = tokio::time::timeout(ms(1000), submit).await;
            assert_eq!(result.expect("nobody is forgotten").unwrap(), item * 2, "seed {seed}");
        }
        batch.flush().await;
        let seen = seen.lock().unwrap();
        assert!(dropped_in_time.iter().all(|item| !seen.contains(item)), "seed {seed}");
        let stats = batch.stats();
        assert_eq!(
            (stats.queued, stats.waiting, stats.in_flight, stats.keys),
            (0, 0, 0, 0),
            "seed {seed}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_flush_or_drain_only_stops_waiting() {
    let script = Script::held();
    let batch = script.builder().build().unwrap();
    let submitted = batch.try_submit(1).unwrap();
    settle().await;
    assert!(batch.flush().now_or_never().is_none());
    assert!(batch.drain(ms(1000)).now_or_never().is_none());
    assert!(batch.is_closed(), "a drain closes at once");
    script.release(1);
    assert_eq!(submitted.await.unwrap(), 1001);
    assert!(batch.drain(ms(1000)).await.is_clean());
}
