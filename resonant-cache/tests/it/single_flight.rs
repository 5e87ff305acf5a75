//! One load per missing key.

use std::sync::Arc;
use std::time::Duration;

use resonant_cache::{DistributedCache, ErrorKind, Loaded, NamespaceConfig, Result, Tier};
use tokio::sync::Barrier;

use crate::support::{Source, cache_with, exact, ms, namespace, secs, settle};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_callers_make_one_load() {
    let users = namespace(exact());
    let source = Source::held();
    let barrier = Arc::new(Barrier::new(1_001));
    let callers: Vec<_> = (0..1_000)
        .map(|_| {
            let (users, source, barrier) = (users.clone(), source.clone(), Arc::clone(&barrier));
            tokio::spawn(async move {
                barrier.wait().await;
                users.get_or_load("7", source.answers("Ada")).await
            })
        })
        .collect();
    barrier.wait().await;
    source.let_through(1);
    let mut values = Vec::new();
    for caller in callers {
        match caller.await {
            Ok(Ok(value)) => values.push(value),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((values.len(), source.asked()), (1_000, 1));
    assert!(values.iter().all(|value| Arc::ptr_eq(value, &values[0])), "all share one value");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_caller_does_not_stop_the_load() -> Result<()> {
    let users = namespace(exact());
    let source = Source::held();
    let first = tokio::spawn({
        let (users, load) = (users.clone(), source.answers("Ada"));
        async move { users.get_or_load("7", load).await }
    });
    settle().await;
    let second = tokio::spawn({
        let (users, load) = (users.clone(), source.answers("never asked"));
        async move { users.get_or_load("7", load).await }
    });
    settle().await;
    first.abort();
    settle().await;
    source.let_through(1);
    match second.await {
        Ok(value) => assert_eq!(*value?, "Ada"),
        Err(error) => panic!("{error}"),
    }
    assert_eq!(source.asked(), 1);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_error_reaches_every_waiter_and_leaves_nothing_behind() -> Result<()> {
    let users = namespace(exact());
    let source = Source::held();
    let callers: Vec<_> = (0..10)
        .map(|_| {
            let (users, load) = (users.clone(), source.fails());
            tokio::spawn(async move { users.get_or_load("7", load).await })
        })
        .collect();
    settle().await;
    source.let_through(1);
    for caller in callers {
        let Ok(Err(error)) = caller.await else { panic!("the loader failed") };
        assert_eq!(error.kind(), ErrorKind::Load);
        let source = std::error::Error::source(&error).map(ToString::to_string);
        assert_eq!(source.as_deref(), Some("the source is down"));
    }
    assert_eq!(source.asked(), 1);
    source.let_through(1);
    assert_eq!(*users.get_or_load("7", source.answers("Ada")).await?, "Ada");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_panic_reaches_every_waiter_and_leaves_nothing_behind() -> Result<()> {
    async fn before() -> std::result::Result<String, std::io::Error> {
        panic!("in the future")
    }
    let users = namespace(exact());
    let gate = Source::held();
    let callers: Vec<_> = (0..10)
        .map(|_| {
            let (users, gate) = (users.clone(), gate.clone());
            tokio::spawn(async move {
                let load = async move || {
                    gate.pass().await;
                    before().await
                };
                users.get_or_load("7", load).await
            })
        })
        .collect();
    settle().await;
    gate.let_through(1);
    for caller in callers {
        let Ok(Err(error)) = caller.await else { panic!("the loader panicked") };
        assert_eq!(error.kind(), ErrorKind::Load);
        let source = std::error::Error::source(&error).map(ToString::to_string);
        assert_eq!(source.as_deref(), Some("panic: in the future"));
    }
    assert_eq!(gate.asked(), 1);

    // The closure itself may panic too, before there is a future.
    type Never = std::future::Ready<std::result::Result<String, std::io::Error>>;
    let load = || -> Never { panic!("in the closure") };
    let kind = users.get_or_load("7", load).await.err().map(|error| error.kind());
    assert_eq!(kind, Some(ErrorKind::Load));
    assert_eq!(*users.get_or_load("7", Source::open().answers("Ada")).await?, "Ada");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_load_that_hangs_is_cut_off() -> Result<()> {
    let users = namespace(NamespaceConfig { hard_load_timeout: secs(2), ..exact() });
    let started = tokio::time::Instant::now();
    let error = users.get_or_load("7", Source::held().answers("never")).await.err();
    assert_eq!(error.map(|error| error.kind()), Some(ErrorKind::TimedOut));
    assert_eq!(started.elapsed(), secs(2));
    assert_eq!(*users.get_or_load("7", Source::open().answers("Ada")).await?, "Ada");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn loads_take_turns() {
    let config = NamespaceConfig {
        max_concurrent_loads: 5,
        max_waiting_loads: 20,
        load_queue_timeout: secs(3),
        ..exact()
    };
    let cache = cache_with(config);
    let users = cache.namespace::<String>("user");
    let source = Source::held();
    let callers: Vec<_> = (0..30)
        .map(|n| {
            let (users, load) = (users.clone(), source.answers("x"));
            tokio::spawn(async move { users.get_or_load(&n.to_string(), load).await })
        })
        .collect();
    settle().await;
    assert_eq!(source.asked(), 5, "loads that run");
    assert!(cache.findings().iter().any(|finding| finding.code == "cache.loads.saturated"));
    source.let_through(7);
    settle().await;
    assert_eq!(source.asked(), 12);
    tokio::time::sleep(secs(3)).await;
    source.let_through(30);
    let mut kinds = Vec::new();
    for caller in callers {
        match caller.await {
            Ok(outcome) => kinds.push(outcome.err().map(|error| error.kind())),
            Err(error) => panic!("{error}"),
        }
    }
    let count = |kind| kinds.iter().filter(|found| **found == kind).count();
    // Five found the queue full, thirteen waited too long, twelve had their turn.
    assert_eq!((count(None), count(Some(ErrorKind::Overloaded))), (12, 18));
    assert!(cache.findings().iter().all(|finding| finding.code == "cache.ok"));
}

#[tokio::test(start_paused = true)]
async fn waiters_are_bounded() {
    let users = namespace(NamespaceConfig { max_waiters_per_load: 10, ..exact() });
    let source = Source::held();
    let callers: Vec<_> = (0..30)
        .map(|_| {
            let (users, load) = (users.clone(), source.answers("x"));
            tokio::spawn(async move { users.get_or_load("7", load).await })
        })
        .collect();
    settle().await;
    source.let_through(1);
    let mut refused = 0;
    for caller in callers {
        if let Ok(Err(error)) = caller.await {
            assert_eq!(error.kind(), ErrorKind::Overloaded);
            refused += 1;
        }
    }
    assert!((18..=21).contains(&refused), "{refused} of 30 were refused, about ten may wait");
    assert_eq!(source.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_has_no_value_is_remembered_for_its_own_time() -> Result<()> {
    let users = namespace(NamespaceConfig { negative_ttl: secs(5), ..exact() });
    let source = Source::open();
    let missing = || {
        let source = source.clone();
        async move || {
            source.pass().await;
            Ok::<_, std::io::Error>(Loaded::<String>::missing())
        }
    };
    for tier in [Tier::Loaded, Tier::Local] {
        let served = users.get_or_load_with("7", missing()).await?;
        assert_eq!((served.value, served.tier), (None, tier));
    }
    let error = users.get_or_load("7", source.answers("Ada")).await.err();
    assert_eq!(error.map(|error| error.kind()), Some(ErrorKind::NotFound));
    assert_eq!(users.get("7").await?, None);
    assert!(users.get_entry("7").await?.is_some_and(|entry| entry.value.is_none()));
    assert_eq!(source.asked(), 1);
    tokio::time::sleep(secs(5)).await;
    assert!(users.get_entry("7").await?.is_none());
    assert_eq!(*users.get_or_load("7", source.answers("Ada")).await?, "Ada");

    // Without a time for it, nothing is remembered, and an older value is dropped.
    let users = namespace(NamespaceConfig {
        negative_ttl: Duration::ZERO,
        ttl: Some(secs(1)),
        stale_if_error: secs(60),
        ..exact()
    });
    users.set("7", &"Ada".to_owned()).await?;
    tokio::time::sleep(secs(2)).await;
    for _ in 0..2 {
        assert!(users.get_or_load_with("7", missing()).await?.value.is_none());
    }
    assert_eq!(source.asked(), 4);
    let error = users.get_or_load("7", source.fails()).await.err();
    assert_eq!(error.map(|error| error.kind()), Some(ErrorKind::Load), "not the old value");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn closing_stops_loads_and_tells_those_who_wait() -> Result<()> {
    let cache = cache_with(exact());
    let users = cache.namespace::<String>("user");
    let waiter = tokio::spawn({
        let users = users.clone();
        async move { users.get_or_load("7", Source::held().answers("never")).await }
    });
    settle().await;
    cache.close().await;
    cache.close().await;
    let Ok(Err(error)) = waiter.await else { panic!("the load cannot end") };
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert_eq!(users.get("8").await.err().map(|error| error.kind()), Some(ErrorKind::Closed));
    assert_eq!(cache.ping().await.err().map(|error| error.kind()), Some(ErrorKind::Closed));
    assert_eq!(cache.findings()[0].code, "cache.closed");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_stops_loads() {
    struct Alarm(Arc<tokio::sync::Notify>);
    impl Drop for Alarm {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let dropped = Arc::new(tokio::sync::Notify::new());
    let users = DistributedCache::memory(1 << 20).namespace::<String>("user");
    let alarm = Alarm(Arc::clone(&dropped));
    let caller = tokio::spawn(async move {
        let load = async move || {
            let _alarm = alarm;
            std::future::pending::<std::result::Result<String, std::io::Error>>().await
        };
        users.get_or_load("7", load).await
    });
    settle().await;
    caller.abort();
    assert!(tokio::time::timeout(ms(100), dropped.notified()).await.is_ok(), "the load goes on");
}
