//! Nothing old gets in: changes while a load runs, tags, clears, positions.

use std::sync::Arc;

use resonant_cache::{Loaded, Namespace, NamespaceConfig, Result, SetOptions, Written};
use resonant_common::join::Position;

use crate::support::{Source, cache_with, exact, namespace, secs, settle};

const AT: Position = Position { system: 1, timeline: 1, offset: 100 };

async fn text(users: &Namespace<String>, key: &str) -> Result<Option<String>> {
    Ok(users.get(key).await?.as_deref().cloned())
}

/// Starts a load, makes a change while it runs, lets it end; answers what the caller got.
async fn load_across<F>(users: &Namespace<String>, change: F) -> String
where
    F: AsyncFnOnce(&Namespace<String>) -> Result<()>,
{
    let source = Source::held();
    let caller = tokio::spawn({
        let (users, source) = (users.clone(), source.clone());
        async move {
            let load = async move || {
                source.pass().await;
                Ok::<_, std::io::Error>(Loaded::new("old".to_owned()).tag("team"))
            };
            users.get_or_load_with("7", load).await
        }
    });
    settle().await;
    assert_eq!(source.asked(), 1, "the load runs");
    if let Err(error) = change(users).await {
        panic!("{error}");
    }
    source.let_through(1);
    match caller.await {
        Ok(Ok(served)) => served.value.as_deref().cloned().unwrap_or_default(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_during_a_load_keeps_its_value_out() -> Result<()> {
    let users = namespace(exact());
    // Who asked before the change gets what was loaded; nobody else does.
    assert_eq!(load_across(&users, async |users| users.delete("7").await.map(|_| ())).await, "old");
    assert_eq!(text(&users, "7").await?, None, "after a delete");

    let set = async |users: &Namespace<String>| users.set("7", &"new".to_owned()).await;
    load_across(&users, set).await;
    assert_eq!(text(&users, "7").await?.as_deref(), Some("new"), "after a set");
    users.delete("7").await?;

    load_across(&users, async |users| users.clear().await).await;
    assert_eq!(text(&users, "7").await?, None, "after a clear");

    load_across(&users, async |users| users.invalidate_tag("team").await).await;
    assert_eq!(text(&users, "7").await?, None, "after its tag's invalidation");

    let at = async |users: &Namespace<String>| users.invalidate_at("7", AT).await.map(|_| ());
    load_across(&users, at).await;
    assert_eq!(text(&users, "7").await?, None, "after an invalidation at a position");

    load_across(&users, async |users| users.invalidate_tag("other").await).await;
    assert_eq!(text(&users, "7").await?.as_deref(), Some("old"), "another tag concerns it not");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn who_asks_after_a_change_never_gets_the_load_from_before() -> Result<()> {
    type Change = fn(Namespace<String>) -> futures::future::BoxFuture<'static, Result<()>>;
    let changes: [(&str, Change); 3] = [
        ("delete", |users| Box::pin(async move { users.delete("7").await.map(|_| ()) })),
        ("clear", |users| Box::pin(async move { users.clear().await })),
        ("tag", |users| Box::pin(async move { users.invalidate_tag("team").await })),
    ];
    for (name, change) in changes {
        let users = namespace(exact());
        let (before, after) = (Source::held(), Source::open());
        let tagged = |source: &Source, value: &'static str| {
            let source = source.clone();
            async move || {
                source.pass().await;
                Ok::<_, std::io::Error>(Loaded::new(value.to_owned()).tag("team"))
            }
        };
        let early = tokio::spawn({
            let (users, load) = (users.clone(), tagged(&before, "old"));
            async move { users.get_or_load_with("7", load).await }
        });
        settle().await;
        change(users.clone()).await?;
        let late = tokio::spawn({
            let (users, load) = (users.clone(), tagged(&after, "new"));
            async move { users.get_or_load_with("7", load).await }
        });
        settle().await;
        before.let_through(1);
        for (caller, expected) in [(early, "old"), (late, "new")] {
            match caller.await {
                Ok(Ok(served)) => {
                    assert_eq!(
                        served.value.as_deref().map(String::as_str),
                        Some(expected),
                        "{name}"
                    );
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(text(&users, "7").await?.as_deref(), Some("new"), "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn a_tag_invalidates_what_carries_it() -> Result<()> {
    let users = namespace(exact());
    for (key, tag) in [("1", "red"), ("2", "red"), ("3", "blue")] {
        users.set_with(key, &key.to_owned(), SetOptions::new().tag(tag).tag("all")).await?;
        assert!(users.contains(key).await?, "and now the process holds it");
    }
    users.set("4", &"4".to_owned()).await?;
    users.invalidate_tag("red").await?;
    let held = users.get_many(&["1", "2", "3", "4"]).await;
    let held: Vec<_> = held.into_iter().flatten().map(|value| value.is_some()).collect();
    assert_eq!(held, [false, false, true, true]);
    users.set_with("1", &"again".to_owned(), SetOptions::new().tag("red")).await?;
    assert!(users.contains("1").await?, "what is set afterwards stays");
    users.invalidate_tag("all").await?;
    assert!(!users.contains("3").await?);
    assert!(users.contains("1").await? && users.contains("4").await?);
    Ok(())
}

#[tokio::test]
async fn more_tags_than_are_remembered_revive_nothing() -> Result<()> {
    let users = namespace(NamespaceConfig { max_tags: 4, ..exact() });
    users.set_with("1", &"old".to_owned(), SetOptions::new().tag("first")).await?;
    users.set_with("2", &"kept".to_owned(), SetOptions::new().tag("second")).await?;
    users.invalidate_tag("first").await?;
    for n in 0..100 {
        users.invalidate_tag(&n.to_string()).await?;
    }
    assert_eq!(text(&users, "1").await?, None);
    assert_eq!(text(&users, "2").await?.as_deref(), Some("kept"), "the store remembers more");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_old_replica_read_never_overwrites_a_newer_invalidation() -> Result<()> {
    let users = namespace(exact());
    let begun = tokio::time::Instant::now();
    let load = |value: &'static str, offset| {
        async move || {
            let at = Position { offset, ..AT };
            Ok::<_, std::io::Error>(Loaded::new(value.to_owned()).at(at))
        }
    };
    users.invalidate_at("7", AT).await?;
    // A replica that lags: the caller gets the value, the cache does not.
    let served = users.get_or_load_with("7", load("old", 99)).await?;
    assert_eq!(served.value.as_deref().map(String::as_str), Some("old"));
    assert_eq!(text(&users, "7").await?, None);
    users.get_or_load_with("7", load("new", 100)).await?;
    assert_eq!(text(&users, "7").await?.as_deref(), Some("new"));
    let older = SetOptions::new().at(Position { offset: 99, ..AT });
    assert_eq!(users.set_with("7", &"old".to_owned(), older).await?, Written::Outdated);
    assert_eq!(text(&users, "7").await?.as_deref(), Some("new"));
    assert_eq!(begun.elapsed().as_millis(), 0, "nobody waited for a lease");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_position_is_forgotten_after_its_time() -> Result<()> {
    let users = namespace(NamespaceConfig { position_ttl: secs(30), ..exact() });
    users.invalidate_at("7", AT).await?;
    let older = || SetOptions::new().at(Position { offset: 1, ..AT });
    assert_eq!(users.set_with("7", &"x".to_owned(), older()).await?, Written::Outdated);
    tokio::time::sleep(secs(30)).await;
    assert_eq!(users.set_with("7", &"x".to_owned(), older()).await?, Written::Stored);
    Ok(())
}

/// Random interleavings of loads, deletes, tags and clears of one key. Whoever asks after a change has ended gets
/// nothing from before it; and once everything is quiet, the cache holds nothing older than the last change.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_interleaving_leaves_or_serves_an_old_value() -> Result<()> {
    use std::sync::atomic::{AtomicU64, Ordering};
    let cache = cache_with(exact());
    let users = cache.namespace::<u64>("user");
    // What the source holds, and the newest of it whose invalidation has ended.
    let (truth, settled) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    for round in 0..600 {
        let tasks: Vec<_> = (0..8)
            .map(|n| {
                let (users, truth) = (users.clone(), Arc::clone(&truth));
                let settled = Arc::clone(&settled);
                tokio::spawn(async move {
                    for step in 0..4 {
                        if n < 6 {
                            let least = settled.load(Ordering::SeqCst);
                            let truth = Arc::clone(&truth);
                            let load = async move || {
                                let value = truth.load(Ordering::SeqCst);
                                tokio::task::yield_now().await;
                                Ok::<_, std::io::Error>(Loaded::new(value).tag("t"))
                            };
                            let served = users.get_or_load_with("k", load).await?.value;
                            let served = served.as_deref().copied();
                            assert!(served >= Some(least), "{served:?} is older than {least}");
                        } else {
                            let value = truth.fetch_add(1, Ordering::SeqCst) + 1;
                            match (round + step) % 3 {
                                0 => drop(users.delete("k").await?),
                                1 => users.clear().await?,
                                _ => users.invalidate_tag("t").await?,
                            }
                            settled.fetch_max(value, Ordering::SeqCst);
                        }
                    }
                    Ok::<_, resonant_cache::Error>(())
                })
            })
            .collect();
        for task in tasks {
            assert!(task.await.is_ok_and(|outcome| outcome.is_ok()));
        }
        let expected = truth.load(Ordering::SeqCst);
        let held = users.get("k").await?.as_deref().copied();
        let good = held.is_none_or(|held| held == expected);
        assert!(good, "round {round}: {held:?}, not {expected}");
    }
    Ok(())
}
