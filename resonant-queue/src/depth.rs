//! What a queue holds.

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::clock;
use crate::key::Key;

/// What a queue holds.
///
/// The engine counts, so every process is told the same, also one without a worker. On RabbitMQ the broker knows only what it has not
/// handed out; what workers of other processes hold these tell each other twice a second. For up to three seconds after a
/// process was killed what it held may count twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Depth {
    /// Messages that wait for a handler, retries included.
    pub ready: u64,
    /// Messages handed to a handler of this process.
    pub in_flight: u64,
    /// Messages whose delay has not passed.
    pub delayed: u64,
    /// Messages of parked keys.
    pub parked: u64,
    /// Keys that are parked.
    pub parked_keys: u64,
    /// Dead letters.
    pub dead: u64,
    /// How long ago the first ready message of any partition was published, fell due or was redriven; `None` if there is
    /// none. For a message whose key was parked that includes the time it was.
    pub oldest_age: Option<Duration>,
}

impl Depth {
    /// Messages not yet finished: ready, in flight, delayed and parked. What `queue_depth` exports.
    pub fn unfinished(&self) -> u64 {
        self.ready + self.in_flight + self.delayed + self.parked
    }

    /// How many workers the messages that wait or run ask for, at so many for each. Never more than there are partitions, as
    /// a further worker would have none; 0 if there is nothing to do. Delayed and parked messages ask for none.
    /// `resonant_queue_wanted_workers` exports it, at the queue's `messages_per_worker`.
    pub fn wanted_workers(&self, per_worker: u64, partitions: u32) -> u32 {
        let wanted = (self.ready + self.in_flight).div_ceil(per_worker.max(1));
        u32::try_from(wanted).unwrap_or(u32::MAX).min(partitions)
    }

    pub(crate) fn of(stored: Stored, in_flight: u64) -> Self {
        let in_flight = in_flight.min(stored.ready);
        Self {
            ready: stored.ready - in_flight,
            in_flight,
            delayed: stored.delayed,
            parked: stored.parked,
            parked_keys: stored.parked_keys,
            dead: stored.dead,
            oldest_age: stored.oldest_age,
        }
    }
}

/// What an engine counts: like [`Depth`], except that it does not know which ready messages are in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stored {
    /// Messages that wait or run.
    pub ready: u64,
    /// Messages whose delay has not passed.
    pub delayed: u64,
    /// Messages of parked keys.
    pub parked: u64,
    /// Keys that are parked.
    pub parked_keys: u64,
    /// Dead letters.
    pub dead: u64,
    /// How long the oldest ready message has waited.
    pub oldest_age: Option<Duration>,
}

impl Stored {
    /// All messages, as `max_depth` counts them.
    pub fn total(&self) -> u64 {
        self.ready + self.delayed + self.parked + self.dead
    }
}

/// A key that waits for somebody to look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParkedKey {
    /// The key.
    pub key: Key,
    /// Its partition.
    pub partition: u32,
    /// How many of its messages wait, the failed one included.
    pub messages: u64,
    /// The message that failed.
    pub sequence: u64,
    /// When it was parked.
    pub since: SystemTime,
    /// Why its last delivery failed.
    pub error: String,
}

impl ParkedKey {
    /// A parked key as an engine reports it; `since` in milliseconds since 1970.
    pub fn new(
        key: Key,
        partition: u32,
        messages: u64,
        sequence: u64,
        since: u64,
        error: String,
    ) -> Self {
        Self { key, partition, messages, sequence, since: clock::time(since), error }
    }
}

/// A message that failed for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its key, if it has one.
    pub key: Option<Key>,
    /// Its partition.
    pub partition: u32,
    /// The place it had there.
    pub sequence: u64,
    /// How many deliveries failed.
    pub failures: u32,
    /// When it was published.
    pub published_at: SystemTime,
    /// When it was given up.
    pub died_at: SystemTime,
    /// Why its last delivery failed.
    pub error: String,
    /// The user's JSON.
    pub body: Bytes,
}
