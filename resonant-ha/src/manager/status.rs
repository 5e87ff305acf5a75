//! How a manager stands, and what it would do.

use std::time::Duration;

use serde::Serialize;

use super::Shared;
use crate::config::Recovery;
use crate::core::{Core, Intent, Now, Reason, View, Wish};
use crate::region::{RegionName, Role};

/// What a manager is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum State {
    /// Nothing is known yet.
    Starting,
    /// It watches; another manager holds the lease, or none.
    Watching,
    /// It holds the lease, and the primary is as it should be.
    Leading,
    /// It holds the lease, and the primary has failed its last probes.
    Suspecting,
    /// An operation is under way.
    Operating,
}

impl State {
    pub(super) const ALL: [State; 5] =
        [State::Starting, State::Watching, State::Leading, State::Suspecting, State::Operating];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Watching => "watching",
            State::Leading => "leading",
            State::Suspecting => "suspecting",
            State::Operating => "operating",
        }
    }
}

/// A region as this manager sees it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RegionStatus {
    /// Its name.
    pub region: RegionName,
    /// What it said it is, when it last answered.
    pub role: Option<Role>,
    /// Whether it answers in good order.
    pub well: bool,
    /// Failed probes in a row.
    pub failures: u32,
    /// What the last failed probe said.
    pub why: Option<String>,
    /// Whether it takes writes.
    pub writable: bool,
    /// The epoch it has pledged itself to.
    pub pledged: u64,
    /// Bytes it lacks of what the primary was last seen to have.
    pub lag: Option<u64>,
}

/// How everything stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// The cluster's name.
    pub cluster: String,
    /// What the manager is doing.
    pub state: State,
    /// The epoch of the last published topology.
    pub epoch: u64,
    /// Its primary.
    pub primary: Option<RegionName>,
    /// For how long this manager may still act; zero when it may not.
    pub lease_remaining: Duration,
    /// Who paused it.
    pub paused: Option<String>,
    /// The operation under way.
    pub operation: Option<Intent>,
    /// The regions in order of preference.
    pub regions: Vec<RegionStatus>,
    /// How many regions take writes; more than 1 is an alarm, and means that they do it at the same time.
    pub writable_primaries: usize,
    /// For how long the primary region has been well enough for a failback.
    pub failback_ready_for: Option<Duration>,
    /// For how long it has to be.
    pub failback_hold: Option<Duration>,
    /// How long a failover is predicted to take.
    pub recovery: Recovery,
}

/// What would be done, and why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Proposal {
    /// Who would be the primary, as far as can be told before its position stands still.
    pub to: Option<RegionName>,
    /// Every closed gate; none means that it would begin.
    pub against: Vec<Reason>,
}

/// What this manager would do now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Plan {
    /// If the primary has failed.
    pub failover: Proposal,
    /// If the primary region is to take over again.
    pub failback: Proposal,
    /// If a person asks for it, by region.
    pub switchover: Vec<Proposal>,
}

/// What a rehearsal found.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Drill {
    /// How long each region took to answer its probe, or why it did not.
    pub regions: Vec<(RegionName, Result<Duration, String>)>,
    /// The same of the voters, in their order.
    pub voters: Vec<Result<Duration, String>>,
    /// What would be done.
    pub plan: Plan,
    /// How long it is predicted to take.
    pub recovery: Recovery,
}

pub(super) fn state(core: &Core, now: Now) -> State {
    let Some(record) = core.record() else { return State::Starting };
    let failing = record
        .primary
        .as_ref()
        .and_then(|primary| core.views().get(primary))
        .is_some_and(|view| view.failures > 0);
    match (core.leads(now), record.intent.is_some()) {
        (_, true) => State::Operating,
        (false, _) => State::Watching,
        (true, _) if failing => State::Suspecting,
        (true, _) => State::Leading,
    }
}

pub(super) fn status(shared: &Shared) -> Status {
    let now = shared.clock.now();
    let core = shared.core();
    let record = core.record();
    let written = record
        .and_then(|record| record.primary.as_ref())
        .and_then(|primary| core.views().get(primary))
        .and_then(|view| view.written);
    let regions = core.regions().iter().filter_map(|region| {
        let view: &View = core.views().get(region)?;
        let last = view.last.as_ref();
        Some(RegionStatus {
            region: region.clone(),
            role: last.map(|last| last.role),
            well: view.is_well(),
            failures: view.failures,
            why: view.why.clone().filter(|_| view.failures > 0),
            writable: last.is_some_and(|last| last.is_writable()),
            pledged: last.map_or(0, |last| last.pledge.epoch),
            lag: last
                .zip(written)
                .map(|(last, written)| written.offset.saturating_sub(last.reach.offset)),
        })
    });
    let topology = shared.topology.borrow();
    Status {
        cluster: shared.name.clone(),
        state: if shared.quorum.is_none() { State::Watching } else { state(&core, now) },
        epoch: topology.epoch,
        primary: topology.primary.as_ref().map(RegionName::from),
        lease_remaining: core.lease_remaining(now),
        paused: record.and_then(|record| record.paused.clone()),
        operation: record.and_then(|record| record.intent.clone()),
        regions: regions.collect(),
        writable_primaries: core.writable(),
        failback_ready_for: core.well_for(now),
        failback_hold: record.map(|record| core.failback_hold(record)),
        recovery: shared.config.recovery(),
    }
}

pub(super) fn plan(shared: &Shared) -> Plan {
    let now = shared.clock.now();
    let core = shared.core();
    let propose = |wish: &Wish| {
        let (against, to) = core.judge(now, wish);
        Proposal { to, against }
    };
    Plan {
        failover: propose(&Wish::Failover),
        failback: propose(&Wish::Failback),
        switchover: core
            .regions()
            .iter()
            .map(|region| propose(&Wish::Switchover(region.clone())))
            .collect(),
    }
}
