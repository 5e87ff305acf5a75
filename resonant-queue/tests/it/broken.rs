//! A suite that cannot fail proves nothing: each of these engines breaks one promise and must be caught.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use resonant_queue::backend::{QueueStore, Settlement};
use resonant_queue::testing::{Place, cases};
use resonant_queue::{Outgoing, Receipt, Result};

use crate::wrap::{Change, Changed};

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

#[async_trait]
impl Change for Flaw {
    async fn publish(
        &self,
        inner: &dyn QueueStore,
        batch: Arc<Vec<Outgoing>>,
    ) -> Result<Vec<Receipt>> {
        let mut changed = batch.to_vec();
        match self {
            Flaw::TurnsBatchesRound => changed.reverse(),
            Flaw::ForgetsIds => changed.iter_mut().for_each(|message| message.unique_id = None),
            Flaw::StoresHalf => changed.truncate(batch.len().div_ceil(2)),
            _ => {}
        }
        let mut receipts = inner.publish(Arc::new(changed)).await?;
        while let (true, Some(&last)) = (receipts.len() < batch.len(), receipts.last()) {
            receipts.push(last);
        }
        Ok(receipts)
    }

    async fn settle(
        &self,
        inner: &dyn QueueStore,
        (partition, epoch): (u32, u64),
        batch: Arc<Vec<Settlement>>,
    ) -> Result<()> {
        let changed = batch.iter().map(|settlement| match (self, settlement) {
            (Flaw::DropsTheFailed, Settlement::Retry { sequence, .. })
            | (Flaw::ForgetsWhatIsBehind, Settlement::ParkBehind { sequence }) => {
                Settlement::Done { sequence: *sequence }
            }
            _ => settlement.clone(),
        });
        let changed = Arc::new(changed.collect::<Vec<_>>());
        match inner.settle(partition, epoch, Arc::clone(&changed)).await {
            Err(_) if *self == Flaw::LetsZombiesSettle => {
                inner.settle(partition, epoch + 2, changed).await
            }
            settled => settled,
        }
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
        let place = Changed::new(flaw);
        let run = AssertUnwindSafe(case(&place)).catch_unwind();
        // The clock is paused: waiting for what never comes costs nothing.
        let run = tokio::time::timeout(Duration::from_secs(120), run).await;
        assert!(!matches!(run, Ok(Ok(()))), "{flaw:?} passed the suite");
    }
}
