//! A store that is down or hangs.

use std::sync::Arc;

use resonant_cache::backend::MemoryStore;
use resonant_cache::testing::{Fault, Faulty};
use resonant_cache::{DistributedCache, ErrorKind, Result};
use tokio::time::Instant;

use crate::support::{Source, cache_on, exact, ms, secs};

fn faulty(fault: Fault) -> (Arc<Faulty>, DistributedCache) {
    let store = Arc::new(Faulty::new(Arc::new(MemoryStore::new(64 << 20)), fault));
    (Arc::clone(&store), cache_on(store, exact()))
}

#[tokio::test]
async fn a_store_that_is_down_stops_no_start() -> Result<()> {
    let (store, cache) = faulty(Fault::Down);
    assert_eq!(cache.ping().await.err().map(|error| error.kind()), Some(ErrorKind::Unavailable));
    let connected = DistributedCache::builder().store(store).connect().await;
    assert_eq!(connected.err().map(|error| error.kind()), Some(ErrorKind::Unavailable));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn values_come_from_the_loader_while_the_store_is_down() -> Result<()> {
    let (store, cache) = faulty(Fault::Down);
    let users = cache.namespace::<String>("user");
    let source = Source::open();
    for _ in 0..10 {
        assert_eq!(*users.get_or_load("7", source.answers("Ada")).await?, "Ada");
    }
    assert_eq!(source.asked(), 1, "what was loaded is kept for a moment");
    tokio::time::sleep(secs(1)).await;
    assert_eq!(*users.get_or_load("7", source.answers("Ada")).await?, "Ada");
    assert_eq!(source.asked(), 2, "and only for a moment");
    let kind = users.set("8", &"Bob".to_owned()).await.err().map(|error| error.kind());
    assert_eq!(kind, Some(ErrorKind::Unavailable));
    assert_eq!(users.get("8").await.err().map(|error| error.kind()), Some(ErrorKind::Unavailable));
    let many = users.get_many(&["7", "8"]).await;
    assert!(matches!(&many[0], Ok(Some(_))), "what the process holds is answered");
    assert!(matches!(&many[1], Err(error) if error.kind() == ErrorKind::Unavailable));
    assert_eq!(cache.findings()[0].code, "cache.store.unreachable");

    store.set(Fault::None);
    tokio::time::sleep(secs(1)).await;
    assert_eq!(*users.get_or_load("7", source.answers("Cy")).await?, "Cy");
    assert_eq!(cache.findings()[0].code, "cache.ok");
    tokio::time::sleep(secs(5)).await;
    assert_eq!(*users.get_or_load("7", source.answers("never asked")).await?, "Cy");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_costs_its_deadline() -> Result<()> {
    let (store, cache) = faulty(Fault::None);
    let users = cache.namespace::<String>("user");
    users.set("7", &"Ada".to_owned()).await?;
    assert!(users.contains("7").await?);
    store.set(Fault::Hung);
    assert!(users.contains("7").await?, "the process holds it");
    let begun = Instant::now();
    let error = users.get("8").await.err();
    assert_eq!(error.map(|error| error.kind()), Some(ErrorKind::TimedOut));
    assert_eq!(begun.elapsed(), secs(1));
    let Err(error) = users.delete("7").await else { panic!("the store hangs") };
    assert!(error.kind() == ErrorKind::TimedOut && error.may_have_applied());
    store.set(Fault::None);
    // Nobody knows whether it was deleted; it counts as deleted, and will be.
    assert!(!users.contains("7").await?);
    tokio::time::sleep(secs(1)).await;
    assert_eq!((cache.usage().journalled, users.contains("7").await?), (0, false));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_fill_that_fails_still_answers() -> Result<()> {
    let (store, cache) = faulty(Fault::None);
    let users = cache.namespace::<String>("user");
    let fails_late = {
        let store = Arc::clone(&store);
        async move || {
            store.set(Fault::Down);
            Ok::<_, std::io::Error>("Ada".to_owned())
        }
    };
    assert_eq!(*users.get_or_load("7", fails_late).await?, "Ada");
    assert!(users.contains("7").await?, "kept in the process");
    store.set(Fault::None);
    tokio::time::sleep(ms(1_000)).await;
    assert!(!users.contains("7").await?, "for a moment");
    Ok(())
}

#[tokio::test]
async fn a_failed_clear_trusts_nothing_held_here() -> Result<()> {
    let (store, cache) = faulty(Fault::None);
    let users = cache.namespace::<String>("user");
    users.set("7", &"Ada".to_owned()).await?;
    assert!(users.contains("7").await?);
    assert_eq!(cache.usage().entries, 1);
    store.set_once(Fault::Down);
    assert!(users.clear().await.is_err());
    assert_eq!(cache.usage().entries, 0);
    assert!(!users.contains("7").await?, "what should have been cleared is not read");
    while cache.usage().journalled > 0 {
        tokio::task::yield_now().await;
    }
    assert!(!users.contains("7").await?, "it was made up for");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_value_too_large_to_store_is_not_held_while_the_store_is_down() -> Result<()> {
    let (store, cache) = faulty(Fault::Down);
    let users = cache.namespace_builder::<String>("user");
    let users = users.configure(|config| config.max_value_bytes = 1_000).open()?;
    let large = "x".repeat(1_001);
    assert_eq!(users.get_or_load("7", Source::open().answers(&large)).await?.len(), 1_001);
    assert_eq!(cache.usage().entries, 0, "held as if it weighed nothing");
    store.set(Fault::None);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_lease_whose_grant_was_not_heard_of_does_not_block_the_key() -> Result<()> {
    let (store, cache) = faulty(Fault::None);
    let other = cache_on(Arc::clone(&store) as _, exact()).namespace::<String>("user");
    let users = cache.namespace::<String>("user");
    users.get("7").await?; // the epochs are known from here on
    store.set(Fault::LosesGrants);
    assert_eq!(*users.get_or_load("7", Source::open().answers("Ada")).await?, "Ada");
    store.set(Fault::None);
    tokio::time::sleep(ms(10)).await;
    let begun = Instant::now();
    assert_eq!(*other.get_or_load("7", Source::open().answers("Bob")).await?, "Bob");
    assert!(begun.elapsed() < secs(1), "it waited {:?}", begun.elapsed());
    Ok(())
}
