//! One part of the memory store: everything about its keys, decided under one lock, on a `now` that is passed in.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use quick_cache::unsync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, Weighter};
use resonant_common::duration::after;
use tokio::time::Instant;

use super::super::{
    FenceAt, Guard, Key, LeaseAsk, LeaseToken, Leased, Write, WriteOutcome, version,
};
use crate::error::{Error, ErrorKind, Result};
use crate::fence::Fences;

/// What a record costs beside its key and bytes: map, list and headers, rounded up.
const RECORD_BYTES: u64 = 208;
/// Only sizes tables that grow anyway.
const TYPICAL_RECORD: u64 = 1024;

#[derive(Debug)]
pub(super) struct Shard {
    records: Cache<Name, Record, Weight, DefaultHashBuilder, DefaultLifecycle<Name, Record>>,
    leases: HashMap<Key, Lease>,
    fences: Fences<Key>,
    max_side: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Name {
    Value(Key),
    Counter(Key),
}

#[derive(Debug)]
struct Record {
    content: Content,
    until: Option<Instant>,
}

#[derive(Debug)]
enum Content {
    Value(Bytes),
    Counter(i64),
}

#[derive(Debug, Clone)]
struct Weight;

impl Weighter<Name, Record> for Weight {
    fn weight(&self, name: &Name, record: &Record) -> u64 {
        let (Name::Value(key) | Name::Counter(key)) = name;
        let content = match &record.content {
            Content::Value(bytes) => bytes.len(),
            Content::Counter(_) => 0,
        };
        (key.namespace().len() + key.key().len() + content) as u64 + RECORD_BYTES
    }
}

#[derive(Debug)]
struct Lease {
    token: LeaseToken,
    cleared: u64,
    until: Instant,
}

impl Record {
    fn is_live(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

impl Shard {
    pub(super) fn new(max_bytes: u64, max_side: usize) -> Self {
        let items = usize::try_from(max_bytes / TYPICAL_RECORD).unwrap_or(usize::MAX).max(32);
        Self {
            records: Cache::with(
                items,
                max_bytes,
                Weight,
                DefaultHashBuilder::default(),
                DefaultLifecycle::default(),
            ),
            leases: HashMap::new(),
            fences: Fences::new(max_side),
            max_side,
        }
    }

    pub(super) fn weight(&self) -> u64 {
        self.records.weight()
    }

    pub(super) fn read(&mut self, key: &Key, now: Instant) -> Option<Bytes> {
        let name = Name::Value(key.clone());
        match self.records.get(&name) {
            Some(Record { content: Content::Value(bytes), until })
                if until.is_none_or(|until| now < until) =>
            {
                Some(bytes.clone())
            }
            Some(_) => {
                self.records.remove(&name);
                None
            }
            None => None,
        }
    }

    pub(super) fn write(&mut self, write: Write, now: Instant) -> WriteOutcome {
        let Write { key, value, ttl, guard, fence } = write;
        if !self.holds(&key, guard, now)
            || fence.is_some_and(|fence| !self.fences.admits(&key, &fence.position, now))
        {
            return WriteOutcome::Refused;
        }
        self.leases.remove(&key);
        if let Some(fence) = fence {
            self.fences.raise(&key, fence.position, fence.ttl, now);
        }
        let record =
            Record { content: Content::Value(value), until: ttl.map(|ttl| after(now, ttl)) };
        self.records.insert(Name::Value(key), record);
        WriteOutcome::Stored
    }

    fn holds(&mut self, key: &Key, guard: Guard, now: Instant) -> bool {
        match guard {
            Guard::Always => true,
            Guard::Absent => self.stored_version(key, now).is_none(),
            Guard::Version(expected) => self.stored_version(key, now) == Some(expected),
            Guard::Lease(token) => {
                self.leases.get(key).is_some_and(|lease| lease.token == token && now < lease.until)
            }
        }
    }

    fn stored_version(&mut self, key: &Key, now: Instant) -> Option<super::super::Version> {
        self.read(key, now).and_then(|bytes| version(&bytes))
    }

    pub(super) fn remove(&mut self, key: &Key, fence: Option<FenceAt>, now: Instant) -> bool {
        self.leases.remove(key);
        if let Some(fence) = fence {
            self.fences.raise(key, fence.position, fence.ttl, now);
        }
        self.records.remove(&Name::Counter(key.clone()));
        self.records
            .remove(&Name::Value(key.clone()))
            .is_some_and(|(_, record)| record.is_live(now))
    }

    pub(super) fn lease(&mut self, key: &Key, ask: LeaseAsk, now: Instant) -> Leased {
        match self.leases.get(key) {
            Some(held) if now < held.until && ask.cleared <= held.cleared => {
                return Leased::Held { remaining: held.until.duration_since(now) };
            }
            None if self.leases.len() >= self.max_side => self.drop_leases(now),
            _ => {}
        }
        let LeaseAsk { token, cleared, ttl, .. } = ask;
        self.leases.insert(key.clone(), Lease { token, cleared, until: after(now, ttl) });
        Leased::Granted
    }

    /// Makes room: lapsed leases first; if all are live, all are dropped, which refuses their fills.
    fn drop_leases(&mut self, now: Instant) {
        self.leases.retain(|_, lease| now < lease.until);
        if self.leases.len() >= self.max_side {
            self.leases.clear();
        }
    }

    pub(super) fn release(&mut self, key: &Key, token: LeaseToken) {
        if self.leases.get(key).is_some_and(|lease| lease.token == token) {
            self.leases.remove(key);
        }
    }

    pub(super) fn add(
        &mut self,
        key: &Key,
        by: i64,
        ttl: Option<Duration>,
        now: Instant,
    ) -> Result<i64> {
        let name = Name::Counter(key.clone());
        let held = self.records.get(&name).filter(|record| record.is_live(now));
        let (count, until) = match held {
            Some(Record { content: Content::Counter(count), until }) => (*count, *until),
            _ if by == 0 => return Ok(0),
            _ => (0, ttl.map(|ttl| after(now, ttl))),
        };
        let sum = count.checked_add(by).ok_or_else(|| {
            let message = "the counter would overflow 64 bits; nothing was changed";
            Error::new(ErrorKind::Rejected, "add", message)
        })?;
        self.records.insert(name, Record { content: Content::Counter(sum), until });
        Ok(sum)
    }
}
