//! The in-process tier: decoded values, bounded by bytes.
//!
//! The engine is quick_cache, because it evicts before it inserts, under the lock of one shard: the accounted bytes
//! never exceed the limit, not even for a moment. (moka was measured against it: its bound holds only after its
//! pending tasks ran, so a burst of large values overshoots.) The engine's policy decides what to evict; time is ours:
//! each entry carries its instants on tokio's clock, checked on every read.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};
use tokio::time::Instant;

use crate::envelope::TagId;
use crate::key::{LocalKey, LocalRef};

/// What an entry costs beside its key and value: map, list, headers and the reference counts, rounded up.
pub(crate) const ENTRY_BYTES: u64 = 240;
/// A shard smaller than this refuses values that users would expect to fit.
const BYTES_PER_SHARD: u64 = 4 << 20;
const MAX_SHARDS: u64 = 32;
/// Losses remembered; what was held before is dropped.
const LOSSES: usize = 64;
/// Only sizes tables that grow anyway.
const TYPICAL_ENTRY: u64 = 512;

pub(crate) type Value = Arc<dyn Any + Send + Sync>;

/// A value, or the knowledge that there is none, as held in the process.
#[derive(Clone)]
pub(crate) struct Entry {
    /// `None` for a negative entry.
    pub(crate) value: Option<Value>,
    /// When its life ends; `None` never.
    pub(crate) fresh_until: Option<Instant>,
    /// Until when it is served from here without a further look: its life's end, or earlier where the store announces
    /// nothing, or later after a failed load.
    pub(crate) settled_until: Option<Instant>,
    /// The namespace's epoch when its load began.
    pub(crate) epoch: u64,
    pub(crate) tags: Option<Arc<[TagId]>>,
    /// Of key and value, without [`ENTRY_BYTES`].
    pub(crate) weight: u64,
    /// How often announcements had been lost when it was put here. Set by [`L1::insert`].
    pub(crate) trust: u64,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("negative", &self.value.is_none())
            .field("epoch", &self.epoch)
            .field("weight", &self.weight)
            .finish_non_exhaustive()
    }
}

impl Entry {
    pub(crate) fn tags(&self) -> &[TagId] {
        self.tags.as_deref().unwrap_or_default()
    }
}

#[derive(Debug, Clone)]
struct Weight;

impl Weighter<LocalKey, Entry> for Weight {
    fn weight(&self, _: &LocalKey, entry: &Entry) -> u64 {
        entry.weight.saturating_add(ENTRY_BYTES)
    }
}

/// Hands out what an insert pushed out, to be counted, and dropped after the shard's lock is released.
#[derive(Debug, Clone, Default)]
struct PushedOut;

impl Lifecycle<LocalKey, Entry> for PushedOut {
    type RequestState = Vec<(LocalKey, Entry)>;

    fn on_evict(&self, dropped: &mut Vec<(LocalKey, Entry)>, key: LocalKey, entry: Entry) {
        dropped.push((key, entry));
    }
}

pub(crate) struct L1 {
    engine: Cache<LocalKey, Entry, Weight, DefaultHashBuilder, PushedOut>,
    evictions: AtomicU64,
    /// How often announcements were lost.
    trust: AtomicU64,
    /// When they were, the last times.
    losses: Mutex<VecDeque<Instant>>,
}

impl L1 {
    pub(crate) fn new(max_bytes: u64) -> Self {
        let shards = (max_bytes / BYTES_PER_SHARD).clamp(1, MAX_SHARDS);
        // A power of two, and the shards' equal parts never sum to more than the limit.
        let shards = if shards.is_power_of_two() { shards } else { shards.next_power_of_two() / 2 };
        let items = usize::try_from(max_bytes / TYPICAL_ENTRY).unwrap_or(usize::MAX);
        let items = items.max(32 * usize::try_from(shards).unwrap_or(1));
        let options = OptionsBuilder::new()
            .shards(usize::try_from(shards).unwrap_or(1))
            .estimated_items_capacity(items)
            .weight_capacity(max_bytes / shards * shards)
            .build();
        let engine = match options {
            Ok(options) => {
                Cache::with_options(options, Weight, DefaultHashBuilder::default(), PushedOut)
            }
            // Only a missing capacity is refused, and it was given.
            Err(_) => {
                Cache::with(items, max_bytes, Weight, DefaultHashBuilder::default(), PushedOut)
            }
        };
        Self {
            engine,
            evictions: AtomicU64::new(0),
            trust: AtomicU64::new(0),
            losses: Mutex::default(),
        }
    }

    /// What is held. Of what was put here before announcements were lost nobody knows whether it still holds: its life
    /// ended then.
    #[inline]
    pub(crate) fn get(&self, key: LocalRef<'_>) -> Option<Entry> {
        let entry = self.engine.get(&key)?;
        if entry.trust == self.trust.load(Ordering::Acquire) {
            return Some(entry);
        }
        self.cut_short(entry)
    }

    #[cold]
    fn cut_short(&self, mut entry: Entry) -> Option<Entry> {
        let losses = self.losses.lock().unwrap_or_else(PoisonError::into_inner);
        let since = self.trust.load(Ordering::Acquire).saturating_sub(entry.trust);
        let back = usize::try_from(since).ok()?;
        let lost = *losses.get(losses.len().checked_sub(back)?)?;
        entry.fresh_until = Some(entry.fresh_until.map_or(lost, |end| end.min(lost)));
        entry.settled_until = entry.fresh_until;
        Some(entry)
    }

    /// Announcements were lost: what is held is not fresh any more, but may do where there is nothing better.
    pub(crate) fn distrust(&self, now: Instant) {
        let mut losses = self.losses.lock().unwrap_or_else(PoisonError::into_inner);
        if losses.len() == LOSSES {
            losses.pop_front();
        }
        losses.push_back(now);
        self.trust.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn insert(&self, key: LocalKey, mut entry: Entry) {
        entry.trust = self.trust.load(Ordering::Acquire);
        let mut dropped = Vec::new();
        self.engine.insert_with_lifecycle(key.clone(), entry, &mut dropped);
        // What it replaces counts as dropped, too, and is no eviction.
        let evicted = dropped.iter().filter(|(other, _)| *other != key).count();
        if evicted > 0 {
            self.evictions.fetch_add(evicted as u64, Ordering::Relaxed);
        }
    }

    pub(crate) fn remove(&self, key: LocalRef<'_>) {
        self.engine.remove(&key);
    }

    pub(crate) fn clear(&self) {
        self.engine.clear();
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.engine.weight()
    }

    pub(crate) fn len(&self) -> usize {
        self.engine.len()
    }

    /// Entries evicted for room since the last call.
    pub(crate) fn take_evictions(&self) -> u64 {
        self.evictions.swap(0, Ordering::Relaxed)
    }
}

impl fmt::Debug for L1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("L1").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_replaced_or_too_large_is_no_eviction() {
        let l1 = L1::new(64 << 10);
        let entry = |weight| Entry {
            value: Some(Arc::new(7)),
            fresh_until: None,
            settled_until: None,
            epoch: 0,
            tags: None,
            weight,
            trust: 0,
        };
        let key = |n: u32| LocalKey { namespace: 1, key: n.to_string().into() };
        for weight in [10, 20, 1 << 30, 10] {
            l1.insert(key(1), entry(weight));
        }
        assert_eq!((l1.take_evictions(), l1.len()), (0, 1));
        (0..100).for_each(|n| l1.insert(key(n), entry(1 << 10)));
        assert_eq!(l1.take_evictions(), 100 - l1.len() as u64);
    }
}
