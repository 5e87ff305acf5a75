//! Order per key, keys side by side, runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Barrier;

use super::Place;
use super::kit::{
    Log, Note, builder, built, drain, idle, note, notes, ok, queue, range, until, within, work,
};
use crate::{Delivery, HandlerError, PublishOptions, Run, SequenceCheck};

const KEYS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

/// Messages of a key are finished in the order they were published, although every third fails at first.
pub async fn every_message_of_a_key_comes_in_order(place: &dyn Place) {
    let queue = queue(place).await;
    let (log, check) = (Log::default(), SequenceCheck::new("suite"));
    let all = notes(&KEYS, 30);
    ok("publish_many", queue.publish_many(&all[..120]).await);
    let handler = {
        let (log, check) = (log.clone(), check.clone());
        async move |delivery: Delivery<Note>| {
            check.observe(&delivery);
            if delivery.message().number.is_multiple_of(3) && delivery.attempt() == 1 {
                return Err(HandlerError::retry("not yet"));
            }
            log.push(delivery.into_message());
            Ok::<(), HandlerError>(())
        }
    };
    let worker = ok("start", queue.worker(handler).start().await);
    ok("publish_many", queue.publish_many(&all[120..]).await);
    idle(&queue).await;
    let report = drain(worker).await;
    for key in KEYS {
        assert_eq!(log.of(key), range(30), "key {key}");
    }
    assert!(check.report().in_order(), "{:?}", check.report());
    assert_eq!((report.done, report.retried), (240, 80), "{report:?}");
}

/// Four keys of one partition are with handlers at the same time.
pub async fn keys_of_a_partition_run_side_by_side(place: &dyn Place) {
    let queue = built(builder(place.open().await).partitions(1)).await;
    let (meeting, log) = (Arc::new(Barrier::new(4)), Log::default());
    ok("publish_many", queue.publish_many(notes(&["a", "b", "c", "d"], 5)).await);
    let handler = {
        let (meeting, log) = (Arc::clone(&meeting), log.clone());
        async move |delivery: Delivery<Note>| {
            meeting.wait().await;
            log.push(delivery.into_message());
            Ok::<(), HandlerError>(())
        }
    };
    let worker = ok("start", queue.worker(handler).concurrency(4).start().await);
    idle(&queue).await;
    drain(worker).await;
    assert_eq!(log.of("a"), range(5));
    assert_eq!(log.len(), 20);
}

/// What a failing run reported as done is finished; it goes on with the one after.
pub async fn a_run_is_acknowledged_as_a_prefix(place: &dyn Place) {
    let queue = queue(place).await;
    ok("publish_many", queue.publish_many(notes(&["a"], 40)).await);
    let (log, failed) = (Log::default(), Arc::new(AtomicBool::new(false)));
    let handler = {
        let (log, failed) = (log.clone(), Arc::clone(&failed));
        async move |run: Run<Note>| {
            let first =
                run.iter().next().map(|delivery| (delivery.message().number, delivery.attempt()));
            if let Some((0, _)) = first {
                assert_eq!(run.len(), 10, "a full run was there to be had");
                failed.store(true, Ordering::SeqCst);
                for delivery in run.iter().take(3) {
                    log.push(delivery.message().clone());
                }
                run.done(3);
                return Err(HandlerError::retry("the fourth fails"));
            }
            if let Some((3, attempt)) = first {
                assert_eq!(attempt, 2, "only the one after the prefix has failed");
            }
            for delivery in run {
                log.push(delivery.into_message());
            }
            Ok::<(), HandlerError>(())
        }
    };
    let worker = ok("start", queue.worker_runs(10, handler).start().await);
    idle(&queue).await;
    let report = drain(worker).await;
    assert!(failed.load(Ordering::SeqCst));
    assert_eq!(log.of("a"), range(40));
    assert_eq!((report.done, report.retried), (40, 1), "{report:?}");
}

/// A key with far more messages than fit into memory, and a handler that does not move, hold up nobody else.
pub async fn a_hot_key_does_not_fill_memory(place: &dyn Place) {
    let queue = built(builder(place.open().await).partitions(1).prefetch(16)).await;
    let log = Log::default();
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    ok("publish_many", queue.publish_many(notes(&["hot"], 300)).await);
    ok("publish_many", queue.publish_many(notes(&["a", "b", "c"], 30)).await);
    let handler = {
        let (log, gate) = (log.clone(), Arc::clone(&gate));
        async move |delivery: Delivery<Note>| {
            if delivery.message().key == "hot" {
                let _permit = gate.acquire().await;
                log.push(delivery.into_message());
            } else {
                log.push(delivery.into_message());
            }
            Ok::<(), HandlerError>(())
        }
    };
    let worker = ok("start", queue.worker(handler).start().await);
    if queue.capabilities().seek {
        until("the others flow past the hot key", || async { log.len() == 90 }).await;
    }
    assert!(log.of("hot").is_empty());
    gate.add_permits(1);
    idle(&queue).await;
    drain(worker).await;
    assert_eq!(log.of("hot"), range(300));
    for key in ["a", "b", "c"] {
        assert_eq!(log.of(key), range(30), "key {key}");
    }
}

/// A message without a key passes one that does not end.
pub async fn unkeyed_messages_wait_for_nobody(place: &dyn Place) {
    let queue = built(builder(place.open().await).partitions(1)).await;
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let log = Log::default();
    for number in 0..5 {
        let options = PublishOptions::new().unkeyed().header("number", number.to_string());
        ok("publish_with", queue.publish_with(&note("x", number), options).await);
    }
    let handler = {
        let (gate, log) = (Arc::clone(&gate), log.clone());
        async move |delivery: Delivery<Note>| {
            assert_eq!(delivery.key(), None);
            let number = delivery.message().number;
            assert_eq!(delivery.header("number"), Some(number.to_string().as_str()));
            if number == 0 {
                let _permit = gate.acquire().await;
            }
            log.push(delivery.into_message());
            Ok::<(), HandlerError>(())
        }
    };
    let worker = ok("start", queue.worker(handler).start().await);
    until("the others pass", || async { log.len() == 4 }).await;
    gate.add_permits(1);
    within("the rest", idle(&queue)).await;
    drain(worker).await;
    // Nothing is left for another worker.
    let again = Log::default();
    drain(work(&queue, &again).await).await;
    assert_eq!((log.len(), again.len()), (5, 0));
}
