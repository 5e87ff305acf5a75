//! Writing.

use std::future::Future;
use std::panic::Location;

use tracing::Instrument;

use crate::backend::{Access, BeginOptions, Connection, Isolation, RowsBuilder};
use crate::{Param, Result, Rows};

use super::Database;
use super::bulk::Chunks;
use super::node::{Lease, Report};
use super::queries::query_methods;
use super::session::Session;
use super::verdicts::{Stage, write_elsewhere};

/// Writes of a [`Database`]; made by [`Database::write`] and [`Session::write`].
///
/// Each call stands alone: it is applied as a whole or not at all, and is durable, as the engine is configured, once it
/// has answered `Ok`. Use [`transaction`](Database::transaction) for calls that belong together.
///
/// Nothing is applied twice. A write that provably was not applied, because its node could not be reached or takes no
/// writes any more, is sent to the new primary once there is one, within
/// [`failover_wait`](crate::RoutingConfig::failover_wait); any other failure is answered at once.
///
/// # Cancel safety
///
/// Of a dropped write it is unknown whether it took effect, but never half of it did.
#[derive(Debug, Clone, Copy)]
pub struct Write<'a> {
    database: &'a Database,
    session: Option<&'a Session>,
}

/// A call that can be sent again as it is.
#[derive(Clone, Copy)]
enum Call<'a> {
    Query(&'a str, &'a [Param<'a>]),
    Execute(&'a str, &'a [Param<'a>]),
    Batch(&'a str),
}

/// What a call answered: rows of a query, a count of an execute.
type Answer = (Option<Rows>, u64);

impl Call<'_> {
    fn name(self) -> &'static str {
        match self {
            Call::Query(..) => "db.query",
            Call::Execute(..) => "db.execute",
            Call::Batch(..) => "db.batch",
        }
    }

    async fn send(self, connection: &mut dyn Connection) -> Result<Answer> {
        match self {
            Call::Query(sql, params) => Ok((Some(connection.query(sql, params).await?), 0)),
            Call::Execute(sql, params) => Ok((None, connection.execute(sql, params).await?)),
            Call::Batch(sql) => connection.batch(sql).await.map(|()| (None, 0)),
        }
    }
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
        async move { Ok(self.call(site, Call::Execute(sql, params)).await?.1) }
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
            // The rows are gone once they were sent, so only getting a connection is done again.
            let mut lease = self.lease(site).await?;
            let span = self.span(&lease, "db.execute_many");
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
            let result = work.instrument(span).await;
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
        async move { self.call(site, Call::Batch(sql)).await.map(drop) }
    }

    async fn rows(
        self,
        site: &'static Location<'static>,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Rows> {
        let (rows, _) = self.call(site, Call::Query(sql, params)).await?;
        Ok(rows.unwrap_or_else(|| RowsBuilder::new(Vec::new()).finish()))
    }

    /// Sends a call to the primary; to the new one when the old one provably did not apply it.
    async fn call(self, site: &'static Location<'static>, call: Call<'_>) -> Result<Answer> {
        let mut again = true;
        loop {
            let mut lease = self.lease(site).await?;
            let span = self.span(&lease, call.name());
            let result = call.send(&mut *lease).instrument(span).await;
            let result = self.done(&mut lease, result).await;
            match result {
                Err(error) if again && write_elsewhere(&error, Stage::Running) => {
                    again = false;
                    let failed = lease.give_back().id();
                    if !self.database.inner.set.moves_on_from(Some(failed)).await {
                        return Err(error);
                    }
                }
                result => return result,
            }
        }
    }

    pub(super) async fn lease(self, site: &'static Location<'static>) -> Result<Lease> {
        let inner = &self.database.inner;
        inner.set.budget().deposit();
        inner.lease_primary(site).await
    }

    /// Notes how the primary did and, after a success, how far the session has come.
    pub(super) async fn done<T>(self, lease: &mut Lease, result: Result<T>) -> Result<T> {
        match &result {
            Ok(_) => {
                lease.pick.succeeded();
                if let Some(session) = self.session {
                    session.wrote(&mut **lease).await;
                }
            }
            Err(error) => lease.pick.note(error),
        }
        result
    }

    fn span(self, lease: &Lease, name: &'static str) -> tracing::Span {
        tracing::debug_span!(
            "db.write",
            otel.name = name,
            db.system.name = self.database.inner.backend.system(),
            db.node = %lease.pick.target.name,
            db.role = "primary",
        )
    }
}
