//! A database handle for services: writes to the primary, reads to replicas, sessions that read what they wrote, and a
//! connection pool that is fair and cannot leak, over one small backend trait.
//!
//! # Quick start
//!
#![cfg_attr(feature = "sqlite", doc = "```")]
#![cfg_attr(not(feature = "sqlite"), doc = "```ignore")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> resonant_db::Result<()> {
//! use resonant_db::{Database, params};
//!
//! let db = Database::connect("sqlite::memory:").await?;
//! db.write().batch("CREATE TABLE users (id BIGINT PRIMARY KEY, name TEXT)").await?;
//! db.write().execute("INSERT INTO users VALUES ($1, $2)", params![7, "Ada"]).await?;
//!
//! let name: String = db.read().query_one_as("SELECT name FROM users WHERE id = $1", params![7]).await?;
//! assert_eq!(name, "Ada");
//!
//! let session = db.session(); // reads what it wrote, whichever node answers
//! session.write().execute("UPDATE users SET name = $1", params!["Grace"]).await?;
//! assert_eq!(session.read().query_one_as::<String>("SELECT name FROM users", params![]).await?, "Grace");
//! # Ok(())
//! # }
//! ```
//!
//! With replicas it is the same handle, made by the [builder](Database::builder) or from [settings](DatabaseConfig):
//!
//! ```
//! # fn build() -> resonant_db::Result<()> {
//! use resonant_db::{Database, PoolConfig, ReadStrategy};
//!
//! let db = Database::builder()
//!     .primary("sqlite:/var/lib/app.db")
//!     .replicas(["sqlite:/var/lib/app.db?cache=65536"])
//!     .read_strategy(ReadStrategy::RoundRobin)
//!     .pool(PoolConfig::default().min_size(10).max_size(100))
//!     .connect_lazy()?; // starts while everything is down; `connect()` waits for the primary
//! # drop(db);
//! # Ok(())
//! # }
//! ```
//!
//! # What is here
//!
//! - [`Database`]: one primary, any number of replicas. [`read`](Database::read), [`write`](Database::write),
//!   [`transaction`](Database::transaction), [`session`](Database::session).
//! - [`ReplicaSet`]: its routing alone, over handles of a driver of your own.
//! - [`ShardedDatabase`]: a statement goes to the shards it is proven to touch, or is refused.
//! - [`ConnectionPool`]: the pool beneath, for any [`Manager`](pool::Manager) of connections.
//!
//! # What it does not do
//!
//! - It translates no SQL. Placeholders are `$1`, `$2`, … on every engine; the rest of a statement is the engine's own.
//! - It is no ORM and no migration tool. Rows decode into anything `serde` can read.
//! - It promotes no node: it finds the one that says it is the primary, or follows a topology it is given.
//! - No transactions across shards or databases.
//!
//! # Guarantees
//!
//! - **A read cannot write**, on whichever node it lands: the engine itself refuses, whatever the statement looks like.
//! - **A session reads what it wrote**: its reads are answered only by a node that has come as far, in the end by the
//!   primary. The [token](Session::token) carries that to other processes; a token of another database is refused.
//! - **A write is applied once at most.** It is sent again only to a new primary, and only when the old one provably did
//!   not apply it. A read that fails with its node is sent to another, each node at most once, within a budget of 8 % of
//!   the calls. A [transaction](Database::transaction) is run again as a whole, up to five times, when
//!   the engine reports a conflict and nothing of it was applied.
//! - **An outcome that is unknown says so**: [`may_have_applied`](Error::may_have_applied).
//! - **A node that fails or hangs is left out** until it answers again: after five failed calls in a row, or when it does
//!   not answer the background within half a second. It comes back with a share that grows over two seconds. The last
//!   node is never left out.
//! - **A failover needs no change of settings.** Nodes are asked every 250 ms what they are; of several that say they are
//!   the primary the one with the newest history is. One that was replaced and comes back as it was is sent nothing. A
//!   [topology](Database::follow) that is followed decides instead, and never goes back.
//! - **A bound on age is kept or not promised**: [`max_staleness`](Read::max_staleness) reads only from nodes that are
//!   known to be as fresh, by this process's own clock.
//! - **Nothing waits for ever**: connecting, waiting for a connection, statements, checks and closing have limits with
//!   defaults. A server that is down stops no start.
//! - **First come, first served**: a connection goes to the caller who has waited longest.
//! - **No secrets in messages**: passwords, options of a URL, and the values of parameters and rows appear in no error, no log
//!   line, no metric and no `Debug`.
//!
//! # Cancellation
//!
//! Any future may be dropped at any await. A statement is stopped where the engine can do that, a transaction is rolled
//! back, and the connection comes back clean before anybody else gets it, off the caller's path. Of a dropped write it is
//! unknown whether it took effect, but never half of it did.
//!
//! # Routing
//!
//! [`RoutingConfig`] and the [builder](DatabaseBuilder) set it; each default is what most services want.
//!
//! | setting | default | meaning |
//! |---|---|---|
//! | `read_strategy` | round robin | who answers reads; [`choose_with`](DatabaseBuilder::choose_with) takes a closure |
//! | `primary_reads` | fallback | whether the primary answers reads: when no replica is fit, as one of them, never |
//! | `probe_interval` | 250 ms | how often each node is asked what it is and how far, on a connection of its own |
//! | `probe_timeout` | 500 ms | a node that answers nothing for so long is left out |
//! | `slow_start` | 2 s | until a node that is back has its full share |
//! | `failover_wait` | 1 s | how long a write that was not applied waits for another primary |
//! | `stale_after` | 30 s | a replica further behind is a [finding](Database::findings), `db.replica.stale` |
//! | `zone`, `zones` | none | for [`ReadStrategy::ZoneFirst`] |
//!
//! In an incident: [`eject`](Database::eject), [`restore`](Database::restore),
//! [`force_primary`](Database::force_primary), [`resize`](Database::resize), [`set_lanes`](Database::set_lanes), which keeps
//! plain reads from sharing connections ([when they do](backend::postgres#lanes-connections-that-reads-share)). Each change of state is one line in the log.
//!
//! # Engines
//!
//! | engine | URL | feature | limits |
//! |---|---|---|---|
//! | [PostgreSQL](backend::postgres) | `postgresql://user@host:5432/database` | `postgres` | a server of version 12 or later, also behind a pooler in transaction mode |
//! | [SQLite](backend::sqlite), embedded | `sqlite:/path/file.db`, `sqlite::memory:` | `sqlite` | one writer at a time; the processes of one machine |
//! | [yours](backend::Backend) | any | none | what it [declares](backend::Capabilities) |
//!
//! # How to add a backend
//!
//! Implement [`Backend`](backend::Backend), which opens connections, and [`Connection`](backend::Connection), which runs
//! statements; their contracts are written on them, and pools, routing, retries, sessions and rows come from here.
//! Run the conformance suite in [`testing`] over it: [`conformance!`] makes one test of each case.
//! Hand it to [`DatabaseBuilder::backend`], and it serves a [`Database`] like the engines that ship.
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `postgres` | yes | PostgreSQL, through tokio-postgres |
//! | `tls` | no | TLS to PostgreSQL by rustls with ring: `sslmode=require` and stronger |
//! | `sqlite` | no | the embedded engine; compiles SQLite |
//! | `sharding` | no | `ShardedDatabase` and its SQL router |
//! | `bb8` | no | any bb8 manager as a [`Manager`](pool::Manager) of ours |
//! | `patroni` | no | [`Patroni`](patroni::Patroni): follows what Patroni says of its cluster |
//! | `uuid`, `chrono`, `time`, `jiff`, `rust_decimal` | no | the types of these crates as parameters and in [`Row::get`] |
//! | `tower` | no | [`SessionLayer`](tower::SessionLayer): sessions over HTTP, for axum and tonic |
//! | `testing` | no | the conformance suite of backends, and a scripted server for pools |
//!
//! # Metrics
//!
//! `db_client_connection_…` of each pool as OpenTelemetry names them, and `resonant_db_routed_total`,
//! `resonant_db_reads_total` (on a shared connection or on their own), `resonant_db_retries_total`,
//! `resonant_db_ejections_total`, `resonant_db_replica_lag_seconds` and `resonant_db_shard_routes_total`. Pools are labelled
//! `<database>/primary`, `<database>/replica-1`, … by the settings; the pool for a role that a node got later ends in
//! `/writes` or `/reads`. Statements never appear in metrics.

#![cfg_attr(
    not(all(
        feature = "patroni",
        feature = "postgres",
        feature = "sharding",
        feature = "sqlite",
        feature = "testing",
        feature = "tower"
    )),
    allow(rustdoc::broken_intra_doc_links)
)]

pub mod backend;
#[allow(dead_code, reason = "engines write, types of other crates read, each behind a feature")]
mod calendar;
mod database;
mod error;
mod param;
#[cfg(feature = "patroni")]
pub mod patroni;
pub mod pool;
pub mod replica_set;
mod row;
#[cfg(feature = "sharding")]
pub mod sharding;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "tower")]
pub mod tower;
mod types;

pub use self::database::{
    CopyOut, Database, DatabaseBuilder, DatabaseConfig, DatabaseStatus, Event, Listener,
    NodeStatus, Read, RowStream, Session, Transaction, TransactionCopy, TransactionOptions,
    TransactionRows, Write,
};
pub use self::error::{Error, ErrorKind, Result};
pub use self::param::{ArrayParam, DecimalParam, Param, ToParam};
pub use self::pool::{ConnectionPool, PoolConfig};
pub use self::replica_set::{PrimaryReads, ReadStrategy, ReplicaSet, Role, RoutingConfig};
pub use self::row::{ColumnIndex, FromValue, Row, Rows, RowsIter, ValueRef};
#[cfg(feature = "sharding")]
pub use self::sharding::{KeyType, ShardFunction, ShardedDatabase};

#[cfg(all(doctest, feature = "sqlite"))]
#[doc = include_str!("../README.md")]
struct Readme;
