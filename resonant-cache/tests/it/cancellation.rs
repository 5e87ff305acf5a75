//! Futures dropped, or overtaken, at every await.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use resonant_cache::backend::{MemoryStore, Store};
use resonant_cache::testing::{Fault, Faulty};
use resonant_cache::{DistributedCache, Result};

use crate::support::{Source, cache_on, exact, settle};

/// Polls `future` up to `polls` times, letting others run in between, then drops it. Answers whether it was done.
async fn dropped_after<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..polls {
        let polled = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
        if let Poll::Ready(output) = polled {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}

/// A cache whose store gives way before and after each call.
fn lingering() -> (Arc<dyn Store>, DistributedCache) {
    let store: Arc<dyn Store> =
        Arc::new(Faulty::new(Arc::new(MemoryStore::new(64 << 20)), Fault::Lingers));
    (Arc::clone(&store), cache_on(store, exact()))
}

#[tokio::test(start_paused = true)]
async fn a_dropped_set_was_done_or_not_and_this_process_agrees_with_the_store() -> Result<()> {
    let mut outcomes = Vec::new();
    for polls in 0.. {
        let (store, cache) = lingering();
        let users = cache.namespace::<String>("user");
        users.set("7", &"old".to_owned()).await?;
        assert!(users.contains("7").await?, "and now the process holds it");
        let done = dropped_after(polls, users.set("7", &"new".to_owned())).await;
        let here = users.get("7").await?.as_deref().cloned();
        let elsewhere = cache_on(store, exact()).namespace::<String>("user").get("7").await?;
        assert_eq!(here, elsewhere.as_deref().cloned(), "dropped after {polls} polls");
        outcomes.push(here.unwrap_or_default());
        if let Some(done) = done {
            done?;
            break;
        }
    }
    assert_eq!(outcomes.first().map(String::as_str), Some("old"));
    assert_eq!(outcomes.last().map(String::as_str), Some("new"));
    assert!(outcomes.len() >= 3, "it was dropped before, between and after: {outcomes:?}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_dropped_invalidation_was_done_or_not_and_this_process_agrees() -> Result<()> {
    for what in ["delete", "tag", "clear"] {
        for polls in 0.. {
            let (store, cache) = lingering();
            let users = cache.namespace::<String>("user");
            let tagged = resonant_cache::SetOptions::new().tag("t");
            users.set_with("7", &"old".to_owned(), tagged).await?;
            assert!(users.contains("7").await?);
            let change = async {
                match what {
                    "delete" => users.delete("7").await.map(|_| ()),
                    "tag" => users.invalidate_tag("t").await,
                    _ => users.clear().await,
                }
            };
            let done = dropped_after(polls, change).await;
            let elsewhere = cache_on(store, exact()).namespace::<String>("user");
            assert_eq!(
                users.contains("7").await?,
                elsewhere.contains("7").await?,
                "{what} dropped after {polls} polls"
            );
            if let Some(done) = done {
                done?;
                assert!(!users.contains("7").await?, "{what}");
                break;
            }
        }
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_dropped_load_goes_on_and_is_stored_once() -> Result<()> {
    for polls in 0.. {
        let (_, cache) = lingering();
        let users = cache.namespace::<String>("user");
        let source = Source::open();
        let done = dropped_after(polls, users.get_or_load("7", source.answers("Ada"))).await;
        settle().await;
        if polls == 0 {
            assert_eq!(source.asked(), 0, "never polled, never begun");
        } else {
            assert_eq!(source.asked(), 1, "dropped after {polls} polls");
            let held = users.get("7").await?;
            assert_eq!(held.as_deref().map(String::as_str), Some("Ada"));
        }
        let again = users.get_or_load("7", source.answers("Ada")).await?;
        assert_eq!((again.as_str(), source.asked()), ("Ada", 1));
        if let Some(done) = done {
            done?;
            assert!(polls > 2, "it had several awaits to be dropped at");
            break;
        }
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_dropped_failing_or_stuck_load_leaves_the_key_free() -> Result<()> {
    for polls in 1..12 {
        let (_, cache) = lingering();
        let users = cache.namespace::<String>("user");
        let failing = Source::open();
        drop(dropped_after(polls, users.get_or_load("7", failing.fails())).await);
        settle().await;
        assert_eq!(*users.get_or_load("7", Source::open().answers("Ada")).await?, "Ada");

        let stuck = Source::held();
        drop(dropped_after(polls, users.get_or_load("8", stuck.answers("Bob"))).await);
        settle().await;
        assert_eq!(stuck.asked(), 1);
        stuck.let_through(1);
        assert_eq!(*users.get_or_load("8", Source::open().answers("no")).await?, "Bob");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_dropped_batch_goes_on() -> Result<()> {
    for polls in 1.. {
        let (_, cache) = lingering();
        let users = cache.namespace::<String>("user");
        let source = Source::open();
        let load = {
            let source = source.clone();
            async move |keys: Vec<String>| {
                source.pass().await;
                Ok::<_, std::io::Error>(keys.into_iter().map(|key| (key.clone(), key)))
            }
        };
        let done = dropped_after(polls, users.get_many_or_load(&["1", "2"], load)).await;
        settle().await;
        assert_eq!(source.asked(), 1);
        assert!(users.contains("1").await? && users.contains("2").await?);
        if done.is_some() {
            break;
        }
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_read_that_a_change_overtakes_keeps_nothing() -> Result<()> {
    for who in ["this cache", "another"] {
        for polls in 0..8 {
            let (store, cache) = lingering();
            let users = cache.namespace::<String>("user");
            let other = cache_on(store, exact()).namespace::<String>("user");
            other.set("7", &"old".to_owned()).await?;
            let mut read = pin!(users.get("7"));
            let mut ended = false;
            for _ in 0..polls {
                let polled = poll_fn(|context| Poll::Ready(read.as_mut().poll(context))).await;
                ended = polled.is_ready();
                if ended {
                    break;
                }
                tokio::task::yield_now().await;
            }
            let changes = if who == "another" { &other } else { &users };
            changes.delete("7").await?;
            if !ended {
                // It may answer the old value, but not keep it.
                read.await?;
            }
            assert!(!users.contains("7").await?, "{who} overtook it after {polls} polls");
        }
    }
    Ok(())
}
