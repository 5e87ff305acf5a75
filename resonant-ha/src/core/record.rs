//! The record that the holder of the lease keeps at the voters: everything a successor needs to go on.

use serde::{Deserialize, Serialize};

use crate::region::{Proof, Reach, RegionName};

/// Why a new epoch is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// The primary found at the first start is taken over as it is.
    Adopt,
    /// The primary failed.
    Failover,
    /// A person asked for it.
    Switchover,
    /// The primary region is well again.
    Failback,
}

impl Kind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Kind::Adopt => "adopt",
            Kind::Failover => "failover",
            Kind::Switchover => "switchover",
            Kind::Failback => "failback",
        }
    }

    pub(crate) fn is_planned(self) -> bool {
        matches!(self, Kind::Switchover | Kind::Failback)
    }
}

/// Where an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Step {
    /// The old primary is told to end its writes in order. Planned ones only.
    Demoting,
    /// The others are frozen, a proof is collected, the new primary is chosen.
    Fencing,
    /// The chosen one is made to take writes.
    Promoting,
    /// The others follow it, and the epoch row is committed.
    Confirming,
}

/// An operation under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Intent {
    /// Its name, unique for ever.
    pub operation: String,
    /// Why.
    pub kind: Kind,
    /// Who was the primary.
    pub from: Option<RegionName>,
    /// Who is to be; chosen at the latest when `step` is [`Step::Promoting`].
    pub to: Option<RegionName>,
    /// Where it stands.
    pub step: Step,
    /// How far the old primary got when it was demoted in order.
    pub end: Option<Reach>,
    /// Regions that may have been promoted by this operation at a lower epoch.
    pub tried: Vec<RegionName>,
    /// Why no lower epoch can acknowledge writes.
    pub proof: Option<Proof>,
}

/// The whole record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The regions it is about, sorted: how many recruits make a proof depends on them, so managers of other regions
    /// leave it alone. Empty in records of versions that did not keep them.
    #[serde(default)]
    pub(crate) regions: Vec<RegionName>,
    /// The highest epoch ever burned.
    pub(crate) epoch: u64,
    /// The operation that published last; regions pledged to it take orders of the running epoch.
    pub(crate) operation: String,
    /// The epoch of the published primary.
    pub(crate) published: u64,
    /// The published primary.
    pub(crate) primary: Option<RegionName>,
    /// Which database it is.
    pub(crate) system: u64,
    /// What is under way.
    pub(crate) intent: Option<Intent>,
    /// Whether new operations are held back, and by whom.
    pub(crate) paused: Option<String>,
    /// How many regions the primary's commits were last seen to wait for.
    pub(crate) synchronous: u32,
    /// When failovers began, in Unix seconds, for the budget.
    pub(crate) failovers: Vec<u64>,
    /// How often the primary region failed again soon after a failback.
    pub(crate) relapses: u32,
    /// When the last failback ended, in Unix seconds.
    pub(crate) failed_back: u64,
}
