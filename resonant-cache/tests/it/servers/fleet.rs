//! Several processes on one cluster, as far as the store can tell them apart: each cache has a store of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use resonant_cache::{
    CacheConfig, DistributedCache, Loaded, NamespaceConfig, Result, SetOptions, Swap,
};
use resonant_common::join::Position;
use resonant_testkit::{Redis, RedisCluster};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{builder, cache, cluster, config, rounds, started};

pub(super) async fn own_config() -> CacheConfig {
    let mut config = config(cluster().await.urls(), true);
    config.key_prefix = format!("f{:08x}", rand::random::<u32>());
    config.defaults.ttl_jitter = 0.0;
    config
}

pub(super) async fn fleet(config: &CacheConfig, count: usize) -> Vec<DistributedCache> {
    let caches = (0..count).map(|_| cache(config.clone()));
    futures::future::join_all(caches).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_key_is_loaded_once_by_eight_processes_of_250_callers() -> Result<()> {
    let caches = fleet(&own_config().await, 8).await;
    let mut slowest = Duration::ZERO;
    for round in 0..rounds(5) {
        let loads = Arc::new(AtomicUsize::new(0));
        let begun = Instant::now();
        let mut callers = Vec::new();
        for cache in &caches {
            for _ in 0..250 {
                let (users, loads) = (cache.namespace::<u64>("n"), Arc::clone(&loads));
                callers.push(tokio::spawn(async move {
                    let load = async move || {
                        loads.fetch_add(1, Ordering::SeqCst);
                        tokio::time::sleep(Duration::from_millis(200)).await;
                        Ok::<_, std::io::Error>(7)
                    };
                    users.get_or_load(&format!("cold{round}"), load).await
                }));
            }
        }
        for caller in callers {
            assert!(caller.await.is_ok_and(|value| value.is_ok_and(|value| *value == 7)));
        }
        slowest = slowest.max(begun.elapsed());
        assert_eq!(loads.load(Ordering::SeqCst), 1, "loads of one key");
    }
    println!(
        "FIGURE 2000 callers of 8 processes on a cold key with a loader of 200 ms: the slowest round took {slowest:?}"
    );
    Ok(())
}

/// One process loads, another changes the key meanwhile: what was loaded before the change is stored nowhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_by_another_process_during_a_load_keeps_its_value_out() -> Result<()> {
    const AT: Position = Position { system: 1, timeline: 1, offset: 100 };
    let caches = fleet(&own_config().await, 3).await;
    let [loads, changes, looks] = [0, 1, 2].map(|n: usize| caches[n].namespace::<u64>("n"));
    for round in 0..rounds(30) as u64 {
        let key = format!("k{round}");
        let (running, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let loading = tokio::spawn({
            let (users, key, running, go) =
                (loads.clone(), key.clone(), Arc::clone(&running), Arc::clone(&go));
            async move {
                let load = async move || {
                    running.add_permits(1);
                    let _ = go.acquire().await;
                    Ok::<_, std::io::Error>(
                        Loaded::new(1u64).tag("t").at(Position { offset: 99, ..AT }),
                    )
                };
                users.get_or_load_with(&key, load).await
            }
        });
        let _ = running.acquire().await;
        match round % 5 {
            0 => drop(changes.delete(&key).await?),
            1 => changes.set(&key, &2).await?,
            2 => changes.invalidate_tag("t").await?,
            3 => changes.clear().await?,
            _ => drop(changes.invalidate_at(&key, AT).await?),
        }
        go.add_permits(1);
        assert!(loading.await.is_ok_and(|served| served.is_ok()));
        let expected = (round % 5 == 1).then_some(2);
        // A tag's or clear's word may still be on its way to who looks.
        let begun = Instant::now();
        for users in [&looks, &changes, &loads] {
            while users.get(&key).await?.as_deref().copied() != expected {
                assert!(begun.elapsed() < super::SOON, "round {round}: an old value is served");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_gone_costs_one_more_load() -> Result<()> {
    let mut config = own_config().await;
    config.command_timeout = Duration::from_secs(1);
    config.defaults = NamespaceConfig {
        hard_load_timeout: Duration::from_secs(2),
        load_queue_timeout: Duration::from_secs(1),
        ..config.defaults
    };
    let leader = cache(config.clone()).await;
    let follower = cache(config).await.namespace::<u64>("n");
    let running = Arc::new(Semaphore::new(0));
    let gone = tokio::spawn({
        let running = Arc::clone(&running);
        async move {
            let load = async move || {
                running.add_permits(1);
                std::future::pending::<std::io::Result<u64>>().await
            };
            leader.namespace::<u64>("n").get_or_load("7", load).await
        }
    });
    let _ = running.acquire().await;
    gone.abort();
    let (begun, loads) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
    let callers = (0..50).map(|_| {
        let (users, loads) = (follower.clone(), Arc::clone(&loads));
        tokio::spawn(async move {
            let load = async move || {
                loads.fetch_add(1, Ordering::SeqCst);
                Ok::<_, std::io::Error>(8)
            };
            users.get_or_load("7", load).await
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        assert!(caller.await.is_ok_and(|value| value.is_ok_and(|value| *value == 8)));
    }
    assert_eq!(loads.load(Ordering::SeqCst), 1);
    println!(
        "FIGURE a leader gone with a lease of 7 s: the others had their value after {:?}",
        begun.elapsed()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compare_and_set_loses_no_increment() -> Result<()> {
    let caches = fleet(&own_config().await, 2).await;
    let tasks = (0..16usize).map(|n| {
        let users = caches[n % 2].namespace::<u64>("n");
        tokio::spawn(async move {
            for _ in 0..rounds(20) {
                loop {
                    let now = users.get_versioned("sum").await?;
                    let next = now.value.as_deref().copied().unwrap_or(0) + 1;
                    if let Swap::Stored(_) =
                        users.compare_and_set("sum", now.version, &next).await?
                    {
                        break;
                    }
                }
            }
            Ok::<_, resonant_cache::Error>(())
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        assert!(task.await.is_ok_and(|done| done.is_ok()));
    }
    let sum = caches[0].namespace::<u64>("n").get_versioned("sum").await?;
    assert_eq!(sum.value.as_deref(), Some(&(16 * rounds(20) as u64)));
    Ok(())
}

/// One shard of three gone for good: batches answer for the others' keys, and load what is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_has_a_status_for_each_key_while_a_shard_is_down() -> Result<()> {
    let redis = RedisCluster::builder().replicas_per_primary(0);
    let redis = started(redis.node_timeout(Duration::from_secs(60)).start().await);
    let mut config = config(redis.urls(), true);
    config.command_timeout = Duration::from_secs(4);
    config.max_bytes = 4096;
    let cache = started(builder(config.clone()).store(super::store(&config).await).build());
    let users = cache.namespace::<String>("n");
    let large = "x".repeat(5_000);
    let keys: Vec<String> = (0..90).map(|n| n.to_string()).collect();
    for outcome in users.set_many(keys.iter().map(|key| (key, &large)), SetOptions::new()).await {
        outcome?;
    }
    let counts = started(redis.owner_of(&format!("{}:e{{n}}", config.key_prefix)).await);
    started(redis.node((counts.index() + 1) % 3).kill().await);
    let begun = Instant::now();
    loop {
        let found = users.get_many(&keys).await;
        let there = found.iter().filter(|found| matches!(found, Ok(Some(_)))).count();
        let failed = found.iter().filter(|found| found.is_err()).count();
        assert_eq!(there + failed, keys.len(), "a key of a dead shard is not known to be absent");
        if failed > 0 {
            println!(
                "FIGURE one shard of three down: {there} of 90 keys answered, {failed} failed, in {:?}",
                begun.elapsed()
            );
            assert!(there > 30 && failed > 10, "{there} and {failed}");
            break;
        }
        assert!(begun.elapsed() < super::SOON);
    }
    let load = async |keys: Vec<String>| {
        Ok::<_, std::io::Error>(keys.into_iter().map(|key| (key.clone(), key)).collect::<Vec<_>>())
    };
    for found in users.get_many_or_load(&keys, load).await {
        assert!(found?.is_some());
    }
    Ok(())
}

/// Four processes want the same five hundred keys at once, most of them cold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_batch_is_loaded_once_by_four_processes() -> Result<()> {
    let caches = fleet(&own_config().await, 4).await;
    let keys: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    let values: Vec<u64> = (0..200).collect();
    let warm = caches[0].namespace::<u64>("n");
    for stored in warm.set_many(keys.iter().zip(&values), SetOptions::new()).await {
        stored?;
    }
    let loads = Arc::new(std::sync::Mutex::new(Vec::<(usize, Vec<String>)>::new()));
    let callers: Vec<_> = caches
        .iter()
        .enumerate()
        .map(|(process, cache)| {
            let (users, keys, loads) =
                (cache.namespace::<u64>("n"), keys.clone(), Arc::clone(&loads));
            let load = async move |keys: Vec<String>| {
                if let Ok(mut loads) = loads.lock() {
                    loads.push((process, keys.clone()));
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
                let loaded = keys.into_iter().map(|key| (key.clone(), key.parse().unwrap_or(0)));
                Ok::<_, std::io::Error>(loaded.collect::<Vec<(String, u64)>>())
            };
            tokio::spawn(async move { users.get_many_or_load(&keys, load).await })
        })
        .collect();
    for caller in callers {
        for (n, found) in started(caller.await).into_iter().enumerate() {
            assert_eq!(found?.as_deref(), Some(&(n as u64)));
        }
    }
    let loads = loads.lock().map(|loads| loads.clone()).unwrap_or_default();
    let mut loaded: Vec<u64> =
        loads.iter().flat_map(|(_, keys)| keys).filter_map(|key| key.parse().ok()).collect();
    loaded.sort_unstable();
    assert_eq!(loaded, (200..500).collect::<Vec<u64>>(), "each cold key once, no warm one");
    for process in 0..4 {
        let calls = loads.iter().filter(|(of, _)| *of == process).count();
        assert!(calls <= 2, "process {process} called its loader {calls} times");
    }
    Ok(())
}

/// Invalidating a tag is one command however many values carry it, and asking whether a value's tags still hold is none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_costs_one_command_and_a_hit_with_tags_none() -> Result<()> {
    const VALUES: usize = 20_000;
    let redis = started(Redis::start().await);
    let cache = cache(config(vec![redis.url()], false)).await;
    let users = cache.namespace::<u64>("n");
    let tagged = || SetOptions::new().tag("all").tag("a").tag("b");
    let keys: Vec<String> = (0..VALUES).map(|n| n.to_string()).collect();
    for stored in users.set_many(keys.iter().map(|key| (key, &7)), tagged()).await {
        stored?;
    }
    let hit = async || drop(started(users.get("5").await));
    super::until_held(&cache, hit).await;
    // So that the server knows the script.
    users.invalidate_tag("other").await?;
    super::until_held(&cache, hit).await;
    // The listener asks for the time, and looks at INFO count as well: those of the cache's own calls are counted.
    let counted = async || {
        let stats =
            started(redis.command(["INFO", "commandstats"]).await).text().unwrap_or_default();
        let calls = |name: &str| {
            let line = stats.lines().find_map(|line| {
                line.strip_prefix(&format!("cmdstat_{name}:calls="))?.split(',').next()
            });
            line.and_then(|count| count.parse::<usize>().ok()).unwrap_or(0)
        };
        (calls("evalsha") + calls("eval"), calls("get"))
    };
    let begun = Instant::now();
    let before = loop {
        super::until_held(&cache, hit).await;
        let before = counted().await;
        for _ in 0..1_000 {
            assert!(users.get("5").await?.is_some());
        }
        // A late word of an earlier change may have dropped it meanwhile.
        if counted().await == before {
            break before;
        }
        assert!(begun.elapsed() < super::SOON, "a hit with three tags asks the store");
    };
    let begun = Instant::now();
    users.invalidate_tag("all").await?;
    let took = begun.elapsed();
    let (scripts, gets) = counted().await;
    assert_eq!((scripts - before.0, gets - before.1), (1, 0), "one command for the tag");
    println!("FIGURE a tag of {VALUES} values was invalidated in {took:?}");
    for found in users.get_many(&keys).await {
        assert!(found?.is_none());
    }
    Ok(())
}

/// Changes that are dropped at any moment: whatever became of them, process and store agree once it is quiet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_change_leaves_process_and_store_agreed() -> Result<()> {
    let config = own_config().await;
    let caches = fleet(&config, 2).await;
    let users = caches[0].namespace::<u64>("n");
    let (mut ended, mut dropped) = (0, 0);
    for n in 0..400u64 {
        let key = (n % 10).to_string();
        users.get(&key).await?;
        // Each is looked at a few times, while others have their turn, and then dropped.
        let looks = n % 13;
        let outcome = match n % 4 {
            0 => look(looks, users.delete(&key)).await,
            1 => {
                let load = async move || Ok::<_, std::io::Error>(n);
                look(looks, users.get_or_load(&key, load)).await
            }
            2 if n % 20 == 2 => look(looks, users.clear()).await,
            _ => look(looks, users.set(&key, &n)).await,
        };
        if outcome {
            ended += 1
        } else {
            dropped += 1
        }
        users.get(&key).await?;
    }
    assert!(dropped > 20, "{ended} ended, {dropped} were dropped");
    tokio::time::sleep(Duration::from_millis(300)).await;
    let witness = cache(config).await.namespace::<u64>("n");
    for key in 0..10 {
        let truth = witness.get(&key.to_string()).await?;
        assert_eq!(users.get(&key.to_string()).await?, truth, "key {key}");
        assert_eq!(caches[1].namespace::<u64>("n").get(&key.to_string()).await?, truth);
    }
    println!("FIGURE {dropped} of 400 calls were dropped under way; process and store agree");
    Ok(())
}

/// Whether it ended within so many looks.
async fn look(looks: u64, call: impl Future) -> bool {
    let mut call = std::pin::pin!(call);
    for _ in 0..looks {
        if futures::poll!(&mut call).is_ready() {
            return true;
        }
        tokio::task::yield_now().await;
    }
    false
}
