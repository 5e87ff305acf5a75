//! Servers that die, hang and come back, under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use resonant_cache::backend::Key;
use resonant_cache::{CacheConfig, DistributedCache, Loaded, Namespace, NamespaceConfig, Result};
use resonant_testkit::{Redis, RedisCluster};
use tokio::time::Instant;

use super::{builder, by_fred, cache, config, started, until, until_held};

pub(super) fn quick(nodes: Vec<String>, cluster: bool) -> CacheConfig {
    let mut config =
        CacheConfig { command_timeout: Duration::from_secs(2), ..config(nodes, cluster) };
    config.unannounced_max_age = Duration::from_secs(2);
    config
}

/// What a fault did to callers.
#[derive(Default)]
pub(super) struct Felt {
    pub(super) ended: AtomicBool,
    calls: AtomicUsize,
    pub(super) errors: AtomicUsize,
    /// Milliseconds since the beginning of the first and the last error, plus one.
    first: AtomicU64,
    last: AtomicU64,
    slowest: AtomicU64,
    /// When a call succeeded last, in milliseconds since the beginning, and the longest time without one that did.
    succeeded: AtomicU64,
    gap: AtomicU64,
    /// The newest number whose write was acknowledged, for each key, is never followed by an older one.
    pub(super) went_back: AtomicUsize,
    /// What the first error said.
    said: std::sync::OnceLock<String>,
}

impl Felt {
    pub(super) fn note<E: std::fmt::Debug>(
        &self,
        begun: Instant,
        asked: Instant,
        failed: Option<&E>,
    ) {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.slowest.fetch_max(ms(asked.elapsed()), Ordering::Relaxed);
        if failed.is_none() {
            let now = ms(begun.elapsed());
            let before = self.succeeded.swap(now, Ordering::Relaxed);
            self.gap.fetch_max(now.saturating_sub(before), Ordering::Relaxed);
        }
        if let Some(error) = failed {
            self.said.get_or_init(|| format!("{error:?}"));
            self.errors.fetch_add(1, Ordering::Relaxed);
            let at = ms(begun.elapsed()) + 1;
            let _ = self.first.compare_exchange(0, at, Ordering::Relaxed, Ordering::Relaxed);
            self.last.fetch_max(at, Ordering::Relaxed);
        }
    }

    /// Who has not succeeded since counts for as long.
    pub(super) fn ends(&self, begun: Instant) {
        let now = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let last = self.succeeded.load(Ordering::Relaxed);
        self.gap.fetch_max(now.saturating_sub(last), Ordering::Relaxed);
    }

    pub(super) fn says(&self, what: &str) {
        let at = |number: &AtomicU64| number.load(Ordering::Relaxed);
        println!(
            "FIGURE {what}: {} calls, none succeeded for {} ms at most, {} errors in {} ms, slowest {} ms",
            self.calls.load(Ordering::Relaxed),
            at(&self.gap),
            self.errors.load(Ordering::Relaxed),
            at(&self.last).saturating_sub(at(&self.first)),
            at(&self.slowest),
        );
    }
}

/// Writes rising numbers and reads them back, for each key in turn, until told to end.
pub(super) fn load(
    users: Namespace<u64>,
    keys: Vec<String>,
    felt: Arc<Felt>,
    begun: Instant,
) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut acknowledged = vec![0u64; keys.len()];
        let mut number = 0;
        while !felt.ended.load(Ordering::Relaxed) {
            for (key, newest) in keys.iter().zip(&mut acknowledged) {
                number += 1;
                let asked = Instant::now();
                let written = users.set(key, &number).await;
                felt.note(begun, asked, written.as_ref().err());
                if written.is_ok() {
                    *newest = number;
                }
                let asked = Instant::now();
                let read = users.get(key).await;
                felt.note(begun, asked, read.as_ref().err());
                // Only what is certain: this task alone writes the key, so a lower number is from the past.
                if let Ok(Some(value)) = read
                    && *value < *newest
                {
                    felt.went_back.fetch_add(1, Ordering::Relaxed);
                }
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
}

/// Keys that lie on one primary, and keys that lie on the others.
pub(super) async fn keys_on(
    redis: &RedisCluster,
    config: &CacheConfig,
    node: usize,
) -> (Vec<String>, Vec<String>) {
    let (mut on, mut off) = (Vec::new(), Vec::new());
    let mut n = 0;
    while on.len() < 10 || off.len() < 10 {
        let key = format!("k{n}");
        n += 1;
        let stored = Key::new("n", key.as_str()).encode(&config.key_prefix);
        let slot = fred::util::redis_keyslot(stored.as_bytes());
        let owner = started(redis.owner_of_slot(slot).await).index();
        let list = if owner == node { &mut on } else { &mut off };
        if list.len() < 10 {
            list.push(key);
        }
    }
    (on, off)
}

/// The primary that counts the epochs of the namespace `n`, which all its keys need.
pub(super) async fn victim(redis: &RedisCluster, config: &CacheConfig) -> usize {
    started(redis.owner_of(&format!("{}:e{{n}}", config.key_prefix)).await).index()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_primary_is_felt_by_its_own_keys_only_and_briefly() -> Result<()> {
    failover("a primary killed", |config| config, async |node| started(node.kill().await)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_primary_is_felt_the_same_by_fred() -> Result<()> {
    failover("a primary killed, by fred", by_fred, async |node| started(node.kill().await)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_primary_is_felt_by_its_own_keys_only_and_briefly() -> Result<()> {
    failover("a primary frozen", |config| config, async |node| started(node.freeze())).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_primary_is_felt_the_same_by_fred() -> Result<()> {
    failover("a primary frozen, by fred", by_fred, async |node| started(node.freeze())).await
}

async fn failover(
    what: &str,
    driven: impl FnOnce(CacheConfig) -> CacheConfig,
    hurt: impl AsyncFnOnce(&resonant_testkit::RedisNode),
) -> Result<()> {
    // Slow to suspect, so that a busy machine makes no primary seem dead that is not.
    let redis = RedisCluster::builder().node_timeout(Duration::from_secs(3)).start().await;
    let redis = started(redis);
    let config = driven(CacheConfig {
        command_timeout: Duration::from_secs(4),
        ..quick(redis.urls(), true)
    });
    let victim = victim(&redis, &config).await;
    let (on, off) = keys_on(&redis, &config, victim).await;
    let probe = Key::new("n", on[0].as_str()).encode(&config.key_prefix);
    let cache = cache(config).await;
    let users = cache.namespace::<u64>("n");
    let begun = Instant::now();
    let (hit, spared) = (Arc::new(Felt::default()), Arc::new(Felt::default()));
    let tasks = [
        load(users.clone(), on, Arc::clone(&hit), begun),
        load(users.clone(), off, Arc::clone(&spared), begun),
    ];
    tokio::time::sleep(Duration::from_millis(500)).await;
    let node = redis.node(victim);
    hurt(&node).await;
    let hurt_at = Instant::now();
    started(redis.new_owner_of(&probe, &node).await);
    let promoted = Instant::now();
    let calls = hit.calls.load(Ordering::Relaxed) + hit.errors.load(Ordering::Relaxed);
    // Normal again: calls succeed, and none has failed for a second.
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let last = begun + Duration::from_millis(hit.last.load(Ordering::Relaxed));
        if last.elapsed() > Duration::from_secs(1) && hit.calls.load(Ordering::Relaxed) > calls + 50
        {
            break;
        }
        assert!(promoted.elapsed() < super::SOON, "it does not come back to normal");
    }
    for felt in [&hit, &spared] {
        felt.ended.store(true, Ordering::Relaxed);
    }
    for task in tasks {
        assert!(task.await.is_ok());
    }
    let last = begun + Duration::from_millis(hit.last.load(Ordering::Relaxed));
    println!(
        "FIGURE {what}: promoted after {:?}, last error {:?} after the promotion",
        promoted - hurt_at,
        last.saturating_duration_since(promoted)
    );
    hit.says(&format!("{what}, its keys"));
    spared.says(&format!("{what}, other keys"));
    assert_eq!(
        spared.errors.load(Ordering::Relaxed),
        0,
        "other shards felt it: {:?}",
        spared.said.get()
    );
    assert_eq!(spared.went_back.load(Ordering::Relaxed), 0, "an older value was served");
    until("all is well", || cache.findings()[0].code == "cache.ok").await;
    Ok(())
}

/// A whole cluster that hangs while keys are removed: none of them is there afterwards, for anybody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_removed_while_a_whole_cluster_was_away_is_gone_when_it_is_back() -> Result<()> {
    a_cluster_away(|config| config).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_removed_while_a_whole_cluster_was_away_is_gone_by_fred_too() -> Result<()> {
    a_cluster_away(by_fred).await
}

async fn a_cluster_away(driven: impl FnOnce(CacheConfig) -> CacheConfig) -> Result<()> {
    let redis = super::calm_cluster().await;
    let mut config = driven(quick(redis.urls(), true));
    config.command_timeout = Duration::from_secs(1);
    let (here, there) = (cache(config.clone()).await, cache(config.clone()).await);
    let (users, theirs) = (here.namespace::<u64>("n"), there.namespace::<u64>("n"));
    let keys: Vec<String> = (0..6_000u64).map(|n| format!("k{n}")).collect();
    let values: Vec<u64> = (0..6_000).collect();
    let wanted = keys.iter().zip(&values);
    for written in users.set_many(wanted, resonant_cache::SetOptions::new().no_expiry()).await {
        written?;
    }
    for node in redis.nodes() {
        started(node.freeze());
    }
    // Until nobody sends anything any more, so that what fails was not heard.
    let begun = Instant::now();
    while users.get(&keys[0]).await.is_ok() {
        assert!(begun.elapsed() < super::SOON, "frozen servers answer");
    }
    let begun = Instant::now();
    let removing: Vec<_> = keys[..5_000]
        .chunks(100)
        .map(|keys| {
            let (users, keys) = (users.clone(), keys.to_vec());
            tokio::spawn(async move {
                let mut failed = 0;
                for key in keys {
                    failed += usize::from(users.delete(&key).await.is_err());
                }
                failed
            })
        })
        .collect();
    let mut failed = 0;
    for task in removing {
        failed += started(task.await);
    }
    println!("FIGURE 5000 removals failed in {:?}", begun.elapsed());
    assert_eq!((failed, here.usage().journalled), (5_000, 5_000));
    for node in redis.nodes() {
        started(node.thaw());
    }
    let back = Instant::now();
    until("all is made up for", || here.usage().journalled == 0).await;
    println!(
        "FIGURE a journal of 5000 was made up for {:?} after the cluster was back",
        back.elapsed()
    );
    let cached = theirs.get_many(&keys).await;
    for (n, found) in cached.into_iter().enumerate() {
        let found = started(found);
        assert_eq!(found.is_some(), n >= 5_000, "key {n}");
    }
    Ok(())
}

/// The whole store gone, silent, and back: callers get values within their time, from the loader or kept ones, and a
/// source is not stormed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_gone_or_hangs_costs_no_call_more_than_its_deadline() -> Result<()> {
    a_store_away(|config| config).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_gone_or_hangs_costs_no_more_by_fred() -> Result<()> {
    a_store_away(by_fred).await
}

async fn a_store_away(driven: impl FnOnce(CacheConfig) -> CacheConfig) -> Result<()> {
    let redis = started(Redis::start().await);
    let mut config = driven(quick(vec![redis.url()], false));
    config.degraded_ttl = Duration::from_millis(300);
    config.defaults =
        NamespaceConfig { stale_if_error: Duration::from_secs(600), ..config.defaults };
    let cache = cache(config).await;
    let users = cache.namespace::<u64>("n");
    let asked = Arc::new(AtomicUsize::new(0));
    let source = |fails: bool| {
        let asked = Arc::clone(&asked);
        async move || {
            asked.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(100)).await;
            if fails { Err(std::io::Error::other("down")) } else { Ok(Loaded::new(1u64)) }
        }
    };
    users.get_or_load_with("kept", source(false)).await?;
    // The echo of the fill may drop what was just put into the process.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let hold = async || drop(users.get("kept").await);
    until_held(&cache, hold).await;
    for how in ["killed", "frozen"] {
        match how {
            "killed" => started(redis.kill().await),
            _ => started(redis.freeze()),
        }
        asked.store(0, Ordering::Relaxed);
        let begun = Instant::now();
        let callers: Vec<_> = (0..200)
            .map(|_| {
                let (users, load) = (users.clone(), source(false));
                tokio::spawn(
                    async move { users.get_or_load_with(&format!("cold {how}"), load).await },
                )
            })
            .collect();
        for caller in callers {
            assert!(caller.await.is_ok_and(|served| served.is_ok()), "{how}");
        }
        println!("FIGURE {how}: 200 callers had their value after {:?}", begun.elapsed());
        // Once more if the loss was noticed while the load ran: who asks after it joins no load from before.
        let loads = asked.load(Ordering::Relaxed);
        assert!((1..=2).contains(&loads), "{how}: {loads} loads of one key");
        assert!(begun.elapsed() < Duration::from_secs(10), "{how}: {:?}", begun.elapsed());
        let begun = Instant::now();
        until("its copy is not trusted", || cache.findings()[0].code != "cache.ok").await;
        let served = users.get_or_load_with("kept", source(true)).await?;
        assert_eq!(served.value.as_deref(), Some(&1), "{how}");
        println!(
            "FIGURE {how}: a kept value was served, stale: {}, after {:?}",
            served.stale,
            begun.elapsed()
        );
        match how {
            "killed" => started(redis.start().await),
            _ => started(redis.thaw()),
        }
        let back = Instant::now();
        until("all is well", || cache.findings()[0].code != "cache.store.unannounced").await;
        while users.set("after", &2).await.is_err() {
            assert!(back.elapsed() < super::SOON, "{how}: it does not come back");
        }
        println!("FIGURE {how}: wrote again {:?} after it was back", back.elapsed());
        users.set("kept", &1).await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
        until_held(&cache, hold).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_not_there_stops_no_start_and_is_used_when_it_comes() -> Result<()> {
    let redis = started(Redis::start().await);
    started(redis.kill().await);
    let config = quick(vec![redis.url()], false);
    let cache: DistributedCache = started(builder(config).build());
    let users = cache.namespace::<u64>("n");
    let begun = Instant::now();
    let load = async || Ok::<_, std::io::Error>(7u64);
    assert_eq!(*users.get_or_load("7", load).await?, 7);
    println!("FIGURE without a store the first value came after {:?}", begun.elapsed());
    assert!(cache.ping().await.is_err());
    started(redis.start().await);
    let begun = Instant::now();
    // The removal that stands for a set that failed may come behind one that did not, and costs a miss.
    loop {
        let stored = users.set("7", &8).await.is_ok();
        if stored && users.get("7").await?.as_deref() == Some(&8) {
            return Ok(());
        }
        assert!(begun.elapsed() < super::SOON);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Counts what is logged on this thread, by level.
#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<String>>>);

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::INFO && metadata.target().starts_with("resonant_cache")
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        let line = format!("{} {:?}", event.metadata().level(), event);
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(line);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn an_outage_is_logged_once_and_its_end_once() -> Result<()> {
    resonant_common::telemetry::keep_attention();
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.clone());
    let redis = started(Redis::start().await);
    let cache = cache(quick(vec![redis.url()], false)).await;
    let users = cache.namespace::<u64>("n");
    started(redis.kill().await);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        let _ = users.set("7", &1).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    started(redis.start().await);
    let begun = Instant::now();
    while users.set("7", &1).await.is_err() {
        assert!(begun.elapsed() < super::SOON);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let lines = log.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    let count = |level: &str| lines.iter().filter(|line| line.starts_with(level)).count();
    // The server and the cache say it, each once.
    assert_eq!((count("WARN"), count("INFO"), count("ERROR")), (2, 2, 0), "{lines:#?}");
    Ok(())
}
