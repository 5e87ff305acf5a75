//! Counters.

use std::sync::Arc;

use super::{Bench, Guard, LONG, STORED, ok, value};
use crate::error::ErrorKind;

pub(super) async fn a_counter_adds_up(bench: Bench) {
    let key = bench.key("a");
    for (by, sum) in [(1, 1), (41, 42), (-50, -8), (0, -8)] {
        assert_eq!(ok(bench.store.add(&key, by, None).await, "add"), sum);
    }
    assert_eq!(ok(bench.store.add(&bench.key("b"), 1, None).await, "add"), 1, "keys are apart");
}

pub(super) async fn reading_a_counter_creates_none(bench: Bench) {
    let key = bench.key("a");
    assert_eq!(ok(bench.store.add(&key, 0, None).await, "add"), 0);
    // Had the read created it, it would have no time to live now.
    assert_eq!(ok(bench.store.add(&key, 5, Some(bench.short)).await, "add"), 5);
    bench.pass().await;
    assert_eq!(ok(bench.store.add(&key, 0, None).await, "add"), 0);
}

pub(super) async fn a_counter_lives_from_its_creation(bench: Bench) {
    let key = bench.key("a");
    assert_eq!(ok(bench.store.add(&key, 1, Some(bench.short)).await, "add"), 1);
    assert_eq!(ok(bench.store.add(&key, 1, Some(LONG)).await, "add"), 2);
    bench.pass().await;
    assert_eq!(ok(bench.store.add(&key, 1, None).await, "add"), 1, "its life was set once");
}

pub(super) async fn an_overflow_changes_nothing(bench: Bench) {
    let key = bench.key("a");
    assert_eq!(ok(bench.store.add(&key, i64::MAX, None).await, "add"), i64::MAX);
    let refused = bench.store.add(&key, 1, None).await.err().map(|error| error.kind());
    assert_eq!(refused, Some(ErrorKind::Rejected));
    assert_eq!(ok(bench.store.add(&key, 0, None).await, "add"), i64::MAX);
}

pub(super) async fn no_increment_is_lost(bench: Bench) {
    let bench = Arc::new(bench);
    let key = bench.key("a");
    let tasks = (0..16).map(|_| {
        let (bench, key) = (Arc::clone(&bench), key.clone());
        tokio::spawn(async move {
            for _ in 0..20 {
                ok(bench.store.add(&key, 1, None).await, "add");
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        assert!(task.await.is_ok());
    }
    assert_eq!(ok(bench.store.add(&key, 0, None).await, "add"), 320);
}

pub(super) async fn a_counter_is_apart_from_the_value_and_goes_with_a_removal(bench: Bench) {
    let key = bench.key("a");
    assert_eq!(ok(bench.store.add(&key, 3, None).await, "add"), 3);
    assert_eq!(bench.read(&key).await, None, "a counter is no value");
    assert_eq!(bench.put(&key, &value("x"), Guard::Always).await, STORED);
    assert_eq!(ok(bench.store.add(&key, 0, None).await, "add"), 3, "a value is no counter");
    assert!(bench.remove(&key, None).await);
    assert_eq!(ok(bench.store.add(&key, 0, None).await, "add"), 0);
}
