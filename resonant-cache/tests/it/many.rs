//! Many keys in one call.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use resonant_cache::{
    CacheConfig, DistributedCache, ErrorKind, Loaded, Namespace, NamespaceConfig, Result,
    SetOptions,
};

use crate::support::{Source, exact, ms, settle};

fn numbers(max_batch: usize) -> Result<Namespace<usize>> {
    let config = CacheConfig { max_batch, defaults: exact(), ..CacheConfig::default() };
    Ok(DistributedCache::builder().config(config).build()?.namespace("number"))
}

fn keys(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

fn plain(found: Vec<Result<Option<Arc<usize>>>>) -> Vec<Option<usize>> {
    found
        .into_iter()
        .map(|found| match found {
            Ok(value) => value.as_deref().copied(),
            Err(error) => panic!("{error}"),
        })
        .collect()
}

#[tokio::test]
async fn batches_answer_in_order_with_a_status_each() -> Result<()> {
    let numbers = numbers(7)?;
    let values: Vec<usize> = (0..50).collect();
    let keys = keys(0..50);
    let even = keys.iter().zip(&values).filter(|(_, value)| **value % 2 == 0);
    let set = numbers.set_many(even, SetOptions::new()).await;
    assert_eq!((set.len(), set.iter().filter(|outcome| outcome.is_ok()).count()), (25, 25));
    for _ in 0..2 {
        let found = plain(numbers.get_many(&keys).await);
        let expected: Vec<_> = values.iter().map(|n| (n % 2 == 0).then_some(*n)).collect();
        assert_eq!(found, expected);
    }
    let long = "k".repeat(5_000);
    let mixed = numbers.get_many(&["2", &long, "2"]).await;
    assert!(matches!(&mixed[0], Ok(Some(value)) if **value == 2));
    assert!(matches!(&mixed[1], Err(error) if error.kind() == ErrorKind::KeyTooLong));
    assert!(matches!(&mixed[2], Ok(Some(value)) if **value == 2));
    assert!(numbers.get_many::<&str>(&[]).await.is_empty());
    Ok(())
}

#[tokio::test]
async fn one_call_loads_all_that_is_missing() -> Result<()> {
    let numbers = numbers(512)?;
    let calls = Arc::new(Mutex::new(Vec::new()));
    let load = {
        let calls = Arc::clone(&calls);
        async move |mut keys: Vec<String>| {
            keys.sort();
            calls.lock().unwrap().push(keys.clone());
            let found = keys.into_iter().filter(|key| key != "3");
            Ok::<HashMap<_, _>, std::io::Error>(
                found.map(|key| (key.clone(), key.parse::<usize>().unwrap())).collect(),
            )
        }
    };
    numbers.set("1", &1).await?;
    let wanted = ["0", "1", "2", "3", "2"];
    let expected = [Some(0), Some(1), Some(2), None, Some(2)];
    assert_eq!(plain(numbers.get_many_or_load(&wanted, load.clone()).await), expected);
    assert_eq!(*calls.lock().unwrap(), [["0", "2", "3"]], "each key once, and not the known one");
    // What has no value is remembered too.
    assert_eq!(plain(numbers.get_many_or_load(&wanted, load).await), expected);
    assert_eq!(calls.lock().unwrap().len(), 1);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn one_call_loads_anew_all_that_is_stale() -> Result<()> {
    let defaults =
        NamespaceConfig { ttl: Some(ms(100)), stale_while_revalidate: ms(10_000), ..exact() };
    let config = CacheConfig { max_batch: 7, defaults, ..CacheConfig::default() };
    let numbers = DistributedCache::builder().config(config).build()?.namespace::<usize>("number");
    let calls = Arc::new(AtomicUsize::new(0));
    let load = {
        let calls = Arc::clone(&calls);
        async move |keys: Vec<String>| {
            let add = 100 * calls.fetch_add(1, Ordering::SeqCst);
            Ok::<_, std::io::Error>(keys.into_iter().map(move |key| (key, add)))
        }
    };
    let keys = keys(0..10);
    plain(numbers.get_many_or_load(&keys, load.clone()).await);
    assert_eq!(calls.load(Ordering::SeqCst), 2, "in chunks of seven");
    tokio::time::sleep(ms(150)).await;
    let stale = plain(numbers.get_many_or_load(&keys, load.clone()).await);
    assert!(stale.iter().all(|value| value.is_some_and(|value| value <= 100)), "{stale:?}");
    settle().await;
    assert_eq!(calls.load(Ordering::SeqCst), 4, "not one by one");
    let fresh = plain(numbers.get_many_or_load(&keys, load).await);
    assert!(fresh.iter().all(|value| value.is_some_and(|value| value >= 200)), "{fresh:?}");
    Ok(())
}

#[tokio::test]
async fn long_batches_are_loaded_in_chunks() -> Result<()> {
    let numbers = numbers(10)?;
    let (calls, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let load = {
        let (calls, most) = (Arc::clone(&calls), Arc::clone(&most));
        async move |keys: Vec<String>| {
            calls.fetch_add(1, Ordering::SeqCst);
            most.fetch_max(keys.len(), Ordering::SeqCst);
            let value =
                |key: String| (key.clone(), Loaded::new(key.parse::<usize>().unwrap()).tag("t"));
            Ok::<_, std::io::Error>(keys.into_iter().map(value).collect::<Vec<_>>())
        }
    };
    let found = plain(numbers.get_many_or_load(&keys(0..95), load).await);
    assert_eq!(found, (0..95).map(Some).collect::<Vec<_>>());
    assert_eq!((calls.load(Ordering::SeqCst), most.load(Ordering::SeqCst)), (10, 10));
    numbers.invalidate_tag("t").await?;
    assert!(plain(numbers.get_many(&keys(0..95)).await).iter().all(Option::is_none));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn batches_that_overlap_share_their_loads() -> Result<()> {
    let numbers = numbers(512)?;
    let gate = Source::held();
    let loaded = Arc::new(Mutex::new(Vec::new()));
    let load = {
        let (gate, loaded) = (gate.clone(), Arc::clone(&loaded));
        async move |keys: Vec<String>| {
            loaded.lock().unwrap().extend(keys.clone());
            gate.pass().await;
            Ok::<_, std::io::Error>(keys.into_iter().map(|key| (key, 1usize)))
        }
    };
    let batches: Vec<_> = [0..60, 30..90, 0..90]
        .into_iter()
        .map(|range| {
            let (numbers, load) = (numbers.clone(), load.clone());
            tokio::spawn(async move { numbers.get_many_or_load(&keys(range), load).await })
        })
        .collect();
    let single = tokio::spawn({
        let numbers = numbers.clone();
        async move { numbers.get_or_load("45", async || Err("not to be asked")).await }
    });
    settle().await;
    gate.let_through(10);
    for batch in batches {
        let found = match batch.await {
            Ok(found) => plain(found),
            Err(error) => panic!("{error}"),
        };
        assert!(found.iter().all(|value| *value == Some(1)));
    }
    assert!(single.await.is_ok_and(|value| value.is_ok_and(|value| *value == 1)));
    let mut loaded = loaded.lock().unwrap().clone();
    loaded.sort_by_key(|key| key.parse::<usize>().unwrap());
    assert_eq!(loaded, keys(0..90), "each key once");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_failed_batch_fails_its_keys_and_nothing_is_stuck() -> Result<()> {
    let config = NamespaceConfig { hard_load_timeout: ms(500), ..exact() };
    let cache = crate::support::cache_with(config);
    let numbers = cache.namespace::<usize>("number");
    numbers.set("1", &1).await?;
    let fail = async |_: Vec<String>| Err::<Vec<(String, usize)>, _>("the source is down");
    let found = numbers.get_many_or_load(&["1", "2", "3"], fail).await;
    assert!(matches!(&found[0], Ok(Some(value)) if **value == 1), "what is known is answered");
    for found in &found[1..] {
        assert!(matches!(found, Err(error) if error.kind() == ErrorKind::Load));
    }
    let hang = async |_: Vec<String>| {
        std::future::pending::<std::result::Result<Vec<(String, usize)>, std::io::Error>>().await
    };
    let found = numbers.get_many_or_load(&["2"], hang).await;
    assert!(matches!(&found[0], Err(error) if error.kind() == ErrorKind::TimedOut));
    let load = async |keys: Vec<String>| {
        Ok::<_, std::io::Error>(keys.into_iter().map(|key| (key, 9usize)))
    };
    assert_eq!(plain(numbers.get_many_or_load(&["2", "3"], load).await), [Some(9), Some(9)]);
    Ok(())
}
