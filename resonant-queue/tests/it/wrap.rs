//! An engine with something changed about it: what a test does not change is that of [`Memory`].

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use resonant_common::join::LeaseStore;
use resonant_queue::backend::{Backend, Capabilities, Opened, QueueSpec, QueueStore, Settlement};
use resonant_queue::testing::Place;
use resonant_queue::{DeadLetter, Key, Memory, Outgoing, ParkedKey, Receipt, Result, Stored};

/// What is changed.
#[async_trait]
pub(crate) trait Change: Debug + Send + Sync + 'static {
    async fn publish(
        &self,
        inner: &dyn QueueStore,
        batch: Arc<Vec<Outgoing>>,
    ) -> Result<Vec<Receipt>> {
        inner.publish(batch).await
    }

    async fn settle(
        &self,
        inner: &dyn QueueStore,
        (partition, epoch): (u32, u64),
        batch: Arc<Vec<Settlement>>,
    ) -> Result<()> {
        inner.settle(partition, epoch, batch).await
    }

    async fn paused(&self, inner: &dyn QueueStore) -> Result<bool> {
        inner.paused().await
    }

    async fn open(&self, inner: &dyn QueueStore, partition: u32, epoch: u64) -> Result<Opened> {
        inner.open(partition, epoch).await
    }

    fn leases(&self, inner: &dyn QueueStore) -> Arc<dyn LeaseStore> {
        inner.leases()
    }

    fn capabilities(&self, inner: Capabilities) -> Capabilities {
        inner
    }
}

/// The engine. Clones share their queues.
#[derive(Debug)]
pub(crate) struct Changed<C> {
    pub(crate) memory: Memory,
    pub(crate) change: Arc<C>,
}

impl<C> Changed<C> {
    pub(crate) fn new(change: C) -> Self {
        Self { memory: Memory::new(), change: Arc::new(change) }
    }
}

impl<C> Clone for Changed<C> {
    fn clone(&self) -> Self {
        Self { memory: self.memory.clone(), change: Arc::clone(&self.change) }
    }
}

#[async_trait]
impl<C: Change> Backend for Changed<C> {
    fn capabilities(&self) -> Capabilities {
        self.change.capabilities(self.memory.capabilities())
    }

    async fn declare(&self, spec: &QueueSpec) -> Result<Arc<dyn QueueStore>> {
        let inner = self.memory.declare(spec).await?;
        Ok(Arc::new(Store { inner, change: Arc::clone(&self.change) }))
    }
}

#[async_trait]
impl<C: Change> Place for Changed<C> {
    async fn open(&self) -> Arc<dyn Backend> {
        Arc::new(self.clone())
    }
}

#[derive(Debug)]
struct Store<C> {
    inner: Arc<dyn QueueStore>,
    change: Arc<C>,
}

#[async_trait]
impl<C: Change> QueueStore for Store<C> {
    async fn publish(&self, batch: Arc<Vec<Outgoing>>) -> Result<Vec<Receipt>> {
        self.change.publish(&*self.inner, batch).await
    }
    async fn settle(&self, partition: u32, epoch: u64, batch: Arc<Vec<Settlement>>) -> Result<()> {
        self.change.settle(&*self.inner, (partition, epoch), batch).await
    }
    async fn paused(&self) -> Result<bool> {
        self.change.paused(&*self.inner).await
    }
    async fn open(&self, partition: u32, epoch: u64) -> Result<Opened> {
        self.change.open(&*self.inner, partition, epoch).await
    }
    fn leases(&self) -> Arc<dyn LeaseStore> {
        self.change.leases(&*self.inner)
    }
    async fn room(&self) {
        self.inner.room().await;
    }
    async fn stored(&self) -> Result<Stored> {
        self.inner.stored().await
    }
    async fn parked(&self, limit: usize) -> Result<Vec<ParkedKey>> {
        self.inner.parked(limit).await
    }
    async fn resume_key(&self, partition: u32, key: &Key) -> Result<Option<u64>> {
        self.inner.resume_key(partition, key).await
    }
    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>> {
        self.inner.dead_letters(limit).await
    }
    async fn redrive(&self, limit: usize) -> Result<u64> {
        self.inner.redrive(limit).await
    }
    async fn purge_dead(&self, limit: usize) -> Result<u64> {
        self.inner.purge_dead(limit).await
    }
    async fn set_paused(&self, paused: bool) -> Result<()> {
        self.inner.set_paused(paused).await
    }
    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }
    async fn close(&self) {
        self.inner.close().await;
    }
}
