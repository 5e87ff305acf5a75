//! Reading what one has written.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use resonant_common::join::Position;

use crate::backend::Connection;
use crate::{Result, Transaction, TransactionOptions};

use super::Database;
use super::read::Read;
use super::write::Write;

/// A session that reads what it has written; made by [`Database::session`].
///
/// It remembers how far its writes have come, and reads only from nodes that are as far. Where no replica is, the primary
/// answers. [`token`](Session::token) carries that across requests and processes. Clones are the same session.
///
/// # Cancel safety
///
/// The session remembers a write when its future has answered. Of a write that was dropped it knows nothing.
#[derive(Clone)]
pub struct Session {
    database: Database,
    last: Arc<Mutex<Option<Position>>>,
}

impl Session {
    pub(super) fn new(database: Database, position: Option<Position>) -> Self {
        Self { database, last: Arc::new(Mutex::new(position)) }
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
        self.position().map(|position| position.to_string())
    }

    /// How far the session's writes have come.
    pub fn position(&self) -> Option<Position> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers how far a connection is that has just written.
    pub(super) async fn wrote(&self, connection: &mut dyn Connection) {
        let position = match connection.position().await {
            Ok(Some(position)) => position,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "the position of a write is unknown; the session may read an older state");
                return;
            }
        };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // Concurrent writes of one session may end in any order: the furthest counts, a new history replaces an old one.
        let behind = last.is_some_and(|last| position.has_reached(&last) == Some(false));
        if !behind {
            *last = Some(position);
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("position", &self.position()).finish_non_exhaustive()
    }
}
