//! One queue in memory.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use resonant_common::join::{LeaseStore, MemoryLeaseStore};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::partition::{Dead, Partition};
use crate::backend::{Feed, Fetch, Fetched, Opened, QueueSpec, QueueStore, Settlement};
use crate::clock;
use crate::depth::{DeadLetter, ParkedKey, Stored};
use crate::error::{Error, ErrorKind, Result, closed};
use crate::key::Key;
use crate::message::{Outgoing, Receipt};

/// A queue's data, shared by its handles.
#[derive(Debug)]
pub(super) struct MemoryStore {
    partitions: Vec<Lane>,
    shared: Mutex<Shared>,
    /// Messages stored, in whatever state.
    total: AtomicU64,
    paused: AtomicBool,
    room: Notify,
    leases: Arc<MemoryLeaseStore>,
    /// Where wall-clock time and tokio's clock meet, so that a paused test has a clock that moves.
    started: (Instant, u64),
}

#[derive(Debug)]
struct Lane {
    partition: Mutex<Partition>,
    wake: Arc<Notify>,
}

/// What is apart from the partitions.
#[derive(Debug, Default)]
struct Shared {
    delayed: BTreeMap<(Instant, u64), Outgoing>,
    next_delayed: u64,
    dead: VecDeque<Dead>,
    unique: HashMap<String, (Receipt, Instant)>,
    unique_order: VecDeque<(Instant, String)>,
}

impl MemoryStore {
    pub(super) fn new(spec: QueueSpec) -> Self {
        let lane = |number| Lane {
            partition: Mutex::new(Partition::new(number)),
            wake: Arc::new(Notify::new()),
        };
        Self {
            partitions: (0..spec.partitions).map(lane).collect(),
            shared: Mutex::default(),
            total: AtomicU64::new(0),
            paused: AtomicBool::new(false),
            room: Notify::new(),
            leases: Arc::new(MemoryLeaseStore::new()),
            started: (Instant::now(), clock::now_millis()),
        }
    }

    pub(super) fn partitions(&self) -> u32 {
        u32::try_from(self.partitions.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn handle(self: &Arc<Self>, spec: &QueueSpec) -> Arc<dyn QueueStore> {
        let (store, spec) = (Arc::clone(self), spec.clone());
        Arc::new(Handle { store, spec, closed: Arc::default() })
    }

    fn wall(&self, now: Instant) -> u64 {
        let (at, wall) = self.started;
        wall + clock::as_millis(now.saturating_duration_since(at))
    }

    fn lane(&self, partition: u32) -> Result<&Lane> {
        self.partitions.get(partition as usize).ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                "open",
                format!(
                    "there is no partition {partition}; they are numbered from 0, and there are {}",
                    self.partitions()
                ),
            )
        })
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends messages in order, one lock per partition touched.
    fn append(&self, batch: &[(&Outgoing, u64)], now: Instant) -> Vec<u64> {
        let mut sequences = vec![0; batch.len()];
        let mut order: Vec<usize> = (0..batch.len()).collect();
        // Stable: within a partition the order stays.
        order.sort_by_key(|index| batch[*index].0.partition);
        for indexes in order.chunk_by(|a, b| batch[*a].0.partition == batch[*b].0.partition) {
            let number = indexes.first().map_or(0, |index| batch[*index].0.partition);
            let Some(lane) = self.partitions.get(number as usize) else { continue };
            let mut partition = lane.partition.lock().unwrap_or_else(PoisonError::into_inner);
            for index in indexes {
                let (message, published) = batch[*index];
                sequences[*index] = partition.append(message, published, now);
            }
            drop(partition);
            lane.wake.notify_waiters();
        }
        sequences
    }

    /// Moves what fell due into its partition; returns when the next one does.
    fn promote(&self, now: Instant) -> Option<Instant> {
        let mut shared = self.shared();
        let mut due = Vec::new();
        while let Some(entry) = shared.delayed.first_entry() {
            if entry.key().0 > now {
                break;
            }
            due.push(entry.remove());
        }
        let wall = self.wall(now);
        // Still under the lock, so that what fell due first is first in its partition.
        let batch: Vec<_> = due.iter().map(|message| (message, wall)).collect();
        self.append(&batch, now);
        shared.delayed.first_key_value().map(|((due, _), _)| *due)
    }

    fn forget_ids(shared: &mut Shared, spec: &QueueSpec, now: Instant) {
        while let Some((at, _)) = shared.unique_order.front() {
            let over = shared.unique_order.len() as u64 > spec.dedup_limit;
            if !over && now.saturating_duration_since(*at) < spec.dedup_window {
                break;
            }
            let Some((at, id)) = shared.unique_order.pop_front() else { break };
            if shared.unique.get(&id).is_some_and(|(_, since)| *since == at) {
                shared.unique.remove(&id);
            }
        }
    }

    fn publish(&self, spec: &QueueSpec, batch: &[Outgoing]) -> Result<Vec<Receipt>> {
        if let Some(message) = batch.iter().find(|message| message.partition >= spec.partitions) {
            let text = format!(
                "there is no partition {}; they are numbered from 0, and there are {}",
                message.partition, spec.partitions
            );
            return Err(Error::new(ErrorKind::NotFound, "publish", text));
        }
        let now = Instant::now();
        let wall = self.wall(now);
        let count = batch.len() as u64;
        let reserve = |total: u64| (total + count <= spec.max_depth).then_some(total + count);
        if self.total.fetch_update(Ordering::AcqRel, Ordering::Acquire, reserve).is_err() {
            let text = format!(
                "the queue holds {} of {} messages; add workers or raise max_depth",
                self.total.load(Ordering::Relaxed),
                spec.max_depth
            );
            return Err(Error::new(ErrorKind::Full, "publish", text));
        }
        let plain =
            batch.iter().all(|message| message.delay.is_none() && message.unique_id.is_none());
        if plain {
            let sequences =
                self.append(&batch.iter().map(|message| (message, wall)).collect::<Vec<_>>(), now);
            let receipts = batch.iter().zip(sequences);
            return Ok(receipts
                .map(|(message, sequence)| Receipt::new(message.partition, Some(sequence)))
                .collect());
        }
        let mut shared = self.shared();
        Self::forget_ids(&mut shared, spec, now);
        let (mut receipts, mut duplicates) = (Vec::with_capacity(batch.len()), 0);
        for message in batch {
            if let Some(id) = &message.unique_id
                && let Some((receipt, _)) = shared.unique.get(id)
            {
                receipts.push(receipt.of_duplicate());
                duplicates += 1;
                continue;
            }
            let receipt = match message.delay {
                Some(delay) => {
                    let number = shared.next_delayed;
                    shared.next_delayed += 1;
                    shared.delayed.insert((clock::after(now, delay), number), message.clone());
                    // Whoever waits in this partition must wait for this one too.
                    if let Some(lane) = self.partitions.get(message.partition as usize) {
                        lane.wake.notify_waiters();
                    }
                    Receipt::new(message.partition, None)
                }
                None => {
                    let sequence = self.append(&[(message, wall)], now).first().copied();
                    Receipt::new(message.partition, sequence)
                }
            };
            if let Some(id) = &message.unique_id {
                shared.unique.insert(id.clone(), (receipt, now));
                shared.unique_order.push_back((now, id.clone()));
            }
            receipts.push(receipt);
        }
        Self::forget_ids(&mut shared, spec, now);
        self.total.fetch_sub(duplicates, Ordering::AcqRel);
        Ok(receipts)
    }

    fn removed(&self, count: u64) {
        if count > 0 {
            self.total.fetch_sub(count, Ordering::AcqRel);
            self.room.notify_waiters();
        }
    }
}

/// One opening of a queue; closing it leaves others open.
#[derive(Debug)]
struct Handle {
    store: Arc<MemoryStore>,
    spec: QueueSpec,
    closed: Arc<Closed>,
}

#[derive(Debug, Default)]
struct Closed {
    flag: AtomicBool,
    wake: Notify,
}

impl Closed {
    fn check(&self, operation: &'static str) -> Result<()> {
        if self.flag.load(Ordering::Acquire) { Err(closed(operation)) } else { Ok(()) }
    }
}

#[async_trait]
impl QueueStore for Handle {
    async fn publish(&self, batch: Arc<Vec<Outgoing>>) -> Result<Vec<Receipt>> {
        self.closed.check("publish")?;
        self.store.publish(&self.spec, &batch)
    }

    async fn room(&self) {
        self.store.room.notified().await;
    }

    fn leases(&self) -> Arc<dyn LeaseStore> {
        Arc::clone(&self.store.leases) as Arc<dyn LeaseStore>
    }

    async fn open(&self, partition: u32, epoch: u64) -> Result<Opened> {
        self.closed.check("open")?;
        let lane = self.store.lane(partition)?;
        let opened = lane.partition.lock().unwrap_or_else(PoisonError::into_inner).open(epoch);
        let (opening, parked) = opened?;
        let (store, closed) = (Arc::clone(&self.store), Arc::clone(&self.closed));
        Ok(Opened::new(Arc::new(MemoryFeed { store, closed, partition, opening }), parked))
    }

    async fn settle(&self, partition: u32, epoch: u64, batch: Arc<Vec<Settlement>>) -> Result<()> {
        self.closed.check("settle")?;
        let (now, lane) = (Instant::now(), self.store.lane(partition)?);
        let wall = self.store.wall(now);
        let change = {
            let mut partition = lane.partition.lock().unwrap_or_else(PoisonError::into_inner);
            partition.settle(epoch, &batch, now, wall)?
        };
        if !change.dead.is_empty() {
            self.store.shared().dead.extend(change.dead);
        }
        self.store.removed(change.removed.len() as u64);
        Ok(())
    }

    async fn stored(&self) -> Result<Stored> {
        self.closed.check("depth")?;
        let now = Instant::now();
        self.store.promote(now);
        let mut stored = Stored::default();
        for lane in &self.store.partitions {
            let partition = lane.partition.lock().unwrap_or_else(PoisonError::into_inner);
            stored.ready += partition.messages.len() as u64;
            stored.parked_keys += partition.parked.len() as u64;
            stored.parked +=
                partition.parked.values().map(|parked| parked.messages.len() as u64).sum::<u64>();
            if let Some(first) = partition.messages.front() {
                let age = now.saturating_duration_since(first.since);
                stored.oldest_age = stored.oldest_age.max(Some(age));
            }
        }
        let shared = self.store.shared();
        stored.delayed = shared.delayed.len() as u64;
        stored.dead = shared.dead.len() as u64;
        Ok(stored)
    }

    async fn parked(&self, limit: usize) -> Result<Vec<ParkedKey>> {
        self.closed.check("parked")?;
        let mut keys = Vec::new();
        for lane in &self.store.partitions {
            let partition = lane.partition.lock().unwrap_or_else(PoisonError::into_inner);
            keys.extend(partition.parked_keys());
        }
        keys.sort_by(|a, b| {
            (a.since, a.partition, a.sequence).cmp(&(b.since, b.partition, b.sequence))
        });
        keys.truncate(limit);
        Ok(keys)
    }

    async fn resume_key(&self, partition: u32, key: &Key) -> Result<Option<u64>> {
        self.closed.check("resume_key")?;
        let lane = self.store.lane(partition)?;
        let resumed = lane.partition.lock().unwrap_or_else(PoisonError::into_inner).resume(key);
        lane.wake.notify_waiters();
        Ok(resumed)
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>> {
        self.closed.check("dead_letters")?;
        let shared = self.store.shared();
        Ok(shared.dead.iter().take(limit).map(|dead| dead.letter.clone()).collect())
    }

    async fn redrive(&self, limit: usize) -> Result<u64> {
        self.closed.check("redrive")?;
        let mut shared = self.store.shared();
        let count = limit.min(shared.dead.len());
        // A key's letters died in its order.
        let revived: Vec<_> = shared.dead.drain(..count).map(Dead::revive).collect();
        let now = Instant::now();
        let wall = self.store.wall(now);
        let batch: Vec<_> = revived.iter().map(|message| (message, wall)).collect();
        self.store.append(&batch, now);
        Ok(count as u64)
    }

    async fn purge_dead(&self, limit: usize) -> Result<u64> {
        self.closed.check("purge_dead_letters")?;
        let count = {
            let mut shared = self.store.shared();
            let count = limit.min(shared.dead.len());
            shared.dead.drain(..count).count() as u64
        };
        self.store.removed(count);
        Ok(count)
    }

    async fn set_paused(&self, paused: bool) -> Result<()> {
        self.closed.check("pause")?;
        self.store.paused.store(paused, Ordering::Release);
        Ok(())
    }

    async fn paused(&self) -> Result<bool> {
        self.closed.check("paused")?;
        Ok(self.store.paused.load(Ordering::Acquire))
    }

    async fn ping(&self) -> Result<()> {
        self.closed.check("ping")
    }

    async fn close(&self) {
        self.closed.flag.store(true, Ordering::Release);
        self.closed.wake.notify_waiters();
        self.store.room.notify_waiters();
    }
}

#[derive(Debug)]
struct MemoryFeed {
    store: Arc<MemoryStore>,
    closed: Arc<Closed>,
    partition: u32,
    opening: u64,
}

#[async_trait]
impl Feed for MemoryFeed {
    async fn fetch(&self, fetch: Fetch) -> Result<Fetched> {
        let lane = self.store.lane(self.partition)?;
        loop {
            // Both are listened to before the look, so that nothing published after it is missed.
            let mut woken = std::pin::pin!(lane.wake.notified());
            let mut closed = std::pin::pin!(self.closed.wake.notified());
            woken.as_mut().enable();
            closed.as_mut().enable();
            self.closed.check("fetch")?;
            let now = Instant::now();
            let next_due = self.store.promote(now);
            let fetched = {
                let mut partition = lane.partition.lock().unwrap_or_else(PoisonError::into_inner);
                partition.fetch(fetch, self.opening, now)
            };
            if fetch.until.is_some() || !fetched.messages.is_empty() || !fetched.resumed.is_empty()
            {
                return Ok(fetched);
            }
            let due = async {
                match next_due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = woken => {}
                () = closed => {}
                () = due => {}
            }
        }
    }
}
