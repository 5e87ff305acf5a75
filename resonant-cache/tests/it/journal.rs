//! Changes that the store did not hear of.

use std::sync::Arc;

use resonant_cache::backend::{Key, MemoryStore, ReadFrom, Store};
use resonant_cache::testing::{Fault, Faulty};
use resonant_cache::{DistributedCache, ErrorKind, Loaded, Namespace, Result, SetOptions};
use resonant_common::join::Position;

use crate::support::{cache_on, exact, secs, settle};

struct Outage {
    inner: Arc<MemoryStore>,
    store: Arc<Faulty>,
    cache: DistributedCache,
}

fn outage() -> Outage {
    let inner = Arc::new(MemoryStore::new(64 << 20));
    let store = Arc::new(Faulty::new(Arc::clone(&inner) as _, Fault::None));
    let cache = cache_on(Arc::clone(&store) as Arc<dyn Store>, exact());
    Outage { inner, store, cache }
}

#[tokio::test(start_paused = true)]
async fn no_value_survives_an_outage_it_was_removed_in() -> Result<()> {
    let Outage { inner, store, cache } = outage();
    let other = cache_on(inner, exact());
    let (users, theirs) = (cache.namespace::<u64>("user"), other.namespace::<u64>("user"));
    for n in 0..6u64 {
        users.set_with(&n.to_string(), &n, SetOptions::new().tag(format!("t{n}"))).await?;
    }
    store.set(Fault::Down);
    let failed = users.delete("0").await.err();
    assert_eq!(failed.map(|error| error.kind()), Some(ErrorKind::Unavailable), "it is not hidden");
    assert!(users.set("1", &100).await.is_err());
    assert!(users.invalidate_tag("t2").await.is_err());
    let many = [("3", 300u64)];
    let many = users.set_many(many.iter().map(|(key, value)| (*key, value)), SetOptions::new());
    assert!(many.await.iter().all(Result::is_err));
    assert_eq!(cache.usage().journalled, 4);
    assert!(cache.findings().iter().any(|finding| finding.code == "cache.journal.pending"));

    // Back, and not made up for yet: this process reads nothing that is concerned.
    store.set(Fault::None);
    assert_eq!(users.get("0").await?, None);
    assert_eq!(users.get("1").await?, None);
    assert_eq!(users.get("2").await?, None);
    // Written anew since: that stands.
    users.set("3", &301).await?;
    tokio::time::sleep(secs(1)).await;
    assert_eq!(cache.usage().journalled, 0);
    for (key, expected) in
        [("0", None), ("1", None), ("2", None), ("3", Some(301)), ("4", Some(4)), ("5", Some(5))]
    {
        assert_eq!(theirs.get(key).await?.as_deref().copied(), expected, "{key}, elsewhere");
        assert_eq!(users.get(key).await?.as_deref().copied(), expected, "{key}");
    }
    assert_eq!(cache.findings()[0].code, "cache.ok");
    Ok(())
}

/// The same with a journal of ten entries.
fn outage_of_ten() -> Outage {
    let inner = Arc::new(MemoryStore::new(64 << 20));
    let store = Arc::new(Faulty::new(Arc::clone(&inner) as _, Fault::None));
    let config = resonant_cache::CacheConfig { max_journal: 10, ..Default::default() };
    match DistributedCache::builder().config(config).store(Arc::clone(&store) as _).build() {
        Ok(cache) => Outage { inner, store, cache },
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(start_paused = true)]
async fn no_clear_of_a_full_journal_stands_for_a_plain_removal_or_a_fence() -> Result<()> {
    let Outage { inner, store, cache } = outage_of_ten();
    let plain: Namespace<u64> = cache.namespace_builder("plain").plain().open()?;
    let users = cache.namespace::<u64>("user");
    let at = |offset| Position { system: 1, timeline: 1, offset };
    for n in 0..50u64 {
        plain.set(&n.to_string(), &n).await?;
        users.set(&n.to_string(), &n).await?;
    }
    store.set(Fault::Down);
    for n in 0..4u64 {
        assert!(plain.delete(&n.to_string()).await.is_err());
        assert!(users.invalidate_at(&n.to_string(), at(100)).await.is_err());
    }
    for n in 10..50u64 {
        assert!(users.delete(&n.to_string()).await.is_err());
    }
    assert!(cache.findings().iter().all(|finding| finding.code != "cache.journal.lost"));
    store.set(Fault::None);
    tokio::time::sleep(secs(1)).await;
    assert_eq!(cache.usage().journalled, 0);
    for n in 0..4u64 {
        let key = Key::new("plain", n.to_string());
        let held = inner.read(&[key], ReadFrom::Primary).await.remove(0)?;
        assert_eq!(held, None, "{n} was removed");
        let read = Loaded::new(n).at(at(99));
        let old = async move || Ok::<_, std::io::Error>(read);
        users.get_or_load_with(&n.to_string(), old).await?;
        let key = Key::new("user", n.to_string());
        let held = inner.read(&[key], ReadFrom::Primary).await.remove(0)?;
        let kept = users.get(&n.to_string()).await?;
        assert!(kept.is_none(), "{n} was read before its invalidation: {held:?}");
    }
    assert_eq!(plain.get("20").await?.as_deref(), Some(&20), "nobody removed it");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_for_want_of_room_is_found() -> Result<()> {
    let Outage { inner, store, cache } = outage_of_ten();
    let plain: Namespace<u64> = cache.namespace_builder("plain").plain().open()?;
    for n in 0..50u64 {
        plain.set(&n.to_string(), &n).await?;
    }
    store.set(Fault::Down);
    for n in 0..50u64 {
        assert!(plain.delete(&n.to_string()).await.is_err());
        assert!(cache.usage().journalled <= 10);
    }
    assert!(cache.findings().iter().any(|finding| finding.code == "cache.journal.lost"));
    store.set(Fault::None);
    tokio::time::sleep(secs(1)).await;
    let keys: Vec<_> = (0..50).map(|n: u64| Key::new("plain", n.to_string())).collect();
    let left = inner.read(&keys, ReadFrom::Primary).await;
    let left = left.into_iter().filter(|value| matches!(value, Ok(Some(_)))).count();
    assert_eq!(left, 40, "the newest ten were made up for");
    assert_eq!(cache.findings()[0].code, "cache.ok");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn more_than_the_journal_holds_clears_the_namespace() -> Result<()> {
    let Outage { store, cache, .. } = outage_of_ten();
    let (many, few) = (cache.namespace::<u64>("many"), cache.namespace::<u64>("few"));
    for n in 0..100u64 {
        many.set(&n.to_string(), &n).await?;
        few.set(&n.to_string(), &n).await?;
    }
    store.set(Fault::Down);
    for n in 0..50u64 {
        assert!(many.delete(&n.to_string()).await.is_err());
        assert!(cache.usage().journalled <= 10);
    }
    store.set(Fault::None);
    tokio::time::sleep(secs(1)).await;
    settle().await;
    for n in 0..100u64 {
        assert_eq!(many.get(&n.to_string()).await?, None, "the namespace was cleared");
        assert_eq!(few.get(&n.to_string()).await?.as_deref(), Some(&n));
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_is_closed_makes_up_for_nothing_and_waits_for_nothing() -> Result<()> {
    let Outage { store, cache, .. } = outage();
    let users = cache.namespace::<u64>("user");
    users.set("0", &0).await?;
    store.set(Fault::Hung);
    assert!(users.delete("0").await.is_err());
    cache.close().await;
    Ok(())
}
