//! Values in and out.

use std::sync::Arc;

use bytes::Bytes;
use resonant_cache::{
    Codec, DistributedCache, ErrorKind, NamespaceConfig, Result, SetOptions, Swap,
};

use crate::support::{cache_with, exact, ms, namespace, secs};

#[tokio::test]
async fn a_value_is_set_read_and_deleted() -> Result<()> {
    let users = namespace(exact());
    assert_eq!(users.get("7").await?, None);
    users.set("7", &"Ada".to_owned()).await?;
    assert_eq!(users.get("7").await?.as_deref().map(String::as_str), Some("Ada"));
    assert!(users.contains("7").await?);
    assert!(users.delete("7").await?);
    assert!(!users.delete("7").await?);
    assert_eq!(users.get("7").await?, None);
    Ok(())
}

#[tokio::test]
async fn a_hit_hands_out_the_same_value_and_allocates_nothing() -> Result<()> {
    let users = namespace(exact());
    users.set("7", &"Ada".to_owned()).await?;
    let (first, second) = (users.get("7").await?, users.get("7").await?);
    let (Some(first), Some(second)) = (first, second) else { panic!("it was set") };
    assert!(Arc::ptr_eq(&first, &second), "it was decoded once");

    use futures::FutureExt as _;
    let load = async || Err::<String, _>(std::io::Error::other("not to be called"));
    let mut hits = 0;
    let counted = allocation_counter::measure(|| {
        hits += usize::from(users.get("7").now_or_never().is_some_and(|hit| hit.is_ok()));
        hits +=
            usize::from(users.get_or_load("7", load).now_or_never().is_some_and(|hit| hit.is_ok()));
    });
    assert_eq!((hits, counted.count_total), (2, 0));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_life_ends_exactly_in_both_tiers() -> Result<()> {
    let cache = cache_with(NamespaceConfig { ttl: Some(secs(10)), ..exact() });
    let users = cache.namespace::<String>("user");
    users.set("7", &"Ada".to_owned()).await?;
    users.set_with("8", &"Bob".to_owned(), SetOptions::new().ttl(ms(2_500))).await?;
    users.set_with("9", &"Cy".to_owned(), SetOptions::new().no_expiry()).await?;
    // Read once, so that the process holds 8 and the rest comes from the store.
    assert!(users.contains("8").await?);
    tokio::time::sleep(ms(2_499)).await;
    assert!(users.contains("8").await?);
    tokio::time::sleep(ms(1)).await;
    assert!(!users.contains("8").await?);
    tokio::time::sleep(ms(7_499)).await;
    assert!(users.contains("7").await?);
    tokio::time::sleep(ms(1)).await;
    assert!(!users.contains("7").await?);
    tokio::time::sleep(secs(1_000_000)).await;
    assert!(users.contains("9").await?);
    Ok(())
}

#[tokio::test]
async fn raw_bytes_and_ping() -> Result<()> {
    let cache = DistributedCache::memory(1 << 20);
    cache.set("a", "bytes", None).await?;
    assert_eq!(cache.get("a").await?, Some(Bytes::from_static(b"bytes")));
    assert!(cache.delete("a").await?);
    assert_eq!(cache.get("a").await?, None);
    // The future borrows nothing, so a health check can hold it.
    let ping = cache.ping();
    drop(cache.clone());
    let zero = cache.set("a", "x", Some(ms(0))).await.err().map(|error| error.kind());
    assert_eq!(zero, Some(ErrorKind::Rejected));
    match tokio::spawn(ping).await {
        Ok(answer) => answer,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn namespaces_are_apart() -> Result<()> {
    let cache = DistributedCache::memory(1 << 20);
    let (a, b) = (cache.namespace::<u32>("a"), cache.namespace::<u32>("b"));
    a.set("k", &1).await?;
    b.set("k", &2).await?;
    a.clear().await?;
    assert_eq!((a.get("k").await?, b.get("k").await?.as_deref()), (None, Some(&2)));
    Ok(())
}

#[tokio::test]
async fn counters_count_and_refuse_to_overflow() -> Result<()> {
    let cache = DistributedCache::memory(1 << 20);
    let hits = cache.namespace::<u32>("hits");
    let tasks = (0..64).map(|_| {
        let hits = hits.clone();
        tokio::spawn(async move {
            for _ in 0..100 {
                if let Err(error) = hits.incr("page", 1).await {
                    panic!("{error}");
                }
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        assert!(task.await.is_ok());
    }
    assert_eq!(hits.counter("page").await?, 6_400);
    hits.incr("full", i64::MAX).await?;
    let kind = hits.incr("full", 1).await.err().map(|error| error.kind());
    assert_eq!(kind, Some(ErrorKind::Rejected));
    Ok(())
}

#[tokio::test]
async fn compare_and_set_loses_no_update() -> Result<()> {
    let cache = DistributedCache::memory(1 << 20);
    let sums = cache.namespace::<u64>("sum");
    let tasks = (0..16).map(|_| {
        let sums = sums.clone();
        tokio::spawn(async move {
            for _ in 0..50 {
                loop {
                    let held = sums.get_versioned("total").await?;
                    let next = held.value.as_deref().copied().unwrap_or(0) + 1;
                    if let Swap::Stored(_) =
                        sums.compare_and_set("total", held.version, &next).await?
                    {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
            }
            Ok::<_, resonant_cache::Error>(())
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        assert!(task.await.is_ok_and(|outcome| outcome.is_ok()));
    }
    assert_eq!(sums.get("total").await?.as_deref(), Some(&800));
    Ok(())
}

#[tokio::test]
async fn limits_have_kinds_of_their_own() -> Result<()> {
    let cache = cache_with(NamespaceConfig { max_value_bytes: 100, ..exact() });
    let users = cache.namespace::<String>("user");
    let long = "k".repeat(2_000);
    let kind = |error: Option<resonant_cache::Error>| error.map(|error| error.kind());
    assert_eq!(kind(users.get(&long).await.err()), Some(ErrorKind::KeyTooLong));
    let load = async || Ok::<_, std::io::Error>(String::new());
    assert_eq!(kind(users.get_or_load(&long, load).await.err()), Some(ErrorKind::KeyTooLong));
    let large = users.set("k", &"x".repeat(101)).await;
    assert_eq!(kind(large.err()), Some(ErrorKind::ValueTooLarge));
    let tagged = (0..17).fold(SetOptions::new(), |options, n| options.tag(n.to_string()));
    let tagged = users.set_with("k", &String::new(), tagged).await;
    assert_eq!(kind(tagged.err()), Some(ErrorKind::Rejected));
    // A load's value is served although it is too large to keep.
    let large = || async { Ok::<_, std::io::Error>("x".repeat(101)) };
    assert_eq!(users.get_or_load("k", large).await?.len(), 101);
    assert!(!users.contains("k").await?);
    Ok(())
}

#[tokio::test]
async fn too_many_namespaces_fail_on_use() -> Result<()> {
    let config = resonant_cache::CacheConfig { max_namespaces: 2, ..Default::default() };
    let cache = DistributedCache::builder().config(config).build()?;
    for name in ["a", "b", "a"] {
        cache.namespace::<u8>(name).set("k", &1).await?;
    }
    let kind = cache.namespace::<u8>("c").set("k", &1).await.err().map(|error| error.kind());
    assert_eq!(kind, Some(ErrorKind::Overloaded));
    Ok(())
}

#[tokio::test]
async fn nodes_of_no_engine_are_refused() {
    let refused = |nodes: &[&str]| {
        let built = DistributedCache::builder()
            .nodes(nodes.iter().copied())
            .cluster_mode(true)
            .read_from_replicas(true)
            .build();
        match built {
            Ok(_) => panic!("{nodes:?} were accepted"),
            Err(error) => error,
        }
    };
    assert_eq!(refused(&["redis-sentinel://cache-1"]).kind(), ErrorKind::Unsupported);
    assert_eq!(refused(&["cache-1:6379"]).kind(), ErrorKind::Config);
    assert_eq!(refused(&["memory:", "memory:"]).kind(), ErrorKind::Config);
    assert!(DistributedCache::builder().nodes(["memory:"]).connect().await.is_ok());
}

#[tokio::test]
async fn values_of_another_layout_are_misses() -> Result<()> {
    #[derive(Debug)]
    struct Reversed;
    impl Codec<String> for Reversed {
        fn name(&self) -> &str {
            "reversed"
        }
        fn encode(
            &self,
            value: &String,
            out: &mut Vec<u8>,
        ) -> Result<(), resonant_common::error::BoxError> {
            out.extend(value.bytes().rev());
            Ok(())
        }
        fn decode(&self, bytes: &[u8]) -> Result<String, resonant_common::error::BoxError> {
            Ok(String::from_utf8(bytes.iter().rev().copied().collect())?)
        }
    }
    let old = cache_with(exact());
    old.namespace::<String>("user").set("7", &"Ada".to_owned()).await?;
    let other = |schema: &str| {
        DistributedCache::builder()
            .defaults(NamespaceConfig { schema: schema.into(), ..exact() })
            .store(old.store())
            .build()
    };
    assert_eq!(other("v2")?.namespace::<String>("user").get("7").await?, None, "another schema");
    let reversed = other("")?.namespace_builder::<String>("user").open_with(Reversed)?;
    assert_eq!(reversed.get("7").await?, None, "another codec");
    assert_eq!(other("")?.namespace::<u64>("user").get("7").await?, None, "another type");
    let same = other("")?.namespace::<String>("user");
    assert_eq!(same.get("7").await?.as_deref().map(String::as_str), Some("Ada"));
    reversed.set("7", &"Bob".to_owned()).await?;
    assert_eq!(reversed.get("7").await?.as_deref().map(String::as_str), Some("Bob"));
    assert_eq!(same.get("7").await?, None, "and the other way round");
    Ok(())
}

#[tokio::test]
async fn a_namespace_has_one_set_of_settings() -> Result<()> {
    let cache = DistributedCache::memory(1 << 20);
    let open =
        |ttl| cache.namespace_builder::<u8>("n").configure(|config| config.ttl = Some(ttl)).open();
    open(secs(1))?;
    open(secs(1))?;
    assert_eq!(open(secs(2)).err().map(|error| error.kind()), Some(ErrorKind::Config));
    Ok(())
}

#[tokio::test]
async fn one_name_for_two_types_is_an_error_or_a_miss() -> Result<()> {
    let cache = DistributedCache::memory(1 << 20);
    let (texts, numbers) = (cache.namespace::<String>("n"), cache.namespace::<u8>("n"));
    texts.set("k", &"text".to_owned()).await?;
    assert!(texts.contains("k").await?);
    assert_eq!(numbers.get("k").await?, None);
    let load = async || Ok::<_, std::io::Error>(1);
    let kind = numbers.get_or_load("k", load).await.err().map(|error| error.kind());
    assert_eq!(kind, Some(ErrorKind::Rejected));
    Ok(())
}
