//! What needs real Redis servers. Tests that hurt nobody share one cluster and one server; the others have their own.

mod coherence;
mod conformance;
mod control;
mod credentials;
mod drift;
mod faults;
mod fleet;
mod forbidden;
mod guide;
mod processes;
mod replicas;
mod resharding;
mod traces;
mod traps;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use resonant_cache::backend::{RedisStore, Store};
use resonant_cache::{CacheConfig, DistributedCache, DistributedCacheBuilder, RedisDriver};
use resonant_testkit::{Redis, RedisCluster};
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// How long a state may take to come on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// How often a test goes round: so many times, or `RESONANT_ROUNDS` times as many.
pub(crate) fn rounds(short: usize) -> usize {
    let times = std::env::var("RESONANT_ROUNDS").ok().and_then(|times| times.parse().ok());
    short * times.unwrap_or(1)
}

/// Six nodes that no test may hurt.
pub(crate) async fn cluster() -> &'static RedisCluster {
    static CLUSTER: OnceCell<RedisCluster> = OnceCell::const_new();
    CLUSTER.get_or_init(calm_cluster).await
}

/// Six nodes that take none of theirs for dead, however busy the machine is.
pub(crate) async fn calm_cluster() -> RedisCluster {
    started(RedisCluster::builder().node_timeout(SOON).start().await)
}

/// A server alone that no test may hurt.
pub(crate) async fn server() -> &'static Redis {
    static SERVER: OnceCell<Redis> = OnceCell::const_new();
    SERVER.get_or_init(|| async { started(Redis::start().await) }).await
}

/// A server alone that forbids `CLIENT TRACKING`.
pub(crate) async fn untracked() -> &'static Redis {
    static SERVER: OnceCell<Redis> = OnceCell::const_new();
    let start = || async { started(Redis::builder().without_tracking().start().await) };
    SERVER.get_or_init(start).await
}

/// A server alone of the old protocol: it knows no `HELLO` and no `CLIENT`.
pub(crate) async fn old() -> &'static Redis {
    static SERVER: OnceCell<Redis> = OnceCell::const_new();
    let builder = Redis::builder().forbid("HELLO").forbid("CLIENT");
    SERVER.get_or_init(|| async { started(builder.start().await) }).await
}

/// A server alone with TLS, whose login may do no more than the crate's front page asks for.
pub(crate) async fn guarded_server() -> &'static Redis {
    static SERVER: OnceCell<Redis> = OnceCell::const_new();
    let rules = "~resonant:* +@read +@write +@scripting +@connection +@fast";
    let start =
        || async { started(Redis::builder().tls().login("app", "s3cret", rules).start().await) };
    SERVER.get_or_init(start).await
}

/// The value, or the end of the test.
pub(crate) fn started<T, E: std::fmt::Display>(outcome: Result<T, E>) -> T {
    match outcome {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}

/// Settings for a busy machine: generous deadlines, so that a slow answer is not taken for none.
pub(crate) fn config(nodes: Vec<String>, cluster: bool) -> CacheConfig {
    CacheConfig {
        nodes,
        cluster_mode: cluster,
        command_timeout: Duration::from_secs(10),
        unannounced_max_age: Duration::from_secs(4),
        ..CacheConfig::default()
    }
}

/// The same, with the driver fred.
pub(crate) fn by_fred(config: CacheConfig) -> CacheConfig {
    CacheConfig { driver: RedisDriver::Fred, ..config }
}

/// A store whose primaries all announce.
pub(crate) async fn store(config: &CacheConfig) -> Arc<RedisStore> {
    let store = Arc::new(started(RedisStore::new(config)));
    started(store.ping().await);
    until("all primaries announce", || store.is_announced()).await;
    store
}

/// A cache as another process would have it: a store of its own.
pub(crate) async fn cache(config: CacheConfig) -> DistributedCache {
    let store = store(&config).await;
    started(builder(config).store(store).build())
}

pub(crate) fn builder(config: CacheConfig) -> DistributedCacheBuilder {
    DistributedCache::builder().config(config)
}

/// Reads until the process holds what it read: a late word of an earlier write may drop the copy once more.
pub(crate) async fn until_held(cache: &DistributedCache, read: impl AsyncFn()) {
    let begun = Instant::now();
    loop {
        read().await;
        if cache.usage().entries > 0 {
            return;
        }
        assert!(begun.elapsed() < SOON, "the process never held what it read");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits for a state.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < SOON, "it did not come to it that {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
