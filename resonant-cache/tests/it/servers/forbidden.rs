//! Servers that forbid what coherence needs, and what the cache makes of them.

use std::time::Duration;

use resonant_cache::backend::RedisStore;
use resonant_cache::{CacheConfig, DistributedCache, ErrorKind, Result};
use resonant_testkit::{Redis, RedisCluster};

use super::{by_fred, cache, cluster, config, server, started, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_tracking_values_stay_for_a_moment_and_it_is_said() -> Result<()> {
    let redis = started(Redis::builder().without_tracking().start().await);
    let mut config = config(vec![redis.url()], false);
    config.unannounced_max_age = Duration::from_millis(500);
    let [one, other] =
        [(), ()].map(|()| started(DistributedCache::builder().config(config.clone()).build()));
    let (here, there) = (one.namespace::<u64>("n"), other.namespace::<u64>("n"));
    here.set("7", &1).await?;
    assert_eq!(there.get("7").await?.as_deref(), Some(&1));
    until("it is said", || other.findings()[0].code == "cache.store.unannounced").await;
    here.set("7", &2).await?;
    let changed = tokio::time::Instant::now();
    while there.get("7").await?.as_deref() != Some(&2) {
        assert!(changed.elapsed() < super::SOON, "the old value is still served");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!(
        "FIGURE without tracking an old value was served for {:?}, of 500ms promised",
        changed.elapsed()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_resp3_values_are_served_all_the_same() -> Result<()> {
    // A server of the old protocol: it knows no HELLO and no CLIENT.
    let redis = started(Redis::builder().forbid("HELLO").forbid("CLIENT").start().await);
    let config = config(vec![redis.url()], false);
    for config in [config.clone(), by_fred(config)] {
        let cache = started(DistributedCache::builder().config(config).build());
        let users = cache.namespace::<u64>("n");
        users.set("7", &1).await?;
        assert_eq!(users.get("7").await?.as_deref(), Some(&1));
        until("it is said", || cache.findings()[0].code == "cache.store.unannounced").await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_and_logins_hold_on_every_node_and_listener() -> Result<()> {
    let redis = tls_cluster().await;
    for driven in [|config| config, by_fred] {
        tls_and_logins(&redis, driven).await?;
    }
    Ok(())
}

async fn tls_cluster() -> RedisCluster {
    let rules = "~resonant:* +@read +@write +@scripting +@connection +@fast +cluster|slots +info";
    started(RedisCluster::builder().tls().login("app", "s3:cr/t", rules).start().await)
}

async fn tls_and_logins(
    redis: &RedisCluster,
    driven: fn(CacheConfig) -> CacheConfig,
) -> Result<()> {
    // The first node's login is used where a node was not named.
    let url = started(redis.node(4).url_as("app"));
    let mut config = driven(config(vec![url.clone()], true));
    let ca = redis.node(0).ca_file().map(std::path::Path::to_path_buf);
    config.tls_ca_file.clone_from(&ca);
    config.read_from_replicas = true;
    let cache = cache(config.clone()).await;
    let users = cache.namespace::<u64>("n");
    for n in 0..50 {
        users.set(&n.to_string(), &n).await?;
        assert_eq!(users.get(&n.to_string()).await?.as_deref(), Some(&n));
    }
    users.invalidate_tag("t").await?;
    assert_eq!(cache.findings()[0].code, "cache.ok");

    // An authority nobody trusts, and a password that is wrong: refused, and never repeated.
    config.tls_ca_file = None;
    let stranger = DistributedCache::builder().config(config.clone()).build();
    if let Ok(stranger) = stranger {
        let error = stranger.ping().await.err();
        assert_eq!(error.map(|error| error.kind()), Some(ErrorKind::Unavailable));
    }
    config.tls_ca_file = ca;
    let wrong = url.replace("app:s3", "app:wrong");
    assert_ne!(wrong, url);
    config.nodes = vec![wrong];
    let stranger = started(DistributedCache::builder().config(config).build());
    let Err(error) = stranger.ping().await else { panic!("a wrong password was taken") };
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!format!("{error:?} {error} {stranger:?}").contains("wrong"), "{error:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wrong_mode_is_named() {
    let modes = [(cluster().await.urls(), false), (vec![server().await.url()], true)];
    for (mut nodes, mode) in modes {
        nodes.truncate(1);
        for config in [config(nodes.clone(), mode), by_fred(config(nodes, mode))] {
            let cache = started(DistributedCache::builder().config(config).build());
            let users = cache.namespace::<u64>("n");
            let mut said = String::new();
            for n in 0..50 {
                if let Err(error) = users.set(&n.to_string(), &1).await {
                    said = error.to_string();
                }
            }
            assert!(said.contains(&format!("cluster_mode({})", !mode)), "{said}");
        }
    }
}

#[tokio::test]
async fn schemes_are_taken_or_refused_by_name() {
    let build = |nodes: &[&str], cluster| {
        DistributedCache::builder().nodes(nodes.to_vec()).cluster_mode(cluster).build()
    };
    for scheme in ["redis", "rediss", "valkey", "valkeys"] {
        let url = format!("{scheme}://cache-1:6379");
        // A machine without certificates refuses TLS, and says why.
        match build(&[url.as_str()], true) {
            Ok(_) => {}
            Err(error) => assert!(error.message().contains("tls_ca_file"), "{error}"),
        }
    }
    let cases: [(&[&str], bool, ErrorKind, &str); 6] = [
        (&["redis-sentinel://h:26379/mymaster"], true, ErrorKind::Unsupported, "Sentinel"),
        (&["redis://a", "redis://b"], false, ErrorKind::Config, "exactly one"),
        (&["redis://a", "rediss://b"], true, ErrorKind::Config, "TLS"),
        (&["redis://a/3"], true, ErrorKind::Config, "database"),
        (&["redis://a", "memory:"], true, ErrorKind::Config, "memory:"),
        (&["redis://user:secret@a:x"], true, ErrorKind::Config, "port"),
    ];
    for (nodes, mode, kind, part) in cases {
        let Err(error) = build(nodes, mode) else { panic!("{nodes:?} was taken") };
        assert!(error.kind() == kind && error.message().contains(part), "{nodes:?}: {error}");
        assert!(!format!("{error:?}").contains("secret"));
    }
    let missing = resonant_cache::CacheConfig { nodes: Vec::new(), ..Default::default() };
    assert!(RedisStore::new(&missing).is_err());
}
