//! Retries, parking, dead letters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Place;
use super::kit::{
    Log, Note, builder, built, drain, idle, note, notes, ok, queue, quick, range, refused, until,
    work,
};
use crate::{Delivery, ErrorKind, HandlerError, PartitionedQueue, Poison, PublishOptions, Worker};

/// A worker that fails message 1 of the key `bad` until it is mended.
async fn failing(queue: &PartitionedQueue<Note>, log: &Log, mended: &Arc<AtomicBool>) -> Worker {
    let (log, mended) = (log.clone(), Arc::clone(mended));
    let handler = async move |delivery: Delivery<Note>| {
        let note = delivery.message();
        if note.key == "bad" && note.number == 1 && !mended.load(Ordering::SeqCst) {
            return Err(HandlerError::retry("poison"));
        }
        log.push(delivery.into_message());
        Ok::<(), HandlerError>(())
    };
    ok("start", queue.worker(handler).start().await)
}

/// A failed message waits as long as it was asked to, its key waits with it, other keys do not.
pub async fn retries_wait_and_hold_only_their_key(place: &dyn Place) {
    let queue = built(builder(place.open().await).partitions(1)).await;
    ok("publish_many", queue.publish_many(notes(&["slow", "fast"], 20)).await);
    let log = Log::default();
    let wait = Duration::from_millis(400);
    let failed_at = Arc::new(std::sync::Mutex::new(None));
    let handler = {
        let (log, failed_at) = (log.clone(), Arc::clone(&failed_at));
        async move |delivery: Delivery<Note>| {
            let now = tokio::time::Instant::now();
            if delivery.message() == &note("slow", 0) {
                let mut failed_at =
                    failed_at.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                match *failed_at {
                    None => {
                        *failed_at = Some(now);
                        return Err(HandlerError::retry_after(wait, "later"));
                    }
                    // Engines keep whole milliseconds.
                    Some(at) => {
                        assert!(now + Duration::from_millis(2) >= at + wait, "it came too early")
                    }
                }
                assert_eq!(delivery.attempt(), 2);
            }
            log.push(delivery.into_message());
            Ok::<(), HandlerError>(())
        }
    };
    let worker = ok("start", queue.worker(handler).start().await);
    until("the other key flows", || async { log.of("fast").len() == 20 }).await;
    idle(&queue).await;
    drain(worker).await;
    assert_eq!(log.of("slow"), range(20));
    assert_eq!(log.of("fast"), range(20));
}

/// A key whose message failed for good is put aside with what follows; the others are finished.
pub async fn a_poison_key_is_parked_while_others_flow(place: &dyn Place) {
    let queue = built(builder(place.open().await).partitions(1).retry(quick(3))).await;
    let (log, mended) = (Log::default(), Arc::new(AtomicBool::new(false)));
    ok("publish_many", queue.publish_many(notes(&["bad", "good"], 10)).await);
    let worker = failing(&queue, &log, &mended).await;
    idle(&queue).await;
    // What comes later to a parked key is put aside too.
    ok("publish", queue.publish(&note("bad", 10)).await);
    ok("publish", queue.publish(&note("good", 10)).await);
    idle(&queue).await;
    let report = drain(worker).await;
    assert_eq!((log.of("bad"), log.of("good")), (range(1), range(11)));
    assert_eq!((report.parked, report.retried), (1, 2), "{report:?}");
    let parked = ok("parked", queue.parked(10).await);
    assert_eq!(parked.len(), 1);
    assert_eq!((parked[0].key.as_str(), parked[0].messages), ("bad", 10));
    assert!(parked[0].error.contains("poison"), "{:?}", parked[0].error);
    let depth = ok("depth", queue.depth().await);
    assert_eq!((depth.parked, depth.parked_keys, depth.ready, depth.dead), (10, 1, 0, 0));
    refused("resume_key", queue.resume_key("good").await, ErrorKind::NotFound);
}

/// A resumed key goes on with the message that failed, in order, also under a worker that runs already.
pub async fn a_resumed_key_goes_on_in_order(place: &dyn Place) {
    let queue = built(builder(place.open().await).partitions(1).retry(quick(2))).await;
    let (log, mended) = (Log::default(), Arc::new(AtomicBool::new(false)));
    let worker = failing(&queue, &log, &mended).await;
    ok("publish_many", queue.publish_many(notes(&["bad", "good"], 10)).await);
    for round in 0..2 {
        idle(&queue).await;
        assert_eq!(log.of("bad"), range(1), "round {round}");
        if round == 1 {
            mended.store(true, Ordering::SeqCst);
        }
        assert_eq!(ok("resume_key", queue.resume_key("bad").await), 9);
    }
    ok("publish", queue.publish(&note("bad", 10)).await);
    idle(&queue).await;
    drain(worker).await;
    assert_eq!(log.of("bad"), range(11));
    assert_eq!(ok("parked", queue.parked(10).await), []);
    assert_eq!(ok("depth", queue.depth().await).unfinished(), 0);
}

/// Rejected messages become dead letters while their key goes on, and come back in their old order.
pub async fn a_rejected_message_is_a_dead_letter_and_is_redriven_in_order(place: &dyn Place) {
    let queue = queue(place).await;
    let (log, mended) = (Log::default(), Arc::new(AtomicBool::new(false)));
    let handler = {
        let (log, mended) = (log.clone(), Arc::clone(&mended));
        async move |delivery: Delivery<Note>| {
            if delivery.message().number % 2 == 1 && !mended.load(Ordering::SeqCst) {
                return Err(HandlerError::reject("odd"));
            }
            log.push(delivery.into_message());
            Ok(())
        }
    };
    let worker = ok("start", queue.worker(handler).start().await);
    ok("publish_many", queue.publish_many(notes(&["a", "b"], 20)).await);
    idle(&queue).await;
    let even: Vec<u64> = (0..20).step_by(2).collect();
    assert_eq!((log.of("a"), log.of("b")), (even.clone(), even));
    let letters = ok("dead_letters", queue.dead_letters(100).await);
    assert_eq!(letters.len(), 20);
    assert_eq!(ok("depth", queue.depth().await).dead, 20);
    let first = letters.iter().find(|letter| letter.key.as_deref() == Some("a"));
    let first = first.map(|letter| {
        (letter.failures, letter.error.contains("odd"), letter.body.as_ref().to_vec())
    });
    assert_eq!(first, Some((1, true, br#"{"key":"a","number":1}"#.to_vec())));
    mended.store(true, Ordering::SeqCst);
    let mut moved = ok("redrive", queue.redrive(5).await);
    assert_eq!(moved, 5);
    moved += ok("redrive", queue.redrive(100).await);
    assert_eq!(moved, 20);
    idle(&queue).await;
    drain(worker).await;
    let odd: Vec<u64> = (1..20).step_by(2).collect();
    assert_eq!((&log.of("a")[10..], &log.of("b")[10..]), (&odd[..], &odd[..]));
    assert_eq!(ok("depth", queue.depth().await).dead, 0);
}

/// A message without a key is never parked: spent, it becomes a dead letter. So does any with `Poison::DeadLetter`.
pub async fn a_spent_unkeyed_message_is_a_dead_letter(place: &dyn Place) {
    let queue = built(builder(place.open().await).retry(quick(2))).await;
    let (log, mended) = (Log::default(), Arc::new(AtomicBool::new(false)));
    ok("publish_with", queue.publish_with(&note("bad", 1), PublishOptions::new().unkeyed()).await);
    let worker = failing(&queue, &log, &mended).await;
    idle(&queue).await;
    drain(worker).await;
    let letters = ok("dead_letters", queue.dead_letters(10).await);
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].failures, letters[0].key.is_none()), (2, true));
    queue.close().await;
    drop(queue);

    let queue = built(builder(place.open().await).retry(quick(2)).poison(Poison::DeadLetter)).await;
    let worker = failing(&queue, &log, &mended).await;
    ok("publish_many", queue.publish_many(notes(&["bad"], 4)).await);
    idle(&queue).await;
    drain(worker).await;
    assert_eq!(log.of("bad"), [0, 2, 3]);
    assert_eq!(ok("depth", queue.depth().await).dead, 2);
}

/// Purged dead letters are gone, the oldest first.
pub async fn dead_letters_are_purged(place: &dyn Place) {
    let queue = built(builder(place.open().await).partitions(1)).await;
    ok("publish_many", queue.publish_many(notes(&["a"], 6)).await);
    let worker = queue.worker(async move |_: Delivery<Note>| Err(HandlerError::reject("no")));
    let worker = ok("start", worker.start().await);
    idle(&queue).await;
    drain(worker).await;
    assert_eq!(ok("purge", queue.purge_dead_letters(4).await), 4);
    tokio::time::sleep(Duration::from_millis(60)).await;
    let redriven = tokio::time::Instant::now();
    assert_eq!(ok("redrive", queue.redrive(10).await), 2);
    let age = ok("depth", queue.depth().await).oldest_age;
    let most = redriven.elapsed() + Duration::from_millis(2);
    assert!(age.is_some_and(|age| age <= most), "they wait since they were redriven, not {age:?}");
    let log = Log::default();
    let worker = work(&queue, &log).await;
    idle(&queue).await;
    drain(worker).await;
    assert_eq!(log.of("a"), [4, 5]);
}

/// More dead letters than a broker hands out or acknowledges at a time are moved or removed once each, and counted as many as
/// they are, in their order.
pub async fn many_dead_letters_are_moved_once(place: &dyn Place) {
    const EACH: u64 = 150;
    const KEYS: [&str; 4] = ["a", "b", "c", "d"];
    let queue = queue(place).await;
    let (log, mended) = (Log::default(), Arc::new(AtomicBool::new(false)));
    let handler = {
        let (log, mended) = (log.clone(), Arc::clone(&mended));
        async move |delivery: Delivery<Note>| {
            if !mended.load(Ordering::SeqCst) {
                return Err(HandlerError::reject("not yet"));
            }
            log.push(delivery.into_message());
            Ok(())
        }
    };
    for step in ["redrive", "purge"] {
        mended.store(false, Ordering::SeqCst);
        ok("publish_many", queue.publish_many(notes(&KEYS, EACH)).await);
        let worker = ok("start", queue.worker(handler.clone()).start().await);
        until("all are dead letters", || async { ok("depth", queue.depth().await).dead == 600 })
            .await;
        drain(worker).await;
        for (limit, expected) in [(70, 70), (10_000, 530), (10_000, 0)] {
            let moved = match step {
                "redrive" => queue.redrive(limit).await,
                _ => queue.purge_dead_letters(limit).await,
            };
            assert_eq!(ok(step, moved), expected, "{step} of at most {limit}");
        }
        let depth = ok("depth", queue.depth().await);
        let ready = if step == "redrive" { 600 } else { 0 };
        assert_eq!((depth.dead, depth.ready), (0, ready), "after the {step}");
        mended.store(true, Ordering::SeqCst);
        let worker = work(&queue, &log).await;
        idle(&queue).await;
        drain(worker).await;
        for key in KEYS {
            assert_eq!(log.of(key), range(EACH), "key {key} after the {step}");
        }
    }
    assert_eq!(ok("depth", queue.depth().await).dead, 0);
}
