//! The guide's cases on everything a Redis can be: a cluster, read through replicas, one server, one with TLS and a narrow login,
//! one that announces nothing, one of the old protocol; and with the other driver.

use resonant_cache::{CacheConfig, DistributedCache};
use resonant_testkit::Redis;
use tokio::sync::OnceCell;

use super::{builder, by_fred, cluster, config, old, server, started, untracked};
use crate::guide::guide;

guide!(redis_cluster, super::open(super::on_the_cluster().await));
guide!(redis_cluster_with_replicas, super::open(super::with_replicas().await));
guide!(one_redis_server, super::open(super::on(super::server().await)));
guide!(one_guarded_redis_server, super::open(super::guarded().await));
guide!(a_server_that_forbids_tracking, super::open(super::on(super::untracked().await)));
guide!(a_server_of_the_old_protocol, super::open(super::on(super::old().await)));
guide!(redis_cluster_by_fred, super::open(super::by_fred(super::with_replicas().await)));
guide!(
    a_server_of_the_old_protocol_by_fred,
    super::open(super::by_fred(super::on(super::old().await)))
);

/// A cache as a service opens it: it waits for no more than an answer.
async fn open(mut config: CacheConfig) -> DistributedCache {
    config.key_prefix = format!("g{:08x}", rand::random::<u32>());
    started(builder(config).connect().await)
}

async fn on_the_cluster() -> CacheConfig {
    config(cluster().await.urls(), true)
}

async fn with_replicas() -> CacheConfig {
    CacheConfig { read_from_replicas: true, ..on_the_cluster().await }
}

fn on(redis: &Redis) -> CacheConfig {
    config(vec![redis.url()], false)
}

/// With TLS by a private authority, and a login that may do no more than the crate's front page asks for.
async fn guarded() -> CacheConfig {
    static SERVER: OnceCell<Redis> = OnceCell::const_new();
    let rules = "~g*:* +@read +@write +@scripting +@connection +@fast";
    let builder = Redis::builder().tls().login("app", "s3cret", rules);
    let redis = SERVER.get_or_init(|| async { started(builder.start().await) }).await;
    let mut config = config(vec![started(redis.url_as("app"))], false);
    config.tls_ca_file = redis.ca_file().map(std::path::Path::to_path_buf);
    config
}
