//! Voters: the independent stores that say who may act, and keep the protocol's record.
//!
//! One voter grants leases at terms it is given and keeps one record per name, written only at the term it last granted.
//! A [`Quorum`] of them is a [`LeaseStore`](resonant_common::join::LeaseStore): a lease is held when a majority grants
//! it, the record is written when a majority has it. Because a voter refuses lower terms, two majorities share a voter
//! that knows better, so a term has one holder, and a new holder finds the record of the one before. One voter alone is
//! the simplest quorum.
//!
//! Advisory locks die late and do not pass through poolers, Redis may lose a lease that it granted: neither is a voter.

mod cell;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod memory;
mod quorum;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::Result;

pub(crate) use self::cell::Cell;
#[cfg(feature = "kubernetes")]
pub use self::kubernetes::{KubernetesVoter, KubernetesVoterBuilder};
pub use self::memory::MemoryVoter;
pub use self::quorum::Quorum;

/// What a voter is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ballot {
    /// Tell what you know.
    Read,
    /// Grant the lease at this term, unless a higher or the same one was granted before or another owner's is live.
    Grant {
        /// The term.
        term: u64,
        /// For whom.
        owner: String,
        /// For how long, by the voter's clock.
        ttl: Duration,
    },
    /// Extend the live lease of exactly this term and owner.
    Renew {
        /// The term.
        term: u64,
        /// Whose.
        owner: String,
        /// For how long from now.
        ttl: Duration,
    },
    /// End the live lease of exactly this term and owner.
    Release {
        /// The term.
        term: u64,
        /// Whose.
        owner: String,
    },
    /// Store the record if the lease of exactly this term and owner is live, and the version is above the stored one.
    /// The same version again is a success: the first answer was lost.
    Write {
        /// Whose.
        owner: String,
        /// The record with its version.
        record: Stored,
    },
}

/// A record as a voter keeps it. Of two, the one of the higher term, then of the higher version, is the newer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The term it was written at.
    pub term: u64,
    /// Rises with each write.
    pub version: u64,
    /// The text.
    pub value: std::sync::Arc<str>,
}

impl Stored {
    /// What orders records.
    pub fn stamp(&self) -> (u64, u64) {
        (self.term, self.version)
    }
}

/// What a voter answers: whether it did as asked, and how it stands afterwards.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vote {
    /// Whether it did what was asked; of [`Ballot::Read`] always.
    pub done: bool,
    /// The highest term ever granted.
    pub term: u64,
    /// To whom.
    pub owner: String,
    /// How long that lease still runs by the voter's clock; zero when it ran out or was released.
    pub remaining: Duration,
    /// The record, if there is one.
    pub record: Option<Stored>,
}

/// One independent store with a clock of its own.
///
/// # Contract
///
/// - Each ballot is atomic, and what it changed is durable before the answer.
/// - The term never falls, also after release, expiry and restart, for as long as the store's data live.
/// - Expiry is judged by the voter's own clock; no stamp of another machine is compared.
/// - A dropped future leaves the ballot cast or not, never half.
///
/// The suite of the feature `testing` checks all but what a restart keeps; that of
/// [leases](resonant_common::join::LeaseStore) checks what a [`Quorum`] makes of it.
#[async_trait]
pub trait Voter: fmt::Debug + Send + Sync + 'static {
    /// Casts a ballot about the lease `name`.
    async fn cast(&self, name: &str, ballot: Ballot) -> Result<Vote>;

    /// Where the voter fails: a region's name, if it would fail with that region.
    fn domain(&self) -> Option<&str> {
        None
    }
}
