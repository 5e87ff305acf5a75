//! Real servers for tests, started in seconds, that can be killed, frozen and cut off.
//!
//! PostgreSQL with streaming replicas, Redis alone and as a cluster, RabbitMQ, PgBouncer and nginx run as children of the test
//! process, from the system's own packages, on free ports, in folders of their own. What mocks cannot show (a commit of
//! unknown outcome, a stale replica, an election, a socket that never answers) happens here on purpose.
//!
//! # Quick start
//! ```no_run
//! # async fn example() -> resonant_testkit::Result<()> {
//! use resonant_testkit::PostgresCluster;
//!
//! let pg = PostgresCluster::builder().replicas(1).start().await?;
//! pg.primary().sql("CREATE TABLE t (id int)").await?;
//! pg.primary().kill().await?;
//! pg.replica(0).promote().await?;
//! assert_eq!(pg.primary().value("SELECT count(*) FROM t").await?, "0");
//! # Ok(()) }
//! ```
//! The page [`guide`] goes from here to tests of a service of your own.
//!
//! # What there is
//!
//! | Type | Is | More in |
//! |---|---|---|
//! | [`PostgresCluster`] | a primary, replicas, shards | [`postgres`] |
//! | [`Postgres::temp`] | a database per test | [`postgres`] |
//! | [`RedisCluster`], [`Redis`] | Redis with and without slots | [`redis`] |
//! | [`RabbitMq`] | a broker of one or more nodes | [`rabbitmq`] |
//! | [`PgBouncer`], [`Nginx`] | what stands in front | [`pgbouncer`], [`nginx`] |
//! | [`FaultProxy`] | a bad network in front of any of them | [`proxy`] |
//! | [`Servers`] | where the programs come from | [`PACKAGES`] |
//!
//! # What it does not do
//! It does not cut the power (a killed process's writes survive in the kernel's cache), drop single packets, or separate the
//! nodes of a Redis or RabbitMQ cluster from each other. It is no driver: sessions here speak just enough to prepare and to look.
//!
//! # Guarantees
//! - When a call returns, what it says has happened: `start` means it answers, `kill` that every process is gone, `promote` that
//!   writes are taken.
//! - Ports and folders never collide between test processes of one account.
//! - Servers end with the last handle to them, and with the test process, however it ends.
//! - Handles are cheap, `Send` and `Sync`, and tied to no runtime: shared servers work across `#[tokio::test]`s of either
//!   flavour. They need tokio's real clock: not `start_paused`.
//!
//! # Cancellation
//! A dropped `start` of a builder ends what had started. A dropped method of a node or cluster leaves the step it was at behind: a
//! server signalled but perhaps not gone, a node stopped and not yet rejoined. Calling it again carries on.
//!
//! # Environment
//!
//! | Variable | Meaning |
//! |---|---|
//! | `RESONANT_SERVERS_ROOT` | a folder that brings the engines, see [`Servers`] |
//! | `RESONANT_TEST_PG` | a server for [`Postgres::temp`] to make databases on |
//! | `RESONANT_TESTKIT_DIR` | where the folders go, a short path; default `/tmp` |
//! | `RESONANT_TESTKIT_KEEP` | `1` keeps folders for a look at the logs |

mod background;
mod binaries;
mod dirs;
mod error;
#[doc = include_str!("guide.md")]
pub mod guide {}
pub mod nginx;
pub mod pgbouncer;
mod ports;
pub mod postgres;
mod process;
pub mod proxy;
pub mod rabbitmq;
mod reaper;
pub mod redis;
mod tls;
mod url;
mod user;
mod wait;

pub use self::binaries::{Engine, PACKAGES, Package, Servers};
pub use self::error::{Error, ErrorKind, Result};
pub use self::nginx::Nginx;
pub use self::pgbouncer::PgBouncer;
pub use self::postgres::{PgNode, Postgres, PostgresCluster, Template};
pub use self::proxy::FaultProxy;
pub use self::rabbitmq::{RabbitMq, RabbitNode};
pub use self::redis::{Redis, RedisCluster, RedisNode};

/// The README's examples are compiled with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct ReadmeExamples;
