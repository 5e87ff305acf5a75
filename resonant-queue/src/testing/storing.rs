//! What is stored, refused, counted and kept.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Place;
use super::kit::{
    Log, Note, builder, built, drain, idle, note, notes, ok, queue, quick, range, refused, within,
    work,
};
use crate::{Delivery, ErrorKind, HandlerError, PublishOptions};

/// A batch that does not fit is refused whole; receipts tell places that rise in the order of the batch.
pub async fn a_batch_is_stored_whole_or_not_at_all(place: &dyn Place) {
    let backend = place.open().await;
    let wait = Duration::from_millis(20);
    let queue = built(builder(backend).max_depth(10).publish_timeout(wait)).await;
    let receipts = ok("publish_many", queue.publish_many(notes(&["a", "b"], 4)).await);
    assert_eq!(receipts.len(), 8);
    let of_a: Vec<_> = receipts.iter().step_by(2).map(|receipt| receipt.sequence).collect();
    if queue.capabilities().numbered {
        assert!(of_a.is_sorted() && of_a.iter().all(Option::is_some), "{of_a:?}");
        assert_eq!(of_a.iter().collect::<BTreeSet<_>>().len(), 4);
    }
    refused("publish_many", queue.publish_many(notes(&["a"], 3)).await, ErrorKind::Full);
    refused("publish_many", queue.publish_many(notes(&["a"], 11)).await, ErrorKind::TooLarge);
    assert_eq!(ok("depth", queue.depth().await).ready, 8);
    assert_eq!(ok("publish_many", queue.publish_many(Vec::<Note>::new()).await), []);
}

/// A full queue refuses who asks and lets who waits go on once there is room.
pub async fn a_full_queue_holds_publishers_back(place: &dyn Place) {
    let queue = built(builder(place.open().await).max_depth(3)).await;
    ok("publish_many", queue.publish_many(notes(&["a"], 3)).await);
    refused("try_publish", queue.try_publish(&note("a", 3)).await, ErrorKind::Full);
    let waiting = tokio::spawn(queue.publish(&note("a", 3)));
    let log = Log::default();
    let worker = work(&queue, &log).await;
    match within("room", waiting).await {
        Ok(published) => ok("publish", published),
        Err(error) => panic!("the publish died: {error}"),
    };
    idle(&queue).await;
    drain(worker).await;
    assert_eq!(log.of("a"), range(4));
}

/// A body over the limit is refused and nothing is stored.
pub async fn a_large_payload_is_refused(place: &dyn Place) {
    let queue = built(builder(place.open().await).max_payload(64)).await;
    let large = Note { key: "x".repeat(80), number: 0 };
    refused("publish", queue.publish(&large).await, ErrorKind::TooLarge);
    let batch = [note("a", 0), large];
    refused("publish_many", queue.publish_many(&batch).await, ErrorKind::TooLarge);
    assert_eq!(ok("depth", queue.depth().await).unfinished(), 0);
}

/// A remembered id stores nothing and gives the first receipt, also inside one batch and after the message is gone.
pub async fn a_unique_id_is_stored_once(place: &dyn Place) {
    let queue = queue(place).await;
    let options = || PublishOptions::new().unique_id("job-7");
    let first = ok("publish_with", queue.publish_with(&note("a", 0), options()).await);
    let second = ok("publish_with", queue.publish_with(&note("a", 1), options()).await);
    assert_eq!((first.duplicate, second.duplicate), (false, true));
    assert_eq!((first.partition, first.sequence), (second.partition, second.sequence));
    assert_eq!(ok("depth", queue.depth().await).ready, 1);
    let log = Log::default();
    let worker = work(&queue, &log).await;
    idle(&queue).await;
    assert!(ok("publish_with", queue.publish_with(&note("a", 2), options()).await).duplicate);
    let other = PublishOptions::new().unique_id("job-8");
    assert!(!ok("publish_with", queue.publish_with(&note("a", 3), other).await).duplicate);
    idle(&queue).await;
    drain(worker).await;
    assert_eq!(log.of("a"), [0, 3]);
}

/// A delayed message comes no earlier than it should, behind what its key published meanwhile.
pub async fn a_delayed_message_comes_when_it_is_due(place: &dyn Place) {
    let queue = queue(place).await;
    let delay = Duration::from_secs(3);
    let began = tokio::time::Instant::now();
    let log = Log::default();
    let worker = work(&queue, &log).await;
    let receipt = ok(
        "publish_with",
        queue.publish_with(&note("a", 9), PublishOptions::new().delay(delay)).await,
    );
    assert_eq!(receipt.sequence, None);
    assert_eq!(ok("depth", queue.depth().await).delayed, 1);
    ok("publish_many", queue.publish_many(notes(&["a"], 3)).await);
    idle(&queue).await;
    assert!(
        began.elapsed() + Duration::from_millis(2) >= delay,
        "it came after {:?}",
        began.elapsed()
    );
    drain(worker).await;
    assert_eq!(log.of("a"), [0, 1, 2, 9]);
}

/// Ready, running and delayed messages are told apart, and the age is that of the oldest.
pub async fn depth_and_age_are_told(place: &dyn Place) {
    let queue = queue(place).await;
    let empty = ok("depth", queue.depth().await);
    assert_eq!((empty.unfinished(), empty.oldest_age), (0, None));
    ok("publish_many", queue.publish_many(notes(&["a"], 3)).await);
    let later = PublishOptions::new().delay(Duration::from_secs(3600));
    ok("publish_with", queue.publish_with(&note("a", 3), later).await);
    tokio::time::sleep(Duration::from_millis(30)).await;
    let depth = ok("depth", queue.depth().await);
    assert_eq!((depth.ready, depth.in_flight, depth.delayed, depth.unfinished()), (3, 0, 1, 4));
    assert!(depth.oldest_age.is_some_and(|age| age >= Duration::from_millis(28)), "{depth:?}");
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let handler = {
        let gate = std::sync::Arc::clone(&gate);
        async move |_: Delivery<Note>| {
            let _permit = gate.acquire().await;
            Ok::<(), HandlerError>(())
        }
    };
    let worker = ok("start", queue.worker(handler).start().await);
    super::kit::until("one in flight", || async {
        let depth = ok("depth", queue.depth().await);
        (depth.ready, depth.in_flight) == (2, 1)
    })
    .await;
    gate.add_permits(1);
    super::kit::until("nothing ready", || async {
        ok("depth", queue.depth().await).unfinished() == 1
    })
    .await;
    assert_eq!(ok("depth", queue.depth().await).oldest_age, None);
    drain(worker).await;
}

/// Everything is there when the engine is opened again: what waits, failed, is delayed, parked or dead, ids and places.
pub async fn opening_again_finds_everything(place: &dyn Place) {
    let first = queue(place).await;
    ok("publish_many", first.publish_many(notes(&["dead", "bad", "a"], 5)).await);
    let once = || PublishOptions::new().unique_id("once");
    let receipt = ok("publish_with", first.publish_with(&note("a", 5), once()).await);
    let later = PublishOptions::new().delay(Duration::from_millis(600));
    ok("publish_with", first.publish_with(&note("late", 0), later).await);
    let handler = async move |delivery: Delivery<Note>| {
        let note = delivery.message();
        match (note.key.as_str(), note.number) {
            ("dead", 0) => Err(HandlerError::reject("dead")),
            // Long enough that it is opened again before.
            ("dead", 2) => Err(HandlerError::retry_after(Duration::from_secs(2), "later")),
            ("bad", 1) => Err(HandlerError::retry("bad")),
            ("a", 2) | ("late", _) => std::future::pending().await,
            _ => Ok(()),
        }
    };
    let worker = ok("start", first.worker(handler).start().await);
    super::kit::until("the first round", || async {
        let (depth, report) = (ok("depth", first.depth().await), worker.report());
        // dead 2, 3, 4, a 2, 3, 4, 5 and late 0 wait.
        let waiting = depth.ready + depth.in_flight + depth.delayed;
        (waiting, depth.parked, depth.dead, report.done, report.retried) == (8, 4, 1, 4, 5)
    })
    .await;
    drop(worker);
    first.close().await;
    drop(first);

    let second = built(builder(place.open().await).retry(quick(5))).await;
    assert_eq!(ok("parked", second.parked(10).await).len(), 1);
    let again = ok("publish_with", second.publish_with(&note("a", 5), once()).await);
    assert_eq!((again.duplicate, again.sequence), (true, receipt.sequence));
    let next = ok("publish", second.publish(&note("a", 6)).await);
    let can = second.capabilities();
    assert!(next.sequence > receipt.sequence || !can.numbered, "places only rise");
    let (log, attempts) =
        (Log::default(), std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0)));
    let handler = {
        let (log, attempts) = (log.clone(), std::sync::Arc::clone(&attempts));
        async move |delivery: Delivery<Note>| {
            if delivery.message() == &note("dead", 2) {
                attempts.store(delivery.attempt(), std::sync::atomic::Ordering::SeqCst);
            }
            log.push(delivery.into_message());
            Ok::<(), HandlerError>(())
        }
    };
    let worker = ok("start", second.worker(handler).start().await);
    assert_eq!(ok("resume_key", second.resume_key("bad").await), 4);
    assert_eq!(ok("redrive", second.redrive(10).await), 1);
    idle(&second).await;
    drain(worker).await;
    assert_eq!(log.of("a"), [2, 3, 4, 5, 6]);
    assert_eq!(log.of("bad"), [1, 2, 3, 4]);
    assert_eq!(log.of("dead"), [2, 3, 4, 0]);
    assert_eq!(log.of("late"), [0]);
    let attempt = if can.remembers_failures { 2 } else { 1 };
    assert_eq!(
        attempts.load(std::sync::atomic::Ordering::SeqCst),
        attempt,
        "failures are remembered"
    );
}
