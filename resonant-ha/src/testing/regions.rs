//! The cases of regions.

use std::time::Duration;

use tokio::time::timeout;

use super::scene::RegionBench;
use crate::error::{Error, ErrorKind};
use crate::region::{Observation, Pledge, PledgedTo, Proof, Role};

fn order(epoch: u64) -> Pledge {
    order_of(epoch, "one")
}

fn order_of(epoch: u64, operation: &str) -> Pledge {
    Pledge { epoch, operation: format!("suite/{operation}/{epoch}") }
}

/// What an order must not have changed.
fn standing(seen: &Observation) -> (Role, bool, u64, &Pledge) {
    (seen.role, seen.is_writable(), seen.reach.lineage, &seen.pledge)
}

pub(super) async fn a_probe_tells_who_is_who(bench: RegionBench) {
    let primary = bench.probe(0).await;
    assert!(primary.is_writable() && !primary.hears_primary, "{primary:?}");
    assert_eq!(primary.commits.count, 0, "the suite's commits wait for nobody");
    assert!(bench.writes(0).await, "the primary takes writes");
    for standby in [1, 2] {
        let seen = bench.until(standby, "a standby that hears", |seen| seen.hears_primary).await;
        assert!(seen.role == Role::Standby && !seen.is_writable(), "{seen:?}");
        assert_eq!(seen.system, primary.system, "regions hold the same data");
        assert!(!bench.writes(standby).await, "a standby took a write");
    }
    let again = bench.probe(0).await;
    assert_eq!(again.started, primary.started, "it was not started anew");
    assert!(again.reach >= primary.reach, "a position went back");
}

pub(super) async fn an_order_is_remembered(bench: RegionBench) {
    for number in [1, 0] {
        bench.freeze(number, &order(5)).await;
        assert_eq!(bench.probe(number).await.pledge, order(5), "region {number}");
        bench.freeze(number, &order(8)).await;
        assert_eq!(bench.probe(number).await.pledge, order(8), "region {number}");
    }
    assert!(bench.probe(2).await.pledge.epoch < 5, "a pledge is each region's own");
}

pub(super) async fn an_order_may_be_given_again(bench: RegionBench) {
    let five = order(5);
    let first = bench.freeze(1, &order(5)).await;
    let again = bench.freeze(1, &order(5)).await;
    assert_eq!((first.role, first.reach), (again.role, again.reach));
    for _ in 0..2 {
        bench.promote(1, &order(5)).await;
    }
    for _ in 0..2 {
        bench.insist("confirm", || bench.region(1).confirm(&five)).await;
    }
    assert!(bench.probe(1).await.is_writable());
}

pub(super) async fn older_orders_are_refused(bench: RegionBench) {
    bench.freeze(1, &order(5)).await;
    let before = bench.probe(1).await;
    let region = bench.region(1);
    for older in [order(4), order_of(5, "another"), order(1)] {
        let primary = bench.target(0);
        let mut refused: Vec<(&str, Option<Error>)> = vec![
            ("freeze", region.freeze(&older).await.err()),
            ("promote", region.promote(&older).await.err()),
            ("repoint", region.repoint(&older, &primary).await.err()),
            ("confirm", region.confirm(&older).await.err()),
            ("demote", region.demote(&older, bench.region(2)).await.err()),
            ("rejoin", region.rejoin(&older, &primary).await.err()),
        ];
        if region.can_fence() {
            refused.push(("fence", region.fence(&older).await.err()));
        }
        for (what, refusal) in refused {
            let Some(refusal) = refusal else { panic!("{what} of {older:?} was obeyed after 5") };
            if refusal.kind() == ErrorKind::Unsupported {
                continue;
            }
            assert_eq!(refusal.kind(), ErrorKind::Fenced, "{what} of {older:?}: {refusal}");
            let source = std::error::Error::source(&refusal);
            let pledged = source.and_then(|source| source.downcast_ref::<PledgedTo>());
            assert_eq!(pledged, Some(&PledgedTo(order(5))), "{what} says to whom it is pledged");
        }
    }
    let after = bench.probe(1).await;
    assert_eq!(standing(&before), standing(&after), "what was refused changed something");
}

pub(super) async fn of_an_older_and_a_newer_order_the_newer_has_the_last_word(bench: RegionBench) {
    // Several times, for it may go either way.
    for turn in 1..6 {
        let (older, newer) = (order(turn * 10), order(turn * 10 + 1));
        let region = bench.region(1);
        let (freeze, promote) = (bench.freeze(1, &newer), region.promote(&older));
        let (frozen, promoted) = match turn % 2 {
            0 => tokio::join!(freeze, promote),
            _ => {
                let (promoted, frozen) = tokio::join!(promote, freeze);
                (frozen, promoted)
            }
        };
        let seen = bench.probe(1).await;
        assert_eq!(seen.pledge, newer, "the older order was obeyed last");
        assert_eq!(
            frozen.role, seen.role,
            "it was frozen as one thing and then made another by an older order: {promoted:?}"
        );
    }
}

pub(super) async fn a_frozen_standby_stands_still(bench: RegionBench) {
    for _ in 0..3 {
        assert!(bench.writes(0).await);
    }
    let end = bench.probe(0).await.reach;
    bench.until(1, "caught up", |seen| seen.reach.offset >= end.offset).await;
    let frozen = bench.freeze(1, &order(5)).await;
    assert_eq!(frozen.role, Role::Standby);
    assert!(frozen.reach.offset >= end.offset, "{frozen:?} lacks what it had received");
    for _ in 0..3 {
        assert!(bench.writes(0).await, "the primary goes on");
    }
    // The other one has it, so this one could have.
    let end = bench.probe(0).await.reach;
    bench.until(2, "caught up", |seen| seen.reach.offset >= end.offset).await;
    let again = bench.freeze(1, &order(5)).await;
    assert_eq!(again.reach, frozen.reach, "a frozen standby went on");
    assert!(!bench.probe(1).await.hears_primary, "a frozen standby hears the primary");
}

pub(super) async fn a_frozen_primary_goes_on_writing(bench: RegionBench) {
    let frozen = bench.freeze(0, &order(5)).await;
    assert_eq!(frozen.role, Role::Primary);
    assert!(bench.writes(0).await, "to be frozen is only a pledge and a look for a primary");
    let seen = bench.probe(0).await;
    assert!(seen.is_writable() && seen.pledge == order(5), "{seen:?}");
}

pub(super) async fn a_promoted_standby_takes_writes_with_its_row_before_them(bench: RegionBench) {
    let five = order(5);
    bench.freeze(1, &order(5)).await;
    bench.promote(1, &order(5)).await;
    let seen = bench.probe(1).await;
    assert!(seen.is_writable(), "{seen:?}");
    assert!(seen.reach.lineage >= 5, "it takes writes, and has no row of its epoch: {seen:?}");
    assert!(bench.writes(1).await, "a promoted region refuses a write");
    bench.insist("confirm", || bench.region(1).confirm(&five)).await;
    // At a higher epoch it goes on as it is.
    bench.promote(1, &order(6)).await;
    assert!(bench.probe(1).await.reach.lineage >= 6 && bench.writes(1).await);
}

pub(super) async fn a_frozen_standby_follows_the_heir(bench: RegionBench) {
    let five = order(5);
    for standby in [1, 2] {
        bench.freeze(standby, &order(5)).await;
    }
    bench.promote(1, &order(5)).await;
    let heir = bench.target(1);
    bench.insist("repoint", || bench.region(2).repoint(&five, &heir)).await;
    bench.insist("confirm", || bench.region(1).confirm(&five)).await;
    assert!(bench.writes(1).await);
    let end = bench.probe(1).await.reach;
    let seen = bench.until(2, "behind the heir", |seen| seen.reach.offset >= end.offset).await;
    assert!(seen.role == Role::Standby && seen.reach.lineage >= 5, "{seen:?}");
    bench.until(2, "hearing the heir", |seen| seen.hears_primary).await;
}

pub(super) async fn a_demoted_primary_takes_no_writes_and_its_heir_has_all(bench: RegionBench) {
    let five = order(5);
    for _ in 0..3 {
        assert!(bench.writes(0).await);
    }
    let demoted = bench.insist("demote", || bench.region(0).demote(&five, bench.region(1)));
    let (end, _) = demoted.await;
    let heir = bench.probe(1).await.reach;
    assert!(heir.offset >= end.offset, "the heir has {heir:?} of {end:?}");
    assert!(!bench.writes(0).await, "a demoted primary took a write");
    assert!(!bench.probe(0).await.is_writable());
    // It was called off: the old primary takes its writes again.
    bench.promote(0, &order(6)).await;
    assert!(bench.writes(0).await && bench.probe(0).await.is_writable());
}

pub(super) async fn a_fence_proves_what_it_says(bench: RegionBench) {
    let region = bench.region(0);
    match region.fence(&order(5)).await {
        Ok(proof) => {
            let of_itself = matches!(proof, Proof::Stopped { .. } | Proof::Attested { .. });
            assert!(of_itself, "{proof:?} is not for a region to give");
            assert!(!bench.writes(0).await, "{proof:?}, and it acknowledged a write");
            let again = region.fence(&order(5)).await;
            assert!(again.is_ok(), "not to be given again: {again:?}");
        }
        Err(error) => {
            assert!(!region.can_fence(), "it says it can fence: {error}");
            assert_eq!(error.kind(), ErrorKind::Unsupported);
        }
    }
}

pub(super) async fn a_region_that_comes_back_follows_and_keeps_its_pledge(bench: RegionBench) {
    let five = order(5);
    let six = order(6);
    bench.freeze(1, &order(5)).await;
    assert!(bench.writes(0).await, "only the old primary has this");
    bench.promote(1, &order(5)).await;
    bench.insist("confirm", || bench.region(1).confirm(&five)).await;
    let heir = bench.target(1);
    // The heir's own pledge is an older one.
    let unsupported = |error: &Error| error.kind() == ErrorKind::Unsupported;
    match bench.region(0).rejoin(&order(6), &heir).await {
        Err(error) if unsupported(&error) => return,
        Err(_) => drop(bench.insist("rejoin", || bench.region(0).rejoin(&six, &heir)).await),
        Ok(_) => {}
    }
    let seen = bench.until(0, "a standby that hears", |seen| seen.hears_primary).await;
    assert!(seen.role == Role::Standby && seen.pledge == order(6), "{seen:?}");
    assert!(!bench.writes(0).await, "it came back and took a write");
    assert!(bench.writes(1).await);
    let end = bench.probe(1).await.reach;
    bench.until(0, "caught up", |seen| seen.reach.offset >= end.offset).await;
}

pub(super) async fn a_dropped_order_can_be_given_again(bench: RegionBench) {
    let twenty = order(20);
    for (n, millis) in [0, 1, 2, 5, 10, 20, 40].into_iter().enumerate() {
        let (limit, order) = (Duration::from_millis(millis), order(5 + n as u64));
        let region = bench.region(1);
        let given_up = timeout(limit, region.freeze(&order)).await.is_err();
        let frozen = bench.freeze(1, &order).await;
        assert_eq!(frozen.role, Role::Standby, "given up: {given_up}");
        assert_eq!(bench.probe(1).await.pledge, order);
    }
    for millis in [0, 2, 10, 50, 200] {
        let promoting = bench.region(1).promote(&twenty);
        let _ = timeout(Duration::from_millis(millis), promoting).await;
    }
    bench.promote(1, &order(20)).await;
    let seen = bench.probe(1).await;
    assert!(seen.is_writable() && seen.pledge == order(20) && bench.writes(1).await, "{seen:?}");
}
