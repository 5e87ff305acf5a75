//! A whole service from one file: its parts, their health, its HTTP API, and one life from start to end.
//!
//! ```toml
//! # resonant.toml
//! [http]
//! listen = "0.0.0.0:8000"
//! tokens = { ada = "a long secret of ada's" }
//!
//! [database]
//! primary = "postgresql://primary:5432/resonant"
//! replicas = ["postgresql://replica1:5432/resonant"]
//!
//! [queues.session-tasks]
//! partition_key = "agent_id"
//! ```
//!
#![cfg_attr(
    all(feature = "queue", feature = "sqlite", feature = "db"),
    doc = r#"
```
use axum::Router;
use axum::routing::post;
use resonant_sdk::app::{Resonant, Settings};
use resonant_sdk::queue::Delivery;
# fn file() -> resonant_sdk::app::Reader { Settings::text("resonant.toml", "
#     [service]
#     shutdown_deadline = '3s'
#     [health]
#     drain_delay = '0s'
#     [http]
#     listen = '127.0.0.1:0'
#     without_tokens = true
#     [database]
#     primary = 'sqlite::memory:'
#     [queues.session-tasks]
#     partition_key = 'agent_id'
# ") }

#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Task {
    agent_id: String,
}

# #[tokio::main(flavor = "current_thread")] async fn main() -> resonant_sdk::app::Result<()> {
# let settings = file().read()?;
# let app = Resonant::open(settings).await?;
# /*
let app = Resonant::from_file("resonant.toml").await?;
# */
let tasks = app.queue::<Task>("session-tasks").await?;
let database = app.database()?.clone();
let routes = Router::new().route("/tasks", post({
    let tasks = tasks.clone();
    async move || match tasks.publish(&Task { agent_id: "agent_123".into() }).await {
        Ok(_) => "accepted",
        Err(_) => "try again",
    }
}));
app.workers("session-tasks", move || {
    let database = database.clone();
    tasks.worker(async move |_task: Delivery<Task>| { database.ping().await?; Ok(()) }).start()
}).await?;
app.serve(routes).await?;
# let report = app.shutdown(app.settings().service.shutdown_deadline).await;
# assert!(report.is_clean(), "{report}");
# /*
let report = app.run_until_signal().await?;              // SIGTERM: ready goes red, and everything ends in order
# */
println!("{report}");                                    // ended in 5.2 s, nothing left
# Ok(()) }
```
"#
)]
//!
//! What the file names is there, and nothing else. Each part is a plain value of its crate, to be used and passed on as if it
//! had been built by hand; those built by hand may stand beside it.
//!
//! # The file
//!
//! | section | settings | gives | feature |
//! |---|---|---|---|
//! | `[service]` | [`ServiceConfig`] | name, time to end in, recorder | `app` |
//! | `[http]` | [`HttpConfig`] | [`Resonant::serve`] | `app` |
//! | `[health]` | [`HealthConfig`](crate::health::HealthConfig) | [`Resonant::health`] | `app` |
//! | `[database]` | `db::DatabaseConfig` | `database()` | `db` and an engine |
//! | `[sharded_database]` | `db::sharding::ShardedConfig`, and `pool` | `sharded_database()` | `sharding` and an engine |
//! | `[cache]` | `cache::CacheConfig` | `cache::<T>("name")`, `distributed_cache()` | `cache` |
//! | `[broker]` | `BrokerConfig` | where queues live | `queue` and an engine |
//! | `[queues.<name>]` | `queue::QueueConfig` | `queue::<T>("name")`, `workers("name", …)` | `queue` |
//! | `[batches.<name>]` | `batch::BatchConfig` | `batch("name", …)` | `batch` |
//! | `[regions.<name>]`, `[failover]` | `ha::MultiRegion` | `failover()`, which the database follows | `ha` |
//! | `[scaling.<name>]` | [`ScalingConfig`] | workers that come and go with a queue | `queue` |
//!
//! The settings of a section are those its crate documents, by the same names. `"none"` stands for nothing, as TOML has no null.
//! A section whose feature is not compiled in is refused by a message that names the feature.
//!
//! # The environment
//!
//! `RESONANT__DATABASE__POOL__MAX_SIZE=20` goes over `max_size` of `[database.pool]`: two underscores where a table is entered.
//! Lists are given with commas, or as TOML. `DATABASE_URL` is the primary of a `[database]` that the file names, unless
//! `RESONANT__DATABASE__PRIMARY` says otherwise.
//!
//! # Mistakes
//!
//! All of them are listed at once, each with its line or variable, its setting and what is expected; a name nobody knows with the
//! one that may be meant. [`Settings::file`]`(…).read()` finds them without connecting to anything: make it your `--check`. No
//! message repeats what a text says, so none holds a password.
//!
//! # What it does not do
//!
//! A failover manager from the file watches and publishes; one that promotes needs voters, which are built in code
//! (`ha::FailoverManager::builder`). There are no several databases or caches: build further ones by hand.
#![cfg_attr(
    not(all(
        feature = "batch",
        feature = "cache",
        feature = "db",
        feature = "ha",
        feature = "queue"
    )),
    allow(dead_code, reason = "for the parts that are compiled in")
)]

#[cfg(feature = "batch")]
mod batches;
mod between;
#[cfg(feature = "queue")]
mod broker;
mod collect;
mod config;
mod connections;
mod environment;
mod error;
mod life;
mod nearest;
#[cfg(feature = "queue")]
mod queues;
mod read;
mod rehearsal;
mod resonant;
mod sections;
mod serve;
mod settings;
#[cfg(feature = "sharding")]
mod shards;
mod shutdown;
mod signal;
mod tables;
mod tree;

#[cfg(feature = "queue")]
pub use self::broker::BrokerConfig;
pub use self::config::{HttpConfig, ScalingConfig, ServiceConfig};
pub use self::error::{Error, ErrorKind, Mistake, Mistakes, Place, Result};
pub use self::resonant::Resonant;
pub use self::settings::{Reader, Settings};
pub use self::shutdown::{ShutdownReport, Step};
pub use self::signal::Signals;
