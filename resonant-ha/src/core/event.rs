//! What the manager tells: events with their reasons.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::record::{Kind, Step};
use crate::region::{Proof, RegionName};

/// Why an action is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// This manager may not act: another holds the lease, or the voters cannot be reached.
    NoLease,
    /// This manager did not run for a while; what it knows is old.
    JustWoke,
    /// `allow_promotion` is off.
    PromotionNotAllowed,
    /// Somebody paused the manager.
    Paused,
    /// An operation is under way.
    Busy,
    /// No primary has been recorded: none or several were seen.
    NoRecord,
    /// The primary has not failed often enough in a row.
    BelowThreshold,
    /// Somebody else still hears the primary: the fault may be here.
    PrimaryHeard,
    /// No other region answers this manager: the fault is likely here.
    Alone,
    /// Too many failovers in the window.
    BudgetSpent,
    /// The old primary cannot be proven unable to acknowledge writes.
    NoProof,
    /// No region could take over.
    NoCandidate,
    /// The best region lacks more than `max_lag`.
    LagTooHigh,
    /// Regions know a higher epoch than the record: the voters' data went back.
    RecordWentBack,
    /// The region asked for cannot take over now.
    NotReady,
    /// The region asked for is the primary already.
    AlreadyPrimary,
    /// A standby that may have more than the others cannot be weighed yet.
    Unsettled,
    /// The record belongs to managers of other regions.
    OtherRegions,
}

impl Reason {
    /// The stable code, as in the metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::NoLease => "no_lease",
            Reason::JustWoke => "just_woke",
            Reason::PromotionNotAllowed => "promotion_not_allowed",
            Reason::Paused => "paused",
            Reason::Busy => "busy",
            Reason::NoRecord => "no_record",
            Reason::BelowThreshold => "below_threshold",
            Reason::PrimaryHeard => "primary_heard",
            Reason::Alone => "alone",
            Reason::BudgetSpent => "budget_spent",
            Reason::NoProof => "no_proof",
            Reason::NoCandidate => "no_candidate",
            Reason::LagTooHigh => "lag_too_high",
            Reason::RecordWentBack => "record_went_back",
            Reason::NotReady => "not_ready",
            Reason::AlreadyPrimary => "already_primary",
            Reason::Unsettled => "unsettled",
            Reason::OtherRegions => "other_regions",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::NoLease => "this manager does not hold the lease",
            Reason::JustWoke => "this manager did not run for a while and knows nothing recent yet",
            Reason::PromotionNotAllowed => "allow_promotion is off: this manager only watches",
            Reason::Paused => "the manager is paused; resume() ends it",
            Reason::Busy => "an operation is under way",
            Reason::NoRecord => "no primary is recorded: none or several were seen",
            Reason::BelowThreshold => {
                "the primary has not failed failover_threshold probes in a row"
            }
            Reason::PrimaryHeard => "another region or observer still hears the primary",
            Reason::Alone => "no other region answers: the fault is likely on this side",
            Reason::BudgetSpent => {
                "failover_budget is spent for failover_window; resume() clears it"
            }
            Reason::NoProof => "nothing would prove that the old primary cannot acknowledge writes",
            Reason::NoCandidate => "no region could take over",
            Reason::LagTooHigh => "the best region lacks more than max_lag",
            Reason::RecordWentBack => {
                "regions know a higher epoch than the record: the voters' data went back"
            }
            Reason::NotReady => "the region cannot take over now: it is down, sick or behind",
            Reason::AlreadyPrimary => "the region is the primary already",
            Reason::Unsettled => {
                "a standby that may have more than the others has not replayed all that it received"
            }
            Reason::OtherRegions => {
                "the record at the voters belongs to managers of other regions; give all managers the same regions, and a new name() where those have changed"
            }
        })
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "event")]
#[non_exhaustive]
pub enum EventKind {
    /// This manager may act from now on.
    LeaseTaken {
        /// The term.
        term: u64,
    },
    /// This manager may act no more.
    LeaseLost,
    /// This manager did not run for so long that it starts over.
    Woke {
        /// The gap.
        after: Duration,
    },
    /// A region that was well is not.
    RegionDown {
        /// The region.
        region: RegionName,
        /// What the probe said.
        why: String,
    },
    /// A region is well again.
    RegionUp {
        /// The region.
        region: RegionName,
    },
    /// A gate is newly closed.
    Refused {
        /// What would have been done.
        kind: Kind,
        /// Why it is not.
        reason: Reason,
    },
    /// An operation begins, or begins again at a higher epoch.
    Intent {
        /// Why.
        kind: Kind,
        /// Who was the primary.
        from: Option<RegionName>,
        /// Who is to be, where that is known.
        to: Option<RegionName>,
        /// From the first failed probe to here.
        detection: Option<Duration>,
    },
    /// A majority of the voters has it that the next step begins.
    Step {
        /// Which.
        step: Step,
        /// Who is to be the primary.
        to: Option<RegionName>,
        /// Why no lower epoch can acknowledge writes.
        proof: Option<Proof>,
    },
    /// A region refused or failed an order; it is given again.
    Balked {
        /// The region.
        region: RegionName,
        /// What it was told.
        order: String,
        /// What it said.
        why: String,
    },
    /// The new topology is durable, a majority of the voters has it, and clients are told.
    Published {
        /// Why.
        kind: Kind,
        /// The primary.
        primary: RegionName,
        /// From the intent to here.
        took: Option<Duration>,
    },
    /// A region came back as a standby.
    Rejoined {
        /// The region.
        region: RegionName,
        /// How many bytes only it had, which are given up.
        lost: Option<u64>,
    },
    /// More than one region takes writes.
    TwoPrimaries {
        /// Which.
        regions: Vec<RegionName>,
    },
    /// One again.
    OnePrimary,
    /// New operations are held back.
    Paused {
        /// By whom.
        by: String,
    },
    /// No longer, and the budget is cleared.
    Resumed,
    /// The primary's commits wait for fewer standbys than `synchronous_standbys` says.
    SyncWeaker {
        /// For how many they wait.
        seen: u32,
    },
    /// The history was read elsewhere: a source of topologies named another primary.
    Observed {
        /// The primary.
        primary: Option<RegionName>,
    },
}

impl EventKind {
    /// The stable code, as in the metric's label.
    pub fn as_str(&self) -> &'static str {
        match self {
            EventKind::LeaseTaken { .. } => "lease_taken",
            EventKind::LeaseLost => "lease_lost",
            EventKind::Woke { .. } => "woke",
            EventKind::RegionDown { .. } => "region_down",
            EventKind::RegionUp { .. } => "region_up",
            EventKind::Refused { .. } => "refused",
            EventKind::Intent { .. } => "intent",
            EventKind::Step { .. } => "step",
            EventKind::Balked { .. } => "balked",
            EventKind::Published { .. } => "published",
            EventKind::Rejoined { .. } => "rejoined",
            EventKind::TwoPrimaries { .. } => "two_primaries",
            EventKind::OnePrimary => "one_primary",
            EventKind::Paused { .. } => "paused",
            EventKind::Resumed => "resumed",
            EventKind::SyncWeaker { .. } => "sync_weaker",
            EventKind::Observed { .. } => "observed",
        }
    }
}

/// Something that happened, when, and at which epoch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// When, in Unix seconds by this manager's wall clock.
    pub at: u64,
    /// The highest epoch this manager knew of.
    pub epoch: u64,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
}
