//! Reading what one has written.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use resonant_common::join::Position;
use tokio::time::Instant;

use crate::backend::Connection;
use crate::replica_set::{Wish, Written};
use crate::{Result, Transaction, TransactionOptions};

use super::Database;
use super::read::Read;
use super::write::Write;

/// A session that reads what it has written; made by [`Database::session`].
///
/// It remembers how far its writes have come, and reads only from nodes that are as far. Where no replica is, the primary
/// answers; it alone does from then on if it could not say how far a write has come. [`token`](Session::token) carries that across requests and processes. Clones are the same session.
///
/// # Cancel safety
///
/// The session remembers a write when its future has answered. Of a write that was dropped it knows nothing.
#[derive(Clone)]
pub struct Session {
    database: Database,
    written: Arc<Mutex<Written>>,
}

impl Session {
    pub(super) fn new(database: Database) -> Self {
        Self { database, written: Arc::default() }
    }

    pub(super) fn from_token(database: Database, token: &str) -> Result<Self> {
        Ok(Self::resumed(database, Written::from_token(token)?))
    }

    pub(crate) fn resumed(database: Database, written: Written) -> Self {
        Self { database, written: Arc::new(Mutex::new(written)) }
    }

    /// Reads that see everything this session has written.
    pub fn read(&self) -> Read<'_> {
        Read::new(&self.database, Some(self))
    }

    /// Writes that this session's reads will see.
    pub fn write(&self) -> Write<'_> {
        Write::new(&self.database, Some(self))
    }

    /// A transaction that this session's reads will see; otherwise as [`Database::transaction`].
    ///
    /// # Errors
    ///
    /// As [`Database::transaction`].
    #[track_caller]
    pub fn transaction<T, F>(&self, work: F) -> impl Future<Output = Result<T>>
    where
        F: AsyncFnOnce(&mut Transaction<'_>) -> Result<T> + Clone,
    {
        self.transaction_with(TransactionOptions::default(), work)
    }

    /// A transaction with options that this session's reads will see; otherwise as [`Database::transaction_with`].
    ///
    /// # Errors
    ///
    /// As [`Database::transaction_with`].
    #[track_caller]
    pub fn transaction_with<T, F>(
        &self,
        options: TransactionOptions,
        work: F,
    ) -> impl Future<Output = Result<T>>
    where
        F: AsyncFnOnce(&mut Transaction<'_>) -> Result<T> + Clone,
    {
        self.database.run_transaction(options, Some(self), std::panic::Location::caller(), work)
    }

    /// How far the session's writes have come, as text that fits into a cookie or a header; `None` before the first
    /// write. Give it to [`Database::session_from`], also in another process.
    pub fn token(&self) -> Option<String> {
        self.written().token()
    }

    /// How far the session's writes have come, as far as that is known.
    pub fn position(&self) -> Option<Position> {
        self.written().position
    }

    /// What its reads ask of a node, beside what is checked there.
    pub(super) fn wish(&self) -> Wish {
        let Written { pinned, at, .. } = *self.written();
        Wish { only_primary: pinned, written_at: at, own_writes: true, ..Wish::default() }
    }

    /// Remembers how far a connection is that has just written.
    pub(super) async fn wrote(&self, connection: &mut dyn Connection) {
        let position = match connection.position().await {
            Ok(Some(position)) => position,
            Ok(None) if self.database.capabilities().commits_visible_at_once => return,
            Ok(None) => return self.written().pinned = true,
            Err(error) => {
                tracing::debug!(%error, "how far a write has come is unknown; the session reads from the primary");
                return self.written().pinned = true;
            }
        };
        self.written().reached(position, Instant::now());
    }

    /// Sees what another session sees, too.
    #[cfg(feature = "sharding")]
    pub(crate) fn join(&self, other: &Session) {
        if Arc::ptr_eq(&self.written, &other.written) {
            return;
        }
        let other = *other.written();
        let mut written = self.written();
        written.pinned |= other.pinned;
        if let Some(position) = other.position {
            written.reached(position, Instant::now());
        }
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("position", &self.position()).finish_non_exhaustive()
    }
}
