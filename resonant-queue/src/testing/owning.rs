//! Who may act on a partition, and how workers end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::Place;
use super::kit::{
    Log, Note, builder, built, drain, idle, notes, ok, queue, range, refused, until, within, work,
};
use crate::backend::{Fetch, Opened, QueueSpec, QueueStore, Settlement};
use crate::message::Outgoing;
use crate::{Delivery, ErrorKind, HandlerError, Key};

/// A partition with four messages, and whether the engine numbers them.
async fn store(place: &dyn Place) -> (Arc<dyn QueueStore>, bool) {
    let backend = place.open().await;
    let store = ok("declare", backend.declare(&QueueSpec::new("raw", 1)).await);
    let batch = (0..4)
        .map(|number| Outgoing::new(0, Some(Key::from("a")), Bytes::from(number.to_string())));
    ok("publish", store.publish(Arc::new(batch.collect())).await);
    (store, backend.capabilities().numbered)
}

/// Opens the partition and reads all of it. The opening lasts as long as what comes with it.
async fn read(store: &Arc<dyn QueueStore>, epoch: u64) -> (Vec<u64>, Opened) {
    let opened = ok("open", store.open(0, epoch).await);
    let fetched = ok("fetch", opened.feed.fetch(Fetch::after(0, 100)).await);
    (fetched.messages.iter().map(|message| message.sequence).collect(), opened)
}

fn done(sequences: &[u64]) -> Arc<Vec<Settlement>> {
    Arc::new(sequences.iter().map(|&sequence| Settlement::Done { sequence }).collect())
}

/// Once a partition was opened for an epoch, nobody of a lower one changes anything or opens it again.
pub async fn a_zombie_settles_nothing(place: &dyn Place) {
    let (store, numbered) = store(place).await;
    // Without lasting sequences only their number can be compared.
    let same = |now: &[u64], before: &[u64]| {
        assert!(now.len() == before.len() && (!numbered || now == before), "{now:?} {before:?}");
    };
    let (all, _zombie) = read(&store, 3).await;
    assert_eq!(all.len(), 4);
    ok("settle", store.settle(0, 3, done(&all[..1])).await);
    let (taken, _first) = read(&store, 5).await;
    same(&taken, &all[1..]);
    refused("settle", store.settle(0, 3, done(&all)).await, ErrorKind::Fenced);
    refused("open", store.open(0, 4).await, ErrorKind::Fenced);
    let (left, _second) = read(&store, 5).await;
    // The zombie changed nothing.
    same(&left, &all[1..]);
    ok("settle", store.settle(0, 5, done(&left[..1])).await);
    same(&read(&store, 5).await.0, &left[1..]);
}

/// That a key was resumed is told to the owner, whoever it has superseded still reads.
pub async fn a_zombie_takes_no_resumption(place: &dyn Place) {
    let (store, _) = store(place).await;
    let (all, zombie) = read(&store, 3).await;
    let park = Settlement::Park { sequence: all[0], failures: 1, error: "no".into() };
    let behind = all[1..].iter().map(|&sequence| Settlement::ParkBehind { sequence });
    ok("settle", store.settle(0, 3, Arc::new([park].into_iter().chain(behind).collect())).await);
    let heir = ok("open", store.open(0, 5).await);
    assert_eq!(heir.parked, [Key::from("a")]);
    assert_eq!(ok("resume_key", store.resume_key(0, &Key::from("a")).await), Some(4));
    // What it is given or told, if anything, it cannot settle.
    let read = zombie.feed.fetch(Fetch::after(0, 100));
    let _ = tokio::time::timeout(Duration::from_millis(200), read).await;
    let (mut told, mut given) = (false, 0);
    while given < 4 {
        let fetch = heir.feed.fetch(Fetch::after(0, 100));
        let fetched = ok("fetch", within("the resumed key", fetch).await);
        told |= fetched.resumed.iter().any(|(key, _)| key.as_str() == "a");
        given += fetched.messages.len();
        assert!(told, "given before it was told: {fetched:?}");
    }
}

/// A read keeps within its bounds, gives one message at least, and says whether there is more.
pub async fn a_read_keeps_within_its_bounds(place: &dyn Place) {
    let (store, _) = store(place).await;
    let opened = ok("open", store.open(0, 1).await);
    let mut after = 0;
    // Bodies of one byte each.
    for (limit, bytes, expected, more) in [(10, 0, 1, true), (1, 9, 1, true), (10, 9, 2, false)] {
        let fetch = Fetch::after(after, limit).bytes(bytes);
        let fetched = ok("fetch", opened.feed.fetch(fetch).await);
        assert_eq!((fetched.messages.len(), fetched.more), (expected, more), "{fetch:?}");
        after = fetched.messages.last().map_or(after, |message| message.sequence);
    }
}

/// A settlement that is repeated, or about a message that is gone, changes nothing.
pub async fn settling_twice_changes_nothing(place: &dyn Place) {
    let (store, _) = store(place).await;
    let (all, _opened) = read(&store, 1).await;
    let dead = Settlement::Dead { sequence: all[1], failures: 1, error: "no".into() };
    let parked = Settlement::Park { sequence: all[2], failures: 1, error: "no".into() };
    let behind = Settlement::ParkBehind { sequence: all[3] };
    let batch = Arc::new(vec![Settlement::Done { sequence: all[0] }, dead, parked, behind]);
    for _ in 0..2 {
        ok("settle", store.settle(0, 1, Arc::clone(&batch)).await);
        let stored = ok("stored", store.stored().await);
        assert_eq!((stored.ready, stored.dead, stored.parked, stored.parked_keys), (0, 1, 2, 1));
    }
    ok("settle", store.settle(0, 1, done(&[1_000_000])).await);
    assert_eq!(ok("stored", store.stored().await).total(), 3);
}

/// A queue that exists is not opened with another number of partitions.
pub async fn another_number_of_partitions_is_refused(place: &dyn Place) {
    let backend = place.open().await;
    let first = built(builder(Arc::clone(&backend)).partitions(4)).await;
    let other = builder(backend).partitions(8).build().await;
    refused("build", other, ErrorKind::Incompatible);
    ok("ping", first.ping().await);
    first.close().await;
    refused("ping", first.ping().await, ErrorKind::Closed);
    refused("publish_many", first.publish_many(notes(&["a"], 1)).await, ErrorKind::Closed);
}

/// A drain waits for handlers that run, settles them, takes nothing new; another worker goes on in order.
pub async fn a_drain_finishes_what_runs_and_leaves_the_rest(place: &dyn Place) {
    let queue = queue(place).await;
    ok("publish_many", queue.publish_many(notes(&["a", "b"], 10)).await);
    let (log, began, gate) = (Log::default(), Log::default(), Arc::new(Semaphore::new(0)));
    let handler = {
        let (log, began, gate) = (log.clone(), began.clone(), Arc::clone(&gate));
        async move |delivery: Delivery<Note>| {
            began.push(delivery.message().clone());
            let _permit = gate.acquire().await;
            log.push(delivery.into_message());
            Ok::<(), HandlerError>(())
        }
    };
    let worker = ok("start", queue.worker(handler).start().await);
    until("both keys begin", || async { began.len() == 2 }).await;
    let drained = tokio::spawn(worker.drain());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!drained.is_finished(), "a drain waits for handlers");
    gate.add_permits(1);
    match within("the drain", drained).await {
        Ok(report) => {
            let report = ok("drain", report);
            assert_eq!((report.done, report.abandoned), (2, 0), "{report:?}");
        }
        Err(error) => panic!("the drain died: {error}"),
    }
    assert_eq!(ok("depth", queue.depth().await).ready, 18);
    let worker = work(&queue, &log).await;
    idle(&queue).await;
    drain(worker).await;
    assert_eq!((log.of("a"), log.of("b")), (range(10), range(10)), "nothing came twice");
}

/// What a dropped worker had not finished comes again, in order.
pub async fn a_dropped_worker_loses_nothing(place: &dyn Place) {
    let queue = queue(place).await;
    ok("publish_many", queue.publish_many(notes(&["a", "b", "c"], 10)).await);
    let (log, stuck) = (Log::default(), Log::default());
    let handler = {
        let (log, stuck) = (log.clone(), stuck.clone());
        async move |delivery: Delivery<Note>| {
            if delivery.message().number == 4 {
                stuck.push(delivery.into_message());
                return std::future::pending().await;
            }
            log.push(delivery.into_message());
            Ok::<(), HandlerError>(())
        }
    };
    let worker = ok("start", queue.worker(handler).start().await);
    until("all keys are stuck", || async { stuck.len() == 3 }).await;
    until("what was finished is settled", || async {
        ok("depth", queue.depth().await).unfinished() == 18
    })
    .await;
    drop(worker);
    let worker = work(&queue, &log).await;
    idle(&queue).await;
    drain(worker).await;
    for (key, numbers) in log.by_key() {
        assert_eq!(numbers, range(10), "key {key}");
    }
}

/// A paused queue hands out nothing, also after it was opened again, until somebody resumes it.
pub async fn a_pause_is_kept(place: &dyn Place) {
    let first = queue(place).await;
    ok("pause", first.pause().await);
    ok("publish_many", first.publish_many(notes(&["a"], 5)).await);
    first.close().await;
    drop(first);
    let second = queue(place).await;
    assert!(second.is_paused());
    let log = Log::default();
    let worker = work(&second, &log).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(log.len(), 0);
    ok("resume", second.resume().await);
    idle(&second).await;
    drain(worker).await;
    assert_eq!(log.of("a"), range(5));
}
