//! Stale values: while a load runs behind them, and when it fails.

use resonant_cache::{ErrorKind, Loaded, Namespace, NamespaceConfig, Result};
use tokio::time::Instant;

use crate::support::{Source, cache_on, cache_with, exact, ms, namespace, secs, settle};

fn config() -> NamespaceConfig {
    NamespaceConfig { ttl: Some(secs(10)), ..exact() }
}

/// A namespace whose value "old" has just ended its life.
async fn ended(config: NamespaceConfig) -> Result<Namespace<String>> {
    let users = namespace(config);
    users.set("7", &"old".to_owned()).await?;
    assert!(users.contains("7").await?, "and now the process holds it");
    tokio::time::sleep(secs(10)).await;
    assert!(!users.contains("7").await?, "its life is over");
    Ok(users)
}

async fn served(users: &Namespace<String>, source: &Source) -> Result<(String, bool)> {
    let load = source.answers("new");
    let load = async move || load().await.map(Into::into);
    let served = users.get_or_load_with("7", load).await?;
    Ok((served.value.as_deref().cloned().unwrap_or_default(), served.stale))
}

#[tokio::test(start_paused = true)]
async fn a_stale_value_is_served_while_it_is_loaded_anew() -> Result<()> {
    let users = ended(NamespaceConfig { stale_while_revalidate: secs(5), ..config() }).await?;
    let source = Source::held();
    let begun = Instant::now();
    for _ in 0..10 {
        assert_eq!(served(&users, &source).await?, ("old".into(), true));
    }
    assert_eq!(begun.elapsed(), ms(0), "nobody waited");
    settle().await;
    assert_eq!(source.asked(), 1, "loads behind it");
    source.let_through(1);
    settle().await;
    assert_eq!(served(&users, &source).await?, ("new".into(), false));
    assert_eq!(source.asked(), 1);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn past_the_window_nobody_gets_the_stale_value() -> Result<()> {
    let users = ended(NamespaceConfig { stale_while_revalidate: secs(5), ..config() }).await?;
    tokio::time::sleep(secs(5)).await;
    let error = users.get_or_load("7", Source::open().fails()).await.err();
    assert_eq!(error.map(|error| error.kind()), Some(ErrorKind::Load));
    assert_eq!(served(&users, &Source::open()).await?, ("new".into(), false));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_stale_value_is_served_when_loading_fails() -> Result<()> {
    let config =
        NamespaceConfig { stale_if_error: secs(60), load_retry_delay: secs(2), ..config() };
    let users = ended(config).await?;
    let source = Source::open();
    for _ in 0..5 {
        assert_eq!(*users.get_or_load("7", source.fails()).await?, "old");
    }
    assert_eq!(source.asked(), 1, "after a failure the source has a rest");
    assert_eq!(users.get("7").await?, None, "get never serves a stale value");
    assert!(users.get_entry("7").await?.is_some_and(|entry| entry.stale));
    tokio::time::sleep(secs(2)).await;
    assert_eq!(*users.get_or_load("7", source.fails()).await?, "old");
    assert_eq!(source.asked(), 2);
    tokio::time::sleep(secs(2)).await;
    assert_eq!(served(&users, &source).await?, ("new".into(), false), "it is back");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn past_the_soft_deadline_the_stale_value_is_served_and_the_load_goes_on() -> Result<()> {
    let users = ended(NamespaceConfig {
        stale_if_error: secs(60),
        soft_load_timeout: Some(ms(300)),
        hard_load_timeout: secs(5),
        ..config()
    })
    .await?;
    let source = Source::held();
    let begun = Instant::now();
    assert_eq!(served(&users, &source).await?, ("old".into(), true));
    assert_eq!(begun.elapsed(), ms(300));
    source.let_through(1);
    settle().await;
    assert_eq!(served(&users, &source).await?, ("new".into(), false));
    assert_eq!(source.asked(), 1, "the first load's value was stored");

    // A load that never ends: the stale value at the soft deadline, and the next load after the hard one.
    tokio::time::sleep(secs(10)).await;
    let stuck = Source::held();
    let begun = Instant::now();
    assert_eq!(served(&users, &stuck).await?, ("new".into(), true));
    assert_eq!(begun.elapsed(), ms(300));
    tokio::time::sleep(secs(7)).await;
    assert_eq!(served(&users, &Source::open()).await?, ("new".into(), false));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_stale_value_that_only_the_store_has_serves_too() -> Result<()> {
    let config =
        NamespaceConfig { stale_while_revalidate: secs(5), stale_if_error: secs(60), ..config() };
    let first = cache_with(config.clone());
    first.namespace::<String>("user").set("7", &"old".to_owned()).await?;
    tokio::time::sleep(secs(12)).await;

    let other = cache_on(first.store(), config.clone()).namespace::<String>("user");
    let source = Source::held();
    assert_eq!(served(&other, &source).await?, ("old".into(), true), "while it is loaded anew");
    source.let_through(1);

    tokio::time::sleep(secs(20)).await;
    let third = cache_on(first.store(), config).namespace::<String>("user");
    let stale = third.get_or_load("7", Source::open().fails()).await?;
    assert_eq!(*stale, "new", "when loading fails");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn lives_are_shortened_at_random_within_the_share() -> Result<()> {
    let users = namespace(NamespaceConfig { ttl_jitter: 0.5, ..config() });
    let values: Vec<_> = (0..200).map(|n| (n.to_string(), String::new())).collect();
    let set = users.set_many(values.iter().map(|(key, value)| (key, value)), Default::default());
    assert!(set.await.iter().all(Result::is_ok));
    let keys: Vec<_> = values.iter().map(|(key, _)| key).collect();
    let mut left = Vec::new();
    for _ in 0..11 {
        let held = users.get_many(&keys).await;
        left.push(held.into_iter().filter(|value| matches!(value, Ok(Some(_)))).count());
        tokio::time::sleep(secs(1)).await;
    }
    assert_eq!((left[4], left[10]), (200, 0), "{left:?}");
    assert!((60..=140).contains(&left[7]) || (60..=140).contains(&left[8]), "{left:?}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_long_retry_delay_does_not_stretch_the_window() -> Result<()> {
    let config =
        NamespaceConfig { stale_if_error: secs(10), load_retry_delay: secs(60), ..config() };
    let users = ended(config).await?;
    assert_eq!(*users.get_or_load("7", Source::open().fails()).await?, "old");
    tokio::time::sleep(ms(9_999)).await;
    assert_eq!(*users.get_or_load("7", Source::open().fails()).await?, "old", "within the window");
    tokio::time::sleep(ms(1)).await;
    assert!(users.get_entry("7").await?.is_none(), "the window is over");
    let error = users.get_or_load("7", Source::open().fails()).await.err();
    assert_eq!(error.map(|error| error.kind()), Some(ErrorKind::Load));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn times_may_be_for_ever() -> Result<()> {
    use std::time::Duration;
    let users = namespace(NamespaceConfig {
        ttl: Some(Duration::MAX),
        negative_ttl: Duration::MAX,
        stale_while_revalidate: Duration::MAX,
        stale_if_error: Duration::MAX,
        soft_load_timeout: Some(Duration::MAX),
        hard_load_timeout: Duration::MAX,
        load_retry_delay: Duration::MAX,
        load_queue_timeout: Duration::MAX,
        position_ttl: Duration::MAX,
        ..exact()
    });
    let at = resonant_common::join::Position { system: 1, timeline: 1, offset: 1 };
    users.invalidate_at("7", at).await?;
    assert_eq!(*users.get_or_load("7", Source::open().answers("Ada")).await?, "Ada");
    users.set("8", &"Bob".to_owned()).await?;
    assert_eq!(users.incr_for("8", 1, Duration::MAX).await?, 1);
    tokio::time::sleep(secs(365 * 24 * 3600)).await;
    for key in ["7", "8"] {
        assert!(users.contains(key).await?, "{key}");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_loader_says_how_long_what_it_found_is_good() -> Result<()> {
    let first = cache_with(config());
    let users = first.namespace::<String>("user");
    let other = cache_on(first.store(), config()).namespace::<String>("user");
    let said = |loaded: Loaded<String>| async move || Ok::<_, std::io::Error>(loaded);
    let value = || Loaded::new("Ada".to_owned());
    users.get_or_load_with("short", said(value().ttl(secs(3)))).await?;
    users.get_or_load_with("long", said(value().ttl(secs(60)))).await?;
    users.get_or_load_with("for ever", said(value().no_expiry())).await?;
    users.get_or_load_with("none", said(Loaded::missing().ttl(secs(20)))).await?;
    tokio::time::sleep(ms(2_999)).await;
    for users in [&users, &other] {
        assert!(users.contains("short").await?, "not over yet");
    }
    tokio::time::sleep(ms(1)).await;
    for users in [&users, &other] {
        assert!(!users.contains("short").await?, "over to the millisecond");
    }
    tokio::time::sleep(secs(16)).await;
    let source = Source::open();
    for users in [&users, &other] {
        assert!(users.contains("long").await?, "longer than the namespace's ten seconds");
        let none = users.get_or_load("none", source.answers("new")).await.err();
        assert_eq!(none.map(|error| error.kind()), Some(ErrorKind::NotFound));
    }
    tokio::time::sleep(secs(1)).await;
    assert_eq!(*users.get_or_load("none", source.answers("new")).await?, "new");
    assert_eq!(source.asked(), 1, "that there is none is known for as long as was said");
    tokio::time::sleep(secs(365 * 24 * 3600)).await;
    assert!(users.contains("for ever").await? && !users.contains("long").await?);
    Ok(())
}
