//! Which messages of other queues have had their effects here.

use std::sync::Arc;
use std::time::Duration;

use resonant_db::{Transaction, params};

use super::error::fault;
use super::store::{Shared, get, one};
use super::text::{signed, unsigned};
use crate::clock;
use crate::error::Result;

/// Remembers ids of messages whose effects are in this database, so that one that is delivered again has none. Made by
/// [`Postgres::inbox`](super::Postgres::inbox); for messages of this database's own queues
/// [`Effects`](super::Effects) needs no memory.
///
/// ```no_run
/// # async fn example(postgres: resonant_queue::Postgres, id: String, cents: i64) -> Result<(), Box<dyn std::error::Error>> {
/// use resonant_db::params;
/// let inbox = postgres.inbox("ledger");
/// postgres.database().transaction(async |tx| {
///     if inbox.first_time(tx, &id).await? {
///         tx.execute("UPDATE account SET cents = cents + $1", params![cents]).await?;
///     }
///     Ok(())
/// }).await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Inbox {
    shared: Arc<Shared>,
    consumer: Arc<str>,
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox").field("consumer", &self.consumer).finish_non_exhaustive()
    }
}

impl Inbox {
    pub(super) fn new(shared: Arc<Shared>, consumer: String) -> Self {
        Self { shared, consumer: consumer.into() }
    }

    /// Whether this consumer sees the id for the first time; it is remembered when the transaction commits. Waits for a
    /// transaction that is about the same id at this moment.
    ///
    /// # Errors
    ///
    /// Those of a statement of the transaction.
    pub async fn first_time(
        &self,
        tx: &mut Transaction<'_>,
        id: &str,
    ) -> resonant_db::Result<bool> {
        let sql = "INSERT INTO resonant_queue.inbox (consumer, id, at) VALUES ($1, $2, resonant_queue.now_ms())
             ON CONFLICT DO NOTHING";
        Ok(tx.execute(sql, params![&*self.consumer, id]).await? > 0)
    }

    /// Forgets ids that were remembered longer ago, of this consumer; returns how many. What is forgotten must not be
    /// delivered any more.
    ///
    /// # Errors
    ///
    /// `Unavailable`, `Incompatible`.
    pub async fn forget(&self, older_than: Duration) -> Result<u64> {
        self.shared.ready("forget").await?;
        let sql = "WITH old AS (DELETE FROM resonant_queue.inbox WHERE consumer = $1 AND at < resonant_queue.now_ms() - $2 RETURNING 1)
             SELECT count(*) FROM old";
        let millis = signed(clock::as_millis(older_than));
        let rows = self.shared.db.write().query(sql, params![&*self.consumer, millis]).await;
        let rows = rows.map_err(|error| fault("forget", error))?;
        Ok(unsigned(get("forget", &one("forget", &rows)?, 0)?))
    }
}
