//! A cache that loads each missing value once: decoded values in the process, encoded ones in a store that processes
//! share.
//!
//! # Quick start
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> resonant_cache::Result<()> {
//! use resonant_cache::DistributedCache;
//!
//! # async fn from_the_database(id: u32) -> std::io::Result<String> { Ok(format!("user {id}")) }
//! let cache = DistributedCache::memory(64 << 20);
//! let users = cache.namespace::<String>("user");
//! // A thousand tasks that ask at once make one query.
//! let user = users.get_or_load("7", async || from_the_database(7).await).await?;
//! assert_eq!(*user, "user 7");
//!
//! users.set("7", &"Ada".to_owned()).await?;
//! assert_eq!(users.get("7").await?.as_deref().map(String::as_str), Some("Ada"));
//! # Ok(())
//! # }
//! ```
//!
//! # What it does not do
//!
//! - It is no database: a store may drop anything at any time, counters included. What must not be lost goes to
//!   `resonant-db`.
//! - No transactions across keys. Batches have a status per key.
//! - No listing of keys: invalidate by [tag](Namespace::invalidate_tag) or by [namespace](Namespace::clear).
//! - Values that other programs share have no envelope, and so less is promised of them: see
//!   [`plain`](NamespaceBuilder::plain).
//! - No Redis Sentinel, no proxies that hide the nodes of a cluster.
//!
//! # Guarantees
//!
//! - **One load per missing key**, however many ask, in the process; and in the fleet, as far as the store's leases
//!   reach: a leader that is gone costs one more load once its lease has lapsed.
//! - **Nothing old gets in.** A `set`, `delete`, `clear` or invalidation while a load of the key runs keeps the load's
//!   value out of both tiers. Those who asked before the change get it; whoever asks after it does not.
//! - **Old replica reads stay out**: a value [loaded at](Loaded::at) a position before that of an
//!   [invalidation](Namespace::invalidate_at) is not stored, for `position_ttl`.
//! - **A life ends exactly**, on tokio's clock in the process, to the millisecond of the store's clock in the store.
//!   Stale values are served only within the windows a namespace sets, never by [`get`](Namespace::get).
//! - **Bounded**: the accounted bytes of a tier never exceed its limit, not for a moment. Loads that run or wait,
//!   callers per load, keys per call, key and value lengths, tags and namespaces have limits with defaults.
//! - **What others change leaves this process** as soon as the store says so, whichever program changed it; and if the store
//!   falls silent, what was held before is fresh for at most `unannounced_max_age` longer.
//! - **A replica never brings back** what this process knows to be changed: such keys are read from the primary until the
//!   replica was seen to have caught up.
//! - **What the store did not hear of is made up for**: a `delete`, `invalidate_*`, `clear` or `set` that fails because the store
//!   does not answer is remembered, in order and within `max_journal`, and invalidated in the store when it answers again.
//!   Until then this process reads nothing from the store that it concerns. It is lost with the process.
//! - **A store that is down** stops no start and fails no [`get_or_load`](Namespace::get_or_load): values come from
//!   the loader and are kept in the process for `degraded_ttl`. Positions and leases mean nothing for that time.
//!
//! # Cancellation
//!
//! A dropped [`get_or_load`](Namespace::get_or_load) leaves its load running for the others and for the cache; loads
//! stop when the last handle of the cache is dropped, or on [`close`](DistributedCache::close). A dropped change was
//! done or not done in the store; either way this process forgets what it held, so it agrees with the store.
//!
//! # Redis
//!
//! ```no_run
//! # #[cfg(feature = "redis")]
//! # async fn example() -> resonant_cache::Result<()> {
//! use resonant_cache::DistributedCache;
//!
//! let cache = DistributedCache::builder()
//!     .nodes(["redis://cache-1:6379", "redis://cache-2:6379", "redis://cache-3:6379"])
//!     .cluster_mode(true)
//!     .read_from_replicas(true)
//!     .connect()
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! Nodes are `redis://user:password@host:port`, `valkey://…`, and with TLS `rediss://…` and `valkeys://…`; some of a
//! cluster's are enough. One server alone is named with `cluster_mode(false)`. Nodes that no URL names are logged in to as
//! the first one. Redis 6 or later announces changes; on a server that cannot or may not (`CLIENT TRACKING`), values stay in
//! the process for `unannounced_max_age`, and [`findings`](DistributedCache::findings) say `cache.store.unannounced`.
//! [`credentials`](DistributedCacheBuilder::credentials) asks for the login of each new connection instead.
//! The login needs `~prefix:*` and `+@read +@write +@scripting +@connection +@fast +cluster|slots`, and `+info` to read from
//! replicas.
//!
//! While a primary is away its keys' `get` and `set` fail at once, or within half of `command_timeout` if it hangs; loads go to
//! the loader. The other primaries' keys are served, though for that time from Redis more than from this process.
//!
//! # Stores
//!
//! | store | feature | limits |
//! |---|---|---|
//! | [`RedisStore`](backend::RedisStore) | `redis` | an acknowledged write can be lost with a primary; eviction by the server may drop fences |
//! | [`MemoryStore`](backend::MemoryStore) | always there | one process; nothing survives it |
//! | a [`Store`](backend::Store) of yours | always there | pass it to [`store`](DistributedCacheBuilder::store); `testing` has its suite |
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `redis` | yes | the shared tier in Redis, alone or as a Redis Cluster |
//! | `fred` | no | the crate `fred` as a second driver for Redis, chosen by [`driver`](CacheConfig::driver); what differs: [`backend::redis`](backend::redis#the-driver-fred) |
//! | `compression` | no | values above `compress_above` are compressed (LZ4, the `lz4_flex` crate); programs without it take such values for misses |
//! | `postcard` | no | [`Postcard`], a codec smaller and faster than JSON |
//! | `tls` | no | `rediss://` and `valkeys://`, by rustls with the ring provider |
//! | `testing` | no | [`testing`]: the suite that a store must pass, and stores that break on purpose |
//!
//! # Metrics
//!
//! `resonant_cache_operations_total`, `…_entries`, `…_bytes`, `…_evictions_total`, `…_load_duration_seconds` and
//! `…_coalesced_total`, `…_lease_waits_total`, `…_invalidations_total` (heard from the store, by kind), `…_store_duration_seconds`
//! (by operation), `…_store_up`, `…_store_announced` and `…_journal_entries`, labelled with the cache's name. Keys, tags and
//! values never appear in metrics, traces, logs or `Debug`; namespaces, which are names given in code, appear in errors, traces
//! and `Debug` alone.
//!
//! # Traces
//!
//! Spans are of the target `resonant::cache`, at debug:
//!
//! | span | of | fields, after `resonant.cache.` |
//! |---|---|---|
//! | `cache.call` | a call that the process could not answer alone; named after it, such as `get_or_load` | `name`, `namespace`, `keys`, `result` as in the metrics |
//! | `cache.load` | a load, inside the call that began it; calls that joined it follow from it; what the loader does is inside it | `name`, `namespace`, `keys`, `loaded` (keys the loader was called for), `outcome` |
//! | `redis.command` | what is said to one server at once, named by OpenTelemetry's conventions: `db.system.name`, `db.operation.name`, `db.operation.batch.size`, `db.stored_procedure.name` (a script's digest), `db.response.status_code`, `server.address`, `server.port` | `replica` |
//!
//! What fails has `error.type` and `otel.status_code`. A value that the process holds costs one counter and no span, whoever
//! looks; where nobody looks at spans, none is made.

#![cfg_attr(
    not(all(feature = "redis", feature = "testing")),
    allow(rustdoc::broken_intra_doc_links)
)]

mod builder;
mod cache;
mod codec;
mod config;
mod credentials;
mod envelope;
mod epochs;
mod error;
mod fence;
mod flight;
mod freshness;
mod gate;
mod inflight;
mod journal;
mod key;
mod l1;
mod load;
mod local;
mod metrics;
mod namespace;
mod options;
mod replay;
mod squeeze;
mod switches;
mod trace;

pub mod backend;
#[cfg(feature = "testing")]
pub mod testing;

pub use self::backend::Version;
pub use self::builder::DistributedCacheBuilder;
pub use self::cache::{DistributedCache, Usage};
#[cfg(feature = "postcard")]
pub use self::codec::Postcard;
pub use self::codec::{Codec, Json, Raw};
pub use self::config::{CacheConfig, NamespaceConfig, RedisDriver};
pub use self::credentials::Credentials;
pub use self::error::{Error, ErrorKind, Result};
pub use self::namespace::{Namespace, NamespaceBuilder};
pub use self::options::{Loaded, Served, SetOptions, Swap, Tier, Versioned, Written};
pub use self::switches::Switches;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
