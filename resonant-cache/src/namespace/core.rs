//! What all handles of one namespace share.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use resonant_common::duration::after;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::backend::{Announces, Epochs, Key};
use crate::config::NamespaceConfig;
use crate::envelope::TagId;
use crate::epochs::{EpochTable, Standing};
use crate::error::{Error, ErrorKind, Result};
use crate::freshness::Windows;
use crate::gate::Gate;
use crate::key::LocalKey;

#[derive(Debug)]
pub(crate) struct NamespaceCore {
    id: u32,
    name: Arc<str>,
    pub(crate) config: NamespaceConfig,
    /// Whether there was no room for it among the cache's namespaces: every use fails.
    pub(crate) surplus: bool,
    /// Copies of the table's, so that a hit takes no lock.
    latest: AtomicU64,
    cleared: AtomicU64,
    epochs: RwLock<EpochTable>,
    /// How often announcements may have been missed, plus one.
    generation: AtomicU64,
    /// The generation whose epochs were fetched.
    fetched: AtomicU64,
    fetched_at: RwLock<Instant>,
    loads: Semaphore,
    queued: AtomicUsize,
}

impl NamespaceCore {
    pub(crate) fn new(id: u32, name: Arc<str>, config: NamespaceConfig, surplus: bool) -> Self {
        Self {
            id,
            name,
            surplus,
            latest: AtomicU64::new(0),
            cleared: AtomicU64::new(0),
            epochs: RwLock::new(EpochTable::new(config.max_tags)),
            generation: AtomicU64::new(1),
            fetched: AtomicU64::new(0),
            fetched_at: RwLock::new(Instant::now()),
            loads: Semaphore::new(config.max_concurrent_loads),
            queued: AtomicUsize::new(0),
            config,
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn windows(&self) -> Windows {
        Windows::of(&self.config)
    }

    pub(crate) fn local_key(&self, key: &str) -> LocalKey {
        LocalKey { namespace: self.id, key: key.into() }
    }

    pub(crate) fn stored_key(&self, key: &LocalKey) -> Key {
        Key::new(Arc::clone(&self.name), Arc::clone(&key.key))
    }

    /// The epoch that holds now, as far as this process knows; never too high.
    pub(crate) fn epoch(&self) -> u64 {
        self.latest.load(Ordering::Acquire)
    }

    /// The epoch of the last clear this process knows of.
    pub(crate) fn cleared(&self) -> u64 {
        self.cleared.load(Ordering::Acquire)
    }

    /// Whether a value loaded at `epoch` is still good. Takes a lock only for a tagged value older than the latest
    /// invalidation.
    #[inline]
    pub(crate) fn judge(&self, epoch: u64, tags: &[TagId]) -> Standing {
        if epoch >= self.latest.load(Ordering::Acquire) {
            return Standing::Valid;
        }
        if tags.is_empty() {
            return if epoch >= self.cleared() { Standing::Valid } else { Standing::Invalid };
        }
        self.epochs.read().unwrap_or_else(PoisonError::into_inner).judge(epoch, tags)
    }

    pub(crate) fn note_tags(&self, tags: &[TagId], epoch: u64) {
        self.change(|table| tags.iter().for_each(|tag| table.note_tag(*tag, epoch)));
    }

    pub(crate) fn note_clear(&self, epoch: u64) {
        self.change(|table| table.note_clear(epoch));
    }

    /// Announcements may have been missed: ask the store before the next use.
    pub(crate) fn forget_epochs(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.change(EpochTable::forget);
    }

    /// Makes sure the epochs are known: one call to the store for the first use, and after announcements were missed.
    pub(crate) async fn know_epochs(
        &self,
        gate: &Gate,
        max_age: std::time::Duration,
    ) -> Result<()> {
        if gate.store().capabilities().announces == Announces::Never {
            let fetched_at = *self.fetched_at.read().unwrap_or_else(PoisonError::into_inner);
            if Instant::now() >= after(fetched_at, max_age) {
                self.forget_epochs();
            }
        }
        let generation = self.generation.load(Ordering::Acquire);
        if self.fetched.load(Ordering::Acquire) == generation {
            return Ok(());
        }
        let epochs = gate.epochs(&self.name, &[]).await?;
        self.change(|table| table.adopt(epochs.latest, epochs.cleared));
        *self.fetched_at.write().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.fetched.fetch_max(generation, Ordering::AcqRel);
        Ok(())
    }

    /// Asks the store about tags the table does not know.
    pub(crate) async fn ask_tags(&self, gate: &Gate, tags: &[TagId]) -> Result<Epochs> {
        let losses = self.losses();
        let epochs = gate.epochs(&self.name, tags).await?;
        self.change(|table| {
            // Something was forgotten meanwhile, perhaps news of these very tags: they stay unknown.
            if table.losses() != losses {
                return;
            }
            for (tag, epoch) in tags.iter().zip(&epochs.tags) {
                table.learn(*tag, *epoch);
            }
        });
        Ok(epochs)
    }

    fn losses(&self) -> u64 {
        self.epochs.read().unwrap_or_else(PoisonError::into_inner).losses()
    }

    fn change(&self, act: impl FnOnce(&mut EpochTable)) {
        let mut table = self.epochs.write().unwrap_or_else(PoisonError::into_inner);
        act(&mut table);
        self.latest.store(table.latest(), Ordering::Release);
        self.cleared.store(table.cleared(), Ordering::Release);
    }

    /// A load's turn.
    pub(crate) async fn turn(&self) -> Result<SemaphorePermit<'_>> {
        if let Ok(permit) = self.loads.try_acquire() {
            return Ok(permit);
        }
        let _queued = Queued::enter(self)?;
        let waited = tokio::time::timeout(self.config.load_queue_timeout, self.loads.acquire());
        match waited.await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(Error::new(ErrorKind::Closed, "load", "the cache is closed")),
            Err(_) => Err(self.too_many_loads("waited too long for its turn")),
        }
    }

    /// Whether all loads' places are taken and others wait.
    pub(crate) fn is_saturated(&self) -> bool {
        self.queued.load(Ordering::Relaxed) > 0
    }

    fn too_many_loads(&self, what: &str) -> Error {
        let message = format!(
            "a load of namespace {:?} {what}: {} run and {} wait; raise max_concurrent_loads or slow down",
            self.name,
            self.config.max_concurrent_loads,
            self.queued.load(Ordering::Relaxed)
        );
        Error::new(ErrorKind::Overloaded, "load", message)
    }
}

struct Queued<'a>(&'a NamespaceCore);

impl<'a> Queued<'a> {
    fn enter(core: &'a NamespaceCore) -> Result<Self> {
        let queued = Self(core);
        let before = core.queued.fetch_add(1, Ordering::Relaxed);
        if before >= core.config.max_waiting_loads {
            return Err(core.too_many_loads("found the queue full"));
        }
        Ok(queued)
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.queued.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::time::Duration;

    use super::*;
    use crate::backend::{Bump, MemoryStore, Origin, Store};
    use crate::testing::{Fault, Faulty};

    const ME: Origin = Origin(1);

    #[tokio::test]
    async fn an_answer_from_before_news_was_missed_is_not_believed() -> Result<()> {
        let inner = Arc::new(MemoryStore::new(1 << 20));
        let tag = TagId::of("team");
        let before = inner.bump(ME, "user", Bump::Tags(vec![tag])).await?;
        let store = Faulty::new(Arc::clone(&inner) as _, Fault::Lingers);
        let gate = Gate::new(Arc::new(store), ME, Duration::from_secs(1), "cache".into());
        let ns = NamespaceCore::new(0, "user".into(), NamespaceConfig::default(), false);
        ns.know_epochs(&gate, Duration::ZERO).await?;

        let tags = [tag];
        let mut asked = pin!(ns.ask_tags(&gate, &tags));
        // Asked, answered, but not heard yet.
        for _ in 0..2 {
            assert!(futures::poll!(asked.as_mut()).is_pending());
        }
        inner.bump(ME, "user", Bump::Tags(vec![tag])).await?;
        ns.forget_epochs();
        asked.await?;
        ns.know_epochs(&gate, Duration::ZERO).await?;
        assert_eq!(ns.judge(before, &tags), Standing::Unknown, "it was invalidated since");
        Ok(())
    }
}
