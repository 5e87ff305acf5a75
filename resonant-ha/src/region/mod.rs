//! What a region is asked and told, and the trait that does it.

mod backend;
mod commits;
mod name;
mod unsettled;

use serde::{Deserialize, Serialize};

pub use self::backend::{RegionBackend, RegionTarget};
pub use self::commits::CommitsWaitFor;
pub use self::name::RegionName;
pub use self::unsettled::Unsettled;

/// How far a region's data reach. Of two, the one with the higher lineage is ahead whatever its offset: it holds an epoch
/// row that the other has not.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Reach {
    /// The highest epoch row in the data.
    pub lineage: u64,
    /// The branch of history. Not a token: two servers can promote themselves to the same number.
    pub timeline: u32,
    /// How far along; PostgreSQL's LSN of what was received.
    pub offset: u64,
}

/// What a region takes orders from: an epoch, and the operation it was burned for.
///
/// A region that has pledged itself refuses every lower epoch, and the same epoch from another operation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pledge {
    /// The epoch.
    pub epoch: u64,
    /// The operation.
    pub operation: String,
}

impl Pledge {
    /// Whether a region with this pledge may obey `order`.
    pub fn admits(&self, order: &Pledge) -> bool {
        order.epoch > self.epoch || self == order
    }
}

/// The source of an error of kind [`ErrorKind::Fenced`](crate::ErrorKind::Fenced): what the region has pledged itself to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PledgedTo(pub Pledge);

impl std::fmt::Display for PledgedTo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "pledged to epoch {} of operation {:?}", self.0.epoch, self.0.operation)
    }
}

impl std::error::Error for PledgedTo {}

impl PledgedTo {
    /// The error with which a region refuses an order.
    pub fn refuse(self, operation: &'static str) -> crate::Error {
        let message = "the region has pledged itself to somebody newer";
        crate::Error::new(crate::ErrorKind::Fenced, operation, message).with_source(self)
    }
}

/// What a region is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Role {
    /// Its data take writes.
    Primary,
    /// Its data follow another region's.
    Standby,
    /// It has no data of its own.
    Service,
}

/// A region that answered its probe.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// What it is.
    pub role: Role,
    /// Why it cannot do its work although it answers, such as a full disk.
    pub sick: Option<String>,
    /// Whether it was told to end its writes.
    pub read_only: bool,
    /// Which database its data are; regions with different ones are never mixed.
    pub system: u64,
    /// How far its data reach.
    pub reach: Reach,
    /// Whom it takes orders from.
    pub pledge: Pledge,
    /// Differs from start to start of the server, so that a restart between two probes is seen.
    pub started: u64,
    /// Of a standby: whether it has heard from the primary within the last probe interval.
    pub hears_primary: bool,
    /// Of a primary: which standbys its commits wait for.
    pub commits: CommitsWaitFor,
}

impl Observation {
    /// Whether it takes writes as a primary.
    pub fn is_writable(&self) -> bool {
        self.role == Role::Primary && self.sick.is_none() && !self.read_only
    }
}

/// Why a region that was the primary can acknowledge no more writes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Proof {
    /// So many regions have stopped receiving that no commit finds enough of them.
    Recruited {
        /// The regions that have.
        regions: Vec<RegionName>,
    },
    /// Somebody with power over the host confirmed that the server is stopped or cut off.
    Stopped {
        /// The region.
        region: RegionName,
        /// Who said so and how.
        by: String,
    },
    /// A person vouched for it.
    Attested {
        /// The region.
        region: RegionName,
        /// What the person said.
        by: String,
    },
    /// The primary itself is kept, or there was none before.
    SamePrimary {
        /// The region.
        region: RegionName,
    },
    /// Nothing proves it; the owner allowed to go on.
    Unfenced,
}

impl Proof {
    /// The same, about the region by the name that the manager knows it by.
    pub(crate) fn about(self, name: &RegionName) -> Self {
        let region = name.clone();
        match self {
            Proof::Stopped { by, .. } => Proof::Stopped { region, by },
            Proof::Attested { by, .. } => Proof::Attested { region, by },
            Proof::SamePrimary { .. } => Proof::SamePrimary { region },
            other => other,
        }
    }
}

/// A region that has pledged itself and stopped receiving.
#[derive(Debug, Clone, PartialEq)]
pub struct Frozen {
    /// What it is. A primary that answers has pledged itself, but goes on writing.
    pub role: Role,
    /// Why it could not serve as a primary.
    pub sick: Option<String>,
    /// Which database its data are.
    pub system: u64,
    /// How far its data reach; of a standby, for good.
    pub reach: Reach,
}

/// What was told to a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Verb {
    /// Make a primary end its writes in order, and say how far it got.
    Demote,
    /// Make it unable to acknowledge writes, by power over its host.
    Fence,
    /// Pledge, stop receiving, say how far the data reach.
    Freeze,
    /// Take writes.
    Promote,
    /// Receive from the new primary.
    Repoint,
    /// Commit the epoch row so that as many standbys have it as commits wait for.
    Confirm,
    /// Come back as a standby, giving up what nobody else has.
    Rejoin,
}

/// What a region answered to an order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Done {
    /// To [`Verb::Demote`]: how far the data reach for good, and a proof where the server was stopped.
    Demoted(Reach, Option<Proof>),
    /// To [`Verb::Fence`].
    Fenced(Proof),
    /// To [`Verb::Freeze`].
    Frozen(Frozen),
    /// To [`Verb::Promote`]: the timeline.
    Promoted(u32),
    /// To [`Verb::Repoint`] and [`Verb::Confirm`].
    Ok,
    /// To [`Verb::Rejoin`]: how many bytes only this region had, where that could be found out.
    Rejoined(Option<u64>),
}

/// Why a region did not do as told.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Balk {
    /// It has pledged itself to somebody newer.
    Pledged(Pledge),
    /// It answered that it cannot.
    Failed(String),
    /// No answer: it may have done it.
    Unreachable(String),
    /// It is a standby whose data cannot be weighed yet.
    Unsettled(Unsettled),
    /// This backend never can.
    Unsupported,
}
