//! Conditions on what is stored.

use std::sync::Arc;

use bytes::Bytes;

use super::{Bench, Guard, REFUSED, STORED, ok, plain, sealed, value};

pub(super) async fn absent_stores_once(bench: Bench) {
    let key = bench.key("a");
    let (first, _) = sealed("1");
    assert_eq!(bench.put(&key, &first, Guard::Absent).await, STORED);
    assert_eq!(bench.put(&key, &value("2"), Guard::Absent).await, REFUSED);
    assert_eq!(bench.read(&key).await, Some(first), "the refused write changed nothing");
    bench.remove(&key, None).await;
    assert_eq!(bench.put(&key, &value("3"), Guard::Absent).await, STORED);
}

pub(super) async fn absent_stores_over_foreign_bytes(bench: Bench) {
    let key = bench.key("a");
    assert_eq!(bench.put(&key, &Bytes::from_static(b"foreign"), Guard::Always).await, STORED);
    let ours = value("1");
    assert_eq!(bench.put(&key, &ours, Guard::Absent).await, STORED, "foreign bytes are no value");
    assert_eq!(bench.read(&key).await, Some(ours));
}

pub(super) async fn a_version_stores_over_itself_only(bench: Bench) {
    let key = bench.key("a");
    let (first, one) = sealed("1");
    assert_eq!(bench.put(&key, &first, Guard::Version(one)).await, REFUSED, "nothing is stored");
    assert_eq!(bench.put(&key, &first, Guard::Always).await, STORED);
    let (second, two) = sealed("2");
    assert_eq!(bench.put(&key, &second, Guard::Version(one)).await, STORED);
    assert_eq!(bench.put(&key, &value("3"), Guard::Version(one)).await, REFUSED, "it is replaced");
    assert_eq!(bench.read(&key).await, Some(second));
    bench.remove(&key, None).await;
    assert_eq!(bench.put(&key, &value("4"), Guard::Version(two)).await, REFUSED, "it is removed");
}

pub(super) async fn of_many_with_one_version_one_wins(bench: Bench) {
    let key = bench.key("a");
    let (first, version) = sealed("0");
    assert_eq!(bench.put(&key, &first, Guard::Always).await, STORED);
    let bench = Arc::new(bench);
    let writers = (0..16).map(|n| {
        let (bench, key) = (Arc::clone(&bench), key.clone());
        tokio::spawn(async move {
            bench.put(&key, &value(&n.to_string()), Guard::Version(version)).await
        })
    });
    let mut stored = 0;
    for writer in writers.collect::<Vec<_>>() {
        stored += usize::from(writer.await.is_ok_and(|outcome| outcome == STORED));
    }
    assert_eq!(stored, 1, "writers that stored over one version");
}

pub(super) async fn one_refusal_does_not_touch_its_neighbours(bench: Bench) {
    let keys = [bench.key("a"), bench.key("b"), bench.key("c")];
    assert_eq!(bench.put(&keys[1], &value("old"), Guard::Always).await, STORED);
    let writes = keys.iter().map(|key| plain(key, &value("new"), Guard::Absent)).collect();
    let outcomes = bench.store.write(bench.origin, writes).await;
    let outcomes: Vec<_> = outcomes.into_iter().map(|outcome| ok(outcome, "write")).collect();
    assert_eq!(outcomes, [STORED, REFUSED, STORED]);
    let read = bench.read(&keys[2]).await.map(|bytes| bytes.slice(23..));
    assert_eq!(read, Some(Bytes::from_static(b"new")));
}
