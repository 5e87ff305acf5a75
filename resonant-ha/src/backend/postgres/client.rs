//! Connections, and what the driver's errors mean.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls, Row};

use crate::error::{Error, ErrorKind, Result};

/// How long a server may take to let somebody in.
const PATIENCE: Duration = Duration::from_secs(5);

/// Opens connections to one server and keeps one that worked.
pub(super) struct Link {
    url: String,
    idle: Mutex<Option<Client>>,
}

impl Link {
    pub(super) fn new(url: String) -> Self {
        Self { url, idle: Mutex::default() }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// A connection that nothing else waits on: one that hung is never used again.
    pub(super) async fn take(&self, operation: &'static str) -> Result<Client> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).take();
        match idle.filter(|client| !client.is_closed()) {
            Some(client) => Ok(client),
            None => connect(&self.url, operation).await,
        }
    }

    /// Keeps a connection that has answered everything.
    pub(super) fn keep(&self, client: Client) {
        *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = Some(client);
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Link")
    }
}

pub(super) async fn connect(url: &str, operation: &'static str) -> Result<Client> {
    let mut config: tokio_postgres::Config = url.parse().map_err(|_| {
        // The driver's words may hold a part of the URL.
        Error::new(ErrorKind::Config, operation, "the URL of the server cannot be read")
    })?;
    config.application_name("resonant_ha");
    // A frozen server accepts, and says nothing.
    let connecting = tokio::time::timeout(PATIENCE, config.connect(NoTls)).await;
    let silent = |_| Error::new(ErrorKind::Unavailable, operation, "the server does not answer");
    let (client, connection) =
        connecting.map_err(silent)?.map_err(|error| told(operation, error))?;
    // Ends with its client.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection of the failover manager ended");
        }
    });
    Ok(client)
}

/// One statement without parameters and its only row.
pub(super) async fn row(client: &Client, operation: &'static str, sql: &str) -> Result<Row> {
    client.query_one(sql, &[]).await.map_err(|error| told(operation, error))
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

pub(super) fn is(error: &tokio_postgres::Error, state: &SqlState) -> bool {
    error.code() == Some(state)
}

/// The driver's error in ours: what the server said, or that it could not be reached.
pub(super) fn told(operation: &'static str, error: tokio_postgres::Error) -> Error {
    match error.as_db_error() {
        Some(said) => {
            let gone = said.code().code().starts_with("57P");
            let kind = if gone { ErrorKind::Unavailable } else { ErrorKind::Failed };
            let message = format!("the server said {}: {}", said.code().code(), said.message());
            Error::new(kind, operation, message).with_source(error)
        }
        None => Error::new(ErrorKind::Unavailable, operation, "the server cannot be reached")
            .with_source(error),
    }
}
