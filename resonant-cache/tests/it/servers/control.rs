//! The control run: a primary is killed, or frozen, under a cache of ours and under a plain clustered client of the driver fred, at the same
//! time, on the same cluster, with the same calls on keys of the same slots.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::{ClientLike, KeysInterface};
use fred::types::Builder;
use fred::types::config::{Config, ReconnectPolicy};
use resonant_cache::backend::Key;
use resonant_cache::{CacheConfig, Result};
use resonant_testkit::{RedisCluster, RedisNode};
use tokio::time::Instant;

use super::faults::{Felt, keys_on, load, quick, victim};
use super::{cache, started};

/// What both give a call.
const DEADLINE: Duration = Duration::from_secs(2);

fn plain_load(
    client: Client,
    keys: Vec<String>,
    felt: Arc<Felt>,
    begun: Instant,
) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut number = 0u64;
        while !felt.ended.load(Ordering::Relaxed) {
            for key in &keys {
                number += 1;
                let asked = Instant::now();
                let written = client.set::<(), _, _>(key.as_str(), number, None, None, false).await;
                felt.note(begun, asked, written.as_ref().err());
                let asked = Instant::now();
                let read = client.get::<Option<u64>, _>(key.as_str()).await;
                felt.note(begun, asked, read.as_ref().err());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_killed_under_us_and_under_a_plain_clustered_client() -> Result<()> {
    control("killed", async |node| started(node.kill().await)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_frozen_under_us_and_under_a_plain_clustered_client() -> Result<()> {
    control("frozen", async |node| started(node.freeze())).await
}

async fn control(what: &str, hurt: impl AsyncFnOnce(&RedisNode)) -> Result<()> {
    let redis = RedisCluster::builder().node_timeout(Duration::from_secs(3)).start().await;
    let redis = started(redis);
    let config = CacheConfig { command_timeout: DEADLINE, ..quick(redis.urls(), true) };
    let killed = victim(&redis, &config).await;
    let (on, off) = keys_on(&redis, &config, killed).await;
    // Keys of their own in the same slots.
    let alike = |keys: &[String]| -> Vec<String> {
        keys.iter().map(|key| Key::new("n", key.as_str()).encode("plain")).collect()
    };
    let (plain_on, plain_off) = (alike(&on), alike(&off));
    let probe = plain_on[0].clone();

    let seed = redis.node((killed + 1) % 3).address();
    let mut builder = Builder::from_config(started(Config::from_url_clustered(&format!(
        "redis-cluster://{seed}"
    ))));
    builder.set_policy(ReconnectPolicy::new_constant(0, 100));
    builder.with_performance_config(|config| config.default_command_timeout = DEADLINE);
    let plain = started(builder.build());
    started(plain.init().await);
    let users = cache(config).await.namespace::<u64>("n");

    let begun = Instant::now();
    let felt: [Arc<Felt>; 4] = std::array::from_fn(|_| Arc::default());
    let [ours_hit, ours_spared, plain_hit, plain_spared] = &felt;
    let tasks = [
        load(users.clone(), on, Arc::clone(ours_hit), begun),
        load(users, off, Arc::clone(ours_spared), begun),
        plain_load(plain.clone(), plain_on, Arc::clone(plain_hit), begun),
        plain_load(plain, plain_off, Arc::clone(plain_spared), begun),
    ];
    tokio::time::sleep(Duration::from_millis(500)).await;
    let node = redis.node(killed);
    hurt(&node).await;
    started(redis.new_owner_of(&probe, &node).await);
    tokio::time::sleep(Duration::from_secs(2)).await;
    for felt in &felt {
        felt.ended.store(true, Ordering::Relaxed);
        felt.ends(begun);
    }
    let [mut ours, mut ours_too, plain_on, plain_off] = tasks;
    for task in [&mut ours, &mut ours_too] {
        started(tokio::time::timeout(super::SOON, task).await.map(drop));
    }
    // A call of the driver's may never end.
    for task in [plain_on, plain_off] {
        let abort = task.abort_handle();
        let _ = tokio::time::timeout(DEADLINE * 2, task).await;
        abort.abort();
    }
    ours_hit.says(&format!("control, a primary {what}, its keys, resonant-cache"));
    plain_hit.says(&format!("control, a primary {what}, its keys, fred clustered"));
    ours_spared.says(&format!("control, a primary {what}, other keys, resonant-cache"));
    plain_spared.says(&format!("control, a primary {what}, other keys, fred clustered"));
    assert_eq!(ours_spared.errors.load(Ordering::Relaxed), 0, "other shards felt it");
    Ok(())
}
