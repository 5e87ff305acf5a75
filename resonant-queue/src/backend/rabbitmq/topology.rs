//! One queue's connections, objects and tasks.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::try_join_all;
use lapin::Channel;
use lapin::types::ShortString;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::control::Record;
use super::delays::{self, Delays};
use super::error::Fault;
use super::holdings::{Holding, Holdings};
use super::link::{Link, Purpose, Settings};
use super::log::Log;
use super::names::{BURIAL, DELAYS, Kind, Names};
use super::owner::{Owner, Tools};
use super::publisher::Publisher;
use crate::backend::QueueSpec;
use crate::error::{Error, ErrorKind, Result, closed};

/// The most bytes of the log of unique ids.
const IDS: u64 = 256 << 20;

/// How long closing a channel may take.
const SOON: Duration = Duration::from_secs(2);

/// What this process knows of the number of messages.
#[derive(Debug, Default)]
struct Total {
    /// None before the first count.
    known: Option<u64>,
    /// Counts what was published here.
    published: u64,
}

/// What the handles of one opened queue share with its tasks.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) spec: QueueSpec,
    pub(super) tools: Tools,
    pub(super) ids: Arc<Log>,
    pub(super) delays: Arc<Delays>,
    /// What other processes hold.
    pub(super) holdings: Arc<Holdings>,
    pub(super) owners: Mutex<HashMap<u32, Arc<Owner>>>,
    /// When the oldest unfinished message of each partition was published, as far as known; 0 for none.
    pub(super) oldest: Vec<AtomicU64>,
    /// How many messages there are at most.
    total: Mutex<Total>,
    pub(super) room: Notify,
    /// For counting.
    pub(super) counter: tokio::sync::Mutex<Option<Channel>>,
    preparing: tokio::sync::Mutex<()>,
    following: AtomicBool,
    following_ids: AtomicBool,
    /// The clock of delayed messages runs.
    keeping: AtomicBool,
    pub(super) tasks: TaskTracker,
    pub(super) end: CancellationToken,
}

impl Shared {
    pub(super) fn new(settings: Arc<Settings>, spec: &QueueSpec) -> Self {
        let names = Names::new(&spec.name);
        let link = Arc::new(Link::new(Arc::clone(&settings), Purpose::Reading));
        let tasks = TaskTracker::new();
        let publishing = Link::new(settings, Purpose::Publishing);
        let publisher = Arc::new(Publisher::new(publishing, tasks.clone()));
        let log = Arc::new(Log::new(names.log(), Arc::clone(&publisher)));
        let ids = Arc::new(Log::new(names.ids(), Arc::clone(&publisher)));
        Self {
            spec: spec.clone(),
            tools: Tools {
                names,
                partitions: spec.partitions,
                link,
                publisher,
                log,
                prepared: Arc::default(),
                tasks: tasks.clone(),
            },
            ids,
            delays: Arc::default(),
            holdings: Arc::default(),
            owners: Mutex::default(),
            oldest: (0..spec.partitions).map(|_| AtomicU64::new(0)).collect(),
            total: Mutex::default(),
            room: Notify::new(),
            counter: tokio::sync::Mutex::new(None),
            preparing: tokio::sync::Mutex::new(()),
            following: AtomicBool::new(false),
            following_ids: AtomicBool::new(false),
            keeping: AtomicBool::new(false),
            tasks,
            end: CancellationToken::new(),
        }
    }

    pub(super) fn owners(&self) -> MutexGuard<'_, HashMap<u32, Arc<Owner>>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this process holds.
    fn held(&self) -> Vec<Holding> {
        let owners: Vec<_> = self.owners().values().cloned().collect();
        let serving = owners.iter().filter(|owner| !owner.gone.is_cancelled());
        serving.filter_map(|owner| owner.holding()).collect()
    }

    pub(super) fn open(&self, operation: &'static str) -> Result<()> {
        if self.end.is_cancelled() { Err(closed(operation)) } else { Ok(()) }
    }

    fn total(&self) -> MutexGuard<'_, Total> {
        self.total.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a count begins.
    pub(super) fn counting_from(&self) -> u64 {
        self.total().published
    }

    /// What it found. What was published meanwhile may be in it or not.
    pub(super) fn counted(&self, from: u64, count: u64) {
        let mut total = self.total();
        total.known = Some(count + (total.published - from));
    }

    /// Counts messages as stored, if there is room for them as far as is known.
    pub(super) fn take_room(&self, count: u64) -> bool {
        let mut total = self.total();
        let sum = total.known.and_then(|known| known.checked_add(count));
        let Some(sum) = sum.filter(|sum| *sum <= self.spec.max_depth) else { return false };
        total.known = Some(sum);
        total.published += count;
        true
    }

    /// They were not stored.
    pub(super) fn give_room_back(&self, count: u64) {
        let mut total = self.total();
        total.known = total.known.map(|known| known.saturating_sub(count));
    }

    /// Declares what is not there, reads the log to its end, and compares the number of partitions. Cheap once done.
    pub(super) async fn prepare(self: &Arc<Self>, operation: &'static str) -> Result<()> {
        self.open(operation)?;
        if self.tools.prepared.load(Ordering::Acquire) {
            return Ok(());
        }
        let _alone = self.preparing.lock().await;
        if self.tools.prepared.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut made = self.declare().await.map_err(|fault| fault.into_error(operation))?;
        if !self.following.swap(true, Ordering::AcqRel) {
            let (log, link) = (Arc::clone(&self.tools.log), Arc::clone(&self.tools.link));
            self.tasks.spawn(log.follow(link, self.end.clone()));
        }
        let partitions = self.spec.partitions;
        let appended = self.tools.log.append(&Record::Queue { partitions }).await;
        appended.map_err(|partly| partly.into_error(operation))?;
        let there = self.tools.log.look(|control| control.partitions).unwrap_or(partitions);
        if there != partitions {
            let message = format!(
                "the queue {:?} exists with {there} partitions, not {partitions}; the number is fixed once it exists: build it with that one, or under another name",
                self.spec.name
            );
            return Err(Error::new(ErrorKind::Incompatible, operation, message));
        }
        // Only now, that the number is known to be right.
        if !self.keeping.swap(true, Ordering::AcqRel) {
            let (delays, tools, end) =
                (Arc::clone(&self.delays), self.tools.clone(), self.end.clone());
            let weak = Arc::downgrade(self);
            self.tasks.spawn(delays.keep(tools, end, move |partitions, at| {
                if let Some(shared) = weak.upgrade() {
                    shared.published(partitions, at);
                }
            }));
            let (holdings, tools, end) =
                (Arc::clone(&self.holdings), self.tools.clone(), self.end.clone());
            let weak = Arc::downgrade(self);
            self.tasks.spawn(holdings.keep(tools, end, move || {
                weak.upgrade().map(|shared| shared.held()).unwrap_or_default()
            }));
        }
        made |= self.declare_partitions().await.map_err(|fault| fault.into_error(operation))?;
        if made {
            // The broker has promised more than it has written down.
            tokio::time::sleep(self.tools.link.settings().creation_wait).await;
        }
        self.tools.prepared.store(true, Ordering::Release);
        Ok(())
    }

    /// Declares again what somebody has deleted. The log has shown before that the number of partitions is right.
    pub(super) async fn mend(&self) -> Result<(), Fault> {
        if self.tools.prepared.load(Ordering::Acquire) {
            return Ok(());
        }
        let _alone = self.preparing.lock().await;
        if self.tools.prepared.load(Ordering::Acquire) {
            return Ok(());
        }
        let made = self.declare().await?;
        if self.declare_partitions().await? || made {
            tracing::warn!(queue = %self.spec.name, "queues were gone and have been created again");
            tokio::time::sleep(self.tools.link.settings().creation_wait).await;
        }
        self.tools.prepared.store(true, Ordering::Release);
        Ok(())
    }

    /// Makes the queues of all partitions.
    async fn declare_partitions(&self) -> Result<bool, Fault> {
        let names = &self.tools.names;
        let queues = (0..self.spec.partitions).map(|n| (names.partition(n), Kind::Messages));
        self.make(queues.collect()).await
    }

    /// Makes what is missing. What is there is only looked at. Says whether anything was missing.
    async fn make(&self, objects: Vec<(ShortString, Kind)>) -> Result<bool, Fault> {
        let link = &self.tools.link;
        let channel = link.channel().await?;
        let looks = objects.iter().map(|(name, _)| link.count(&channel, name.clone()));
        let missing = match try_join_all(looks).await {
            Ok(_) => {
                let _ = tokio::time::timeout(SOON, channel.close(200, "done".into())).await;
                None
            }
            Err(_) => self.one_missing(&objects).await?,
        };
        let Some(missing) = missing else { return Ok(false) };
        if !link.settings().create_queues {
            return Err(Fault::Missing(missing.to_string()));
        }
        if self.following.load(Ordering::Acquire) {
            // It was there before.
            tokio::time::sleep(BURIAL).await;
        }
        let channel = link.channel().await?;
        let declared =
            objects.iter().map(|(name, kind)| link.declare(&channel, name.clone(), kind));
        try_join_all(declared).await?;
        let _ = tokio::time::timeout(SOON, channel.close(200, "done".into())).await;
        Ok(true)
    }

    /// The first object that is missing, if that is why it cannot be looked at; another reason is a fault. Asked one by
    /// one, as only the first to fail on a channel says why.
    async fn one_missing(
        &self,
        objects: &[(ShortString, Kind)],
    ) -> Result<Option<ShortString>, Fault> {
        let link = &self.tools.link;
        let channel = link.channel().await?;
        for (name, _) in objects {
            match link.count(&channel, name.clone()).await {
                Ok(_) => {}
                Err(fault) if fault.is_missing() => return Ok(Some(name.clone())),
                Err(fault) => return Err(fault),
            }
        }
        let _ = tokio::time::timeout(SOON, channel.close(200, "done".into())).await;
        Ok(None)
    }

    async fn declare(&self) -> Result<bool, Fault> {
        let names = &self.tools.names;
        let mut objects = vec![
            (names.log(), Kind::Log { most: None }),
            (names.dead(), Kind::Messages),
            (names.due(), Kind::Messages),
        ];
        objects.extend(
            (0..DELAYS).map(|level| (names.delay(level), delays::kind(&self.tools, level))),
        );
        self.make(objects).await
    }

    /// Reads the log of unique ids from now on.
    pub(super) async fn follow_ids(&self) -> Result<(), Fault> {
        let link = &self.tools.link;
        if self.make(vec![(self.tools.names.ids(), Kind::Log { most: Some(IDS) })]).await? {
            tokio::time::sleep(link.settings().creation_wait).await;
        }
        if !self.following_ids.swap(true, Ordering::AcqRel) {
            let (ids, link) = (Arc::clone(&self.ids), Arc::clone(link));
            self.tasks.spawn(ids.follow(link, self.end.clone()));
        }
        Ok(())
    }

    /// Whether the log of unique ids is read.
    pub(super) fn follows_ids(&self) -> bool {
        self.following_ids.load(Ordering::Acquire)
    }

    /// Messages were published into these partitions.
    pub(super) fn published(&self, partitions: &[u32], at: u64) {
        for partition in partitions {
            if let Some(oldest) = self.oldest.get(*partition as usize) {
                let _ = oldest.compare_exchange(0, at, Ordering::Relaxed, Ordering::Relaxed);
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.end.cancel();
    }
}
