//! What the scaling guide has a cache do, and what a service cannot do without, as one list of cases over any cache: switching
//! from memory to Redis is one line, so all of it holds on each.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use resonant_cache::{
    DistributedCache, ErrorKind, Loaded, Namespace, NamespaceConfig, Result, SetOptions, Swap,
    Tier, Written,
};
use resonant_common::join::Position;

use crate::support::ms;

/// How long a state may take to come.
const SOON: Duration = Duration::from_secs(30);

/// Makes one test of each case on the cache that `$make` makes.
macro_rules! guide {
    ($name:ident, $make:expr) => {
        crate::guide::guide!(@ $name, $make,
            values_live_and_die,
            names_are_apart_and_typed,
            a_missing_value_is_loaded_once,
            batches_have_a_status_for_each_key,
            a_batch_loads_what_is_missing_in_one_call,
            a_replica_read_does_not_undo_an_invalidation,
            counters_count,
            compare_and_set_stores_over_what_was_seen,
            tags_and_clears_invalidate,
            what_cannot_be_is_refused_by_kind,
        );
    };
    (@ $name:ident, $make:expr, $($case:ident),* $(,)?) => {
        mod $name {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let cache = $make.await;
                    if let Err(error) = crate::guide::$case(cache).await {
                        panic!("{error}");
                    }
                }
            )*
        }
    };
}
pub(crate) use guide;

guide!(memory, super::memory());

async fn memory() -> DistributedCache {
    DistributedCache::memory(16 << 20)
}

fn number(value: Option<Arc<u64>>) -> Option<u64> {
    value.map(|value| *value)
}

/// Reads until the answer is this one; others may come before it, none after.
async fn until(users: &Namespace<u64>, key: &str, expected: Option<u64>) -> Result<()> {
    let begun = tokio::time::Instant::now();
    while number(users.get(key).await?) != expected {
        assert!(begun.elapsed() < SOON, "{key} is not {expected:?}");
        tokio::time::sleep(ms(5)).await;
    }
    Ok(())
}

pub(crate) async fn values_live_and_die(cache: DistributedCache) -> Result<()> {
    cache.ping().await?;
    assert_eq!(cache.get("greeting").await?, None);
    cache.set("greeting", "hello", Some(Duration::from_secs(600))).await?;
    assert_eq!(cache.get("greeting").await?.as_deref(), Some(&b"hello"[..]));
    assert!(cache.delete("greeting").await? && !cache.delete("greeting").await?);
    assert_eq!(cache.get("greeting").await?, None);
    let users = cache.namespace::<u64>("n");
    users.set_with("short", &1, SetOptions::new().ttl(ms(300))).await?;
    users.set_with("long", &2, SetOptions::new().no_expiry()).await?;
    until(&users, "short", None).await?;
    assert_eq!(number(users.get("long").await?), Some(2));
    assert!(users.contains("long").await? && !users.contains("short").await?);
    Ok(())
}

pub(crate) async fn names_are_apart_and_typed(cache: DistributedCache) -> Result<()> {
    let (numbers, texts) = (cache.namespace::<u64>("a:b"), cache.namespace::<String>("a"));
    for key in ["{x}", "b:{x}", "%", "", "ключ"] {
        numbers.set(key, &7).await?;
        assert_eq!(texts.get(key).await?, None, "{key:?}");
        texts.set(key, &key.to_owned()).await?;
        assert_eq!(number(numbers.get(key).await?), Some(7), "{key:?}");
        assert_eq!(texts.get(key).await?.as_deref().map(String::as_str), Some(key));
    }
    Ok(())
}

pub(crate) async fn a_missing_value_is_loaded_once(cache: DistributedCache) -> Result<()> {
    let users = cache.namespace::<u64>("n");
    let asked = Arc::new(AtomicUsize::new(0));
    let load = |value: Option<u64>| {
        let asked = Arc::clone(&asked);
        async move || {
            asked.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(ms(20)).await;
            Ok::<_, std::io::Error>(value.map_or_else(Loaded::missing, Loaded::new))
        }
    };
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let (users, load) = (users.clone(), load(Some(7)));
            tokio::spawn(async move { users.get_or_load_with("7", load).await })
        })
        .collect();
    for caller in callers {
        let served = caller.await.map(|served| served.map(|served| served.value));
        assert!(matches!(served, Ok(Ok(Some(value))) if *value == 7));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert_eq!(users.get_or_load_with("8", load(None)).await?.tier, Tier::Loaded);
    assert_eq!(users.get_or_load_with("8", load(None)).await?.value, None);
    assert_eq!(asked.load(Ordering::SeqCst), 2, "that there is none is remembered");
    let failing = async || Err::<u64, _>(std::io::Error::other("the source is down"));
    let kind = users.get_or_load("9", failing).await.err().map(|error| error.kind());
    assert_eq!(kind, Some(ErrorKind::Load));
    Ok(())
}

pub(crate) async fn batches_have_a_status_for_each_key(cache: DistributedCache) -> Result<()> {
    let users = cache.namespace::<u64>("n");
    let keys: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    let values: Vec<u64> = (0..300).collect();
    let long = "x".repeat(2_000);
    let mut wanted: Vec<(&str, &u64)> = keys.iter().map(String::as_str).zip(&values).collect();
    wanted.insert(100, (long.as_str(), &0));
    let stored = users.set_many(wanted, SetOptions::new().tag("t")).await;
    for (at, stored) in stored.iter().enumerate() {
        match stored {
            Ok(stored) => assert!(at != 100 && *stored == Written::Stored),
            Err(error) => assert_eq!((at, error.kind()), (100, ErrorKind::KeyTooLong)),
        }
    }
    let mut asked: Vec<&str> = keys.iter().map(String::as_str).rev().collect();
    asked.extend(["absent", &long]);
    let mut found = users.get_many(&asked).await;
    assert_eq!(found.pop().and_then(Result::err).map(|it| it.kind()), Some(ErrorKind::KeyTooLong));
    assert_eq!(found.pop().transpose()?.flatten(), None);
    for (found, value) in found.into_iter().zip(values.iter().rev()) {
        assert_eq!(number(found?), Some(*value));
    }
    Ok(())
}

pub(crate) async fn a_batch_loads_what_is_missing_in_one_call(
    cache: DistributedCache,
) -> Result<()> {
    let users = cache.namespace::<u64>("n");
    for n in 0..40u64 {
        users.set(&n.to_string(), &n).await?;
    }
    let keys: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    let calls = Arc::new(std::sync::Mutex::new(Vec::new()));
    let noted = Arc::clone(&calls);
    let load = async move |keys: Vec<String>| {
        if let Ok(mut calls) = noted.lock() {
            calls.push(keys.len());
        }
        let known = keys.into_iter().filter(|key| key != "99");
        let loaded = known.map(|key| (key.clone(), key.parse().unwrap_or(u64::MAX)));
        Ok::<_, std::io::Error>(loaded.collect::<Vec<_>>())
    };
    for _ in 0..2 {
        let found = users.get_many_or_load(&keys, load.clone()).await;
        for (n, found) in found.into_iter().enumerate() {
            assert_eq!(number(found?), (n < 99).then_some(n as u64));
        }
    }
    assert_eq!(calls.lock().map(|calls| calls.clone()).ok(), Some(vec![60]));
    Ok(())
}

pub(crate) async fn a_replica_read_does_not_undo_an_invalidation(
    cache: DistributedCache,
) -> Result<()> {
    let users = cache.namespace::<u64>("n");
    let at = |offset| Position { system: 7, timeline: 1, offset };
    users.set_with("7", &1, SetOptions::new().at(at(10))).await?;
    users.invalidate_at("7", at(20)).await?;
    let load = |value: u64, offset: u64| {
        async move || Ok::<_, std::io::Error>(Loaded::new(value).at(at(offset)))
    };
    assert_eq!(number(users.get_or_load_with("7", load(1, 19)).await?.value), Some(1));
    assert_eq!(number(users.get("7").await?), None, "what was read before it is not kept");
    let late = users.set_with("7", &1, SetOptions::new().at(at(15))).await?;
    assert_eq!(late, Written::Outdated);
    assert_eq!(number(users.get_or_load_with("7", load(2, 20)).await?.value), Some(2));
    assert_eq!(number(users.get("7").await?), Some(2));
    Ok(())
}

pub(crate) async fn counters_count(cache: DistributedCache) -> Result<()> {
    let users = cache.namespace::<u64>("n");
    assert_eq!(users.counter("hits").await?, 0);
    let adding = (0..20).map(|n| users.incr("hits", if n % 2 == 0 { 3 } else { -1 }));
    for count in futures::future::join_all(adding).await {
        count?;
    }
    assert_eq!(users.counter("hits").await?, 20);
    assert_eq!(users.get("hits").await?, None, "a counter is no value");
    assert_eq!(users.incr_for("soon", 5, ms(300)).await?, 5);
    let begun = tokio::time::Instant::now();
    while users.counter("soon").await? != 0 {
        assert!(begun.elapsed() < SOON, "a counter outlives its time");
        tokio::time::sleep(ms(10)).await;
    }
    Ok(())
}

pub(crate) async fn compare_and_set_stores_over_what_was_seen(
    cache: DistributedCache,
) -> Result<()> {
    let users = cache.namespace::<u64>("n");
    let Swap::Stored(first) = users.compare_and_set("7", None, &1).await? else {
        panic!("nothing was stored before")
    };
    assert_eq!(users.compare_and_set("7", None, &2).await?, Swap::Conflict);
    let seen = users.get_versioned("7").await?;
    assert_eq!((number(seen.value), seen.version), (Some(1), Some(first)));
    assert!(matches!(users.compare_and_set("7", Some(first), &3).await?, Swap::Stored(_)));
    assert_eq!(users.compare_and_set("7", Some(first), &4).await?, Swap::Conflict);
    assert_eq!(number(users.get("7").await?), Some(3));
    Ok(())
}

pub(crate) async fn tags_and_clears_invalidate(cache: DistributedCache) -> Result<()> {
    let (users, others) = (cache.namespace::<u64>("n"), cache.namespace::<u64>("other"));
    let tagged = |tags: &[&'static str]| {
        tags.iter().fold(SetOptions::new(), |options, tag| options.tag(*tag))
    };
    users.set_with("both", &1, tagged(&["red", "blue"])).await?;
    users.set_with("blue", &2, tagged(&["blue"])).await?;
    users.set("none", &3).await?;
    others.set_with("both", &4, tagged(&["red"])).await?;
    for key in ["both", "blue", "none"] {
        assert!(users.contains(key).await?, "{key}");
    }
    users.invalidate_tag("red").await?;
    assert_eq!(number(users.get("both").await?), None);
    assert_eq!(number(users.get("blue").await?), Some(2));
    assert_eq!(number(others.get("both").await?), Some(4), "tags are a namespace's own");
    users.set_with("both", &5, tagged(&["red"])).await?;
    assert_eq!(number(users.get("both").await?), Some(5), "what comes after it counts");
    users.clear().await?;
    for key in ["both", "blue", "none"] {
        assert!(!users.contains(key).await?, "{key}");
    }
    assert_eq!(number(others.get("both").await?), Some(4));
    Ok(())
}

pub(crate) async fn what_cannot_be_is_refused_by_kind(cache: DistributedCache) -> Result<()> {
    let small = |config: &mut NamespaceConfig| config.max_value_bytes = 100;
    let blobs = cache.namespace_builder::<String>("blob").configure(small).open()?;
    let kind = |error: Option<resonant_cache::Error>| error.map(|error| error.kind());
    let large = "x".repeat(200);
    assert_eq!(kind(blobs.set("7", &large).await.err()), Some(ErrorKind::ValueTooLarge));
    let load = async move || Ok::<_, std::io::Error>("x".repeat(200));
    assert_eq!(*blobs.get_or_load("7", load).await?, large, "it is handed out all the same");
    assert_eq!(blobs.get("7").await?, None, "and not kept");
    let users = cache.namespace::<u64>("n");
    users.incr("full", i64::MAX).await?;
    assert_eq!(kind(users.incr("full", 1).await.err()), Some(ErrorKind::Rejected));
    assert_eq!(users.counter("full").await?, i64::MAX, "nothing was changed");
    let many = (0..17).fold(SetOptions::new(), |options, n| options.tag(format!("t{n}")));
    assert_eq!(kind(users.set_with("7", &1, many).await.err()), Some(ErrorKind::Rejected));
    cache.close().await;
    assert_eq!(kind(users.set("7", &1).await.err()), Some(ErrorKind::Closed));
    Ok(())
}
