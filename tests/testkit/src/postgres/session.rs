//! A session for the test itself: to prepare data, to look, and to stand for a client that a fault hits.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};

use super::wire::{self, Wire};
use crate::error::{Error, ErrorKind, Result};
use crate::wait::{ANSWER, within};

/// One row of an answer; every value as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PgRow(Vec<Option<String>>);

impl PgRow {
    pub(super) fn new(values: Vec<Option<String>>) -> Self {
        Self(values)
    }

    /// The value of a column, counted from 0; `None` for NULL and for a column that is not there.
    pub fn get(&self, column: usize) -> Option<&str> {
        self.0.get(column)?.as_deref()
    }

    /// All values.
    pub fn values(&self) -> &[Option<String>] {
        &self.0
    }
}

/// An open session, without password or TLS: for the test's own use, not a driver.
///
/// Each question is bounded: 30 seconds unless [`limit`](Self::limit) says otherwise. After a `TimedOut` the session is out
/// of step and must be dropped.
pub struct PgSession {
    stream: Box<dyn Wire>,
    name: String,
    limit: Duration,
}

impl std::fmt::Debug for PgSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PgSession").field("name", &self.name).finish_non_exhaustive()
    }
}

impl PgSession {
    /// Opens a session over TCP, for instance through a [`FaultProxy`](crate::FaultProxy).
    ///
    /// # Errors
    /// `Lost` when nobody listens or the connection breaks, `TimedOut` after 30 seconds, `Unsupported` when the server asks
    /// for a password, `Rejected` when it refuses otherwise.
    pub async fn connect(address: SocketAddr, user: &str, database: &str) -> Result<Self> {
        let name = address.to_string();
        let connect = async {
            let stream = TcpStream::connect(address)
                .await
                .map_err(|e| Error::lost(format!("connecting to {address}"), e))?;
            Self::log_in(Box::new(stream), name.clone(), user, database).await
        };
        within(ANSWER, format!("logging in at {name}"), connect).await
    }

    pub(crate) async fn connect_unix(
        socket: &Path,
        name: &str,
        user: &str,
        database: &str,
    ) -> Result<Self> {
        let connect = async {
            let stream = UnixStream::connect(socket)
                .await
                .map_err(|e| Error::lost(format!("connecting to {name}"), e))?;
            Self::log_in(Box::new(stream), name.to_owned(), user, database).await
        };
        within(ANSWER, format!("logging in at {name}"), connect).await
    }

    async fn log_in(
        mut stream: Box<dyn Wire>,
        name: String,
        user: &str,
        database: &str,
    ) -> Result<Self> {
        wire::log_in(&mut *stream, &name, user, database).await?;
        Ok(Self { stream, name, limit: ANSWER })
    }

    /// Bounds every question of this session.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs statements and returns the rows of all of them.
    ///
    /// # Errors
    /// `Rejected` with the SQLSTATE as [`code`](Error::code) when the server refuses a statement, `Lost` when the connection
    /// breaks or the server goes down, `TimedOut` when no answer comes.
    ///
    /// # Cancel safety
    /// Not cancel safe: the statement may run to its end, and the session is out of step. Drop it.
    pub async fn sql(&mut self, sql: &str) -> Result<Vec<PgRow>> {
        within(self.limit, &self.name, wire::query(&mut *self.stream, &self.name, sql)).await
    }

    /// The first value of the first row, as text.
    ///
    /// # Errors
    /// Those of [`sql`](Self::sql), and `Rejected` when there is no row or the value is NULL.
    pub async fn value(&mut self, sql: &str) -> Result<String> {
        let rows = self.sql(sql).await?;
        first_value(&rows, &self.name, sql)
    }
}

pub(super) fn first_value(rows: &[PgRow], name: &str, sql: &str) -> Result<String> {
    match rows.first().and_then(|row| row.get(0)) {
        Some(value) => Ok(value.to_owned()),
        None => {
            Err(Error::new(ErrorKind::Rejected, format!("{name} returned no value for: {sql}")))
        }
    }
}
