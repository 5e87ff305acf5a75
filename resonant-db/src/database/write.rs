//! Writing.

use std::future::Future;
use std::panic::Location;

use tracing::Instrument;

use crate::backend::{Access, BeginOptions, Isolation};
use crate::{Param, Result, Rows};

use super::Database;
use super::bulk::Chunks;
use super::node::Lease;
use super::queries::query_methods;
use super::session::Session;

/// Writes of a [`Database`]; made by [`Database::write`] and [`Session::write`].
///
/// Each call stands alone: it is applied as a whole or not at all, and is durable, as the engine is configured, once it
/// has answered `Ok`. Nothing is sent twice. Use [`transaction`](Database::transaction) for calls that belong together.
///
/// # Cancel safety
///
/// Of a dropped write it is unknown whether it took effect, but never half of it did.
#[derive(Debug, Clone, Copy)]
pub struct Write<'a> {
    database: &'a Database,
    session: Option<&'a Session>,
}

impl<'a> Write<'a> {
    pub(super) fn new(database: &'a Database, session: Option<&'a Session>) -> Self {
        Self { database, session }
    }

    query_methods!(self: Self);

    /// Runs a statement and answers how many rows it inserted, updated or deleted.
    ///
    /// # Errors
    ///
    /// As [`query`](Write::query). [`may_have_applied`](crate::Error::may_have_applied) says when the outcome is unknown.
    #[track_caller]
    pub fn execute(
        self,
        sql: &str,
        params: &[Param<'_>],
    ) -> impl Future<Output = Result<u64>> + Send {
        let site = Location::caller();
        async move {
            let mut lease = self.lease(site).await?;
            let result = lease.execute(sql, params).instrument(self.span("db.execute")).await;
            self.done(&mut lease, result).await
        }
    }

    /// Runs a statement once for each row of parameters, all in one transaction: the fast way to insert many rows. Answers
    /// the affected rows in total.
    ///
    /// Rows are taken from the iterator in chunks of at most 4,096 rows or 1 MiB, so any number of them fits in memory.
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")]
    /// # async fn insert(db: &resonant_db::Database, users: Vec<(i64, String)>) -> resonant_db::Result<()> {
    /// use resonant_db::row;
    /// let rows = users.iter().map(|(id, name)| row![*id, name]);
    /// db.write().execute_many("INSERT INTO users (id, name) VALUES ($1, $2)", rows).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`execute`](Write::execute); nothing of it is applied then.
    #[track_caller]
    pub fn execute_many<'p, R>(self, sql: &str, rows: R) -> impl Future<Output = Result<u64>> + Send
    where
        R: IntoIterator<Item: AsRef<[Param<'p>]> + Send, IntoIter: Send>,
    {
        let site = Location::caller();
        let mut chunks = Chunks::new(rows.into_iter());
        async move {
            let Some(first) = chunks.next()? else { return Ok(0) };
            let mut lease = self.lease(site).await?;
            let work = async {
                if chunks.is_done() {
                    return lease.execute_many(sql, first).await;
                }
                lease.begin(BeginOptions::new(Isolation::Engine, Access::ReadWrite)).await?;
                let mut affected = lease.execute_many(sql, first).await?;
                while let Some(chunk) = chunks.next()? {
                    affected += lease.execute_many(sql, chunk).await?;
                }
                // On an error before this line the connection goes back with the transaction open and is cleaned.
                lease.commit().await?;
                Ok(affected)
            };
            let result = work.instrument(self.span("db.execute_many")).await;
            self.done(&mut lease, result).await
        }
    }

    /// Runs several statements without parameters, all or none: for schemas and migrations.
    ///
    /// # Errors
    ///
    /// As [`execute`](Write::execute); nothing of it is applied then.
    #[track_caller]
    pub fn batch(self, sql: &str) -> impl Future<Output = Result<()>> + Send {
        let site = Location::caller();
        async move {
            let mut lease = self.lease(site).await?;
            let result = lease.batch(sql).instrument(self.span("db.batch")).await;
            self.done(&mut lease, result).await
        }
    }

    async fn rows(
        self,
        site: &'static Location<'static>,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Rows> {
        let mut lease = self.lease(site).await?;
        let result = lease.query(sql, params).instrument(self.span("db.query")).await;
        self.done(&mut lease, result).await
    }

    async fn lease(self, site: &'static Location<'static>) -> Result<Lease<'a>> {
        let inner = &self.database.inner;
        inner.budget.deposit();
        let lease = inner.lease_primary(site).await;
        lease.inspect_err(|error| inner.note_failure(&inner.primary, error))
    }

    /// Notes how the primary did and, after a success, how far the session has come.
    async fn done<T>(self, lease: &mut Lease<'_>, result: Result<T>) -> Result<T> {
        let inner = &self.database.inner;
        match &result {
            Ok(_) => {
                inner.primary.succeeded();
                if let Some(session) = self.session {
                    session.wrote(&mut **lease).await;
                }
            }
            Err(error) => inner.note_failure(&inner.primary, error),
        }
        result
    }

    fn span(self, name: &'static str) -> tracing::Span {
        let inner = &self.database.inner;
        tracing::debug_span!(
            "db.write",
            otel.name = name,
            db.system.name = inner.backend.system(),
            db.node = %inner.primary.target.name,
            db.role = "primary",
        )
    }
}
