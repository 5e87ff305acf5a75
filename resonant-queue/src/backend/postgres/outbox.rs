//! Publishing in a transaction of the caller.

use std::fmt;
use std::sync::Arc;

use resonant_db::{Transaction, params};
use serde::Serialize;

use super::publish::{Each, check};
use super::store::{Queue, Shared, foreign};
use super::wakes::CHANNEL;
use crate::backend::QueueSpec;
use crate::message::{Outgoing, PublishOptions, Receipt};
use crate::queue::PartitionedQueue;

/// Publishes into a queue in a transaction of the caller: the message is there if it commits, and not if it does not.
/// Made by [`Postgres::outbox`](super::Postgres::outbox).
///
/// Until the transaction ends, others that publish into the same partition wait: for ten seconds at most, then their publish
/// fails and is worth another try. A transaction that published and then asks nothing of the server for five seconds is
/// ended by it, so that a client that froze holds up nobody for longer; whoever needs longer sets
/// `idle_in_transaction_session_timeout` after the publish. Publish late in it, and keys of several
/// partitions in one order everywhere, or the server ends one of two transactions that wait for each other (which
/// [`Database::transaction`](resonant_db::Database::transaction) then runs again).
///
/// ```no_run
/// # async fn example(postgres: resonant_queue::Postgres, queue: resonant_queue::PartitionedQueue<i64>) -> resonant_db::Result<()> {
/// use resonant_db::params;
/// let outbox = postgres.outbox(&queue);
/// postgres.database().transaction(async |tx| {
///     tx.execute("INSERT INTO orders (id) VALUES ($1)", params![7]).await?;
///     outbox.publish(tx, &7).await
/// }).await?;
/// # Ok(()) }
/// ```
pub struct Outbox<T> {
    shared: Arc<Shared>,
    queue: PartitionedQueue<T>,
    spec: Arc<QueueSpec>,
}

impl<T> Clone for Outbox<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            queue: self.queue.clone(),
            spec: Arc::clone(&self.spec),
        }
    }
}

impl<T> fmt::Debug for Outbox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("queue", &self.queue).finish_non_exhaustive()
    }
}

impl<T: Serialize> Outbox<T> {
    pub(super) fn new(shared: Arc<Shared>, queue: PartitionedQueue<T>) -> Self {
        let spec = Arc::new(queue.core().spec.clone());
        Self { shared, queue, spec }
    }

    /// Publishes a message under the key the queue finds in it.
    ///
    /// # Errors
    ///
    /// `Rejected` with the queue's error as its source, where the message has no usable key, is too large, or the queue is
    /// full; those of a statement of the transaction.
    pub async fn publish(
        &self,
        tx: &mut Transaction<'_>,
        message: &T,
    ) -> resonant_db::Result<Receipt> {
        self.publish_with(tx, message, PublishOptions::new()).await
    }

    /// Publishes a message with a delay, a unique id, headers, another key or none.
    ///
    /// # Errors
    ///
    /// As [`publish`](Outbox::publish).
    pub async fn publish_with(
        &self,
        tx: &mut Transaction<'_>,
        message: &T,
        options: PublishOptions,
    ) -> resonant_db::Result<Receipt> {
        let outgoing = self.queue.encode("publish", message, &options).map_err(refused)?;
        self.send(tx, &outgoing).await
    }

    async fn send(
        &self,
        tx: &mut Transaction<'_>,
        message: &Outgoing,
    ) -> resonant_db::Result<Receipt> {
        // All in this transaction: the pool may have no second connection.
        let found = Queue::find_in(tx, &self.shared, &self.spec, "publish").await;
        let queue = found.map_err(refused)?;
        let batch = std::slice::from_ref(message);
        check(&queue.spec, batch).map_err(refused)?;
        let rows = tx.query(Each::SQL, &Each::of(&queue, batch).params()).await?;
        let receipts = Each::receipts(&queue, &rows).map_err(refused)?;
        let receipt = receipts.into_iter().next().ok_or_else(|| refused(foreign("publish")))?;
        if !receipt.duplicate {
            let news = if receipt.sequence.is_none() { "!" } else { "" };
            let payload = format!("{news}{}", queue.id_of(message.partition));
            tx.query("SELECT pg_notify($1, $2)", params![CHANNEL, payload]).await?;
        }
        Ok(receipt)
    }
}

/// The queue's error as one that undoes the transaction.
fn refused(error: crate::Error) -> resonant_db::Error {
    let message = error.message().to_owned();
    resonant_db::Error::new(resonant_db::ErrorKind::Rejected, "publish", message).with_source(error)
}
