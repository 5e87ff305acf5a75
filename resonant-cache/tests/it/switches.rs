//! What can be turned off while a service runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use resonant_cache::{ErrorKind, Loaded, NamespaceConfig, Result, Switches, Tier};
use resonant_common::join::Finding;

use crate::support::{Source, cache_with, exact, ms, secs};

fn codes(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(|finding| finding.code.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn nothing_is_served_from_the_process_while_it_is_bypassed() -> Result<()> {
    let cache = cache_with(exact());
    let users = cache.namespace::<String>("user");
    users.set("7", &"Ada".to_owned()).await?;
    users.get("7").await?;
    assert_eq!(cache.usage().entries, 1);
    cache.switch(Switches::new().bypass_local(true));
    assert_eq!(cache.usage().entries, 0, "what was held is dropped");
    for _ in 0..2 {
        let load = async || Ok::<_, std::io::Error>(Loaded::new("other".to_owned()));
        let served = users.get_or_load_with("7", load).await?;
        assert_eq!(
            (served.tier, served.value.as_deref().map(String::as_str)),
            (Tier::Shared, Some("Ada"))
        );
    }
    users.get_or_load("8", Source::open().answers("Bob")).await?;
    assert_eq!(cache.usage().entries, 0, "nothing is kept");
    assert_eq!(codes(&cache.findings()), ["cache.local.bypassed"]);
    cache.switch(Switches::new());
    users.get("7").await?;
    assert_eq!(cache.usage().entries, 1);
    assert_eq!(codes(&cache.findings()), ["cache.ok"]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_bypassed_cache_loads_once_for_all_and_keeps_nothing_but_hears_of_changes() -> Result<()>
{
    let cache = cache_with(exact());
    let users = cache.namespace::<String>("user");
    users.set("7", &"old".to_owned()).await?;
    users.set("8", &"old".to_owned()).await?;
    cache.switch(Switches::new().bypass(true));
    assert_eq!(users.get("7").await?, None);
    assert!(users.get_many(&["7", "8"]).await.into_iter().flatten().flatten().next().is_none());
    let source = Source::held();
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let (users, load) = (users.clone(), source.answers("new"));
            tokio::spawn(async move { users.get_or_load("7", load).await })
        })
        .collect();
    tokio::time::sleep(ms(1)).await;
    source.let_through(1);
    for waiter in waiting {
        assert_eq!(
            waiter.await.ok().and_then(Result::ok).as_deref().map(String::as_str),
            Some("new")
        );
    }
    assert_eq!(source.asked(), 1);
    assert_eq!(cache.usage().entries, 0);
    users.set("7", &"newest".to_owned()).await?;
    users.delete("8").await?;
    cache.switch(Switches::new());
    assert_eq!(users.get("7").await?.as_deref().map(String::as_str), Some("newest"));
    assert_eq!(users.get("8").await?, None, "the removal was heard");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn loaders_are_capped_at_run_time() -> Result<()> {
    let config = NamespaceConfig { load_queue_timeout: secs(10), ..exact() };
    let cache = cache_with(config);
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    cache.switch(Switches::new().max_loads(3));
    let loads: Vec<_> = (0..30)
        .map(|n| {
            // Over all namespaces.
            let users = cache.namespace::<u64>(&format!("n{}", n % 5));
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            tokio::spawn(async move {
                let load = async move || {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::time::sleep(ms(100)).await;
                    running.fetch_sub(1, Ordering::SeqCst);
                    Ok::<_, std::io::Error>(n)
                };
                users.get_or_load(&n.to_string(), load).await
            })
        })
        .collect();
    for load in loads {
        assert!(load.await.is_ok_and(|loaded| loaded.is_ok()));
    }
    assert_eq!(most.load(Ordering::SeqCst), 3);

    // None at all: at once, and an error where nothing is kept.
    cache.switch(Switches::new().max_loads(0));
    let users = cache.namespace::<u64>("n0");
    let begun = tokio::time::Instant::now();
    let refused = users.get_or_load("absent", async || Ok::<_, std::io::Error>(1u64)).await;
    assert_eq!(refused.err().map(|error| error.kind()), Some(ErrorKind::Overloaded));
    assert!(begun.elapsed() < Duration::from_secs(1));
    // Who waits for a place gets one when the cap is lifted.
    cache.switch(Switches::new().max_loads(1));
    let held = Source::held();
    let first = {
        let (users, load) = (cache.namespace::<String>("s"), held.answers("first"));
        tokio::spawn(async move { users.get_or_load("1", load).await })
    };
    tokio::time::sleep(ms(1)).await;
    let second = {
        let users = cache.namespace::<String>("s");
        tokio::spawn(async move { users.get_or_load("2", Source::open().answers("second")).await })
    };
    tokio::time::sleep(ms(1)).await;
    assert!(!second.is_finished());
    cache.switch(Switches::new());
    assert!(second.await.is_ok_and(|loaded| loaded.is_ok()));
    held.let_through(1);
    assert!(first.await.is_ok_and(|loaded| loaded.is_ok()));
    Ok(())
}
