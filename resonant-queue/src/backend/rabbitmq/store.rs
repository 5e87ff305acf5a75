//! The queue, put together.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::try_join_all;
use lapin::Channel;
use lapin::options::ChannelFlowOptions;
use resonant_common::join::LeaseStore;
use tokio::time::{Instant, timeout};

use super::control::Record;
use super::error::Fault;
use super::feed::RabbitFeed;
use super::link::Settings;
use super::names::{DELAYS, Kind};
use super::owner::{Owner, Tools};
use super::to_its_end;
use super::topology::Shared;
use crate::backend::{Opened, QueueSpec, QueueStore, Settlement};
use crate::clock;
use crate::depth::{DeadLetter, ParkedKey, Stored};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::message::{Outgoing, Receipt};

/// How long an opening may take before it is tried again.
const OPENING: Duration = Duration::from_secs(10);

/// How long an earlier opening of the same process may take to end.
const ENDING: Duration = Duration::from_secs(5);

/// One handle of a queue in RabbitMQ.
#[derive(Debug)]
pub(super) struct RabbitStore {
    pub(super) shared: Arc<Shared>,
    leases: Arc<dyn LeaseStore>,
}

impl RabbitStore {
    pub(super) fn new(
        settings: Arc<Settings>,
        leases: Arc<dyn LeaseStore>,
        spec: &QueueSpec,
    ) -> Self {
        Self { shared: Arc::new(Shared::new(settings, spec)), leases }
    }
}

impl Drop for RabbitStore {
    fn drop(&mut self) {
        self.shared.end.cancel();
        for owner in self.shared.owners().values() {
            owner.end.cancel();
        }
    }
}

impl Shared {
    fn tools(&self) -> &Tools {
        &self.tools
    }

    async fn open_partition(self: &Arc<Self>, partition: u32, epoch: u64) -> Result<Opened> {
        self.prepare("open").await?;
        if partition >= self.spec.partitions {
            let text = format!(
                "there is no partition {partition}; they are numbered from 0, and there are {}",
                self.spec.partitions
            );
            return Err(Error::new(ErrorKind::NotFound, "open", text));
        }
        let earlier = self.owners().get(&partition).cloned();
        if let Some(earlier) = earlier {
            if earlier.epoch > epoch {
                return Err(crate::error::fenced("open", partition, epoch, earlier.epoch));
            }
            earlier.end.cancel();
            let _ = timeout(ENDING, earlier.gone.cancelled()).await;
        }
        let (owner, serving) = Owner::new(self.tools.clone(), partition, epoch);
        // Known from its beginning, so that what it holds is counted.
        self.owners().insert(partition, Arc::clone(&owner));
        self.tasks.spawn(serving);
        let feed = Arc::new(RabbitFeed(Arc::clone(&owner)));
        // Should the opening fail, the feed's end is its end.
        owner.connected("open", OPENING).await?;
        let parked = self.tools.log.look(|control| control.keys(partition, false));
        let parked: Vec<Key> = {
            let state = owner.state();
            parked.into_iter().filter(|key| !state.replays(key)).collect()
        };
        owner.parked_keys().extend(parked.iter().cloned());
        Ok(Opened::new(feed, parked))
    }

    async fn settle(&self, partition: u32, epoch: u64, batch: &[Settlement]) -> Result<()> {
        // Where dead letters and parked messages go may be gone.
        self.open("settle")?;
        match self.mend().await {
            // That one is missing which nobody may make need not concern this partition.
            Ok(()) | Err(Fault::Missing(_)) => {}
            Err(fault) => return Err(fault.into_error("settle")),
        }
        let owner = self.owners().get(&partition).cloned();
        let current = self.tools.log.look(|control| control.epoch(partition));
        let Some(owner) = owner.filter(|owner| owner.epoch == epoch) else {
            return Err(crate::error::fenced("settle", partition, epoch, current.max(epoch)));
        };
        if owner.end.is_cancelled() {
            return Err(crate::error::fenced("settle", partition, epoch, current.max(epoch)));
        }
        owner.settle(batch).await?;
        self.room.notify_waiters();
        Ok(())
    }

    /// A channel for counting, and for declaring what turns out to be gone.
    async fn counting(&self) -> Result<Channel, Fault> {
        let mut slot = self.counter.lock().await;
        if let Some(channel) = &*slot
            && channel.status().connected()
        {
            return Ok(channel.clone());
        }
        let channel = self.tools.link.channel().await?;
        *slot = Some(channel.clone());
        Ok(channel)
    }

    pub(super) async fn count(&self) -> Result<Stored, Fault> {
        let ending: Vec<_> = {
            let owners = self.owners();
            owners.values().filter(|owner| owner.end.is_cancelled()).cloned().collect()
        };
        for owner in ending {
            let _ = timeout(Duration::from_secs(2), owner.gone.cancelled()).await;
        }
        let Tools { names, link, log, .. } = self.tools();
        let from = self.counting_from();
        let channel = self.counting().await?;
        let mut stored = Stored::default();
        // In the order in which messages move, so that one that moves is counted twice rather than not at all.
        let waiting = (0..DELAYS).map(|level| names.delay(level)).chain([names.due()]);
        let waiting = waiting.map(|queue| link.count(&channel, queue));
        let in_broker: u64 = try_join_all(waiting).await?.iter().sum();
        stored.delayed = self.delays.count(in_broker);
        let resuming: Vec<(u32, Key)> = log.look(|control| {
            let resuming = control.parked.iter().filter(|(_, parked)| parked.resuming);
            resuming.map(|(place, _)| place.clone()).collect()
        });
        let now = clock::now_millis();
        let partitions = try_join_all(
            (0..self.spec.partitions)
                .map(async |partition| self.count_partition(&channel, partition, &resuming).await),
        );
        let oldest = partitions.await?.into_iter().filter_map(|(count, oldest)| {
            stored.ready += count;
            oldest
        });
        let oldest = oldest.min();
        stored.oldest_age =
            oldest.map(|published| Duration::from_millis(now.saturating_sub(published)));
        let parked: Vec<(u32, Key)> = log.look(|control| {
            let parked = control.parked.iter().filter(|(_, parked)| !parked.resuming);
            parked.map(|(place, _)| place.clone()).collect()
        });
        stored.parked_keys = parked.len() as u64;
        let parked = try_join_all(parked.iter().map(|(partition, key)| {
            link.declare(&channel, names.parked(*partition, key), &Kind::Messages)
        }));
        stored.parked = parked.await?.iter().sum();
        stored.dead = link.count(&channel, names.dead()).await?;
        self.counted(from, stored.total());
        Ok(stored)
    }

    /// How many messages of a partition are ready, and since when the oldest is.
    async fn count_partition(
        &self,
        channel: &Channel,
        partition: u32,
        resuming: &[(u32, Key)],
    ) -> Result<(u64, Option<u64>), Fault> {
        let Tools { names, link, .. } = self.tools();
        let hint = &self.oldest[partition as usize];
        let owner = self.owners().get(&partition).cloned();
        let owner = owner.filter(|owner| !owner.gone.is_cancelled());
        let owned = match &owner {
            Some(owner) => owner.count(Instant::now() + Duration::from_secs(2)).await,
            None => None,
        };
        let (count, oldest) = match owned {
            Some(counted) => counted,
            None => {
                let queue = names.partition(partition);
                let mut count = link.count(channel, queue).await?;
                for (_, key) in resuming.iter().filter(|(of, _)| *of == partition) {
                    count += link
                        .declare(channel, names.parked(partition, key), &Kind::Messages)
                        .await?;
                }
                match owner {
                    // Between two channels, what it holds is there, too.
                    Some(owner) => (count.max(owner.state().here().0), None),
                    None => {
                        let epoch = self.tools.log.look(|control| control.epoch(partition));
                        let (held, oldest) =
                            self.holdings.elsewhere(partition, epoch, Instant::now());
                        (count + held, oldest)
                    }
                }
            }
        };
        if count == 0 {
            hint.store(0, Ordering::Relaxed);
            return Ok((0, None));
        }
        if let Some(oldest) = oldest {
            hint.store(oldest, Ordering::Relaxed);
        }
        let known = hint.load(Ordering::Relaxed);
        Ok((count, (known > 0).then_some(known)))
    }

    async fn resume(self: &Arc<Self>, partition: u32, key: &Key) -> Result<Option<u64>> {
        self.prepare("resume_key").await?;
        let fail = |fault: Fault| fault.into_error("resume_key");
        let place = (partition, key.clone());
        let parked = self
            .tools
            .log
            .look(|control| control.parked.get(&place).is_some_and(|parked| !parked.resuming));
        if !parked {
            return Ok(None);
        }
        let channel = self.counting().await.map_err(fail)?;
        let queue = self.tools.names.parked(partition, key);
        let count =
            self.tools.link.declare(&channel, queue, &Kind::Messages).await.map_err(fail)?;
        let record = Record::Resume { partition, key: key.to_string() };
        let appended = self.tools.log.append(&record).await;
        appended.map_err(|partly| partly.into_error("resume_key"))?;
        Ok(Some(count))
    }

    async fn parked(self: &Arc<Self>, limit: usize) -> Result<Vec<ParkedKey>> {
        self.prepare("parked").await?;
        let fail = |fault: Fault| fault.into_error("parked");
        let mut keys: Vec<_> = self.tools.log.look(|control| {
            let parked = control.parked.iter().filter(|(_, parked)| !parked.resuming);
            parked.map(|(place, parked)| (place.clone(), parked.clone())).collect()
        });
        keys.sort_by_key(|(_, parked)| parked.since);
        keys.truncate(limit);
        let channel = self.counting().await.map_err(fail)?;
        let mut parked = Vec::with_capacity(keys.len());
        for ((partition, key), of) in keys {
            let queue = self.tools.names.parked(partition, &key);
            let count = self.tools.link.declare(&channel, queue, &Kind::Messages).await;
            let count = count.map_err(fail)?;
            parked.push(ParkedKey::new(key, partition, count, of.sequence, of.since, of.error));
        }
        Ok(parked)
    }

    async fn ping(self: &Arc<Self>) -> Result<()> {
        self.prepare("ping").await?;
        let fail = |fault: Fault| fault.into_error("ping");
        let channel = self.counting().await.map_err(fail)?;
        let asked = channel.channel_flow(ChannelFlowOptions { active: true });
        self.tools.link.answer("a ping", asked).await.map_err(fail)?;
        Ok(())
    }
}

#[async_trait]
impl QueueStore for RabbitStore {
    async fn publish(&self, batch: Arc<Vec<Outgoing>>) -> Result<Vec<Receipt>> {
        let shared = Arc::clone(&self.shared);
        to_its_end("publish", &self.shared.tasks, async move { shared.publish(&batch).await }).await
    }

    async fn room(&self) {
        self.shared.room.notified().await;
    }

    fn leases(&self) -> Arc<dyn LeaseStore> {
        Arc::clone(&self.leases)
    }

    async fn open(&self, partition: u32, epoch: u64) -> Result<Opened> {
        self.shared.open_partition(partition, epoch).await
    }

    async fn settle(&self, partition: u32, epoch: u64, batch: Arc<Vec<Settlement>>) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let settling = async move { shared.settle(partition, epoch, &batch).await };
        to_its_end("settle", &self.shared.tasks, settling).await
    }

    async fn stored(&self) -> Result<Stored> {
        self.shared.prepare("depth").await?;
        let counted = self.shared.count().await;
        if let Err(fault) = &counted {
            self.shared.tools.doubt_if_missing(fault);
        }
        counted.map_err(|fault| fault.into_error("depth"))
    }

    async fn parked(&self, limit: usize) -> Result<Vec<ParkedKey>> {
        self.shared.parked(limit).await
    }

    async fn resume_key(&self, partition: u32, key: &Key) -> Result<Option<u64>> {
        let (shared, key) = (Arc::clone(&self.shared), key.clone());
        let resuming = async move { shared.resume(partition, &key).await };
        to_its_end("resume_key", &self.shared.tasks, resuming).await
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>> {
        self.shared.prepare("dead_letters").await?;
        let letters = self.shared.tools.dead_letters(limit).await;
        letters.map_err(|fault| fault.into_error("dead_letters"))
    }

    async fn redrive(&self, limit: usize) -> Result<u64> {
        self.shared.prepare("redrive").await?;
        let shared = Arc::clone(&self.shared);
        let redriving = async move {
            let published = |partitions: &[u32], at| shared.published(partitions, at);
            let moved = shared.tools.redrive(limit, published).await;
            moved.map_err(|partly| partly.into_error("redrive"))
        };
        to_its_end("redrive", &self.shared.tasks, redriving).await
    }

    async fn purge_dead(&self, limit: usize) -> Result<u64> {
        self.shared.prepare("purge_dead_letters").await?;
        let shared = Arc::clone(&self.shared);
        let purging = async move {
            let purged = shared.tools.purge(limit).await;
            purged.map_err(|partly| partly.into_error("purge_dead_letters"))
        };
        to_its_end("purge_dead_letters", &self.shared.tasks, purging).await
    }

    async fn set_paused(&self, paused: bool) -> Result<()> {
        self.shared.prepare("pause").await?;
        let appended = self.shared.tools.log.append(&Record::Pause { paused }).await;
        appended.map(drop).map_err(|partly| partly.into_error("pause"))
    }

    async fn paused(&self) -> Result<bool> {
        self.shared.prepare("pause").await?;
        Ok(self.shared.tools.log.look(|control| control.paused))
    }

    async fn ping(&self) -> Result<()> {
        self.shared.ping().await
    }

    async fn close(&self) {
        if self.shared.end.is_cancelled() {
            return;
        }
        let owners: Vec<_> = self.shared.owners().values().cloned().collect();
        for owner in &owners {
            owner.end.cancel();
        }
        for owner in &owners {
            let _ = timeout(ENDING, owner.gone.cancelled()).await;
        }
        self.shared.end.cancel();
        self.shared.tasks.close();
        let _ =
            timeout(self.shared.tools.link.settings().confirm_timeout, self.shared.tasks.wait())
                .await;
        self.shared.tools.link.close().await;
        self.shared.tools.publisher.link().close().await;
    }
}
