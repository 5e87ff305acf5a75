//! What a handler writes, the acknowledgement and the check of the epoch, in one transaction.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use resonant_db::{Transaction, params};

use super::error::fault;
use super::store::{Queue, Shared};
use super::text::{numbers, signed};
use crate::backend::QueueSpec;
use crate::delivery::{Delivery, Run};
use crate::error::{Error, ErrorKind, Result};

/// What `finish` answers.
const TO_DO: i64 = 0;
const DONE: i64 = 1;
const FENCED: i64 = 2;

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
}

impl fmt::Debug for Effects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Effects").field("queue", &self.spec.name).finish_non_exhaustive()
    }
}

impl Effects {
    pub(super) fn new(shared: Arc<Shared>, spec: &QueueSpec) -> Self {
        Self { shared, spec: Arc::new(spec.clone()) }
    }

    /// Runs `work` in a transaction that also finishes the message, if nobody owns its partition since. Both become visible
    /// together or not at all. Returns `None` without running anything if the message was finished before: then its effects
    /// are there. The handler answers `Ok` afterwards; the acknowledgement that follows changes nothing.
    ///
    /// `work` may run several times, when the database gives up because of concurrent transactions, or when somebody else
    /// finished some of the messages meanwhile. It must not commit.
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
        let (partition, epoch) = (delivery.partition(), delivery.epoch());
        let sequences = [delivery.sequence()];
        self.finish(partition, epoch, &sequences, async move |tx, _| work(tx).await).await
    }

    /// The same for a run: finishes all its messages with one commit. `work` gets the places in the run of those that are
    /// still to be done: all of them, unless an earlier transaction was committed whose answer was lost. Returns `None`
    /// without running anything if none is left.
    ///
    /// ```no_run
    /// # async fn example(postgres: resonant_queue::Postgres, queue: resonant_queue::PartitionedQueue<i64>) -> resonant_queue::Result<()> {
    /// use resonant_db::params;
    /// use resonant_queue::Run;
    ///
    /// let effects = postgres.effects(&queue);
    /// let worker = queue
    ///     .worker_runs(100, async move |run: Run<i64>| {
    ///         let cents: Vec<i64> = run.iter().map(|delivery| *delivery.message()).collect();
    ///         effects
    ///             .apply_run(&run, async move |tx, left: Vec<usize>| {
    ///                 let sum: i64 = left.into_iter().map(|place| cents[place]).sum();
    ///                 tx.execute("UPDATE account SET cents = cents + $1 WHERE id = 7", params![sum]).await
    ///             })
    ///             .await?;
    ///         Ok(())
    ///     })
    ///     .start()
    ///     .await?;
    /// # let _ = worker;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`apply`](Effects::apply).
    ///
    /// # Cancel safety
    ///
    /// As [`apply`](Effects::apply): all of the run or nothing.
    pub async fn apply_run<T, R, F>(&self, run: &Run<T>, work: F) -> Result<Option<R>>
    where
        F: AsyncFnOnce(&mut Transaction<'_>, Vec<usize>) -> resonant_db::Result<R> + Clone,
    {
        let sequences: Vec<_> = run.iter().map(Delivery::sequence).collect();
        self.finish(run.partition(), run.epoch(), &sequences, work).await
    }

    async fn finish<R, F>(
        &self,
        partition: u32,
        epoch: u64,
        sequences: &[u64],
        work: F,
    ) -> Result<Option<R>>
    where
        F: AsyncFnOnce(&mut Transaction<'_>, Vec<usize>) -> resonant_db::Result<R> + Clone,
    {
        let facts = Facts { partition: self.partition(partition).await?, epoch: signed(epoch) };
        let verdict = Arc::new(AtomicI64::new(TO_DO));
        let told = Arc::clone(&verdict);
        let run = async move |tx: &mut Transaction<'_>| {
            let Some(left) = facts.pending(tx, sequences).await? else {
                told.store(FENCED, Ordering::Relaxed);
                return Err(undone());
            };
            if left.is_empty() {
                told.store(DONE, Ordering::Relaxed);
                return Ok(None);
            }
            told.store(TO_DO, Ordering::Relaxed);
            let finished: Vec<u64> = left.iter().map(|place| sequences[*place]).collect();
            let result = (work.clone())(tx, left).await?;
            // Last, so that the row of the owner is locked for no longer than the commit takes.
            let finished = facts.finish(tx, &finished).await?;
            told.store(finished, Ordering::Relaxed);
            if finished == TO_DO { Ok(Some(result)) } else { Err(undone()) }
        };
        loop {
            verdict.store(TO_DO, Ordering::Relaxed);
            let applied = self.shared.db.transaction(run.clone()).await;
            return match (applied, verdict.load(Ordering::Relaxed)) {
                (Ok(result), _) => Ok(result),
                // Somebody finished some of it while this ran, and this is undone: the rest remains, which is less each time.
                (Err(error), DONE) if !error.may_have_applied() => continue,
                (Err(error), FENCED) if !error.may_have_applied() => {
                    let message = format!(
                        "partition {partition} has a newer owner than epoch {epoch}: nothing was changed, and the message comes again there"
                    );
                    Err(Error::new(ErrorKind::Fenced, "apply", message).with_source(error))
                }
                (Err(error), _) => Err(fault("apply", error)),
            };
        }
    }

    async fn partition(&self, number: u32) -> Result<i32> {
        let queue = match self.shared.known(&self.spec) {
            Some(known) => known,
            None => Queue::declare(&self.shared, &self.spec, "apply").await?,
        };
        Ok(queue.id_of(number))
    }
}

/// Whose messages it is about.
#[derive(Debug, Clone, Copy)]
struct Facts {
    partition: i32,
    epoch: i64,
}

impl Facts {
    /// The places of those that are not finished; `None` if the partition has a newer owner.
    async fn pending(
        self,
        tx: &mut Transaction<'_>,
        sequences: &[u64],
    ) -> resonant_db::Result<Option<Vec<usize>>> {
        let asked = numbers(sequences.iter().map(|sequence| Some(signed(*sequence))));
        let sql = "SELECT resonant_queue.pending($1, $2, $3)";
        let left: Option<String> =
            tx.query_one_as(sql, params![self.partition, self.epoch, asked]).await?;
        let Some(left) = left else { return Ok(None) };
        let left: HashSet<u64> = left.split(',').filter_map(|text| text.parse().ok()).collect();
        let places = sequences.iter().enumerate().filter(|(_, sequence)| left.contains(sequence));
        Ok(Some(places.map(|(place, _)| place).collect()))
    }

    async fn finish(self, tx: &mut Transaction<'_>, sequences: &[u64]) -> resonant_db::Result<i64> {
        let finished = numbers(sequences.iter().map(|sequence| Some(signed(*sequence))));
        let sql = "SELECT resonant_queue.finish($1, $2, $3)";
        tx.query_one_as(sql, params![self.partition, self.epoch, finished]).await
    }
}

/// Rolls the transaction back.
fn undone() -> resonant_db::Error {
    let message = "the message is not this handler's to finish";
    resonant_db::Error::new(resonant_db::ErrorKind::Refused, "apply", message)
}
