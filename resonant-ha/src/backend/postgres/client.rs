//! Connections, and what the driver's errors mean.

use std::ops::Deref;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future::try_join_all;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, NoTls, Row, SimpleQueryMessage};

use crate::error::{Error, ErrorKind, Result};

/// How long a server may take to let somebody in.
const PATIENCE: Duration = Duration::from_secs(5);

/// By which the server knows our sessions.
const APPLICATION: &str = "resonant_ha";

/// Limits on the server's side, for every session: whatever becomes of the manager, the server does not wait for it. Those
/// the server does not know are left out.
const LIMITS: &str = "SELECT set_config(name, value, false) FROM (VALUES \
     ('statement_timeout', '30s'), ('lock_timeout', '3s'), ('idle_in_transaction_session_timeout', '5s'), \
     ('client_connection_check_interval', '1s'), ('tcp_user_timeout', '10s'), ('tcp_keepalives_idle', '5'), \
     ('tcp_keepalives_interval', '2'), ('tcp_keepalives_count', '3')) AS wanted (name, value) \
     JOIN pg_settings USING (name)";

/// A connection of which somebody waits for an answer, until [`Session::answered`]. One that is dropped before is cancelled
/// on the server and closed, so that neither side keeps it.
pub(super) struct Session {
    client: Client,
    driving: AbortHandle,
    asked: bool,
}

impl Session {
    /// Nothing is waited for any more, or what is may go on by itself.
    pub(super) fn answered(&mut self) {
        self.asked = false;
    }
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.asked {
            return;
        }
        let (token, driving) = (self.client.cancel_token(), self.driving.clone());
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move {
                // In vain where the server hangs or has answered.
                let _ = tokio::time::timeout(PATIENCE, token.cancel_query(NoTls)).await;
                driving.abort();
            })),
            Err(_) => driving.abort(),
        }
    }
}

/// Opens connections to one server and keeps one that worked.
pub(super) struct Link {
    url: String,
    first: &'static str,
    idle: Mutex<Option<(Instant, Session)>>,
}

impl Link {
    pub(super) fn new(url: String) -> Self {
        Self::with_first(url, "")
    }

    /// One whose connections begin with these statements.
    pub(super) fn with_first(url: String, first: &'static str) -> Self {
        Self { url, first, idle: Mutex::default() }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// A connection that nothing else waits on: one that hung is never used again.
    pub(super) async fn take(&self, operation: &'static str) -> Result<Session> {
        self.take_kept(Duration::MAX, operation).await
    }

    /// The same, where a kept connection counts only if it answered less than `age` ago.
    pub(super) async fn take_kept(
        &self,
        age: Duration,
        operation: &'static str,
    ) -> Result<Session> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).take();
        match idle.filter(|(kept, session)| kept.elapsed() < age && !session.is_closed()) {
            Some((_, mut session)) => {
                session.asked = true;
                Ok(session)
            }
            None => connect_with(&self.url, operation, self.first).await,
        }
    }

    /// Keeps a connection that has answered everything.
    pub(super) fn keep(&self, mut session: Session) {
        session.answered();
        let kept = (Instant::now(), session);
        *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Link")
    }
}

pub(super) async fn connect(url: &str, operation: &'static str) -> Result<Session> {
    connect_with(url, operation, "").await
}

/// One that begins with these statements.
async fn connect_with(url: &str, operation: &'static str, first: &str) -> Result<Session> {
    let session = reach(url, operation).await?;
    run(&session, operation, &[&[LIMITS, first].join(";")]).await?;
    Ok(session)
}

/// A connection without limits on the server's side, for one quick look.
pub(super) async fn reach(url: &str, operation: &'static str) -> Result<Session> {
    let mut config: tokio_postgres::Config = url.parse().map_err(|_| {
        // The driver's words may hold a part of the URL.
        Error::new(ErrorKind::Config, operation, "the URL of the server cannot be read")
    })?;
    config.application_name(APPLICATION);
    // A frozen server accepts, and says nothing.
    let connecting = tokio::time::timeout(PATIENCE, config.connect(NoTls)).await;
    let silent = |_| Error::new(ErrorKind::Unavailable, operation, "the server does not answer");
    let (client, connection) =
        connecting.map_err(silent)?.map_err(|error| told(operation, error))?;
    // Ends with its session.
    let driving = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection of the failover manager ended");
        }
    });
    Ok(Session { client, driving: driving.abort_handle(), asked: true })
}

/// One statement without parameters and its only row.
pub(super) async fn row(client: &Client, operation: &'static str, sql: &str) -> Result<Row> {
    row_with(client, operation, sql, &[]).await
}

/// One statement with parameters of these types and its only row, in one round trip.
pub(super) async fn row_with(
    client: &Client,
    operation: &'static str,
    sql: &str,
    params: &[(&(dyn ToSql + Sync), Type)],
) -> Result<Row> {
    client.query_typed_one(sql, params).await.map_err(|error| told(operation, error))
}

/// Statements without answers, one after the other: `ALTER SYSTEM` takes no company.
pub(super) async fn run(
    client: &Client,
    operation: &'static str,
    statements: &[&str],
) -> Result<()> {
    for sql in statements {
        client.batch_execute(sql).await.map_err(|error| told(operation, error))?;
    }
    Ok(())
}

/// The same without waiting for one answer before the next statement is sent: each must be harmless if those before it fail.
pub(super) async fn run_at_once(
    client: &Client,
    operation: &'static str,
    statements: &[&str],
) -> Result<()> {
    let running = statements.iter().map(|sql| client.batch_execute(sql));
    try_join_all(running).await.map_err(|error| told(operation, error))?;
    Ok(())
}

/// The text in the first column of the last row that these statements answer, in one round trip.
pub(super) async fn last_text(
    client: &Client,
    operation: &'static str,
    statements: &[&str],
) -> Result<String> {
    let answers = client.simple_query(&statements.join(";")).await;
    let answers = answers.map_err(|error| told(operation, error))?;
    let last = answers.iter().rev().find_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    Ok(last.unwrap_or_default().to_owned())
}

pub(super) fn is(error: &tokio_postgres::Error, state: &SqlState) -> bool {
    error.code() == Some(state)
}

/// The driver's error in ours: what the server said, or that it could not be reached.
pub(super) fn told(operation: &'static str, error: tokio_postgres::Error) -> Error {
    match error.as_db_error() {
        Some(said) => {
            let code = said.code();
            let kind = match code {
                // Another order holds the server's lock, or the epoch row.
                _ if *code == SqlState::LOCK_NOT_AVAILABLE => ErrorKind::TimedOut,
                _ if code.code().starts_with("57P") => ErrorKind::Unavailable,
                _ => ErrorKind::Failed,
            };
            let message = format!("the server said {}: {}", code.code(), said.message());
            Error::new(kind, operation, message).with_source(error)
        }
        None => Error::new(ErrorKind::Unavailable, operation, "the server cannot be reached")
            .with_source(error),
    }
}
