//! The store's suite on a Redis Cluster, on one server, and with TLS and logins; and with the other driver.

use std::sync::Arc;
use std::time::Duration;

use resonant_cache::backend::RedisStore;
use resonant_cache::testing::Bench;

use super::{by_fred, cluster, config, guarded_server, old, server, started, store, untracked};

async fn on_the_cluster() -> Bench {
    bench(config(cluster().await.urls(), true)).await
}

async fn on_the_cluster_with_replicas() -> Bench {
    bench(with_replicas().await).await
}

async fn with_replicas() -> resonant_cache::CacheConfig {
    let mut config = config(cluster().await.urls(), true);
    config.read_from_replicas = true;
    config
}

async fn on_one_server() -> Bench {
    bench(config(vec![server().await.url()], false)).await
}

async fn on_the_cluster_by_fred() -> Bench {
    bench(by_fred(with_replicas().await)).await
}

/// With TLS, and a login that may do no more than the front page says.
async fn on_one_guarded_server() -> Bench {
    bench(guarded().await).await
}

async fn on_one_guarded_server_by_fred() -> Bench {
    bench(by_fred(guarded().await)).await
}

async fn on_a_server_that_forbids_tracking() -> Bench {
    silent(config(vec![untracked().await.url()], false))
}

async fn on_a_server_of_the_old_protocol() -> Bench {
    silent(config(vec![old().await.url()], false))
}

/// Of a store that announces nothing, so that nobody waits for that.
fn silent(config: resonant_cache::CacheConfig) -> Bench {
    let store = Arc::new(started(RedisStore::new(&config)));
    Bench::new(store).short(Duration::from_millis(400))
}

async fn guarded() -> resonant_cache::CacheConfig {
    let server = guarded_server().await;
    let mut config = config(vec![started(server.url_as("app"))], false);
    config.tls_ca_file = server.ca_file().map(std::path::Path::to_path_buf);
    config
}

async fn bench(config: resonant_cache::CacheConfig) -> Bench {
    Bench::new(store(&config).await).short(Duration::from_millis(400))
}

resonant_cache::store_conformance! {
    redis_cluster, super::on_the_cluster()
}
resonant_cache::store_conformance! {
    redis_cluster_with_replicas, super::on_the_cluster_with_replicas()
}
resonant_cache::store_conformance! {
    one_redis_server, super::on_one_server()
}
resonant_cache::store_conformance! {
    one_guarded_redis_server, super::on_one_guarded_server()
}
resonant_cache::store_conformance! {
    a_server_that_forbids_tracking, super::on_a_server_that_forbids_tracking()
}
resonant_cache::store_conformance! {
    a_server_of_the_old_protocol, super::on_a_server_of_the_old_protocol()
}
resonant_cache::store_conformance! {
    redis_cluster_by_fred, super::on_the_cluster_by_fred()
}
resonant_cache::store_conformance! {
    one_guarded_redis_server_by_fred, super::on_one_guarded_server_by_fred()
}
