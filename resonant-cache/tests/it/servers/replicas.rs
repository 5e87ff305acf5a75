//! Reads from replicas, and replicas that lag.

use std::time::Duration;

use resonant_cache::backend::{ReadFrom, Store};
use resonant_cache::{CacheConfig, Namespace, Result};
use resonant_testkit::{RedisCluster, RedisNode};
use tokio::time::Instant;

use super::{cache, config, started};

async fn gets(node: &RedisNode) -> u64 {
    let stats = started(node.command(["INFO", "commandstats"]).await).text().unwrap_or_default();
    let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_get:calls="));
    line.and_then(|line| line.split(',').next()?.parse().ok()).unwrap_or(0)
}

fn with_replicas(nodes: Vec<String>) -> CacheConfig {
    CacheConfig { read_from_replicas: true, ..config(nodes, true) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_answer_and_never_with_less_than_this_process_knows() -> Result<()> {
    let redis = started(RedisCluster::start().await);
    let store = super::store(&with_replicas(redis.urls())).await;
    let origin = store.attach(std::sync::Weak::<Deaf>::new());
    let key = |n: usize| resonant_cache::backend::Key::new("n", n.to_string());
    // What was read is what was written last, by whichever server; 300 keys, written and read at once.
    for round in 0..10 {
        for n in 0..30 {
            let key = key(n);
            let value = bytes::Bytes::from(format!("{round}-{n}"));
            let write = resonant_cache::backend::Write {
                key: key.clone(),
                value: value.clone(),
                ttl: None,
                guard: resonant_cache::backend::Guard::Always,
                fence: None,
            };
            for outcome in store.write(origin, vec![write]).await {
                outcome?;
            }
            for read in store.read(&[key], ReadFrom::Any).await {
                assert_eq!(read?, Some(value.clone()), "an older value came from a replica");
            }
        }
    }
    // Quiet keys are read from replicas.
    let keys: Vec<_> = (0..30).map(key).collect();
    let begun = Instant::now();
    loop {
        let before = (sum(&redis, 0..3).await, sum(&redis, 3..6).await);
        for _ in 0..10 {
            for read in store.read(&keys, ReadFrom::Any).await {
                assert!(read?.is_some());
            }
        }
        let (primaries, replicas) =
            (sum(&redis, 0..3).await - before.0, sum(&redis, 3..6).await - before.1);
        if replicas == 300 {
            println!(
                "FIGURE of 300 quiet reads {replicas} were answered by replicas, {primaries} by primaries"
            );
            break;
        }
        assert!(begun.elapsed() < super::SOON, "{replicas} by replicas, {primaries} by primaries");
    }
    let before = sum(&redis, 3..6).await;
    for read in store.read(&keys, ReadFrom::Primary).await {
        assert!(read?.is_some());
    }
    assert_eq!(sum(&redis, 3..6).await, before, "the primary was asked for");
    Ok(())
}

/// Waits until this process reads from replicas.
async fn replicas_answer<V: Send + Sync + 'static>(
    redis: &RedisCluster,
    users: &Namespace<V>,
    keys: &[String],
) {
    let (begun, before) = (Instant::now(), sum(redis, 3..6).await);
    while sum(redis, 3..6).await == before {
        assert!(begun.elapsed() < super::SOON, "no replica was read from");
        for key in keys {
            // What is not there is held nowhere.
            started(users.get(&format!("{key} is absent")).await);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

struct Deaf;

impl resonant_cache::backend::Listener for Deaf {
    fn apply(&self, _: &resonant_cache::backend::Event) {}
}

async fn sum(redis: &RedisCluster, nodes: std::ops::Range<usize>) -> u64 {
    let mut sum = 0;
    for index in nodes {
        sum += gets(&redis.node(index)).await;
    }
    sum
}

/// A replica that is cut off from its primary goes on answering, with what it has. Nobody who heard of a change may get
/// what was there before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalidation_is_not_undone_by_a_replica_that_lags() -> Result<()> {
    let redis = started(RedisCluster::start().await);
    let config = with_replicas(redis.urls());
    let (writer, reader) = (cache(config.clone()).await, cache(config).await);
    let (here, there) = (writer.namespace::<u64>("n"), reader.namespace::<u64>("n"));
    let keys: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    for key in &keys {
        here.set(key, &1).await?;
    }
    replicas_answer(&redis, &here, &keys).await;
    replicas_answer(&redis, &there, &keys).await;
    for found in there.get_many(&keys).await {
        assert_eq!(found?.as_deref(), Some(&1));
    }
    // Replication stops, the replicas still answer.
    for index in 3..6 {
        let replica = redis.node(index);
        started(replica.command(["CONFIG", "SET", "masterauth", "wrong"]).await);
        started(replica.command(["CLIENT", "KILL", "TYPE", "master"]).await);
    }
    for key in &keys {
        here.set(key, &3).await?;
        assert_eq!(here.get(key).await?.as_deref(), Some(&3));
    }
    let begun = Instant::now();
    // Once the other process has heard of a key's change it never sees the old value again.
    for key in &keys {
        loop {
            match there.get(key).await?.as_deref() {
                Some(3) => break,
                _ => assert!(begun.elapsed() < super::SOON),
            }
        }
        for _ in 0..5 {
            assert_eq!(there.get(key).await?.as_deref(), Some(&3), "it went back in time");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_stops_or_hangs_is_not_felt() -> Result<()> {
    let redis = started(RedisCluster::start().await);
    let mut config = with_replicas(redis.urls());
    config.max_bytes = 4096;
    config.command_timeout = Duration::from_secs(4);
    let cache = cache(config).await;
    let users = cache.namespace::<String>("n");
    let large = "x".repeat(5_000);
    for n in 0..30 {
        users.set(&n.to_string(), &large).await?;
    }
    let keys: Vec<String> = (0..30).map(|n| n.to_string()).collect();
    replicas_answer(&redis, &users, &keys).await;
    started(redis.node(3).kill().await);
    started(redis.node(4).freeze());
    let (begun, mut slowest) = (Instant::now(), Duration::ZERO);
    while begun.elapsed() < Duration::from_secs(4) {
        for n in 0..30 {
            let asked = Instant::now();
            assert!(users.get(&n.to_string()).await?.is_some());
            slowest = slowest.max(asked.elapsed());
        }
    }
    println!("FIGURE slowest read while one replica was killed and one frozen: {slowest:?}");
    started(redis.node(4).thaw());
    Ok(())
}
