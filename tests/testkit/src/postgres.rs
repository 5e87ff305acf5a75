//! PostgreSQL: a primary with streaming replicas, shards, and databases of a test's own.
//!
//! # A cluster that can be hurt
//! ```no_run
//! # async fn example() -> resonant_testkit::Result<()> {
//! use resonant_testkit::PostgresCluster;
//!
//! let pg = PostgresCluster::builder().replicas(2).start().await?;
//! pg.primary().sql("CREATE TABLE orders (id int PRIMARY KEY)").await?;
//! pg.replica(0).pause_replay().await?;          // reads there are stale from now on
//! pg.primary().kill().await?;                   // every process of it, at once
//! pg.replica(0).resume_replay().await?;
//! pg.replica(0).promote().await?;               // pg.primary() is the promoted one now
//! pg.repoint_all().await?;                      // the other replica follows it
//! pg.rejoin_by_rewind(0).await?;                // the old primary comes back as its replica
//! # Ok(()) }
//! ```
//!
//! # A database of a test's own
//! ```no_run
//! # async fn example() -> resonant_testkit::Result<()> {
//! use resonant_testkit::Postgres;
//!
//! let db = Postgres::temp().schema("CREATE TABLE users (id int PRIMARY KEY, name text)").await?;
//! let url = db.url();                           // hand it to the code under test
//! # Ok(()) }
//! ```

mod cluster;
mod config;
mod failover;
mod faults;
mod node;
mod replication;
mod session;
mod temp;
mod template;
mod wire;

pub use self::cluster::{PostgresBuilder, PostgresCluster, Synchronous};
pub use self::node::PgNode;
pub use self::session::{PgRow, PgSession};
pub use self::temp::{Postgres, TempBuilder, TempDatabase, Template};
