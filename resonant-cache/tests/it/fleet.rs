//! Several caches on one store, as several processes would be.

use std::sync::Arc;

use resonant_cache::backend::{MemoryStore, Store};
use resonant_cache::testing::{Fault, Faulty};
use resonant_cache::{ErrorKind, Namespace, NamespaceConfig, Result, SetOptions};

use crate::support::{Source, cache_on, exact, ms, secs, settle};

fn fleet<const N: usize>(config: &NamespaceConfig) -> [Namespace<String>; N] {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(64 << 20));
    std::array::from_fn(|_| cache_on(Arc::clone(&store), config.clone()).namespace("user"))
}

#[tokio::test]
async fn a_change_by_one_is_seen_by_all() -> Result<()> {
    let caches = fleet::<3>(&exact());
    let [one, ..] = &caches;
    let all_hold = async |expected: Option<&str>| {
        for cache in &caches {
            for _ in 0..2 {
                let held = cache.get("7").await?;
                assert_eq!(held.as_deref().map(String::as_str), expected);
            }
        }
        Result::Ok(())
    };
    let tagged = || SetOptions::new().tag("team");
    one.set_with("7", &"Ada".to_owned(), tagged()).await?;
    all_hold(Some("Ada")).await?;
    one.set_with("7", &"Bob".to_owned(), tagged()).await?;
    all_hold(Some("Bob")).await?;
    one.delete("7").await?;
    all_hold(None).await?;
    one.set_with("7", &"Cy".to_owned(), tagged()).await?;
    all_hold(Some("Cy")).await?;
    one.invalidate_tag("team").await?;
    all_hold(None).await?;
    one.set("7", &"Di".to_owned()).await?;
    all_hold(Some("Di")).await?;
    one.clear().await?;
    all_hold(None).await
}

#[tokio::test(start_paused = true)]
async fn a_cold_key_is_loaded_once_by_all_of_them() {
    let caches = fleet::<8>(&exact());
    let source = Source::held();
    let callers: Vec<_> = (0..400)
        .map(|n| {
            let (cache, load) = (caches[n % 8].clone(), source.answers("Ada"));
            tokio::spawn(async move { cache.get_or_load("7", load).await })
        })
        .collect();
    tokio::time::sleep(ms(200)).await;
    source.let_through(10);
    for caller in callers {
        assert!(caller.await.is_ok_and(|value| value.is_ok_and(|value| *value == "Ada")));
    }
    assert_eq!(source.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_gone_costs_one_more_load() -> Result<()> {
    let config =
        NamespaceConfig { hard_load_timeout: secs(2), load_queue_timeout: ms(500), ..exact() };
    let [leader, follower] = fleet(&config);
    let lost = Source::held();
    let caller = tokio::spawn({
        let load = lost.answers("never");
        async move { leader.get_or_load("7", load).await }
    });
    settle().await;
    assert_eq!(lost.asked(), 1);
    // The caller holds the last handle: its process is gone, and its lease is not given back.
    caller.abort();
    settle().await;
    let begun = tokio::time::Instant::now();
    let source = Source::open();
    assert_eq!(*follower.get_or_load("7", source.answers("Ada")).await?, "Ada");
    assert_eq!(source.asked(), 1);
    // The lease lasts for load, queue and four calls to the store: 2 + 0.5 + 4 x 1 s.
    assert!(begun.elapsed() <= ms(6_500) + ms(100), "{:?}", begun.elapsed());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_failed_leader_makes_room_at_once() -> Result<()> {
    let [leader, follower] = fleet(&exact());
    let failing = Source::held();
    let first = tokio::spawn({
        let load = failing.fails();
        async move { (leader.get_or_load("7", load).await, leader) }
    });
    settle().await;
    let second = tokio::spawn({
        let load = Source::open().answers("Ada");
        async move { follower.get_or_load("7", load).await }
    });
    settle().await;
    failing.let_through(1);
    let Ok((Err(error), _leader)) = first.await else { panic!("the loader failed") };
    assert_eq!(error.kind(), ErrorKind::Load, "another process's luck is not ours");
    let begun = tokio::time::Instant::now();
    match second.await {
        Ok(value) => assert_eq!(*value?, "Ada"),
        Err(error) => panic!("{error}"),
    }
    assert!(begun.elapsed() <= ms(100), "{:?}", begun.elapsed());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_late_joiner_knows_of_earlier_invalidations() -> Result<()> {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(64 << 20));
    let first = cache_on(Arc::clone(&store), exact()).namespace::<String>("user");
    for (key, tag) in [("1", "red"), ("2", "blue")] {
        first.set_with(key, &key.to_owned(), SetOptions::new().tag(tag)).await?;
    }
    first.invalidate_tag("red").await?;
    first.invalidate_tag("green").await?;
    let late = cache_on(Arc::clone(&store), exact()).namespace::<String>("user");
    assert!(!late.contains("1").await?);
    assert!(late.contains("2").await?);
    first.clear().await?;
    let later = cache_on(store, exact()).namespace::<String>("user");
    assert!(!later.contains("2").await?);
    later.set("2", &"again".to_owned()).await?;
    assert!(first.contains("2").await? && late.contains("2").await?);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn without_announcements_a_value_is_looked_at_again_after_its_time() -> Result<()> {
    let store: Arc<dyn Store> =
        Arc::new(Faulty::new(Arc::new(MemoryStore::new(64 << 20)), Fault::Silent));
    let [one, other] =
        std::array::from_fn(|_| cache_on(Arc::clone(&store), exact()).namespace::<String>("user"));
    let tagged = || SetOptions::new().tag("team");
    for key in ["set", "deleted", "tagged"] {
        one.set_with(key, &"old".to_owned(), tagged()).await?;
        assert!(other.contains(key).await?, "and now the other holds it");
    }
    one.set_with("set", &"new".to_owned(), SetOptions::new()).await?;
    one.delete("deleted").await?;
    one.invalidate_tag("team").await?;
    tokio::time::sleep(ms(999)).await;
    assert_eq!(other.get("set").await?.as_deref().map(String::as_str), Some("old"));
    tokio::time::sleep(ms(1)).await;
    assert_eq!(other.get("set").await?.as_deref().map(String::as_str), Some("new"));
    assert!(!other.contains("deleted").await? && !other.contains("tagged").await?);
    one.clear().await?;
    tokio::time::sleep(secs(1)).await;
    assert!(!other.contains("set").await?);
    Ok(())
}
