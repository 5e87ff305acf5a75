//! What a handler is given, and what it may answer.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use resonant_common::error::BoxError;

use crate::clock;
use crate::key::Key;
use crate::lanes::Verdict;
use crate::message::{Headers, Message};

/// One message, handed to a handler.
#[derive(Debug, Clone)]
pub struct Delivery<T> {
    message: T,
    facts: Facts,
}

#[derive(Debug, Clone)]
struct Facts {
    key: Option<Key>,
    partition: u32,
    sequence: u64,
    previous: Option<u64>,
    epoch: u64,
    attempt: u32,
    published: u64,
    headers: Option<Arc<Headers>>,
}

impl<T> Delivery<T> {
    pub(crate) fn new(decoded: T, message: &Message, partition: u32, epoch: u64) -> Self {
        let facts = Facts {
            key: message.key.clone(),
            partition,
            sequence: message.sequence,
            previous: message.previous,
            epoch,
            attempt: message.failures.saturating_add(1),
            published: message.published,
            headers: message.headers.clone(),
        };
        Self { message: decoded, facts }
    }

    /// The message.
    pub fn message(&self) -> &T {
        &self.message
    }

    /// The message by value.
    pub fn into_message(self) -> T {
        self.message
    }

    /// Its key, if it has one.
    pub fn key(&self) -> Option<&str> {
        self.facts.key.as_deref()
    }

    /// Which attempt this is; the first is 1. Attempts that ended with the process are not counted.
    pub fn attempt(&self) -> u32 {
        self.facts.attempt
    }

    /// When it took its place in the queue, by the engine's clock: when it was published, fell due after a delay, or was
    /// redriven.
    pub fn published_at(&self) -> SystemTime {
        clock::time(self.facts.published)
    }

    /// Its partition.
    pub fn partition(&self) -> u32 {
        self.facts.partition
    }

    /// Its place in the partition. Later messages of a key have higher ones.
    pub fn sequence(&self) -> u64 {
        self.facts.sequence
    }

    /// The sequence of the key's message before it, where the engine knows it. See [`SequenceCheck`].
    ///
    /// [`SequenceCheck`]: crate::SequenceCheck
    pub fn previous(&self) -> Option<u64> {
        self.facts.previous
    }

    /// The fencing value under which the partition is owned: hand it to a store that refuses lower ones, and a
    /// worker that lost the partition without noticing can no longer write there.
    pub fn epoch(&self) -> u64 {
        self.facts.epoch
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.facts.headers.as_ref()?.get(name).map(String::as_str)
    }
}

/// Consecutive messages of one key in order, or messages without a key. Never empty.
///
/// If the handler answers `Ok`, all of them are finished. If it fails, panics or is stopped, the first
/// [`done`](Run::done) of them are finished and the one after them has failed.
#[derive(Debug)]
pub struct Run<T> {
    deliveries: Vec<Delivery<T>>,
    progress: Progress,
}

/// Says how many messages of a run are finished, also after the run was taken apart.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<AtomicUsize>);

impl Progress {
    /// The first `count` messages are finished, whatever happens to the others. Never falls.
    pub fn done(&self, count: usize) {
        self.0.fetch_max(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl<T> Run<T> {
    pub(crate) fn new(deliveries: Vec<Delivery<T>>, progress: Progress) -> Self {
        Self { deliveries, progress }
    }

    /// The key they share, if they have one.
    pub fn key(&self) -> Option<&str> {
        self.deliveries.first()?.key()
    }

    /// Their partition.
    pub fn partition(&self) -> u32 {
        self.deliveries.first().map_or(0, Delivery::partition)
    }

    /// The fencing value; see [`Delivery::epoch`].
    pub fn epoch(&self) -> u64 {
        self.deliveries.first().map_or(0, Delivery::epoch)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.deliveries.len()
    }

    /// Whether there are none, which does not happen.
    pub fn is_empty(&self) -> bool {
        self.deliveries.is_empty()
    }

    /// The messages in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Delivery<T>> {
        self.deliveries.iter()
    }

    /// The first `count` messages are finished, whatever happens to the others. Never falls.
    pub fn done(&self, count: usize) {
        self.progress.done(count);
    }

    /// A handle to report [`done`](Run::done) with after the run was taken apart.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }
}

impl<T> IntoIterator for Run<T> {
    type Item = Delivery<T>;
    type IntoIter = std::vec::IntoIter<Delivery<T>>;
    fn into_iter(self) -> Self::IntoIter {
        self.deliveries.into_iter()
    }
}

impl<'a, T> IntoIterator for &'a Run<T> {
    type Item = &'a Delivery<T>;
    type IntoIter = std::slice::Iter<'a, Delivery<T>>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Why a handler failed, and what is to happen with the message.
///
/// Any error becomes one by `?` and means: try again, after the backoff.
pub struct HandlerError {
    pub(crate) verdict: Verdict,
    source: BoxError,
}

impl HandlerError {
    /// Try again after the backoff.
    pub fn retry(error: impl Into<BoxError>) -> Self {
        Self { verdict: Verdict::Retry(None), source: error.into() }
    }

    /// Try again after `wait`. Counts as an attempt like any other.
    pub fn retry_after(wait: Duration, error: impl Into<BoxError>) -> Self {
        Self { verdict: Verdict::Retry(Some(wait)), source: error.into() }
    }

    /// Trying again is of no use: make the message a dead letter; its key goes on with the next one.
    pub fn reject(error: impl Into<BoxError>) -> Self {
        Self { verdict: Verdict::Reject, source: error.into() }
    }

    /// One line about the cause, cut to 500 characters.
    pub(crate) fn line(&self) -> String {
        line(&self.source.to_string())
    }
}

/// The first line of a text, cut to 500 characters.
pub(crate) fn line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(500).collect()
}

impl<E: StdError + Send + Sync + 'static> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self::retry(error)
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("HandlerError");
        debug.field("verdict", &self.verdict).field("source", &self.source).finish()
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.source, f)
    }
}
