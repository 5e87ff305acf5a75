//! One partition in memory. Plain data under its owner's mutex.

use std::collections::{BTreeMap, HashMap};

use tokio::time::Instant;

use super::ring::Ring;
use crate::backend::{Fetch, Fetched, Settlement};
use crate::depth::{DeadLetter, ParkedKey};
use crate::key::Key;
use crate::message::{Message, Outgoing};
use crate::{clock, error};

/// Keys whose last sequence is remembered beyond what is stored.
const KEYS: usize = 100_000;

#[derive(Debug, Default)]
pub(super) struct Partition {
    pub(super) number: u32,
    /// The highest sequence given out.
    last: u64,
    epoch: u64,
    /// Counts openings. Only the last one is told what was resumed.
    opening: u64,
    pub(super) messages: Ring<Stored>,
    /// The last sequence of each key.
    keys: HashMap<Key, u64>,
    pub(super) parked: BTreeMap<Key, Parked>,
    /// Keys resumed since the partition was opened, not yet reported.
    resumed: Vec<(Key, u64)>,
}

#[derive(Debug)]
pub(super) struct Stored {
    message: Message,
    /// When a failed one may be tried again.
    due: Option<Instant>,
    pub(super) since: Instant,
}

#[derive(Debug)]
pub(super) struct Parked {
    sequence: u64,
    pub(super) since: u64,
    error: String,
    pub(super) messages: BTreeMap<u64, Stored>,
}

/// A dead letter and where it was.
#[derive(Debug)]
pub(super) struct Dead {
    pub(super) letter: DeadLetter,
    headers: Option<std::sync::Arc<crate::message::Headers>>,
}

/// What a batch of settlements changed in the numbers of the queue.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// Finished messages, to be dropped by who does not hold the partition.
    pub(super) removed: Vec<Stored>,
    pub(super) dead: Vec<Dead>,
}

impl Partition {
    pub(super) fn new(number: u32) -> Self {
        Self { number, ..Self::default() }
    }

    /// Stores a message at the end.
    pub(super) fn append(&mut self, message: &Outgoing, published: u64, now: Instant) -> u64 {
        self.last += 1;
        let sequence = self.last;
        let previous = message.key.as_ref().and_then(|key| self.follow(key, sequence));
        let message = Message {
            sequence,
            previous,
            key: message.key.clone(),
            failures: 0,
            wait: None,
            published,
            headers: message.headers.clone(),
            body: message.body.clone(),
        };
        self.messages.insert(sequence, Stored { message, due: None, since: now });
        sequence
    }

    /// Notes the last sequence of a key and returns the one before.
    fn follow(&mut self, key: &Key, sequence: u64) -> Option<u64> {
        if let Some(last) = self.keys.get_mut(key) {
            return Some(std::mem::replace(last, sequence));
        }
        if self.keys.len() >= KEYS {
            // Unknown predecessors hide gaps but invent none.
            self.keys.clear();
        }
        self.keys.insert(key.clone(), sequence);
        None
    }

    /// The number of the opening and the keys that are parked.
    pub(super) fn open(&mut self, epoch: u64) -> error::Result<(u64, Vec<Key>)> {
        if epoch < self.epoch {
            return Err(error::fenced("open", self.number, epoch, self.epoch));
        }
        self.epoch = epoch;
        self.opening += 1;
        self.resumed.clear();
        Ok((self.opening, self.parked.keys().cloned().collect()))
    }

    pub(super) fn fetch(&mut self, fetch: Fetch, opening: u64, now: Instant) -> Fetched {
        let until = fetch.until.unwrap_or(u64::MAX);
        let mut range = self.messages.after(fetch.after, until);
        let fitting = fetch.fitting(range.clone().map(|stored| stored.message.body.len()));
        let mut messages = Vec::with_capacity(fitting);
        messages.extend(range.by_ref().take(fitting).map(|stored| {
            let mut message = stored.message.clone();
            message.wait = stored
                .due
                .map(|due| due.saturating_duration_since(now))
                .filter(|wait| !wait.is_zero());
            message
        }));
        let more = range.next().is_some();
        let resumed =
            if opening == self.opening { std::mem::take(&mut self.resumed) } else { Vec::new() };
        Fetched { messages, resumed, more }
    }

    pub(super) fn settle(
        &mut self,
        epoch: u64,
        batch: &[Settlement],
        now: Instant,
        wall: u64,
    ) -> error::Result<Change> {
        if epoch != self.epoch {
            return Err(error::fenced("settle", self.number, epoch, self.epoch));
        }
        let mut change = Change::default();
        change.removed.reserve(batch.len());
        for settlement in batch {
            match settlement {
                Settlement::Done { sequence } => {
                    change.removed.extend(self.messages.remove(*sequence));
                }
                Settlement::Retry { sequence, failures, wait, .. } => {
                    if let Some(stored) = self.messages.get_mut(*sequence) {
                        stored.message.failures = *failures;
                        stored.due = Some(clock::after(now, *wait));
                    }
                }
                Settlement::Park { sequence, failures, error } => {
                    self.park(*sequence, *failures, error, wall);
                }
                Settlement::ParkBehind { sequence } => self.park_behind(*sequence),
                Settlement::Dead { sequence, failures, error } => {
                    if let Some(stored) = self.messages.remove(*sequence) {
                        change.dead.push(self.bury(stored.message, *failures, error, wall));
                    }
                }
            }
        }
        Ok(change)
    }

    fn bury(&self, message: Message, failures: u32, error: &str, wall: u64) -> Dead {
        let letter = DeadLetter {
            key: message.key,
            partition: self.number,
            sequence: message.sequence,
            failures,
            published_at: clock::time(message.published),
            died_at: clock::time(wall),
            error: error.to_owned(),
            body: message.body,
        };
        Dead { letter, headers: message.headers }
    }

    fn park(&mut self, sequence: u64, failures: u32, error: &str, wall: u64) {
        let Some(mut stored) = self.messages.remove(sequence) else { return };
        let Some(key) = stored.message.key.clone() else {
            self.messages.insert(sequence, stored);
            return;
        };
        stored.message.failures = failures;
        let parked = self.parked.entry(key).or_insert_with(|| Parked {
            sequence,
            since: wall,
            error: error.to_owned(),
            messages: BTreeMap::new(),
        });
        parked.messages.insert(sequence, stored);
    }

    fn park_behind(&mut self, sequence: u64) {
        let key = self.messages.get(sequence).and_then(|stored| stored.message.key.clone());
        let Some(parked) = key.and_then(|key| self.parked.get_mut(&key)) else { return };
        if let Some(stored) = self.messages.remove(sequence) {
            parked.messages.insert(sequence, stored);
        }
    }

    pub(super) fn resume(&mut self, key: &Key) -> Option<u64> {
        let parked = self.parked.remove(key)?;
        let count = parked.messages.len() as u64;
        for (sequence, mut stored) in parked.messages {
            stored.message.failures = 0;
            stored.due = None;
            self.messages.insert(sequence, stored);
        }
        self.resumed.push((key.clone(), parked.sequence));
        Some(count)
    }

    pub(super) fn parked_keys(&self) -> impl Iterator<Item = ParkedKey> + '_ {
        self.parked.iter().map(|(key, parked)| {
            let (count, error) = (parked.messages.len() as u64, parked.error.clone());
            ParkedKey::new(key.clone(), self.number, count, parked.sequence, parked.since, error)
        })
    }
}

impl Dead {
    /// The message to publish anew.
    pub(super) fn revive(self) -> Outgoing {
        let mut message = Outgoing::new(self.letter.partition, self.letter.key, self.letter.body);
        message.headers = self.headers;
        message
    }
}
