//! The core with invented instants.

use std::panic::Location;
use std::time::Duration;

use tokio::time::Instant;

use super::{Chore, Core, Enqueued, Grant, Put, Refusal};
use crate::pool::PoolConfig;
use crate::{Error, ErrorKind};

type Sample = Core<u64, u32>;

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn config() -> PoolConfig {
    PoolConfig::default().min_size(0).max_size(4)
}

fn open(core: &mut Sample, count: u64, now: Instant) {
    let before = core.config().clone();
    core.reconfigure(before.clone().min_size(before.max_size).max_parallel_connects(4));
    for connection in 0..count {
        let slot = core.reserve(now).expect("room");
        let connected = core.connected(slot, now);
        assert!(connected.replaced.is_none());
        assert!(matches!(core.put(Grant { slot, connection }, now), Put::Parked));
    }
    core.reconfigure(before);
}

fn take(core: &mut Sample, now: Instant) -> Grant<u64> {
    core.take(now, Location::caller()).expect("an idle one")
}

#[tokio::test]
async fn the_most_recently_used_is_lent_first_and_the_others_can_go() {
    let t0 = Instant::now();
    let mut core = Sample::new(config().min_size(1).max_idle_time(secs(300)), t0, 1);
    open(&mut core, 3, t0);
    for minute in 1..=5 {
        let grant = take(&mut core, t0 + secs(minute * 60));
        assert_eq!(grant.connection, 2);
        assert!(matches!(core.put(grant, t0 + secs(minute * 60)), Put::Parked));
    }
    let mut closed = Vec::new();
    while let Some(chore) = core.chore(t0 + secs(300)) {
        match chore {
            Chore::Close(grant) => closed.push(grant.connection),
            Chore::Probe(grant) => drop(core.probed(grant, t0 + secs(300))),
            Chore::Leak(_) => unreachable!(),
        }
    }
    assert_eq!(closed, [0, 1]);
    assert_eq!(
        core.chore(t0 + secs(900)).map(|chore| matches!(chore, Chore::Close(_))),
        Some(false)
    );
}

#[tokio::test]
async fn a_probed_connection_keeps_its_place_and_its_idle_time() {
    let t0 = Instant::now();
    let mut core = Sample::new(config().health_check_interval(secs(30)), t0, 1);
    open(&mut core, 1, t0);
    open(&mut core, 1, t0 + secs(10));
    let Some(Chore::Probe(oldest)) = core.chore(t0 + secs(30)) else { panic!("nothing due") };
    assert!(matches!(core.probed(oldest, t0 + secs(31)), Put::Parked));
    let first = core.idle.first().expect("idle").slot;
    assert_eq!(core.slots.get(first).since, t0);
    assert_eq!(core.slots.get(first).checked, t0 + secs(31));
}

#[tokio::test]
async fn one_failed_check_has_the_others_checked_at_once() {
    let t0 = Instant::now();
    let mut core = Sample::new(config(), t0, 1);
    open(&mut core, 3, t0);
    let t1 = t0 + secs(1);
    assert!(core.chore(t1).is_none());
    let grant = take(&mut core, t1);
    core.slots.set(grant.slot, super::slots::State::Probing);
    let closing = core.probe_failed(grant, t1);
    core.forget(closing.slot);
    assert!(matches!(core.chore(t1), Some(Chore::Probe(_))));
    assert!(matches!(core.chore(t1), Some(Chore::Probe(_))));
    assert!(core.chore(t1).is_none());
}

#[tokio::test]
async fn a_transient_failure_is_borne_for_a_moment_and_a_final_one_is_not() {
    let t0 = Instant::now();
    for (kind, told_at_once) in [(ErrorKind::Unavailable, false), (ErrorKind::Rejected, true)] {
        let mut core = Sample::new(config(), t0, 1);
        let Enqueued::Queued(key) = core.enqueue(t0, Location::caller(), || 7) else { panic!() };
        let slot = core.reserve(t0).expect("a waiter wants one");
        let failed = core.connect_failed(slot, Error::new(kind, "connect", "no"), t0);
        assert!(failed.began);
        assert_eq!(failed.wakers.len(), usize::from(told_at_once), "{kind:?}");
        assert!(core.reserve(t0).is_none(), "no pause after a failure");
        if told_at_once {
            assert!(matches!(core.poll(key, |_| ()), Some(Err(Refusal::Down { .. }))));
            let next = core.enqueue(t0, Location::caller(), || 8);
            assert!(matches!(next, Enqueued::Refused(Refusal::Down { .. })));
            continue;
        }
        let t1 = t0 + Duration::from_millis(500);
        let slot = core.reserve(t1).expect("the pause is over");
        let failed = core.connect_failed(slot, Error::new(kind, "connect", "no"), t1);
        assert!(!failed.began && failed.wakers == [7]);
    }
}

#[tokio::test]
async fn failing_connects_tell_nobody_while_connections_may_come_back() {
    let t0 = Instant::now();
    let mut core = Sample::new(config(), t0, 1);
    open(&mut core, 1, t0);
    let held = take(&mut core, t0);
    let Enqueued::Queued(key) = core.enqueue(t0, Location::caller(), || 7) else { panic!() };
    let slot = core.reserve(t0).expect("room");
    let no = Error::new(ErrorKind::Rejected, "connect", "too many clients");
    assert!(core.connect_failed(slot, no, t0).wakers.is_empty());
    assert!(matches!(core.put(held, t0), Put::Handed(7)));
    assert!(matches!(core.poll(key, |_| ()), Some(Ok(_))));
}

#[tokio::test]
async fn an_aged_connection_is_replaced_before_it_goes() {
    let t0 = Instant::now();
    let mut core = Sample::new(config().max_lifetime(secs(100)), t0, 1);
    open(&mut core, 1, t0);
    assert!(core.reserve(t0 + secs(74)).is_none());
    let t1 = t0 + secs(100);
    let new = core.reserve(t1).expect("a successor");
    assert!(core.reserve(t1).is_none(), "one successor is enough");
    let connected = core.connected(new, t1);
    assert_eq!(connected.replaced.map(|grant| grant.connection), Some(0));
    assert!(matches!(core.put(Grant { slot: new, connection: 9 }, t1), Put::Parked));
}

#[tokio::test]
async fn a_failed_replacement_leaves_the_old_one_in_service() {
    let t0 = Instant::now();
    let mut core = Sample::new(config().max_lifetime(secs(100)), t0, 1);
    open(&mut core, 1, t0);
    let t1 = t0 + secs(100);
    let new = core.reserve(t1).expect("a successor");
    drop(core.connect_failed(new, Error::new(ErrorKind::Unavailable, "connect", "no"), t1));
    assert_eq!(core.status(t1).idle, 1);
    assert!(core.reserve(t1 + secs(10)).is_some(), "tried again after the pause");
}

#[tokio::test]
async fn at_the_limit_aged_connections_go_one_at_a_time() {
    let t0 = Instant::now();
    let mut core = Sample::new(config().max_lifetime(secs(100)), t0, 1);
    open(&mut core, 4, t0);
    let t1 = t0 + secs(100);
    let held: Vec<_> = (0..4).map(|_| take(&mut core, t1)).collect();
    let puts = held.into_iter().map(|grant| core.put(grant, t1));
    let closed = puts.filter(|put| matches!(put, Put::Close(_))).count();
    assert_eq!(closed, 1);
}

#[tokio::test]
async fn a_leak_is_named_once_for_each_loan() {
    let t0 = Instant::now();
    let mut core = Sample::new(config().leak_warning_after(secs(60)), t0, 1);
    open(&mut core, 1, t0);
    let grant = take(&mut core, t0);
    assert!(core.chore(t0 + secs(59)).is_none());
    let Some(Chore::Leak(holder)) = core.chore(t0 + secs(60)) else { panic!("no leak") };
    assert_eq!(holder.held, secs(60));
    assert!(holder.site.file().ends_with("tests.rs"));
    assert!(core.chore(t0 + secs(61)).is_none());
    drop(core.put(grant, t0 + secs(61)));
    let _again = take(&mut core, t0 + secs(62));
    let leak = std::iter::from_fn(|| core.chore(t0 + secs(122)));
    assert_eq!(leak.filter(|chore| matches!(chore, Chore::Leak(_))).count(), 1);
}

#[tokio::test]
async fn a_round_of_retirement_reaches_what_is_out() {
    let t0 = Instant::now();
    let mut core = Sample::new(config(), t0, 1);
    open(&mut core, 2, t0);
    let held = take(&mut core, t0);
    let aside = core.set_aside();
    assert_eq!(aside.len(), 1);
    for grant in aside {
        assert!(matches!(core.put_back(grant, t0), Put::Parked));
    }
    let Put::Look { grant, after: 0, to: 1 } = core.put(held, t0) else { panic!("not looked at") };
    core.passed(grant.slot, 1);
    assert!(matches!(core.put(grant, t0), Put::Parked));
    assert_eq!(core.oldest_epoch(), 1);
}

#[tokio::test]
async fn connections_opened_together_age_apart() {
    let t0 = Instant::now();
    let lifetime = secs(100);
    let mut core = Sample::new(config().max_size(40).max_lifetime(lifetime), t0, 1);
    for _ in 0..10 {
        open(&mut core, 4, t0);
    }
    let ends: Vec<_> = core.slots.iter().map(|(_, slot)| slot.expires - t0).collect();
    let (first, last) = (ends.iter().min().expect("some"), ends.iter().max().expect("some"));
    assert!(*first >= secs(75) && *last <= lifetime && *last - *first >= secs(10), "{ends:?}");
}

#[tokio::test]
async fn the_verdict_on_an_outage_is_never_late() {
    let t0 = Instant::now();
    for seed in 0..200 {
        let mut core = Sample::new(config(), t0, seed);
        let Enqueued::Queued(_) = core.enqueue(t0, Location::caller(), || 7) else { panic!() };
        let (mut now, mut told) = (t0, false);
        while !told {
            let slot = core.reserve(now).expect("an attempt is due");
            let no = Error::new(ErrorKind::Unavailable, "connect", "refused");
            told = core.connect_failed(slot, no, now).wakers == [7];
            assert!(told || now - t0 < Duration::from_millis(500), "seed {seed}");
            now = core.outage().expect("still").next_attempt;
            assert!(told || now - t0 <= Duration::from_millis(500), "seed {seed}: {:?}", now - t0);
        }
    }
}
