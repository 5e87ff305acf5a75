//! Positions: what keeps old replica reads out.

use resonant_common::join::Position;

use super::{Bench, FenceAt, Guard, LONG, REFUSED, STORED, value};

const AT: Position = Position { system: 1, timeline: 2, offset: 100 };
const BEFORE: Position = Position { offset: 99, ..AT };
const AFTER: Position = Position { offset: 101, ..AT };

fn fence(position: Position) -> Option<FenceAt> {
    Some(FenceAt { position, ttl: LONG })
}

pub(super) async fn a_removal_with_a_position_keeps_older_reads_out(bench: Bench) {
    let key = bench.key("a");
    assert_eq!(bench.put(&key, &value("old"), Guard::Always).await, STORED);
    assert!(bench.remove(&key, fence(AT)).await);
    assert_eq!(bench.put_at(&key, &value("older"), BEFORE).await, REFUSED);
    assert_eq!(bench.read(&key).await, None);
    let same = value("same");
    assert_eq!(bench.put_at(&key, &same, AT).await, STORED, "it includes the change");
    assert_eq!(bench.read(&key).await, Some(same));
}

pub(super) async fn a_fence_outlives_writes_and_removals(bench: Bench) {
    let key = bench.key("a");
    bench.remove(&key, fence(AT)).await;
    assert_eq!(bench.put(&key, &value("1"), Guard::Always).await, STORED, "it says no position");
    assert_eq!(bench.put_at(&key, &value("2"), BEFORE).await, REFUSED, "after a write");
    bench.remove(&key, None).await;
    assert_eq!(bench.put_at(&key, &value("3"), BEFORE).await, REFUSED, "after a removal");
}

pub(super) async fn a_fence_lapses(bench: Bench) {
    let key = bench.key("a");
    bench.remove(&key, Some(FenceAt { position: AT, ttl: bench.short })).await;
    assert_eq!(bench.put_at(&key, &value("1"), BEFORE).await, REFUSED);
    bench.pass().await;
    assert_eq!(bench.put_at(&key, &value("2"), BEFORE).await, STORED);
}

pub(super) async fn a_stored_position_keeps_older_ones_out(bench: Bench) {
    let key = bench.key("a");
    let newer = value("newer");
    assert_eq!(bench.put_at(&key, &newer, AT).await, STORED);
    assert_eq!(bench.put_at(&key, &value("older"), BEFORE).await, REFUSED);
    assert_eq!(bench.read(&key).await, Some(newer));
    assert_eq!(bench.put_at(&key, &value("newest"), AFTER).await, STORED);
    assert_eq!(bench.put_at(&key, &value("at"), AT).await, REFUSED, "the fence rose");
}

pub(super) async fn an_older_position_does_not_lower_the_fence(bench: Bench) {
    let key = bench.key("a");
    bench.remove(&key, fence(AFTER)).await;
    bench.remove(&key, fence(BEFORE)).await;
    assert_eq!(bench.put_at(&key, &value("x"), AT).await, REFUSED);
}

pub(super) async fn neither_of_two_fences_is_cut_short(bench: Bench) {
    for (n, order) in [[(AT, LONG), (AFTER, bench.short)], [(AFTER, bench.short), (AT, LONG)]]
        .into_iter()
        .enumerate()
    {
        let key = bench.key(&n.to_string());
        for (position, ttl) in order {
            bench.remove(&key, Some(FenceAt { position, ttl })).await;
        }
        bench.pass().await;
        assert_eq!(bench.put_at(&key, &value("x"), BEFORE).await, REFUSED, "of {order:?}");
    }
}

pub(super) async fn other_histories_are_told_apart(bench: Bench) {
    let cases = [
        (Position { timeline: 3, offset: 1, ..AT }, STORED, "a later timeline has replayed it"),
        (Position { timeline: 1, offset: 900, ..AT }, REFUSED, "an earlier timeline has not"),
        (Position { system: 2, offset: 900, ..AT }, REFUSED, "another system says nothing of it"),
    ];
    for (n, (position, expected, why)) in cases.into_iter().enumerate() {
        let key = bench.key(&n.to_string());
        bench.remove(&key, fence(AT)).await;
        assert_eq!(bench.put_at(&key, &value("x"), position).await, expected, "{why}");
    }
}

pub(super) async fn a_fence_holds_for_its_key_only(bench: Bench) {
    bench.remove(&bench.key("a"), fence(AT)).await;
    assert_eq!(bench.put_at(&bench.key("b"), &value("x"), BEFORE).await, STORED);
}
