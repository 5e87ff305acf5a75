//! Rows and bulk data piece by piece in a transaction.

use std::collections::VecDeque;
use std::fmt;

use crate::{Param, Result, Row};

use super::stream::{cut_short, streaming};
use super::transaction::Transaction;

/// The rows of a statement in a transaction as they come; made by [`Transaction::stream`].
pub struct TransactionRows<'t, 'c> {
    transaction: &'t mut Transaction<'c>,
    here: VecDeque<Row>,
    ended: bool,
    /// A call is under way; seen between calls, it was dropped.
    cut: bool,
}

impl TransactionRows<'_, '_> {
    /// The next row; `None` at the end.
    ///
    /// # Errors
    ///
    /// As [`Transaction::query`](crate::Transaction::query). The transaction has failed then.
    ///
    /// # Cancel safety
    ///
    /// A dropped future ends the transaction: it rolls back. The next call answers `Rejected`.
    pub async fn next(&mut self) -> Result<Option<Row>> {
        if std::mem::take(&mut self.cut) {
            return Err(cut_short("stream"));
        }
        if self.here.is_empty() && !self.ended {
            // Unless it comes through.
            (self.ended, self.cut) = (true, true);
            let flow = streaming(&mut *self.transaction.connection);
            let rows = match flow {
                Ok(flow) => flow.next_rows().await,
                Err(error) => Err(error),
            };
            self.cut = false;
            match rows {
                Ok(Some(rows)) => {
                    self.here.extend(rows);
                    self.ended = false;
                }
                rows => drop(self.transaction.leave(rows)?),
            }
        }
        Ok(self.here.pop_front())
    }
}

impl fmt::Debug for TransactionRows<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionRows").field("here", &self.here.len()).finish_non_exhaustive()
    }
}

/// What a `COPY … TO STDOUT` in a transaction sends; made by [`Transaction::copy_out`].
pub struct TransactionCopy<'t, 'c> {
    transaction: &'t mut Transaction<'c>,
    ended: bool,
    /// A call is under way; seen between calls, it was dropped.
    cut: bool,
}

impl TransactionCopy<'_, '_> {
    /// The next data, not cut along rows; `None` at the end.
    ///
    /// # Errors
    ///
    /// As [`Transaction::query`](crate::Transaction::query). The transaction has failed then.
    ///
    /// # Cancel safety
    ///
    /// A dropped future ends the transaction: it rolls back. The next call answers `Rejected`.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        if std::mem::take(&mut self.cut) {
            return Err(cut_short("copy_out"));
        }
        if self.ended {
            return Ok(None);
        }
        // Unless it comes through.
        (self.ended, self.cut) = (true, true);
        let data = match streaming(&mut *self.transaction.connection) {
            Ok(flow) => flow.next_copy().await,
            Err(error) => Err(error),
        };
        self.cut = false;
        match data {
            Ok(Some(data)) => {
                self.ended = false;
                Ok(Some(data))
            }
            end => self.transaction.leave(end),
        }
    }
}

impl fmt::Debug for TransactionCopy<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionCopy").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl<'c> Transaction<'c> {
    /// Runs a statement and answers its rows as they come, in bounded memory, however many there are. They show the
    /// transaction's own writes.
    ///
    /// Take them to their end: the transaction of a stream that is dropped before rolls back. The limit of a statement counts
    /// for all of them.
    ///
    /// # Errors
    ///
    /// As [`query`](Transaction::query); `Unsupported` for an engine that answers as a whole only.
    pub async fn stream<'t>(
        &'t mut self,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<TransactionRows<'t, 'c>> {
        self.enter("stream")?;
        let opened = match streaming(&mut *self.connection) {
            Ok(flow) => flow.open_rows(sql, params).await,
            Err(error) => Err(error),
        };
        if opened.is_err() {
            self.leave(opened)?;
        }
        Ok(TransactionRows { transaction: self, here: VecDeque::new(), ended: false, cut: false })
    }

    /// Runs a `COPY … TO STDOUT` and answers its data as they come. They show the transaction's own writes.
    ///
    /// Take them to their end, as those of a [`stream`](Transaction::stream).
    ///
    /// # Errors
    ///
    /// As [`stream`](Transaction::stream); `Rejected` for any other statement.
    pub async fn copy_out<'t>(&'t mut self, sql: &str) -> Result<TransactionCopy<'t, 'c>> {
        self.enter("copy_out")?;
        let opened = match streaming(&mut *self.connection) {
            Ok(flow) => flow.open_copy_out(sql).await,
            Err(error) => Err(error),
        };
        if opened.is_err() {
            self.leave(opened)?;
        }
        Ok(TransactionCopy { transaction: self, ended: false, cut: false })
    }
}
