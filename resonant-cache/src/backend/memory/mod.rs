//! A store inside the process: for tests, for programs that are alone, and as the measure of what a store must do.
//!
//! It is bounded by bytes, evicts by S3-FIFO, keeps time on tokio's clock, and announces every change before the call
//! that made it returns. Several caches may share one; each then behaves as a process of its own would, which makes it
//! the place to test a fleet in one program. Nothing survives the process.

mod shard;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use std::collections::HashMap;
use tokio::time::Instant;

use self::shard::Shard;
use super::{
    Announces, Bump, Capabilities, Epochs, Event, FenceAt, Key, LeaseAsk, LeaseToken, Leased,
    Listener, Origin, ReadFrom, Store, TagId, Write, WriteOutcome,
};
use crate::epochs::EpochTable;
use crate::error::Result;

/// Bytes below which one more shard is not worth it: a value must fit into one shard.
const BYTES_PER_SHARD: u64 = 16 << 20;
const MAX_SHARDS: u64 = 16;
/// Tags and fences remembered; forgetting costs misses, never correctness.
const MAX_TAGS: usize = 65_536;
const MAX_SIDE_RECORDS: usize = 262_144;

/// A [`Store`] inside the process.
///
/// # Limits
///
/// The bytes it accounts for (values, keys, and a fixed 208 per record) never exceed `max_bytes`. It is divided into
/// shards of at least 16 MiB, and a value larger than its shard is not kept. Leases and fences are counted apart:
/// 262,144 of each at most.
pub struct MemoryStore {
    shards: Box<[Mutex<Shard>]>,
    epochs: Mutex<HashMap<Arc<str>, EpochTable>>,
    listeners: RwLock<Vec<(Origin, Weak<dyn Listener>)>>,
    next_origin: AtomicU64,
    start: Instant,
    max_bytes: u64,
}

impl MemoryStore {
    /// An empty store that accounts for at most `max_bytes`.
    pub fn new(max_bytes: u64) -> Self {
        let count = (max_bytes / BYTES_PER_SHARD).clamp(1, MAX_SHARDS);
        let side = MAX_SIDE_RECORDS / usize::try_from(count).unwrap_or(1);
        Self {
            shards: (0..count).map(|_| Mutex::new(Shard::new(max_bytes / count, side))).collect(),
            epochs: Mutex::new(HashMap::new()),
            listeners: RwLock::new(Vec::new()),
            next_origin: AtomicU64::new(1),
            start: Instant::now(),
            max_bytes,
        }
    }

    /// The bytes it accounts for now.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| lock(shard).weight()).sum()
    }

    fn shard<T>(&self, key: &Key, act: impl FnOnce(&mut Shard) -> T) -> T {
        let hash = resonant_common::hash::key_hash(key.key().as_bytes());
        // The remainder is an index, so it fits.
        let index = usize::try_from(hash % self.shards.len() as u64).unwrap_or_default();
        act(&mut lock(&self.shards[index]))
    }

    /// Called after the shard's lock is released, so that a listener never meets it.
    fn announce(&self, origin: Origin, event: &Event) {
        let listeners = self.listeners.read().unwrap_or_else(PoisonError::into_inner);
        for (listener_origin, listener) in listeners.iter() {
            if *listener_origin != origin
                && let Some(listener) = listener.upgrade()
            {
                listener.apply(event);
            }
        }
    }

    fn table<T>(&self, namespace: &str, act: impl FnOnce(&mut EpochTable) -> T) -> T {
        let mut epochs = lock(&self.epochs);
        if let Some(table) = epochs.get_mut(namespace) {
            return act(table);
        }
        act(epochs.entry(namespace.into()).or_insert_with(|| EpochTable::new(MAX_TAGS)))
    }
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryStore")
            .field("bytes", &self.bytes())
            .field("max_bytes", &self.max_bytes)
            .finish_non_exhaustive()
    }
}

/// Nothing inside these sections can panic halfway, so a poisoned lock guards whole data.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Store for MemoryStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Announces::Before, false)
    }

    fn clock(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn attach(&self, listener: Weak<dyn Listener>) -> Origin {
        let origin = Origin(self.next_origin.fetch_add(1, Ordering::Relaxed));
        let mut listeners = self.listeners.write().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|(_, listener)| listener.strong_count() > 0);
        listeners.push((origin, listener));
        origin
    }

    async fn read(&self, keys: &[Key], _: ReadFrom) -> Vec<Result<Option<Bytes>>> {
        let now = Instant::now();
        keys.iter().map(|key| Ok(self.shard(key, |shard| shard.read(key, now)))).collect()
    }

    async fn write(&self, origin: Origin, writes: Vec<Write>) -> Vec<Result<WriteOutcome>> {
        let now = Instant::now();
        let store = |write: Write| {
            let key = write.key.clone();
            let outcome = self.shard(&key, |shard| shard.write(write, now));
            if outcome == WriteOutcome::Stored {
                self.announce(origin, &Event::Changed(key));
            }
            Ok(outcome)
        };
        writes.into_iter().map(store).collect()
    }

    async fn remove(
        &self,
        origin: Origin,
        keys: &[Key],
        fence: Option<FenceAt>,
    ) -> Vec<Result<bool>> {
        let now = Instant::now();
        let remove = |key: &Key| {
            let was_there = self.shard(key, |shard| shard.remove(key, fence, now));
            self.announce(origin, &Event::Changed(key.clone()));
            Ok(was_there)
        };
        keys.iter().map(remove).collect()
    }

    async fn lease(&self, keys: &[Key], ask: LeaseAsk) -> Vec<Result<Leased>> {
        let now = Instant::now();
        keys.iter().map(|key| Ok(self.shard(key, |shard| shard.lease(key, ask, now)))).collect()
    }

    async fn release(&self, keys: &[Key], token: LeaseToken) -> Result<()> {
        for key in keys {
            self.shard(key, |shard| shard.release(key, token));
        }
        Ok(())
    }

    async fn add(&self, key: &Key, by: i64, ttl: Option<Duration>) -> Result<i64> {
        let now = Instant::now();
        self.shard(key, |shard| shard.add(key, by, ttl, now))
    }

    async fn epochs(&self, namespace: &str, tags: &[TagId]) -> Result<Epochs> {
        Ok(self.table(namespace, |table| Epochs {
            latest: table.latest(),
            cleared: table.cleared(),
            tags: tags.iter().map(|tag| table.tag(*tag)).collect(),
        }))
    }

    async fn bump(&self, origin: Origin, namespace: &str, what: Bump) -> Result<u64> {
        let namespace: Arc<str> = namespace.into();
        let (epoch, event) = match what {
            Bump::Tags(tags) => {
                let epoch = self.table(&namespace, |table| table.invalidate(&tags));
                (epoch, Event::TagsInvalidated { namespace, tags, epoch })
            }
            Bump::All => {
                let epoch = self.table(&namespace, EpochTable::clear);
                (epoch, Event::Cleared { namespace, epoch })
            }
        };
        self.announce(origin, &event);
        Ok(epoch)
    }

    async fn ping(&self) -> Result<()> {
        Ok(())
    }
}
