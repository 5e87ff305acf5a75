//! Transactions: a closure that is run again when the engine gives up on a conflict.

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::time::Duration;

use resonant_common::backoff::Backoff;
use tracing::Instrument;

use crate::backend::{Access, BeginOptions, Connection, Isolation, ParamRows};
use crate::replica_set::Wish;
use crate::{Error, ErrorKind, Param, Result, Rows};

use super::Database;
use super::bulk::Chunks;
use super::node::{Lease, Report, lease};
use super::queries::query_methods;
use super::session::Session;
use super::tour::Tour;
use super::verdicts::{Stage, transaction_again, write_elsewhere};

/// How a transaction is run.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct TransactionOptions {
    /// How far it is kept apart from concurrent ones. Default: the engine's own.
    pub isolation: Isolation,
    /// What it may do. A read-only one reads a consistent state, on a node the read strategy chooses; where that cannot
    /// begin it, another one does. Default: read and write.
    pub access: Access,
    /// How often it is run at most when it meets a conflict, the first time included. Default 5.
    pub max_attempts: u32,
    /// The pause before it is run again. Default 10 ms to 1 s, with jitter.
    pub backoff: Backoff,
}

impl Default for TransactionOptions {
    fn default() -> Self {
        Self {
            isolation: Isolation::Engine,
            access: Access::ReadWrite,
            max_attempts: 5,
            backoff: Backoff {
                initial: Duration::from_millis(10),
                max: Duration::from_secs(1),
                factor: 2.0,
            },
        }
    }
}

impl TransactionOptions {
    /// How far it is kept apart from concurrent ones.
    #[must_use]
    pub fn isolation(self, isolation: Isolation) -> Self {
        Self { isolation, ..self }
    }

    /// It only reads.
    #[must_use]
    pub fn read_only(self) -> Self {
        Self { access: Access::ReadOnly, ..self }
    }

    /// How often it is run at most, the first time included.
    #[must_use]
    pub fn max_attempts(self, attempts: u32) -> Self {
        Self { max_attempts: attempts, ..self }
    }

    /// The pause before it is run again.
    #[must_use]
    pub fn backoff(self, backoff: Backoff) -> Self {
        Self { backoff, ..self }
    }
}

impl Database {
    /// Runs `work` in a transaction on the primary: commits when it answers `Ok`, rolls back when it answers `Err`.
    ///
    /// When the engine gives up because of a concurrent transaction ([`ErrorKind::Conflict`]), all of it is run again, up
    /// to five times with growing pauses and within the database's retry budget. So `work` may run several times: what it
    /// does outside the transaction should bear that.
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")]
    /// # async fn transfer(db: resonant_db::Database, from: i64, to: i64) -> resonant_db::Result<()> {
    /// use resonant_db::params;
    /// tokio::spawn(async move {
    ///     db.transaction(async |tx| {
    ///         tx.execute("UPDATE account SET cents = cents - 100 WHERE id = $1", params![from]).await?;
    ///         tx.execute("UPDATE account SET cents = cents + 100 WHERE id = $1", params![to]).await
    ///     })
    ///     .await
    /// });
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// What `work` answered, or what stopped the transaction. [`may_have_applied`](Error::may_have_applied) says when it is
    /// unknown whether a commit took effect; [`retries_exhausted`](Error::retries_exhausted) when it was run again and
    /// met conflicts to the end.
    ///
    /// # Cancel safety
    ///
    /// A dropped future rolls back, unless the commit was already on the way: then it is unknown whether it committed.
    #[track_caller]
    pub fn transaction<T, F>(&self, work: F) -> impl Future<Output = Result<T>>
    where
        F: AsyncFnOnce(&mut Transaction<'_>) -> Result<T> + Clone,
    {
        self.transaction_with(TransactionOptions::default(), work)
    }

    /// The same with options.
    ///
    /// # Errors
    ///
    /// As [`transaction`](Database::transaction).
    #[track_caller]
    pub fn transaction_with<T, F>(
        &self,
        options: TransactionOptions,
        work: F,
    ) -> impl Future<Output = Result<T>>
    where
        F: AsyncFnOnce(&mut Transaction<'_>) -> Result<T> + Clone,
    {
        self.run_transaction(options, None, Location::caller(), work)
    }

    pub(super) async fn run_transaction<T, F>(
        &self,
        options: TransactionOptions,
        session: Option<&Session>,
        site: &'static Location<'static>,
        work: F,
    ) -> Result<T>
    where
        F: AsyncFnOnce(&mut Transaction<'_>) -> Result<T> + Clone,
    {
        let inner = &self.inner;
        inner.set.budget().deposit();
        let mut attempt: u32 = 0;
        let mut may_move = options.access == Access::ReadWrite;
        loop {
            let span = tracing::debug_span!(
                "db.transaction",
                db.system.name = inner.backend.system(),
                attempt = attempt + 1,
            );
            let (node, result) =
                self.attempt(options, session, site, work.clone()).instrument(span).await;
            attempt += 1;
            match result {
                // Its node is not the primary any more, and nothing of it was applied.
                Err(error) if may_move && write_elsewhere(&error, Stage::Running) => {
                    may_move = false;
                    if node.is_none() || !inner.set.moves_on_from(node).await {
                        return Err(error);
                    }
                }
                Err(error) if transaction_again(&error) => {
                    if attempt >= options.max_attempts || !inner.set.budget().withdraw() {
                        return Err(if attempt > 1 {
                            error.with_retries_exhausted()
                        } else {
                            error
                        });
                    }
                    inner.conflict_retries.increment(1);
                    let pause = options.backoff.wait(attempt - 1, &mut rand::rng());
                    tokio::time::sleep(pause).await;
                }
                result => return result,
            }
        }
    }

    /// One attempt; with the node that it ran on, as far as it got to one.
    async fn attempt<T, F>(
        &self,
        options: TransactionOptions,
        session: Option<&Session>,
        site: &'static Location<'static>,
        work: F,
    ) -> (Option<u64>, Result<T>)
    where
        F: AsyncFnOnce(&mut Transaction<'_>) -> Result<T>,
    {
        let mut lease = match self.begin(options, session, site).await {
            Ok(lease) => lease,
            Err(error) => return (None, Err(error)),
        };
        let mut transaction = Transaction { connection: &mut *lease, state: State::Open, depth: 0 };
        let result = work(&mut transaction).await;
        let result = transaction.finish(result).await;
        match &result {
            Ok(_) => {
                lease.pick.succeeded();
                if let Some(session) = session.filter(|_| options.access == Access::ReadWrite) {
                    session.wrote(&mut *lease).await;
                }
            }
            Err(error) => lease.pick.note(error),
        }
        (Some(lease.give_back().id()), result)
    }

    /// A connection with the transaction begun on it. It may move on to another node, as nothing of it has run yet.
    async fn begin(
        &self,
        options: TransactionOptions,
        session: Option<&Session>,
        site: &'static Location<'static>,
    ) -> Result<Lease> {
        match options.access {
            Access::ReadWrite => self.begin_writing(options, site).await,
            Access::ReadOnly => self.begin_reading(options, session, site).await,
        }
    }

    async fn begin_writing(
        &self,
        options: TransactionOptions,
        site: &'static Location<'static>,
    ) -> Result<Lease> {
        let inner = &*self.inner;
        let begin = BeginOptions::new(options.isolation, options.access);
        let mut again = true;
        loop {
            let mut lease = inner.lease_primary(site).await?;
            let Err(error) = lease.begin(begin).await else { return Ok(lease) };
            lease.pick.note(&error);
            let failed = lease.give_back().id();
            let moves = again && write_elsewhere(&error, Stage::Connecting);
            again = false;
            if !moves || !inner.set.moves_on_from(Some(failed)).await {
                return Err(error);
            }
        }
    }

    async fn begin_reading(
        &self,
        options: TransactionOptions,
        session: Option<&Session>,
        site: &'static Location<'static>,
    ) -> Result<Lease> {
        let inner = &*self.inner;
        // What a session has written is read where it was written, unless every node has it.
        let anywhere = inner.capabilities().commits_visible_at_once
            || session.is_none_or(|session| session.token().is_none());
        let mut tour = Tour::new(inner, Wish { only_primary: !anywhere, ..Wish::default() });
        let begin = BeginOptions::new(options.isolation, options.access);
        while let Some(pick) = tour.next() {
            let (pick, stage, error) = match lease(pick, Access::ReadOnly, site).await {
                Err((error, pick)) => (pick, Stage::Connecting, error),
                Ok(mut lease) => match lease.begin(begin).await {
                    Ok(()) => return Ok(lease),
                    Err(error) => (lease.give_back(), Stage::Running, error),
                },
            };
            // After a conflict all of it is run again, with a pause.
            if error.kind() == ErrorKind::Conflict {
                pick.note(&error);
                return Err(error);
            }
            tour.failed(&pick, stage, error)?;
        }
        Err(tour.end())
    }
}

/// An open transaction; see [`Database::transaction`].
///
/// A statement that fails, or whose future is dropped, ends it: later statements are refused and it rolls back, on every
/// engine alike. Use [`savepoint`](Transaction::savepoint) around what may fail.
pub struct Transaction<'a> {
    pub(super) connection: &'a mut dyn Connection,
    state: State,
    depth: u32,
}

enum State {
    Open,
    /// A statement is under way; seen later, it was dropped.
    Busy,
    Failed(Error),
}

impl Transaction<'_> {
    query_methods!(self: &mut Self);

    /// Runs a statement and answers how many rows it inserted, updated or deleted.
    ///
    /// # Errors
    ///
    /// As [`query`](Transaction::query).
    pub async fn execute(&mut self, sql: &str, params: &[Param<'_>]) -> Result<u64> {
        self.enter("execute")?;
        let result = self.connection.execute(sql, params).await;
        self.leave(result)
    }

    /// Runs a statement once for each row of parameters, as [`Write::execute_many`](crate::Write::execute_many).
    ///
    /// # Errors
    ///
    /// As [`query`](Transaction::query).
    pub async fn execute_many<'p, R>(&mut self, sql: &str, rows: R) -> Result<u64>
    where
        R: IntoIterator<Item: AsRef<[Param<'p>]>>,
    {
        let mut chunks = Chunks::new(rows.into_iter());
        let mut affected = 0;
        while let Some(chunk) = chunks.next()? {
            affected += self.chunk(sql, chunk).await?;
        }
        Ok(affected)
    }

    /// Runs several statements without parameters.
    ///
    /// # Errors
    ///
    /// As [`query`](Transaction::query).
    pub async fn batch(&mut self, sql: &str) -> Result<()> {
        self.enter("batch")?;
        let result = self.connection.batch(sql).await;
        self.leave(result)
    }

    /// Runs `work` so that its failure undoes only what it did: after an `Err` the transaction goes on as it was before.
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")]
    /// # async fn insert(tx: &mut resonant_db::Transaction<'_>) -> resonant_db::Result<()> {
    /// use resonant_db::backend::ErrorExt;
    /// use resonant_db::params;
    /// let added = tx.savepoint(async |tx| tx.execute("INSERT INTO tag VALUES ($1)", params!["new"]).await).await;
    /// match added {
    ///     Err(error) if error.is_unique_violation() => {} // it was there already
    ///     other => drop(other?),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// What `work` answered. After a [`ErrorKind::Conflict`] the whole transaction is lost, as no engine can go on then.
    pub async fn savepoint<T, F>(&mut self, work: F) -> Result<T>
    where
        F: AsyncFnOnce(&mut Transaction<'_>) -> Result<T>,
    {
        self.enter("savepoint")?;
        let depth = self.depth + 1;
        if let Err(error) =
            self.connection.execute(&format!("SAVEPOINT resonant_{depth}"), &[]).await
        {
            return self.leave(Err(error));
        }
        let mut nested =
            Transaction { connection: &mut *self.connection, state: State::Open, depth };
        let result = work(&mut nested).await;
        let result = nested.verdict(result);
        let lost = match (&nested.state, &result) {
            // Nothing may be sent behind a statement that was dropped.
            (State::Busy, _) => Some(dropped("savepoint")),
            (_, Err(error)) if error.kind() == ErrorKind::Conflict => Some(error.clone()),
            _ => None,
        };
        let end = match (lost, &result) {
            (Some(error), _) => Err(error),
            (None, Ok(_)) => self.control("RELEASE", depth).await,
            (None, Err(_)) => match self.control("ROLLBACK TO", depth).await {
                Ok(()) => self.control("RELEASE", depth).await,
                error => error,
            },
        };
        self.leave(end)?;
        result
    }

    async fn rows(
        &mut self,
        _site: &'static Location<'static>,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Rows> {
        self.enter("query")?;
        let result = self.connection.query(sql, params).await;
        self.leave(result)
    }

    async fn chunk(&mut self, sql: &str, chunk: ParamRows) -> Result<u64> {
        self.enter("execute_many")?;
        let result = self.connection.execute_many(sql, chunk).await;
        self.leave(result)
    }

    async fn control(&mut self, verb: &str, depth: u32) -> Result<()> {
        self.connection.execute(&format!("{verb} resonant_{depth}"), &[]).await.map(drop)
    }

    /// Commits or rolls back, as the closure's result and the state say.
    async fn finish<T>(&mut self, result: Result<T>) -> Result<T> {
        match self.verdict(result) {
            Ok(value) => match self.connection.commit().await {
                Ok(()) => Ok(value),
                Err(error) => {
                    self.undo().await;
                    Err(error)
                }
            },
            Err(error) => {
                self.undo().await;
                Err(error)
            }
        }
    }

    async fn undo(&mut self) {
        // A statement that was dropped may still run: the pool cleans the connection, off this path.
        if matches!(self.state, State::Busy) {
            return;
        }
        if let Err(error) = self.connection.rollback().await {
            tracing::debug!(%error, "a rollback failed; the connection is cleaned or closed");
        }
    }

    /// A closure that swallowed a failure cannot make the transaction whole again.
    fn verdict<T>(&self, result: Result<T>) -> Result<T> {
        match (&self.state, result) {
            (State::Open, result) => result,
            (_, Err(error)) => Err(error),
            (State::Failed(error), Ok(_)) => Err(error.clone()),
            (State::Busy, Ok(_)) => Err(dropped("commit")),
        }
    }

    pub(super) fn enter(&mut self, operation: &'static str) -> Result<()> {
        match &self.state {
            State::Open => {
                self.state = State::Busy;
                Ok(())
            }
            State::Busy => Err(dropped(operation)),
            State::Failed(error) => {
                let message = "an earlier statement of this transaction failed, so it will roll back; \
                               put what may fail into a savepoint";
                Err(Error::new(ErrorKind::Rejected, operation, message).with_source(error.clone()))
            }
        }
    }

    pub(super) fn leave<T>(&mut self, result: Result<T>) -> Result<T> {
        self.state = match &result {
            Ok(_) => State::Open,
            Err(error) => State::Failed(error.clone()),
        };
        result
    }
}

fn dropped(operation: &'static str) -> Error {
    let message =
        "a statement of this transaction was dropped before it ended, so it will roll back";
    Error::new(ErrorKind::Rejected, operation, message)
}

impl fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Open => "open",
            State::Busy => "dropped statement",
            State::Failed(_) => "failed",
        };
        f.debug_struct("Transaction").field("state", &state).finish_non_exhaustive()
    }
}
