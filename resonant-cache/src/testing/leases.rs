//! Leases: who may store what was loaded.

use std::sync::Arc;

use bytes::Bytes;

use super::{Bench, Guard, LONG, LeaseAsk, LeaseToken, Leased, REFUSED, STORED, ok, one, value};

const A: LeaseToken = LeaseToken(0xA);
const B: LeaseToken = LeaseToken(0xB);

fn is_held(leased: Leased) -> bool {
    matches!(leased, Leased::Held { .. })
}

pub(super) async fn of_many_who_ask_one_gets_the_lease(bench: Bench) {
    let bench = Arc::new(bench);
    let key = bench.key("a");
    let tasks = (0..16).map(|n| {
        let (bench, key) = (Arc::clone(&bench), key.clone());
        tokio::spawn(async move { bench.lease(&key, LeaseToken(n), LONG).await })
    });
    let mut granted = 0;
    for task in tasks.collect::<Vec<_>>() {
        granted += usize::from(task.await.is_ok_and(|leased| leased == Leased::Granted));
    }
    assert_eq!(granted, 1, "leases granted to sixteen who asked");
    assert_eq!(bench.lease(&bench.key("b"), A, LONG).await, Leased::Granted, "keys are apart");
}

pub(super) async fn a_lease_lapses(bench: Bench) {
    let key = bench.key("a");
    assert_eq!(bench.lease(&key, A, bench.short).await, Leased::Granted);
    match bench.lease(&key, B, LONG).await {
        Leased::Held { remaining } => {
            assert!(remaining <= bench.short, "{remaining:?} remain of {:?}", bench.short);
        }
        Leased::Granted => panic!("a live lease was granted anew"),
    }
    bench.pass().await;
    assert_eq!(bench.lease(&key, B, LONG).await, Leased::Granted, "it lapsed");
}

pub(super) async fn a_lease_stores_once(bench: Bench) {
    let key = bench.key("a");
    let first = value("1");
    assert_eq!(bench.lease(&key, A, LONG).await, Leased::Granted);
    assert_eq!(bench.put(&key, &first, Guard::Lease(A)).await, STORED);
    assert_eq!(bench.put(&key, &value("2"), Guard::Lease(A)).await, REFUSED, "it ended with it");
    assert_eq!(bench.read(&key).await, Some(first));
    assert_eq!(bench.lease(&key, B, LONG).await, Leased::Granted, "the key is free again");
}

pub(super) async fn a_lapsed_lease_stores_nothing(bench: Bench) {
    let key = bench.key("a");
    assert_eq!(bench.lease(&key, A, bench.short).await, Leased::Granted);
    bench.pass().await;
    assert_eq!(bench.put(&key, &value("1"), Guard::Lease(A)).await, REFUSED, "nobody took it");
    assert_eq!(bench.lease(&key, B, LONG).await, Leased::Granted);
    assert_eq!(bench.put(&key, &value("1"), Guard::Lease(A)).await, REFUSED, "somebody took it");
    assert_eq!(bench.read(&key).await, None);
    assert_eq!(bench.put(&key, &value("2"), Guard::Lease(B)).await, STORED);
}

pub(super) async fn somebody_elses_lease_stores_nothing(bench: Bench) {
    let key = bench.key("a");
    assert_eq!(bench.put(&key, &value("1"), Guard::Lease(A)).await, REFUSED, "nobody has one");
    assert_eq!(bench.lease(&key, A, LONG).await, Leased::Granted);
    assert_eq!(bench.put(&key, &value("1"), Guard::Lease(B)).await, REFUSED);
    assert_eq!(bench.put(&bench.key("b"), &value("1"), Guard::Lease(A)).await, REFUSED);
}

pub(super) async fn a_write_ends_the_lease(bench: Bench) {
    let key = bench.key("a");
    let newer = value("newer");
    assert_eq!(bench.lease(&key, A, LONG).await, Leased::Granted);
    assert_eq!(bench.put(&key, &newer, Guard::Always).await, STORED);
    let outcome = bench.put(&key, &value("older"), Guard::Lease(A)).await;
    assert_eq!(outcome, REFUSED, "a load from before the write must not store");
    assert_eq!(bench.read(&key).await, Some(newer));
}

/// Plain bytes may look like ours, with one version.
pub(super) async fn a_plain_write_ends_the_lease_whatever_its_bytes(bench: Bench) {
    let key = bench.key("a");
    let looks_like_ours = |last: u8| {
        let mut bytes = value("7").to_vec();
        bytes[6..12].fill(0);
        bytes.push(last);
        Bytes::from(bytes)
    };
    assert_eq!(bench.put(&key, &looks_like_ours(1), Guard::Always).await, STORED);
    let ask = LeaseAsk { token: A, cleared: 0, ttl: LONG, plain: true };
    let leased = bench.store.lease(std::slice::from_ref(&key), ask).await;
    assert_eq!(ok(one(leased), "lease"), Leased::Granted);
    assert_eq!(bench.put(&key, &looks_like_ours(2), Guard::Always).await, STORED);
    let outcome = bench.put(&key, &looks_like_ours(0), Guard::Lease(A)).await;
    assert_eq!(outcome, REFUSED, "a load from before the write must not store");
    assert_eq!(bench.read(&key).await, Some(looks_like_ours(2)));
}

pub(super) async fn a_removal_ends_the_lease(bench: Bench) {
    let key = bench.key("a");
    assert_eq!(bench.lease(&key, A, LONG).await, Leased::Granted);
    bench.remove(&key, None).await;
    let outcome = bench.put(&key, &value("old"), Guard::Lease(A)).await;
    assert_eq!(outcome, REFUSED, "a load from before the removal must not store");
    assert_eq!(bench.read(&key).await, None);
}

pub(super) async fn a_refused_write_leaves_value_and_lease(bench: Bench) {
    let key = bench.key("a");
    let held = value("held");
    assert_eq!(bench.put(&key, &held, Guard::Always).await, STORED);
    assert_eq!(bench.lease(&key, A, LONG).await, Leased::Granted);
    assert_eq!(bench.put(&key, &value("x"), Guard::Absent).await, REFUSED);
    assert_eq!(bench.put(&key, &value("x"), Guard::Lease(B)).await, REFUSED);
    assert_eq!(bench.read(&key).await, Some(held));
    assert_eq!(bench.put(&key, &value("y"), Guard::Lease(A)).await, STORED, "the lease lives");
}

pub(super) async fn only_the_holder_releases(bench: Bench) {
    let key = bench.key("a");
    assert_eq!(bench.lease(&key, A, LONG).await, Leased::Granted);
    bench.release(&key, B).await;
    assert!(is_held(bench.lease(&key, B, LONG).await), "somebody else released it");
    bench.release(&key, A).await;
    assert_eq!(bench.put(&key, &value("x"), Guard::Lease(A)).await, REFUSED, "it is released");
    assert_eq!(bench.lease(&key, B, LONG).await, Leased::Granted);
}

pub(super) async fn a_lease_from_before_a_clear_gives_way(bench: Bench) {
    let key = bench.key("a");
    let ask = async |token, cleared| {
        let ask = LeaseAsk { token, cleared, ttl: LONG, plain: false };
        ok(one(bench.store.lease(std::slice::from_ref(&key), ask).await), "lease")
    };
    assert_eq!(ask(A, 3).await, Leased::Granted);
    assert!(is_held(ask(B, 3).await) && is_held(ask(B, 2).await), "no clear came in between");
    assert_eq!(ask(B, 4).await, Leased::Granted);
    assert_eq!(bench.put(&key, &value("old"), Guard::Lease(A)).await, REFUSED);
    assert_eq!(bench.put(&key, &value("new"), Guard::Lease(B)).await, STORED);
}
