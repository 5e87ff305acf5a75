//! What a handler writes, the acknowledgement and the check of the epoch, in one transaction.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use resonant_db::{Transaction, params};
use tokio::sync::OnceCell;

use super::error::fault;
use super::store::{Queue, Shared};
use super::text::signed;
use crate::backend::QueueSpec;
use crate::delivery::Delivery;
use crate::error::{Error, ErrorKind, Result};

/// What `pending` and `finish` answer.
const TO_DO: i64 = 0;
const DONE: i64 = 1;

/// Runs effects of messages exactly once, in the database the queue is in. Made by
/// [`Postgres::effects`](super::Postgres::effects).
///
/// ```no_run
/// # async fn example(postgres: resonant_queue::Postgres, queue: resonant_queue::PartitionedQueue<i64>) -> resonant_queue::Result<()> {
/// use resonant_db::params;
/// use resonant_queue::Delivery;
///
/// let effects = postgres.effects(&queue);
/// let worker = queue
///     .worker(async move |delivery: Delivery<i64>| {
///         let cents = *delivery.message();
///         effects
///             .apply(&delivery, async move |tx| {
///                 tx.execute("UPDATE account SET cents = cents + $1 WHERE id = 7", params![cents]).await
///             })
///             .await?;
///         Ok(())
///     })
///     .start()
///     .await?;
/// # let _ = worker;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Effects {
    shared: Arc<Shared>,
    spec: Arc<QueueSpec>,
    queue: Arc<OnceCell<Queue>>,
}

impl fmt::Debug for Effects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Effects").field("queue", &self.spec.name).finish_non_exhaustive()
    }
}

impl Effects {
    pub(super) fn new(shared: Arc<Shared>, spec: &QueueSpec) -> Self {
        Self { shared, spec: Arc::new(spec.clone()), queue: Arc::default() }
    }

    /// Runs `work` in a transaction that also finishes the message, if nobody owns its partition since. Both become visible
    /// together or not at all. Returns `None` without running anything if the message was finished before: then its effects
    /// are there. The handler answers `Ok` afterwards; the acknowledgement that follows changes nothing.
    ///
    /// `work` may run several times, when the database gives up because of concurrent transactions. It must not commit.
    ///
    /// # Errors
    ///
    /// `Fenced` if the partition has a newer owner: nothing was changed. Otherwise what `work` or the database said, as
    /// `Unavailable` unless it is about the tables; if it [may have
    /// applied](resonant_common::error::Error::may_have_applied), the next attempt finds out.
    ///
    /// # Cancel safety
    ///
    /// A dropped future has applied all or nothing, as it is with a handler that is stopped.
    pub async fn apply<T, R, F>(&self, delivery: &Delivery<T>, work: F) -> Result<Option<R>>
    where
        F: AsyncFnOnce(&mut Transaction<'_>) -> resonant_db::Result<R> + Clone,
    {
        let facts = Facts {
            partition: self.partition(delivery.partition()).await?,
            epoch: signed(delivery.epoch()),
            sequence: signed(delivery.sequence()),
        };
        let verdict = Arc::new(AtomicI64::new(TO_DO));
        let told = Arc::clone(&verdict);
        let run = async move |tx: &mut Transaction<'_>| {
            let pending = facts.ask(tx, "pending").await?;
            told.store(pending, Ordering::Relaxed);
            match pending {
                TO_DO => {}
                DONE => return Ok(None),
                _ => return Err(undone()),
            }
            let result = (work.clone())(tx).await?;
            // Last, so that the row of the owner is locked for no longer than the commit takes.
            let finished = facts.ask(tx, "finish").await?;
            told.store(finished, Ordering::Relaxed);
            if finished == TO_DO { Ok(Some(result)) } else { Err(undone()) }
        };
        let applied = self.shared.db.transaction(run).await;
        match (applied, verdict.load(Ordering::Relaxed)) {
            (Ok(result), _) => Ok(result),
            // Somebody finished it while this ran, and this is undone.
            (Err(error), DONE) if !error.may_have_applied() => Ok(None),
            (Err(error), verdict) if verdict > DONE && !error.may_have_applied() => {
                let message = format!(
                    "partition {} has a newer owner than epoch {}: nothing was changed, and the message comes again there",
                    delivery.partition(),
                    delivery.epoch()
                );
                Err(Error::new(ErrorKind::Fenced, "apply", message).with_source(error))
            }
            (Err(error), _) => Err(fault("apply", error)),
        }
    }

    async fn partition(&self, number: u32) -> Result<i32> {
        let declare = || Queue::declare(&self.shared, &self.spec, "apply");
        Ok(self.queue.get_or_try_init(declare).await?.id_of(number))
    }
}

/// Which message it is about.
#[derive(Debug, Clone, Copy)]
struct Facts {
    partition: i32,
    epoch: i64,
    sequence: i64,
}

impl Facts {
    async fn ask(self, tx: &mut Transaction<'_>, function: &str) -> resonant_db::Result<i64> {
        let sql = format!("SELECT resonant_queue.{function}($1, $2, $3)");
        tx.query_one_as(&sql, params![self.partition, self.epoch, self.sequence]).await
    }
}

/// Rolls the transaction back.
fn undone() -> resonant_db::Error {
    let message = "the message is not this handler's to finish";
    resonant_db::Error::new(resonant_db::ErrorKind::Refused, "apply", message)
}
