//! Nothing grows without a limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use resonant_cache::backend::MemoryStore;
use resonant_cache::{DistributedCache, NamespaceConfig, Result};

use crate::support::{cache_on, exact};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn accounted_bytes_never_exceed_the_limit_while_it_is_overfilled() -> Result<()> {
    const LIMIT: u64 = 4 << 20;
    let store = Arc::new(MemoryStore::new(LIMIT));
    let cache = DistributedCache::builder()
        .defaults(exact())
        .max_bytes(LIMIT)
        .store(Arc::clone(&store) as _)
        .build()?;
    let done = Arc::new(AtomicBool::new(false));
    let watcher = std::thread::spawn({
        let (cache, store, done) = (cache.clone(), Arc::clone(&store), Arc::clone(&done));
        move || {
            let mut most = (0, 0);
            while !done.load(Ordering::SeqCst) {
                most = (most.0.max(cache.usage().bytes), most.1.max(store.bytes()));
            }
            most
        }
    });
    let blobs = cache.namespace::<String>("blob");
    let writers: Vec<_> = (0..4u32)
        .map(|writer| {
            let blobs = blobs.clone();
            tokio::spawn(async move {
                // About ten times the limit, in values of 0.1 to 64 KiB.
                for n in 0..500u32 {
                    let size = 100
                        + (n.wrapping_mul(2_654_435_761).wrapping_add(writer) >> 16) as usize
                            % 43_000;
                    let key = format!("{writer}-{n}");
                    blobs.set(&key, &"x".repeat(size)).await?;
                    blobs.get(&key).await?;
                }
                Ok::<_, resonant_cache::Error>(())
            })
        })
        .collect();
    for writer in writers {
        assert!(writer.await.is_ok_and(|outcome| outcome.is_ok()));
    }
    done.store(true, Ordering::SeqCst);
    let Ok((local, shared)) = watcher.join() else { panic!("the watcher failed") };
    assert!(local > LIMIT / 2 && local <= LIMIT, "{local} bytes in the process");
    assert!(shared > LIMIT / 2 && shared <= LIMIT, "{shared} bytes in the store");
    Ok(())
}

#[tokio::test]
async fn a_value_too_large_for_the_process_still_comes_from_the_store() -> Result<()> {
    let cache = DistributedCache::builder()
        .defaults(exact())
        .max_bytes(64 << 10)
        .store(Arc::new(MemoryStore::new(16 << 20)))
        .build()?;
    let blobs = cache.namespace::<String>("blob");
    blobs.set("large", &"x".repeat(100 << 10)).await?;
    for _ in 0..2 {
        assert_eq!(blobs.get("large").await?.map(|value| value.len()), Some(100 << 10));
    }
    assert_eq!(cache.usage().entries, 0);
    Ok(())
}

#[tokio::test]
async fn memory_splits_its_limit_between_the_tiers() -> Result<()> {
    let cache = DistributedCache::memory(1 << 20);
    let blobs = cache.namespace::<String>("blob");
    for n in 0..300 {
        blobs.set(&n.to_string(), &"x".repeat(10_000)).await?;
        blobs.get(&n.to_string()).await?;
    }
    let usage = cache.usage();
    assert!(usage.bytes <= 512 << 10 && usage.max_bytes == 512 << 10, "{usage:?}");
    assert!(usage.entries > 20);
    Ok(())
}

#[tokio::test]
async fn keys_no_longer_asked_for_leave_nothing_behind() -> Result<()> {
    let cache = cache_on(Arc::new(MemoryStore::new(1 << 20)), exact());
    let users = cache.namespace::<String>("user");
    for n in 0..10_000 {
        users.get(&n.to_string()).await?;
        let load = async || Err::<String, _>(std::io::Error::other("no"));
        assert!(users.get_or_load(&n.to_string(), load).await.is_err());
    }
    assert_eq!(cache.usage().entries, 0);
    assert!(format!("{cache:?}").contains("under_way: 0"), "{cache:?}");
    Ok(())
}

/// An empty cache that ten thousand keys are asked of at once does not take the source down.
#[tokio::test(start_paused = true)]
async fn ten_thousand_cold_keys_run_no_more_loaders_than_allowed() {
    const LIMIT: usize = 50;
    let config = NamespaceConfig {
        max_concurrent_loads: LIMIT,
        max_waiting_loads: 10_000,
        load_queue_timeout: Duration::from_secs(60),
        ..exact()
    };
    let users = cache_on(Arc::new(MemoryStore::new(64 << 20)), config).namespace::<u64>("user");
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = (0..10_000u64)
        .map(|n| {
            let (users, running, most) = (users.clone(), Arc::clone(&running), Arc::clone(&most));
            tokio::spawn(async move {
                let load = async move || {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    running.fetch_sub(1, Ordering::SeqCst);
                    Ok::<_, std::io::Error>(n)
                };
                users.get_or_load(&n.to_string(), load).await
            })
        })
        .collect();
    for caller in callers {
        assert!(caller.await.is_ok_and(|loaded| loaded.is_ok()));
    }
    assert_eq!(most.load(Ordering::SeqCst), LIMIT, "as many as allowed, and no more");
}

/// What the allocator really gave out for a full cache, as a multiple of its limit.
fn real_share(limit: u64, size: usize, keys: u32) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let Ok(runtime) = runtime else { panic!("a runtime") };
    let mut held = None;
    let bytes = allocation_counter::measure(|| {
        held = Some(runtime.block_on(async {
            let cache = DistributedCache::memory(limit);
            let blobs = cache.namespace::<String>("blob");
            for n in 0..keys {
                let key = format!("{n:08}");
                let load = async move || Ok::<_, std::io::Error>("x".repeat(size));
                assert!(blobs.get_or_load(&key, load).await.is_ok());
            }
            cache
        }));
    });
    // Precise enough for a ratio.
    #[allow(clippy::cast_precision_loss)]
    let share = bytes.bytes_current as f64 / limit as f64;
    println!("values of {size}: {share:.2} of the limit, {:?}", held.map(|cache| cache.usage()));
    share
}

#[test]
fn real_memory_stays_near_the_accounted() {
    const LIMIT: u64 = 8 << 20;
    for (size, keys) in [(1, 60_000), (100, 40_000), (2_000, 5_000), (40_000, 300), (140_000, 100)]
    {
        let share = real_share(LIMIT, size, keys);
        assert!(share <= 1.25, "values of {size} bytes take {share:.2} of the limit");
    }
}
