//! A suite that cannot fail proves nothing: each of these engines breaks one promise and must be caught.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use resonant_common::join::LeaseStore;
use resonant_queue::backend::{Backend, Capabilities, Opened, QueueSpec, QueueStore, Settlement};
use resonant_queue::testing::{Place, cases};
use resonant_queue::{DeadLetter, Key, Memory, Outgoing, ParkedKey, Receipt, Result};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Flaw {
    /// Stores a batch from its end to its beginning.
    TurnsBatchesRound,
    /// Lets a superseded owner settle.
    LetsZombiesSettle,
    /// Finishes a message that only failed.
    DropsTheFailed,
    /// Forgets ids.
    ForgetsIds,
    /// Confirms and stores only the first half of a batch.
    StoresHalf,
    /// Keeps nothing of a parked key but the message that failed.
    ForgetsWhatIsBehind,
}

#[derive(Debug)]
struct Broken {
    memory: Memory,
    flaw: Flaw,
}

#[async_trait]
impl Place for Broken {
    async fn open(&self) -> Arc<dyn Backend> {
        Arc::new(Self { memory: self.memory.clone(), flaw: self.flaw })
    }
}

#[async_trait]
impl Backend for Broken {
    fn capabilities(&self) -> Capabilities {
        self.memory.capabilities()
    }

    async fn declare(&self, spec: &QueueSpec) -> Result<Arc<dyn QueueStore>> {
        Ok(Arc::new(Store { inner: self.memory.declare(spec).await?, flaw: self.flaw }))
    }
}

#[derive(Debug)]
struct Store {
    inner: Arc<dyn QueueStore>,
    flaw: Flaw,
}

#[async_trait]
impl QueueStore for Store {
    async fn publish(&self, batch: Arc<Vec<Outgoing>>) -> Result<Vec<Receipt>> {
        let mut changed = batch.to_vec();
        match self.flaw {
            Flaw::TurnsBatchesRound => changed.reverse(),
            Flaw::ForgetsIds => changed.iter_mut().for_each(|message| message.unique_id = None),
            Flaw::StoresHalf => changed.truncate(batch.len().div_ceil(2)),
            _ => {}
        }
        let mut receipts = self.inner.publish(Arc::new(changed)).await?;
        while let (true, Some(&last)) = (receipts.len() < batch.len(), receipts.last()) {
            receipts.push(last);
        }
        Ok(receipts)
    }

    async fn settle(&self, partition: u32, epoch: u64, batch: Arc<Vec<Settlement>>) -> Result<()> {
        match self.flaw {
            Flaw::LetsZombiesSettle => {
                match self.inner.settle(partition, epoch, Arc::clone(&batch)).await {
                    Err(_) => self.inner.settle(partition, epoch + 2, batch).await,
                    fine => fine,
                }
            }
            Flaw::DropsTheFailed => {
                let finished = batch.iter().map(|settlement| match settlement {
                    Settlement::Retry { sequence, .. } => Settlement::Done { sequence: *sequence },
                    other => other.clone(),
                });
                self.inner.settle(partition, epoch, Arc::new(finished.collect())).await
            }
            Flaw::ForgetsWhatIsBehind => {
                let finished = batch.iter().map(|settlement| match settlement {
                    Settlement::ParkBehind { sequence } => Settlement::Done { sequence: *sequence },
                    other => other.clone(),
                });
                self.inner.settle(partition, epoch, Arc::new(finished.collect())).await
            }
            _ => self.inner.settle(partition, epoch, batch).await,
        }
    }

    async fn room(&self) {
        self.inner.room().await;
    }
    fn leases(&self) -> Arc<dyn LeaseStore> {
        self.inner.leases()
    }
    async fn open(&self, partition: u32, epoch: u64) -> Result<Opened> {
        self.inner.open(partition, epoch).await
    }
    async fn stored(&self) -> Result<resonant_queue::Stored> {
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
    async fn paused(&self) -> Result<bool> {
        self.inner.paused().await
    }
    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }
    async fn close(&self) {
        self.inner.close().await;
    }
}

type Case = for<'a> fn(&'a dyn Place) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

#[tokio::test(start_paused = true)]
async fn broken_engines_are_caught() {
    let flaws: [(Flaw, Case); 6] = [
        (Flaw::TurnsBatchesRound, |place| {
            Box::pin(cases::every_message_of_a_key_comes_in_order(place))
        }),
        (Flaw::LetsZombiesSettle, |place| Box::pin(cases::a_zombie_settles_nothing(place))),
        (Flaw::DropsTheFailed, |place| Box::pin(cases::opening_again_finds_everything(place))),
        (Flaw::ForgetsIds, |place| Box::pin(cases::a_unique_id_is_stored_once(place))),
        (Flaw::StoresHalf, |place| Box::pin(cases::a_batch_is_stored_whole_or_not_at_all(place))),
        (Flaw::ForgetsWhatIsBehind, |place| {
            Box::pin(cases::a_poison_key_is_parked_while_others_flow(place))
        }),
    ];
    for (flaw, case) in flaws {
        let place = Broken { memory: Memory::new(), flaw };
        let run = AssertUnwindSafe(case(&place)).catch_unwind();
        // The clock is paused: waiting for what never comes costs nothing.
        let run = tokio::time::timeout(Duration::from_secs(120), run).await;
        assert!(!matches!(run, Ok(Ok(()))), "{flaw:?} passed the suite");
    }
}
