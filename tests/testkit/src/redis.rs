//! Redis: a standalone server, and a Redis Cluster with replicas.
//!
//! # A cluster that can be hurt
//! ```no_run
//! # async fn example() -> resonant_testkit::Result<()> {
//! use resonant_testkit::RedisCluster;
//!
//! let redis = RedisCluster::start().await?;            // 3 primaries, a replica each
//! let urls = redis.urls();                             // for the code under test
//! let owner = redis.owner_of("user:7").await?;
//! owner.command(["SET", "user:7", "Ada"]).await?;
//! owner.kill().await?;
//! let heir = redis.new_owner_of("user:7", &owner).await?;   // the election has ended
//! owner.start().await?;                                // it comes back as a replica
//! redis.settled().await?;
//! # Ok(()) }
//! ```
//!
//! **A trap of Redis itself**: a replica that won an election less than four node time-outs (at least four seconds) ago, and was
//! demoted since, counts the votes of that election again when its primary fails. It believes to have won, the others do not,
//! and nobody takes the slots until the old primary is back. So in a test let another node win next, or wait.
//!
//! # A standalone server
//! ```no_run
//! # async fn example() -> resonant_testkit::Result<()> {
//! use resonant_testkit::Redis;
//!
//! let redis = Redis::builder().login("app", "s3cret", "~app:* +@all").tls().without_tracking().start().await?;
//! let url = redis.url_as("app")?;                      // rediss://app:s3cret@127.0.0.1:PORT
//! # Ok(()) }
//! ```

mod cluster;
mod config;
mod connection;
mod node;
mod resp;
mod server;
mod slots;

pub use self::cluster::{RedisCluster, RedisClusterBuilder};
pub use self::connection::RedisConnection;
pub use self::node::RedisNode;
pub use self::resp::Reply;
pub use self::server::{Redis, RedisBuilder};
pub use self::slots::SlotMove;
