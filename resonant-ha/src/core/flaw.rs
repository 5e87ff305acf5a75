//! Ways to break the protocol on purpose, to show that the simulator finds each. Without the
//! feature `simulation` none can be chosen.

/// A way to break the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(
    not(feature = "simulation"),
    expect(dead_code, unreachable_pub, reason = "only the simulator breaks it")
)]
#[non_exhaustive]
pub enum Flaw {
    /// One voter's word is enough for a lease and for a record.
    MinorityIsEnough,
    /// The holder counts its time from the answer instead of from the question.
    StampAfterReply,
    /// The holder acts on after its lease has run out.
    IgnoreDeadline,
    /// Promotes without a proof.
    SkipProof,
    /// Takes one recruit fewer for a proof.
    RecruitTooFew,
    /// Promotes the first region that answers, not the one whose data reach furthest.
    PromoteFirst,
    /// Publishes before the epoch row is committed.
    PublishBeforeCommit,
    /// Uses the same epoch for the next operation.
    KeepEpoch,
    /// Regions obey orders of lower epochs.
    IgnorePledge,
    /// A region that pledged itself goes on receiving from the old primary.
    KeepReceiving,
    /// Begins although a person paused it.
    IgnorePause,
    /// Begins although no other region answers, or others hear the primary.
    ActAlone,
    /// Begins as many failovers as it likes.
    NoBudget,
    /// Fails back at once.
    NoHold,
    /// Tells clients whatever it reads, also lower epochs.
    TellLowerEpochs,
    /// Voters take records of any term.
    WriteWithoutTerm,
    /// A newly elected holder does not ask what its predecessor was doing.
    ForgetIntent,
    /// A frozen standby is weighed by what it has replayed, not by what it received.
    WeighReplayed,
    /// Power over a host is used whatever the server on it has pledged itself to.
    PowerIgnoresPledge,
    /// The server's pledge is looked at before the rewind alone, and the rewind replaces it.
    RewindForgetsPledge,
    /// Standbys that are no regions count as if they were.
    CountStrangers,
    /// A promoted server takes writes before it has its epoch row.
    OpenBeforeRow,
    /// What a person asked for outlives the lease it was asked under.
    KeepWishes,
}

#[cfg(feature = "simulation")]
impl Flaw {
    /// All of them.
    pub const ALL: [Flaw; 23] = [
        Flaw::MinorityIsEnough,
        Flaw::StampAfterReply,
        Flaw::IgnoreDeadline,
        Flaw::SkipProof,
        Flaw::RecruitTooFew,
        Flaw::PromoteFirst,
        Flaw::PublishBeforeCommit,
        Flaw::KeepEpoch,
        Flaw::IgnorePledge,
        Flaw::KeepReceiving,
        Flaw::IgnorePause,
        Flaw::ActAlone,
        Flaw::NoBudget,
        Flaw::NoHold,
        Flaw::TellLowerEpochs,
        Flaw::WriteWithoutTerm,
        Flaw::ForgetIntent,
        Flaw::WeighReplayed,
        Flaw::PowerIgnoresPledge,
        Flaw::RewindForgetsPledge,
        Flaw::CountStrangers,
        Flaw::OpenBeforeRow,
        Flaw::KeepWishes,
    ];
}

/// The flaw of this run, if any.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Flaws {
    #[cfg(feature = "simulation")]
    pub(crate) flaw: Option<Flaw>,
}

impl Flaws {
    #[cfg(feature = "simulation")]
    pub(crate) fn has(self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    #[cfg(not(feature = "simulation"))]
    #[expect(clippy::unused_self, reason = "the same call in both builds")]
    pub(crate) fn has(self, _: Flaw) -> bool {
        false
    }
}
