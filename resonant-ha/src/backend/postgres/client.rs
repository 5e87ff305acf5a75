//! Connections, and what the driver's errors mean.

use std::ops::Deref;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future::try_join_all;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Connection, NoTls, Row, SimpleQueryMessage, Socket};

use super::address::{Address, Wire};
use crate::error::{Error, ErrorKind, Result};

/// How long a server may take to let somebody in.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a quick look may take on a connection that was just let in.
const LOOK: Duration = Duration::from_secs(3);

/// By which the server knows our sessions.
const APPLICATION: &str = "resonant_ha";

/// Limits on the server's side, for every session: whatever becomes of the manager, the server does not wait for it. Those
/// the server does not know are left out.
const LIMITS: &str = "SELECT set_config(name, value, false) FROM (VALUES \
     ('statement_timeout', '30s'), ('lock_timeout', '3s'), ('idle_in_transaction_session_timeout', '5s'), \
     ('client_connection_check_interval', '1s'), ('tcp_user_timeout', '10s'), ('tcp_keepalives_idle', '5'), \
     ('tcp_keepalives_interval', '2'), ('tcp_keepalives_count', '3')) AS wanted (name, value) \
     JOIN pg_settings USING (name)";

/// Limits that every server knows, so that a session can begin with them: those of a session that is never told more. A
/// manager whose host is gone leaves nothing behind for long.
const FIRST_LIMITS: &str = "-c statement_timeout=5s -c tcp_user_timeout=10s -c tcp_keepalives_idle=5 \
     -c tcp_keepalives_interval=2 -c tcp_keepalives_count=3";

/// A connection of which somebody waits for an answer, until [`Session::answered`]. One that is dropped before is cancelled
/// on the server and closed, so that neither side keeps it.
pub(super) struct Session {
    client: Client,
    driving: AbortHandle,
    wire: Wire,
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
        let (token, driving, wire) =
            (self.client.cancel_token(), self.driving.clone(), self.wire.clone());
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move {
                // In vain where the server hangs or has answered.
                let cancelling = async {
                    match wire {
                        Wire::Plain => token.cancel_query(NoTls).await,
                        #[cfg(feature = "tls")]
                        Wire::Encrypted(connector) => token.cancel_query(connector).await,
                    }
                };
                let _ = tokio::time::timeout(PATIENCE, cancelling).await;
                driving.abort();
            })),
            Err(_) => driving.abort(),
        }
    }
}

/// Opens connections to one server and keeps one that worked.
pub(super) struct Link {
    address: Address,
    first: &'static str,
    idle: Mutex<Option<(Instant, Session)>>,
}

impl Link {
    pub(super) fn new(url: String) -> Self {
        Self::with_first(url, "")
    }

    /// One whose connections begin with these statements.
    pub(super) fn with_first(url: String, first: &'static str) -> Self {
        Self { address: Address::new(url), first, idle: Mutex::default() }
    }

    pub(super) fn url(&self) -> &str {
        self.address.url()
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// A connection that nothing else waits on: one that hung is never used again.
    pub(super) async fn take(&self, operation: &'static str) -> Result<Session> {
        match self.kept(Duration::MAX) {
            Some(session) => Ok(session),
            None => self.open(operation).await,
        }
    }

    /// The kept connection, if it answered less than `age` ago. It may have died since: a server that was restarted, or a
    /// network that forgot it, is found out by the next question only.
    pub(super) fn kept(&self, age: Duration) -> Option<Session> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (_, mut session) =
            idle.filter(|(kept, session)| kept.elapsed() < age && !session.is_closed())?;
        session.asked = true;
        Some(session)
    }

    /// A fresh connection.
    pub(super) async fn open(&self, operation: &'static str) -> Result<Session> {
        connect_with(&self.address, operation, self.first).await
    }

    /// The text that these statements answer last, on a kept connection that answered less than `age` ago. Where there is
    /// none, or it died while it was kept, which says nothing about the server, on a fresh one.
    pub(super) async fn ask(
        &self,
        age: Duration,
        operation: &'static str,
        statements: &[&str],
    ) -> Result<(Session, String)> {
        if let Some(kept) = self.kept(age) {
            match last_text(&kept, operation, statements).await {
                Err(error) if error.kind() == ErrorKind::Unavailable => {}
                answer => return Ok((kept, answer?)),
            }
        }
        let fresh = self.open(operation).await?;
        let answer = last_text(&fresh, operation, statements).await?;
        Ok((fresh, answer))
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

pub(super) async fn connect(to: &Address, operation: &'static str) -> Result<Session> {
    connect_with(to, operation, "").await
}

/// One that begins with these statements.
async fn connect_with(to: &Address, operation: &'static str, first: &str) -> Result<Session> {
    let session = reach(to, operation).await?;
    run(&session, operation, &[&[LIMITS, first].join(";")]).await?;
    Ok(session)
}

/// A connection with no more than the limits it began with, for one quick look.
pub(super) async fn reach(to: &Address, operation: &'static str) -> Result<Session> {
    let (mut config, wire) = to.read(operation)?;
    let options = match config.get_options() {
        Some(asked) => format!("{asked} {FIRST_LIMITS}"),
        None => FIRST_LIMITS.to_owned(),
    };
    config.application_name(APPLICATION).options(options);
    config.tcp_user_timeout(Duration::from_secs(10)).keepalives(true);
    config.keepalives_idle(Duration::from_secs(5)).keepalives_interval(Duration::from_secs(2));
    config.keepalives_retries(3);
    // A frozen server accepts, and says nothing.
    let connecting = async {
        match &wire {
            Wire::Plain => config.connect(NoTls).await.map(drive),
            #[cfg(feature = "tls")]
            Wire::Encrypted(connector) => config.connect(connector.clone()).await.map(drive),
        }
    };
    let (client, driving) = match tokio::time::timeout(PATIENCE, connecting).await {
        Ok(Ok(connected)) => connected,
        Ok(Err(error)) => {
            to.failed();
            return Err(told(operation, error));
        }
        Err(_) => {
            let message = "the server does not answer";
            return Err(Error::new(ErrorKind::Unavailable, operation, message));
        }
    };
    Ok(Session { client, driving, wire, asked: true })
}

/// Does what the connection needs done; ends with its session.
fn drive<S>((client, connection): (Client, Connection<Socket, S>)) -> (Client, AbortHandle)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let driving = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection of the failover manager ended");
        }
    });
    (client, driving.abort_handle())
}

/// One statement without parameters and its only row, on a connection of its own, in bounded time: a server that lets
/// somebody in and then hangs keeps nobody.
pub(super) async fn look(to: &Address, operation: &'static str, sql: &str) -> Result<Row> {
    let mut fresh = reach(to, operation).await?;
    let Ok(seen) = tokio::time::timeout(LOOK, row(&fresh, operation, sql)).await else {
        let message = "the server let somebody in and does not answer";
        return Err(Error::new(ErrorKind::Unavailable, operation, message));
    };
    fresh.answered();
    seen
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
async fn last_text(
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
