//! A session with a shard that a move has to itself. Locks it takes are gone when it is.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future::join;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::OPERATION;
use crate::backend::postgres::Postgres;
use crate::backend::{
    Access, Backend as _, BeginOptions, Connection, Isolation, Streaming, Target,
};
use crate::{Error, ErrorKind, Param, Result};

/// Rows are written alike on both servers; a session that is gone stops what it runs, also when its host has vanished; triggers
/// know it.
const SETTINGS: &str = "SET datestyle = 'ISO, YMD'; SET intervalstyle = 'postgres'; SET extra_float_digits = 3; \
     SET bytea_output = 'hex'; SET timezone = 'UTC'; SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; \
     SET tcp_keepalives_idle = 4; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3; SET tcp_user_timeout = 10000; \
     SET resonant.mover = 'on'";
/// One shard's commit stands for rows that the other deletes: it must not be acknowledged before it is safe.
const DURABLE: &str = "SELECT pg_catalog.set_config('synchronous_commit', 'on', false) \
     WHERE pg_catalog.current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')";
/// Servers before 14 do not have it.
const WATCH: &str = "SELECT set_config('client_connection_check_interval', '1s', false) \
     FROM pg_catalog.pg_settings WHERE name = 'client_connection_check_interval'";
/// How long another mover, perhaps one that has just died, is waited for.
const PATIENCE: Duration = Duration::from_secs(15);
/// In a transaction for which others wait: a mover that says nothing for as long loses it.
pub(super) const SILENT: &str = "SET LOCAL idle_in_transaction_session_timeout = '5s';";
/// How often it says something, then.
const BEAT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Link {
    pub(super) name: String,
    /// Never locked: it makes a session that nobody shares one that may be.
    connection: Mutex<Box<dyn Connection>>,
}

impl Link {
    pub(super) async fn open(name: &str, url: &str) -> Result<Self> {
        let backend = Postgres::from_url(url)?;
        let connection = backend.connect(&Target::new(url, Access::ReadWrite, None)).await?;
        let mut link = Self { name: name.to_owned(), connection: Mutex::new(connection) };
        link.run(SETTINGS).await?;
        link.rows::<String>(WATCH).await?;
        link.rows::<String>(DURABLE).await?;
        Ok(link)
    }

    fn connection(&mut self) -> &mut dyn Connection {
        &mut **self.connection.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps other movers from this shard for as long as the session lasts.
    pub(super) async fn lock(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let sql = "SELECT pg_catalog.pg_try_advisory_lock(5927193, 2)";
        while !self.value::<bool>(sql).await? {
            if Instant::now() >= deadline {
                let message = format!("another mover is at work on {}", self.name);
                return Err(Error::new(ErrorKind::Conflict, OPERATION, message));
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    pub(super) async fn run(&mut self, sql: &str) -> Result<()> {
        let done = self.connection().batch(sql).await;
        self.named(done)
    }

    pub(super) async fn rows<T: DeserializeOwned>(&mut self, sql: &str) -> Result<Vec<T>> {
        self.rows_of(sql, &[]).await
    }

    pub(super) async fn rows_of<T: DeserializeOwned>(
        &mut self,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Vec<T>> {
        let rows = self.connection().query(sql, params).await;
        self.named(rows)?.decode()
    }

    /// The only row of an answer.
    pub(super) async fn value<T: DeserializeOwned>(&mut self, sql: &str) -> Result<T> {
        let missing = || Error::new(ErrorKind::NotFound, OPERATION, "a row is missing");
        self.rows(sql).await?.into_iter().next().ok_or_else(missing)
    }

    pub(super) async fn begin(&mut self) -> Result<()> {
        let options = BeginOptions::new(Isolation::ReadCommitted, Access::ReadWrite);
        let begun = self.connection().begin(options).await;
        self.named(begun)
    }

    pub(super) async fn commit(&mut self) -> Result<()> {
        let done = self.connection().commit().await;
        self.named(done)
    }

    pub(super) async fn rollback(&mut self) -> Result<()> {
        let done = self.connection().rollback().await;
        self.named(done)
    }

    /// How far this server is, as a session's token.
    pub(super) async fn token(&mut self) -> Result<String> {
        let position = self.connection().position().await;
        let position = self.named(position)?;
        // Without one, only the primary is sure to have it.
        Ok(position.map_or_else(|| "primary".to_owned(), |position| position.to_string()))
    }

    /// Says something from time to time until `done` is told: the transaction is not idle. One that has failed is kept all the same.
    pub(super) async fn beat(&mut self, done: &Notify) -> Result<()> {
        let mut beaten = Ok(());
        while timeout(BEAT, done.notified()).await.is_err() {
            let beat = self.run("SELECT 1").await;
            beaten = beaten.and(beat);
        }
        beaten
    }

    fn streaming(&mut self) -> Result<&mut dyn Streaming> {
        self.connection()
            .streaming()
            .ok_or_else(|| Error::new(ErrorKind::Unsupported, OPERATION, "the engine has no COPY"))
    }

    /// Names the shard in an error.
    fn named<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| {
            let message = format!("on {}: {}", self.name, error.message());
            Error::new(error.kind(), OPERATION, message).with_source(error)
        })
    }
}

/// Awaits `work` while a transaction of `link` waits for it.
pub(super) async fn meanwhile<T>(
    link: &mut Link,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let done = Notify::new();
    let work = async {
        let value = work.await;
        done.notify_one();
        value
    };
    let (value, beaten) = join(work, link.beat(&done)).await;
    let value = value?;
    beaten.map(|()| value)
}

/// Hands what one shard sends to another. Answers the number of rows.
pub(super) async fn pour(from: &mut Link, out: &str, to: &mut Link, into: &str) -> Result<u64> {
    from.streaming()?.open_copy_out(out).await?;
    to.streaming()?.open_copy_in(into).await?;
    loop {
        let piece = from.streaming()?.next_copy().await;
        match from.named(piece)? {
            Some(piece) => {
                let sent = to.streaming()?.send_copy(&piece).await;
                to.named(sent)?;
            }
            None => break,
        }
    }
    let poured = to.streaming()?.finish_copy_in().await;
    to.named(poured)
}
