//! What must hold at every step of a run.

use std::collections::BTreeMap;
use std::fmt;

use crate::region::Proof;

/// A law of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Law {
    /// After a write was acknowledged in an epoch, none is in a lower one, except one that the new history holds.
    OneAcknowledges,
    /// With synchronous standbys every acknowledged write is in the final history.
    NothingLost,
    /// An epoch has one primary for ever.
    OnePrimaryPerEpoch,
    /// A client never hears of a lower epoch than it has.
    EpochNeverFalls,
    /// No region is promoted before a proof is recorded.
    ProofFirst,
    /// A promoted region has at least what every recruit has.
    FurthestIsPromoted,
    /// At most one manager holds the lease.
    OneHolder,
    /// Nothing begins while paused, over the budget, alone, or while others hear the primary.
    HeldBack,
    /// A failback begins only after the region was well for its hold.
    FailbackWaits,
    /// A published primary has its epoch row where the next operation will find it.
    CommittedFirst,
    /// A voter that was not restored never takes an older record than it has.
    RecordRises,
    /// A region never forgets the highest epoch that it has pledged itself to.
    PledgeKept,
    /// What a person asked of a manager begins under the lease it was asked under, or not at all.
    WishesEnd,
    /// Once faults end, one primary takes writes again in bounded time.
    Recovers,
}

/// A law that was broken, when, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The law.
    pub law: Law,
    /// When, in microseconds of the run.
    pub at: u64,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {} us: {}", self.law, self.at, self.what)
    }
}

/// The bookkeeping behind the laws, which knows more than any participant.
#[derive(Debug, Default)]
pub(super) struct Laws {
    pub(super) broken: Option<Violation>,
    /// Acknowledged writes, each with the epoch it was acknowledged in.
    pub(super) acked: Vec<(u64, u64)>,
    highest: u64,
    primaries: BTreeMap<u64, usize>,
    proofs: BTreeMap<u64, Proof>,
}

impl Laws {
    pub(super) fn breaks(&mut self, law: Law, at: u64, what: impl FnOnce() -> String) {
        if self.broken.is_none() {
            self.broken = Some(Violation { law, at, what: what() });
        }
    }

    pub(super) fn acknowledged(
        &mut self,
        at: u64,
        server: usize,
        lineage: u64,
        id: u64,
        kept: impl FnOnce() -> bool,
    ) {
        if lineage < self.highest && !kept() {
            let highest = self.highest;
            self.breaks(Law::OneAcknowledges, at, || {
                format!("region {server} acknowledged write {id} in epoch {lineage} after one in {highest}")
            });
        }
        self.highest = self.highest.max(lineage);
        self.acked.push((id, lineage));
    }

    pub(super) fn published(&mut self, at: u64, epoch: u64, primary: usize) {
        let known = *self.primaries.entry(epoch).or_insert(primary);
        if known != primary {
            self.breaks(Law::OnePrimaryPerEpoch, at, || {
                format!("epoch {epoch} belongs to region {known} and to region {primary}")
            });
        }
    }

    pub(super) fn proven(&mut self, epoch: u64, proof: Proof) {
        self.proofs.insert(epoch, proof);
    }

    pub(super) fn promoted(&mut self, at: u64, epoch: u64, server: usize) {
        let known = *self.primaries.entry(epoch).or_insert(server);
        if known != server {
            self.breaks(Law::OnePrimaryPerEpoch, at, || {
                format!("epoch {epoch} was given to region {known} and to region {server}")
            });
        }
        if matches!(self.proofs.get(&epoch), None | Some(Proof::Unfenced)) {
            self.breaks(Law::ProofFirst, at, || {
                format!("region {server} was promoted to epoch {epoch} without a proof")
            });
        }
    }
}
