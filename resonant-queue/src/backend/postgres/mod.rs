//! Queues in PostgreSQL 12 or later, shared by all processes that reach it.
//!
//! ```no_run
//! use resonant_queue::{PartitionedQueue, Postgres};
//!
//! # async fn example() -> resonant_queue::Result<()> {
//! let postgres = Postgres::connect("postgresql://app@db:5432/resonant").create_tables(true).await?;
//! let queue = PartitionedQueue::<String>::builder("session-tasks").backend(postgres).build().await?;
//! # let _ = queue;
//! # Ok(()) }
//! ```
//!
//! # How it works
//!
//! Messages are rows in the order of partition and sequence. Whoever publishes into a partition holds the lock of its row
//! in `heads` until the commit, so that sequences become visible in their order: a slow transaction cannot make a message
//! appear behind the cursor of the owner. The owner reads by cursor, without locking a message, and deletes what is
//! finished together with the check of its epoch. Publishes that run at once share a transaction, and so do settlements;
//! owners that look for messages at once share a statement.
//!
//! An owner that waits is woken by `NOTIFY`, sent behind the commit. Where publishes overlap, a process sends at most some
//! 200 a second. An owner also looks by itself: every second, or five times as often where nothing can be heard, such as
//! behind a pooler in transaction mode.
//!
//! # Tables
//!
//! Nothing is created unless [`create_tables`](PostgresBuilder::create_tables) asks for it. [`Postgres::schema_sql`] gives
//! the statements for a migration tool. All is in the schema `resonant_queue`, except the function `resonant_publish`,
//! which goes where the search path says. The layout is specified in `docs/formats/queue.md`.
//!
//! # Transactions
//!
//! - **Publish in anybody's transaction**: `SELECT resonant_publish('session-tasks', 'agent_123', '{"goal":"…"}')` from any
//!   driver in any language, or [`Outbox`] with typed messages. The message is there when the transaction commits. Until then others that publish into its
//!   partition wait, so keep such transactions short. One whose client says nothing for five seconds after a publish is ended by
//!   the server (`idle_in_transaction_session_timeout`), and a publish waits for a lock for ten seconds at most (`lock_timeout`); shorter limits
//!   of the session stay.
//! - **Effects exactly once**: [`Postgres::effects`] runs what a handler writes, the acknowledgement and the check of the
//!   epoch in one transaction.
//! - **Inbox**: [`Inbox`] does the same for messages of other queues, by their id.
//!
//! # What it promises, and what not
//!
//! - A publish returns after the commit, as durable as `synchronous_commit` of the server makes it. A failover to a
//!   standby that was behind loses what it had not received.
//! - `max_depth` may be exceeded by what is being published at the same moment.
//! - A snapshot that is held open for long (a long transaction, a forgotten replication slot) lets the tables grow, as
//!   vacuum may remove nothing meanwhile. What is dead is not read again, except in the table of what [`Effects`] finished:
//!   with those the queue slows down the longer it lasts. Autovacuum must be on.
//! - Delayed messages fall due in the partition's owner: without any worker they stay delayed.
//! - Keys and unique ids are at most 1,024 bytes long; bodies, keys and headers hold no character U+0000.
//! - A unique id is remembered longer than `dedup_window` if nobody publishes with unique ids; more than `dedup_limit` of
//!   them may be remembered until the next 10,000 were published.

mod effects;
mod error;
mod feed;
mod flights;
mod inbox;
mod leases;
mod outbox;
mod publish;
mod schema;
mod settle;
mod sharing;
mod store;
mod text;
mod wakes;

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use resonant_common::join::LeaseStore;
use resonant_db::{Database, PoolConfig};

use self::error::fault;
use self::leases::PostgresLeases;
use self::store::{PostgresStore, Shared};
use super::{Backend, Capabilities, QueueSpec, QueueStore};
use crate::error::{ErrorKind, Result};
use crate::queue::PartitionedQueue;

pub use self::effects::Effects;
pub use self::inbox::Inbox;
pub use self::outbox::Outbox;
pub use self::schema::Schema;

/// Connections a pool of its own has at most.
const CONNECTIONS: u32 = 16;

/// Queues in PostgreSQL. Clones share connections. See the [module](self).
#[derive(Clone)]
pub struct Postgres {
    shared: Arc<Shared>,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").field("database", &self.shared.db).finish_non_exhaustive()
    }
}

/// How a [`Postgres`] is made; await it.
#[must_use = "await it"]
pub struct PostgresBuilder {
    from: From,
    create_tables: bool,
}

enum From {
    Url(String),
    Database(Database),
}

impl fmt::Debug for PostgresBuilder {
    /// Without the address, as it holds a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresBuilder")
            .field("create_tables", &self.create_tables)
            .finish_non_exhaustive()
    }
}

impl Postgres {
    /// Begins with a URL, `postgresql://user:password@host:5432/database`, and a pool of up to 16 connections of its own.
    /// The keys of the URL are those of [`resonant_db::backend::postgres`]. A server that is down stops no start.
    pub fn connect(url: impl Into<String>) -> PostgresBuilder {
        PostgresBuilder { from: From::Url(url.into()), create_tables: false }
    }

    /// Begins with a database that is used for other things as well. It is left open at the end.
    pub fn over(database: Database) -> PostgresBuilder {
        PostgresBuilder { from: From::Database(database), create_tables: false }
    }

    /// The statements that make the tables of a version, and those that remove them with everything in them. Version 1 is
    /// the newest. `None` for a version there is not.
    pub fn schema_sql(version: u32) -> Option<Schema> {
        Schema::of(version)
    }

    /// Leases in this database, for whoever needs some: the queues' partitions are leased here too.
    pub fn leases(&self) -> Arc<dyn LeaseStore> {
        Arc::new(PostgresLeases(Arc::clone(&self.shared)))
    }

    /// The database, for what a handler writes.
    pub fn database(&self) -> &Database {
        &self.shared.db
    }

    /// Runs effects of a queue's messages exactly once. The queue must be one of this database.
    pub fn effects<T>(&self, queue: &PartitionedQueue<T>) -> Effects {
        Effects::new(Arc::clone(&self.shared), &queue.core().spec)
    }

    /// Publishes into a queue in a transaction of the caller. The queue must be one of this database.
    pub fn outbox<T: serde::Serialize>(&self, queue: &PartitionedQueue<T>) -> Outbox<T> {
        Outbox::new(Arc::clone(&self.shared), queue.clone())
    }

    /// Remembers which messages of other queues have had their effects in this database, apart for each consumer.
    pub fn inbox(&self, consumer: impl Into<String>) -> Inbox {
        Inbox::new(Arc::clone(&self.shared), consumer.into())
    }
}

impl PostgresBuilder {
    /// Creates the tables if there are none, when first used. Default false: then a migration must have run what
    /// [`Postgres::schema_sql`] gives.
    pub fn create_tables(mut self, create: bool) -> Self {
        self.create_tables = create;
        self
    }

    fn finish(self) -> Result<Postgres> {
        let db = match self.from {
            From::Database(db) => db,
            From::Url(url) => Database::builder()
                .name("queue")
                .primary(url)
                .pool(PoolConfig::default().min_size(1).max_size(CONNECTIONS))
                .connect_lazy()
                .map_err(|error| fault("connect", error))?,
        };
        Ok(Postgres { shared: Arc::new(Shared::new(db, self.create_tables)) })
    }
}

impl IntoFuture for PostgresBuilder {
    type Output = Result<Postgres>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<Postgres>> + Send>>;

    /// # Errors
    ///
    /// `Config` for a URL that cannot be read; `Incompatible` if the tables are not there, or of a version this one cannot
    /// work with.
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let postgres = self.finish()?;
            // A server that is down stops no start.
            match postgres.shared.ready("connect").await {
                Err(error) if error.kind() != ErrorKind::Unavailable => Err(error),
                Ok(()) | Err(_) => Ok(postgres),
            }
        })
    }
}

#[async_trait]
impl Backend for Postgres {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new("postgres").durable(true)
    }

    async fn declare(&self, spec: &QueueSpec) -> Result<Arc<dyn QueueStore>> {
        let store = PostgresStore::new(Arc::clone(&self.shared), spec);
        match store.queue("build").await {
            Err(error) if error.kind() != ErrorKind::Unavailable => return Err(error),
            Ok(_) | Err(_) => {}
        }
        Ok(Arc::new(store))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_url_is_refused_and_no_password_shown() {
        let bad = Postgres::connect("mysql://user:secret@host/db").finish();
        let error = bad.err().map(|error| (error.kind(), error.to_string()));
        assert!(error.as_ref().is_some_and(|(_, text)| !text.contains("secret")), "{error:?}");
        let builder = Postgres::connect("postgresql://user:secret@host/db");
        assert!(!format!("{builder:?}").contains("secret"));
    }
}
