//! Slots that go from server to server while their keys are used.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use resonant_cache::backend::Key;
use resonant_cache::{CacheConfig, Namespace, Result};
use resonant_testkit::RedisCluster;
use tokio::time::Instant;

use super::faults::{Felt, load};
use super::{by_fred, cache, config, started, until_held};

/// Slots on their way from one server to another, and scripts that a server has forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moving_slots_and_forgotten_scripts_are_not_felt() -> Result<()> {
    moving_slots(|config| config).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moving_slots_and_forgotten_scripts_are_not_felt_by_fred_either() -> Result<()> {
    moving_slots(by_fred).await
}

async fn moving_slots(driven: impl FnOnce(CacheConfig) -> CacheConfig) -> Result<()> {
    let redis = started(RedisCluster::builder().replicas_per_primary(0).start().await);
    let config = driven(config(redis.urls(), true));
    let cache = cache(config.clone()).await;
    let users = cache.namespace::<u64>("n");
    for n in 0..20u64 {
        users.set(&n.to_string(), &n).await?;
    }
    for node in redis.nodes() {
        started(node.command(["SCRIPT", "FLUSH"]).await);
    }
    for round in 0..6u64 {
        let key = round.to_string();
        let stored = Key::new("n", key.as_str()).encode(&config.key_prefix);
        let slot = started(redis.slot_of(&stored).await);
        let source = started(redis.owner_of_slot(slot).await);
        let target = redis.node((source.index() + 1) % 3);
        // Half moved: the value is still at home, then it is not. Reads go where it is.
        let moving = started(redis.begin_move(slot, &target).await);
        assert_eq!(users.get(&key).await?.as_deref(), Some(&round));
        started(moving.migrate(&[&stored]).await);
        assert_eq!(users.get(&key).await?.as_deref(), Some(&round));
        // Scripts wait for the end, for they touch keys that are not there.
        let write = tokio::spawn({
            let (users, key) = (users.clone(), key.clone());
            async move { users.set(&key, &(100 + round)).await }
        });
        started(moving.move_keys().await);
        started(moving.finish().await);
        assert!(write.await.is_ok_and(|written| written.is_ok()));
        assert_eq!(users.get(&key).await?.as_deref(), Some(&(100 + round)));
    }
    // Many slots on their way, one after another, under load.
    let felt = Arc::new(Felt::default());
    let keys: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    let load = load(users.clone(), keys.clone(), Arc::clone(&felt), Instant::now());
    for key in &keys {
        let stored = Key::new("n", key.as_str()).encode(&config.key_prefix);
        let slot = started(redis.slot_of(&stored).await);
        let source = started(redis.owner_of_slot(slot).await);
        started(redis.move_slot(slot, &redis.node((source.index() + 2) % 3)).await);
    }
    felt.ended.store(true, Ordering::Relaxed);
    assert!(load.await.is_ok());
    felt.says("twenty slots moved");
    assert_eq!(felt.errors.load(Ordering::Relaxed), 0);
    assert_eq!(felt.went_back.load(Ordering::Relaxed), 0);
    // What is held of a slot that has moved is announced from where it is now.
    let last = &keys[19];
    let read = async || drop(started(users.get(last).await));
    until_held(&cache, read).await;
    let stored = Key::new("n", last.as_str()).encode(&config.key_prefix);
    let owner = started(redis.owner_of(&stored).await);
    assert_eq!(started(owner.command(["DEL", &stored]).await).integer(), Some(1));
    let begun = Instant::now();
    while users.contains(last).await? {
        assert!(begun.elapsed() < super::SOON, "a key that was deleted where its slot is now");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// A thousand slots go from one server to another, with what is in them, while it is read and written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_slots_move_under_load_without_an_error() -> Result<()> {
    const SLOTS: u16 = 1000;
    let redis = started(RedisCluster::builder().replicas_per_primary(0).start().await);
    let config = config(redis.urls(), true);
    let cache = cache(config.clone()).await;
    let users = cache.namespace::<u64>("n");
    let on_the_way = |key: &String| {
        let stored = Key::new("n", key.as_str()).encode(&config.key_prefix);
        fred::util::redis_keyslot(stored.as_bytes()) < SLOTS
    };
    // As many that move as that stay.
    let all = (0..10_000).map(|n| format!("k{n}"));
    let (moving, staying): (Vec<_>, Vec<_>) = all.partition(on_the_way);
    let (moving, staying) = (moving[..100].to_vec(), staying[..100].to_vec());
    let (felt, rest) = (Arc::new(Felt::default()), Arc::new(Felt::default()));
    let begun = Instant::now();
    let loads = [
        load(users.clone(), moving, Arc::clone(&felt), begun),
        load(users.clone(), staying, Arc::clone(&rest), begun),
    ];
    let (source, target) = (started(redis.owner_of_slot(0).await), redis.node(1));
    assert_eq!(started(redis.owner_of_slot(SLOTS - 1).await).index(), source.index());
    for slot in 0..SLOTS {
        started(redis.move_slot(slot, &target).await);
    }
    let took = begun.elapsed();
    let named = [(felt, "moved"), (rest, "stayed")];
    for (load, (felt, what)) in loads.into_iter().zip(named) {
        felt.ended.store(true, Ordering::Relaxed);
        assert!(load.await.is_ok());
        felt.says(&format!("a thousand slots moved in {took:?}, keys that {what}"));
        assert_eq!(felt.errors.load(Ordering::Relaxed), 0);
        assert_eq!(felt.went_back.load(Ordering::Relaxed), 0);
    }
    Ok(())
}

/// Three servers, and the key 7 as it is stored on one of them, whose slot is empty and was asked for once.
async fn with_a_key_that_is_not_there() -> Result<(RedisCluster, Namespace<u64>, String)> {
    let redis = started(RedisCluster::builder().replicas_per_primary(0).start().await);
    let config = config(redis.urls(), true);
    let users = cache(config.clone()).await.namespace::<u64>("n");
    users.get("7").await?;
    Ok((redis, users, Key::new("n", "7").encode(&config.key_prefix)))
}

/// A slot that wanders from server to server, so that every other read is redirected: whoever is redirected follows, and the map is
/// asked for twice a second at most.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirections_do_not_storm_the_servers_with_questions_for_the_map() -> Result<()> {
    let (redis, users, stored) = with_a_key_that_is_not_there().await?;
    let slot = started(redis.slot_of(&stored).await).to_string();
    let mut ids = Vec::new();
    for node in redis.nodes() {
        ids.push(started(node.command(["CLUSTER", "MYID"]).await).text().unwrap_or_default());
    }
    let count = async |what: &str| {
        let mut sum = 0;
        for node in redis.nodes() {
            let section = if what.starts_with("cmdstat") { "commandstats" } else { "errorstats" };
            let stats = started(node.command(["INFO", section]).await).text().unwrap_or_default();
            let line = stats.lines().find_map(|line| line.strip_prefix(what));
            sum += line.and_then(|it| it.split(',').next()?.parse::<u128>().ok()).unwrap_or(0);
        }
        sum
    };
    let (maps, moved) = ("cmdstat_cluster|slots:calls=", "errorstat_MOVED:count=");
    let (begun, before) = (Instant::now(), (count(maps).await, count(moved).await));
    let owner = started(redis.owner_of(&stored).await).index();
    // The slot is empty, so it can be given away by a word to each; to the one that gets it first.
    for (from, to) in (0..30).map(|n| ((owner + n) % 3, (owner + n + 1) % 3)) {
        let importing = ["CLUSTER", "SETSLOT", &slot, "IMPORTING", &ids[from]];
        started(redis.node(to).command(importing).await);
        for node in [to, from, (to + 1) % 3] {
            let given = ["CLUSTER", "SETSLOT", &slot, "NODE", &ids[to]];
            started(redis.node(node).command(given).await);
        }
        for _ in 0..20 {
            assert!(users.get("7").await?.is_none());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let took = begun.elapsed();
    let (asked, redirected) = (count(maps).await - before.0, count(moved).await - before.1);
    println!("FIGURE {redirected} redirections in {took:?}: the map was asked for {asked} times");
    assert!(redirected >= 15, "{redirected} redirections are not many");
    // Twice a second, and once more where a busy machine makes something seem wrong.
    assert!(asked <= took.as_millis() / 250 + 5, "the map was asked for {asked} times in {took:?}");
    Ok(())
}

/// Two servers that each say the other has a slot, as in the moments when they have not yet heard of each other's news: whoever
/// asks is patient with them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_send_callers_to_each_other_are_asked_until_one_has_it() -> Result<()> {
    let (redis, users, stored) = with_a_key_that_is_not_there().await?;
    let slot = started(redis.slot_of(&stored).await).to_string();
    let from = started(redis.owner_of(&stored).await);
    let to = redis.node((from.index() + 1) % 3);
    let id = started(to.command(["CLUSTER", "MYID"]).await).text().unwrap_or_default();
    let given = ["CLUSTER", "SETSLOT", &slot, "NODE", &id];
    started(from.command(given).await);
    let reading = tokio::spawn(async move { users.get("7").await });
    tokio::time::sleep(Duration::from_millis(150)).await;
    started(to.command(given).await);
    assert_eq!(started(reading.await)?, None);
    Ok(())
}
