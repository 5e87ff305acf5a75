//! What the cases share.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{LIMIT, Place};
use crate::backend::Backend;
use crate::{
    Backoff, Delivery, ErrorKind, HandlerError, PartitionedQueue, QueueBuilder, Result,
    RetryConfig, Worker,
};

/// A message of the suite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    pub(super) key: String,
    pub(super) number: u64,
}

pub(super) fn note(key: &str, number: u64) -> Note {
    Note { key: key.into(), number }
}

/// `count` messages of each key, taking turns.
pub(super) fn notes(keys: &[&str], count: u64) -> Vec<Note> {
    (0..count).flat_map(|number| keys.iter().map(move |key| note(key, number))).collect()
}

/// A queue with four partitions and quick retries.
pub(super) fn builder(backend: Arc<dyn Backend>) -> QueueBuilder<Note> {
    PartitionedQueue::builder("suite")
        .partitions(4)
        .partition_key("key")
        .retry(quick(5))
        .lease_ttl(Duration::from_secs(2))
        .backend(backend)
}

pub(super) async fn queue(place: &dyn Place) -> PartitionedQueue<Note> {
    built(builder(place.open().await)).await
}

pub(super) async fn built(builder: QueueBuilder<Note>) -> PartitionedQueue<Note> {
    ok("build", builder.build().await)
}

pub(super) fn quick(max_attempts: u32) -> RetryConfig {
    let (initial, max) = (Duration::from_millis(2), Duration::from_millis(10));
    RetryConfig { max_attempts, backoff: Backoff { initial, max, factor: 2.0 } }
}

/// What a handler finished, in the order it did.
#[derive(Debug, Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<Note>>>);

impl Log {
    pub(super) fn push(&self, note: Note) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(note);
    }

    pub(super) fn all(&self) -> Vec<Note> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn len(&self) -> usize {
        self.all().len()
    }

    pub(super) fn of(&self, key: &str) -> Vec<u64> {
        self.all().iter().filter(|note| note.key == key).map(|note| note.number).collect()
    }

    pub(super) fn by_key(&self) -> BTreeMap<String, Vec<u64>> {
        let mut keys: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for note in self.all() {
            keys.entry(note.key).or_default().push(note.number);
        }
        keys
    }
}

/// A worker that finishes everything and writes it down.
pub(super) async fn work(queue: &PartitionedQueue<Note>, log: &Log) -> Worker {
    let log = log.clone();
    let worker = queue.worker(async move |delivery: Delivery<Note>| {
        log.push(delivery.into_message());
        Ok::<(), HandlerError>(())
    });
    ok("start", worker.start().await)
}

pub(super) fn ok<T>(what: &str, result: Result<T>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{what} failed: {error:?}"),
    }
}

pub(super) fn refused<T>(what: &str, result: Result<T>, kind: ErrorKind) {
    match result {
        Ok(_) => panic!("{what} succeeded where {kind:?} was due"),
        Err(error) => assert_eq!(error.kind(), kind, "{what}: {error:?}"),
    }
}

/// Waits for a state.
pub(super) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    };
    within(what, wait).await;
}

/// Waits for something that should happen.
pub(super) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what} did not happen within {LIMIT:?}"),
    }
}

/// Waits until nothing but what is parked or dead is left.
pub(super) async fn idle(queue: &PartitionedQueue<Note>) {
    until("an empty queue", || async {
        let depth = ok("depth", queue.depth().await);
        depth.ready + depth.in_flight + depth.delayed == 0
    })
    .await;
}

pub(super) async fn drain(worker: Worker) -> crate::DrainReport {
    ok("drain", within("the drain", worker.drain()).await)
}

pub(super) fn range(count: u64) -> Vec<u64> {
    (0..count).collect()
}
