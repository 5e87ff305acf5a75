//! What one process holds and another changes, with any program.

use std::collections::BTreeMap;
use std::time::Duration;

use resonant_cache::backend::Key;
use resonant_cache::{
    CacheConfig, DistributedCache, Loaded, Namespace, NamespaceConfig, Result, SetOptions,
};
use resonant_testkit::redis::{RedisConnection, Reply};
use resonant_testkit::{FaultProxy, Redis, RedisCluster};
use tokio::time::Instant;

use super::{by_fred, cache, calm_cluster, cluster, config, rounds, server, started, until};

fn own_prefix(mut config: CacheConfig) -> CacheConfig {
    config.key_prefix = format!("t{:08x}", rand::random::<u32>());
    config.defaults.ttl_jitter = 0.0;
    config
}

/// Caches as so many processes would have them.
async fn fleet<const N: usize>(config: &CacheConfig) -> [DistributedCache; N] {
    let mut caches = Vec::new();
    for _ in 0..N {
        caches.push(cache(config.clone()).await);
    }
    match caches.try_into() {
        Ok(caches) => caches,
        Err(_) => panic!("as many as were made"),
    }
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("k{n}")).collect()
}

async fn fill(users: &Namespace<u64>, keys: &[String]) {
    let values: Vec<u64> = (0..keys.len() as u64).collect();
    let wanted = keys.iter().zip(&values);
    for outcome in users.set_many(wanted, SetOptions::new().no_expiry()).await {
        started(outcome);
    }
}

/// How many of these keys the process holds; it is read from nowhere else.
fn held(cache: &DistributedCache) -> usize {
    cache.usage().entries
}

/// Reads all keys until the process holds them all, and goes on holding them: the echo of an earlier change may drop some again.
async fn hold_all(cache: &DistributedCache, users: &Namespace<u64>, keys: &[String]) {
    let begun = Instant::now();
    let mut quiet = 0;
    while quiet < 3 {
        if held(cache) < keys.len() {
            quiet = 0;
            for found in users.get_many(keys).await {
                assert!(started(found).is_some());
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        quiet += usize::from(held(cache) >= keys.len());
        assert!(begun.elapsed() < super::SOON, "{} of {} are held", held(cache), keys.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_any_program_changes_on_any_primary_leaves_every_process() -> Result<()> {
    let config = own_prefix(config(cluster().await.urls(), true));
    let caches: [_; 4] = fleet(&config).await;
    let keys = names(10_000);
    let spaces: Vec<_> = caches.iter().map(|cache| cache.namespace::<u64>("n")).collect();
    fill(&spaces[0], &keys).await;
    for (cache, users) in caches.iter().zip(&spaces) {
        hold_all(cache, users, &keys).await;
    }
    // Another program, with a client of its own.
    let mut owners: BTreeMap<usize, (RedisConnection, Vec<String>)> = BTreeMap::new();
    for key in &keys {
        let stored = Key::new("n", key.as_str()).encode(&config.key_prefix);
        let slot = fred::util::redis_keyslot(stored.as_bytes());
        let index = usize::from(slot) * 3 / 16_384;
        if let std::collections::btree_map::Entry::Vacant(entry) = owners.entry(index) {
            let owner = started(cluster().await.owner_of_slot(slot).await);
            entry.insert((started(owner.connection().await), Vec::new()));
        }
        if let Some((_, owned)) = owners.get_mut(&index) {
            owned.push(stored);
        }
    }
    assert_eq!(owners.len(), 3, "the keys lie on all primaries");
    let begun = Instant::now();
    for (connection, owned) in owners.values_mut() {
        for stored in owned {
            started(connection.command(["SET", stored, "foreign"]).await);
        }
    }
    let written = begun.elapsed();
    until("all copies are gone", || caches.iter().all(|cache| held(cache) == 0)).await;
    println!(
        "FIGURE foreign writes of 10,000 keys took {written:?}; all copies were gone after {:?}",
        begun.elapsed()
    );
    // Foreign bytes are a miss, not an error.
    for found in spaces[1].get_many(&keys).await {
        assert!(found?.is_none());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_a_delete_a_tag_and_a_clear_are_seen_by_the_others() -> Result<()> {
    let configs = [config(cluster().await.urls(), true), config(vec![server().await.url()], false)];
    for config in configs.into_iter().flat_map(|config| [config.clone(), by_fred(config)]) {
        let config = own_prefix(config);
        let [one, other] = fleet(&config).await;
        let (here, there) = (one.namespace::<u64>("n"), other.namespace::<u64>("n"));
        let names = ["set", "deleted", "tagged", "cleared"].map(str::to_owned);
        for (n, key) in names.iter().enumerate() {
            here.set_with(key, &(n as u64), SetOptions::new().tag("t")).await?;
        }
        hold_all(&other, &there, &names).await;
        here.set("set", &100).await?;
        here.delete("deleted").await?;
        gone(&there, "deleted").await?;
        let begun = Instant::now();
        while there.get("set").await?.as_deref() != Some(&100) {
            assert!(begun.elapsed() < super::SOON, "the set was not heard of");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        here.invalidate_tag("t").await?;
        gone(&there, "tagged").await?;
        assert_eq!(there.get("set").await?.as_deref(), Some(&100), "it has no tag");
        here.clear().await?;
        gone(&there, "set").await?;
        assert_eq!(here.get("cleared").await?, None);
    }
    Ok(())
}

async fn gone(users: &Namespace<u64>, key: &str) -> Result<()> {
    let begun = Instant::now();
    while users.contains(key).await.unwrap_or(true) {
        assert!(begun.elapsed() < super::SOON, "{key} is still served");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_empties_the_process_and_a_large_burst_is_heard_whole() -> Result<()> {
    let redis = calm_cluster().await;
    let config = own_prefix(config(redis.urls(), true));
    let cache = cache(config.clone()).await;
    let users = cache.namespace::<u64>("n");
    let keys = names(300);
    fill(&users, &keys).await;
    hold_all(&cache, &users, &keys).await;
    // Not the one that counts the namespace's epochs: with those lost, all its values count as cleared.
    let counts = started(redis.owner_of(&format!("{}:e{{n}}", config.key_prefix)).await);
    let node = redis.node((counts.index() + 1) % 3);
    started(node.command(["FLUSHALL"]).await);
    until("what was held is gone", || held(&cache) < keys.len()).await;
    // The flushed third is gone from the store; the rest is still there.
    let found = users.get_many(&keys).await;
    let left = found.into_iter().flatten().flatten().count();
    assert!(left > 50 && left < 250, "{left} of 300 are left");

    // 100,000 keys in one turn of the server's loop, ours among them.
    let mine: Vec<String> =
        keys.iter().map(|key| Key::new("n", key.as_str()).encode(&config.key_prefix)).collect();
    let mut on_node = Vec::new();
    for (key, stored) in keys.iter().zip(&mine) {
        if started(redis.owner_of(stored).await).index() == node.index() {
            on_node.push(key.clone());
        }
    }
    fill(&users, &on_node).await;
    hold_all(&cache, &users, &on_node).await;
    let tag = Key::new("n", on_node[0].as_str()).encode(&config.key_prefix);
    let tag = tag.split_once('{').map(|(_, tag)| tag.to_owned()).unwrap_or_default();
    let burst = "for n = 1, 100000 do redis.call('SET', ARGV[1] .. n, 'x') end";
    let begun = Instant::now();
    // All hundred thousand in the slot of the first key, under our prefix.
    let before = format!("{}:{{{tag}", config.key_prefix);
    let first = Key::new("n", on_node[0].as_str()).encode(&config.key_prefix);
    started(node.command(["EVAL", burst, "1", &first, &before]).await);
    for key in &on_node {
        let stored = Key::new("n", key.as_str()).encode(&config.key_prefix);
        started(node.command(["SET", &stored, "x"]).await);
    }
    let written = begun.elapsed();
    let begun = Instant::now();
    loop {
        let mut stale = 0;
        for found in users.get_many(&on_node).await {
            stale += usize::from(found?.is_some());
        }
        if stale == 0 {
            break;
        }
        assert!(begun.elapsed() < super::SOON, "{stale} stale values are left");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("FIGURE a burst of 100,000 keys took {written:?}; heard {:?} later", begun.elapsed());
    Ok(())
}

/// One script changes a hundred thousand keys in one turn of the server's loop, and the process holds every one of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_100_000_held_keys_is_heard_whole() -> Result<()> {
    const KEYS: usize = 100_000;
    let redis = started(Redis::start().await);
    let mut config = own_prefix(config(vec![redis.url()], false));
    config.max_bytes = 256 << 20;
    let cache = cache(config.clone()).await;
    // Plain, so that the server itself can write what is read.
    let users: Namespace<u64> = cache.namespace_builder("n").plain().open()?;
    let write = "for n = 0, ARGV[2] - 1 do redis.call('SET', ARGV[1] .. n .. '}', n + ARGV[3]) end";
    let before = format!("{}:{{n:k", config.key_prefix);
    let count = KEYS.to_string();
    started(redis.command(["EVAL", write, "0", &before, &count, "0"]).await);
    let keys = names(KEYS);
    hold_all(&cache, &users, &keys).await;
    let begun = Instant::now();
    started(redis.command(["EVAL", write, "0", &before, &count, "1000000"]).await);
    let written = begun.elapsed();
    let begun = Instant::now();
    let mut stale = KEYS;
    while stale > 0 {
        assert!(begun.elapsed() < super::SOON, "{stale} old values are served");
        tokio::time::sleep(Duration::from_millis(20)).await;
        stale = 0;
        for (n, found) in users.get_many(&keys).await.into_iter().enumerate() {
            stale += usize::from(found?.as_deref() != Some(&(n as u64 + 1_000_000)));
        }
    }
    println!(
        "FIGURE a burst that changed {KEYS} held keys took {written:?}; all new values were read {:?} later",
        begun.elapsed()
    );
    Ok(())
}

/// The listeners' connections are closed again and again, and what is held is changed at that very moment, by another
/// program, so that nobody is told. Once it is quiet nothing old is left, and values are kept for long again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_links_leave_nothing_old() -> Result<()> {
    lost_links(rounds(15), |config| config).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_links_leave_nothing_old_by_fred() -> Result<()> {
    lost_links(rounds(6), by_fred).await
}

async fn lost_links(rounds: usize, driven: impl FnOnce(CacheConfig) -> CacheConfig) -> Result<()> {
    let redis = started(RedisCluster::builder().replicas_per_primary(0).start().await);
    let config = own_prefix(driven(config(redis.urls(), true)));
    let cache = cache(config.clone()).await;
    let users = cache.namespace::<u64>("n");
    let keys = names(100);
    let mut owned = [const { Vec::new() }; 3];
    for key in &keys {
        let stored = Key::new("n", key.as_str()).encode(&config.key_prefix);
        owned[started(redis.owner_of(&stored).await).index()].push(stored);
    }
    for round in 0..rounds {
        fill_at_last(&users, &keys).await;
        hold_all(&cache, &users, &keys).await;
        let mut program = started(redis.node(round % 3).connection().await);
        started(program.command(["MULTI"]).await);
        started(program.command(["CLIENT", "KILL", "TYPE", "normal"]).await);
        started(program.command(["DEL", &owned[round % 3][round]]).await);
        started(program.command(["EXEC"]).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
        until("it is heard again", || cache.findings()[0].code == "cache.ok").await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        let found = users.get_many(&keys).await;
        let old = found.into_iter().flatten().flatten().count();
        assert_eq!(old, keys.len() - 1, "round {round}: an old value is held");
    }
    Ok(())
}

/// A write that was cut off may have been applied or not: written again until it is known.
async fn fill_at_last(users: &Namespace<u64>, keys: &[String]) {
    for (n, key) in keys.iter().enumerate() {
        while users.set(key, &(n as u64)).await.is_err() {}
    }
}

/// How late the latest of many short sleeps ended: what a busy machine costs.
fn lateness() -> tokio::sync::watch::Receiver<Duration> {
    let (late, seen) = tokio::sync::watch::channel(Duration::ZERO);
    tokio::spawn(async move {
        while !late.is_closed() {
            let (asked, step) = (Instant::now(), Duration::from_millis(5));
            tokio::time::sleep(step).await;
            let over = asked.elapsed().saturating_sub(step);
            late.send_if_modified(|most| {
                over > *most && {
                    *most = over;
                    true
                }
            });
        }
    });
    seen
}

/// A link that says nothing: what is held is not served as fresh for longer than the promise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_server_is_not_trusted_for_longer_than_promised() -> Result<()> {
    let redis = server().await;
    let proxy = started(FaultProxy::start(redis.address()).await);
    let mut config = own_prefix(config(vec![redis.url_through(&proxy)], false));
    config.unannounced_max_age = Duration::from_secs(2);
    config.defaults =
        NamespaceConfig { stale_if_error: Duration::from_secs(600), ..config.defaults };
    let cache = cache(config.clone()).await;
    let users = cache.namespace::<u64>("n");
    users.set("7", &1).await?;
    hold_all(&cache, &users, &["7".to_owned()]).await;
    let waited = lateness();
    started(proxy.black_hole().await);
    let stored = Key::new("n", "7").encode(&config.key_prefix);
    assert_eq!(started(redis.command(["DEL", &stored]).await), Reply::Integer(1));
    let changed = Instant::now();
    let mut fresh_for = Duration::ZERO;
    loop {
        let Some(served) = users.get_entry("7").await? else { panic!("it is kept, as stale") };
        if served.stale {
            break;
        }
        fresh_for = changed.elapsed();
        assert!(fresh_for < super::SOON, "a deleted value is served as fresh");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    println!("FIGURE served as fresh for {fresh_for:?} behind a silent link, of 2s promised");
    // Twice the promise, and what this machine made everybody wait, is no busy machine any more.
    let late = *waited.borrow();
    assert!(fresh_for < Duration::from_secs(4) + late * 4, "{fresh_for:?}, {late:?} late at most");
    // Where nothing better is to be had, it is still served, and marked.
    let failing = async || Err::<Loaded<u64>, _>(std::io::Error::other("the source is down"));
    let served = users.get_or_load_with("7", failing).await?;
    assert!(served.stale && served.value.as_deref() == Some(&1));
    started(proxy.heal().await);
    until("it is heard again", || cache.findings()[0].code == "cache.ok").await;
    gone(&users, "7").await
}
