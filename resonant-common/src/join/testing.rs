//! The conformance suite of [`LeaseStore`]: what every store must pass, ours or a user's.

#![expect(clippy::panic, reason = "a suite fails by panicking")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::{Acquired, Lease, LeaseErrorKind, LeaseStore};

const LONG: Duration = Duration::from_secs(600);

/// Runs every case against `store`. `tag` keeps the names of one run apart from those of another on a shared store.
/// `short` is a time to live the store can measure; the suite waits for it to pass, on tokio's clock.
///
/// # Panics
///
/// Where the store breaks the contract, saying which clause.
pub async fn suite(store: Arc<dyn LeaseStore>, tag: &str, short: Duration) {
    at_most_one_is_live(&*store, &format!("{tag}-one")).await;
    epochs_only_rise(&*store, &format!("{tag}-epochs"), short).await;
    only_the_live_lease_acts(&*store, &format!("{tag}-acts"), short).await;
    renewal_extends(&*store, &format!("{tag}-renew"), short).await;
    contenders_get_one_grant(store, &format!("{tag}-race")).await;
}

async fn at_most_one_is_live(store: &dyn LeaseStore, name: &str) {
    assert_eq!(inspect(store, name).await, None, "nobody has leased it yet");
    let lease = granted(store, name, "a", LONG).await;
    for owner in ["b", "a"] {
        match store.acquire(name, owner, LONG).await {
            Ok(Acquired::Held(view)) => {
                assert_eq!((view.owner.as_str(), view.epoch), ("a", lease.epoch))
            }
            other => panic!("a live lease was granted anew to {owner}: {other:?}"),
        }
    }
    let view = inspect(store, name).await;
    assert_eq!(view, Some(("a".into(), lease.epoch)));
    assert_ne!(
        granted(store, &format!("{name}-other"), "b", LONG).await.owner,
        "a",
        "names are apart"
    );
}

async fn epochs_only_rise(store: &dyn LeaseStore, name: &str, short: Duration) {
    let first = granted(store, name, "a", LONG).await;
    assert!(store.release(&first).await.is_ok(), "the holder may release");
    assert_eq!(inspect(store, name).await, None, "a released lease is not live");
    let second = granted(store, name, "b", short).await;
    assert!(second.epoch > first.epoch, "the epoch rises over a release");
    pass(short).await;
    let third = granted(store, name, "a", LONG).await;
    assert!(third.epoch > second.epoch, "the epoch rises over an expiry");
}

async fn only_the_live_lease_acts(store: &dyn LeaseStore, name: &str, short: Duration) {
    let old = granted(store, name, "a", short).await;
    pass(short).await;
    assert_lost(store, &old, "an expired lease that nobody took").await;
    let new = granted(store, name, "b", LONG).await;
    assert_lost(store, &old, "a lease that was taken over").await;
    assert_lost(store, &Lease { owner: "a".into(), ..new.clone() }, "another owner's lease").await;
    assert_lost(store, &Lease { epoch: new.epoch + 1, ..new.clone() }, "an epoch never granted")
        .await;
    assert_eq!(
        inspect(store, name).await,
        Some(("b".into(), new.epoch)),
        "nothing was changed by them"
    );
}

async fn renewal_extends(store: &dyn LeaseStore, name: &str, short: Duration) {
    let lease = granted(store, name, "a", short).await;
    let renewed = store.renew(&lease, LONG).await;
    assert!(
        matches!(&renewed, Ok(renewed) if renewed.epoch == lease.epoch && renewed.ttl == LONG),
        "{renewed:?}"
    );
    pass(short).await;
    assert_eq!(
        inspect(store, name).await,
        Some(("a".into(), lease.epoch)),
        "a renewed lease lives on"
    );
}

async fn contenders_get_one_grant(store: Arc<dyn LeaseStore>, name: &str) {
    let contenders = (0..16).map(|n| {
        let (store, name) = (Arc::clone(&store), name.to_owned());
        tokio::spawn(async move { store.acquire(&name, &format!("owner-{n}"), LONG).await })
    });
    let (mut grants, mut epochs) = (0, BTreeSet::new());
    for contender in contenders.collect::<Vec<_>>() {
        match contender.await {
            Ok(Ok(Acquired::Granted(lease))) => {
                grants += 1;
                epochs.insert(lease.epoch);
            }
            Ok(Ok(Acquired::Held(view))) => {
                epochs.insert(view.epoch);
            }
            other => panic!("a contender failed: {other:?}"),
        }
    }
    assert_eq!((grants, epochs.len()), (1, 1), "one of sixteen contenders gets the lease");
}

async fn granted(store: &dyn LeaseStore, name: &str, owner: &str, ttl: Duration) -> Lease {
    match store.acquire(name, owner, ttl).await {
        Ok(Acquired::Granted(lease)) => {
            assert_eq!((lease.name.as_str(), lease.owner.as_str(), lease.ttl), (name, owner, ttl));
            lease
        }
        other => panic!("{name} is free, yet {owner} was not granted it: {other:?}"),
    }
}

async fn assert_lost(store: &dyn LeaseStore, lease: &Lease, which: &str) {
    let renewed = store.renew(lease, LONG).await.err().map(|error| error.kind());
    assert_eq!(renewed, Some(LeaseErrorKind::Lost), "{which} must not be renewed");
    let released = store.release(lease).await.err().map(|error| error.kind());
    assert_eq!(released, Some(LeaseErrorKind::Lost), "{which} must not be released");
}

async fn inspect(store: &dyn LeaseStore, name: &str) -> Option<(String, u64)> {
    match store.inspect(name).await {
        Ok(view) => view.map(|view| (view.owner, view.epoch)),
        Err(error) => panic!("inspect failed: {error}"),
    }
}

async fn pass(ttl: Duration) {
    tokio::time::sleep(ttl + ttl / 4).await;
}
