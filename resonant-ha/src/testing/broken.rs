//! Voters that break on purpose, to show that the suite can fail.

use std::time::Duration;

use async_trait::async_trait;

use crate::error::Result;
use crate::voter::{Ballot, MemoryVoter, Vote, Voter};

/// What is wrong with a voter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum VoterFault {
    /// Nothing: the suite passes.
    None,
    /// Grants a lease that is live.
    GrantsLiveOnes,
    /// Grants a term again.
    GrantsTermsTwice,
    /// Leases do not end with their time.
    NeverEnds,
    /// Whoever asks may renew.
    RenewsForAnybody,
    /// Takes a record of any term, by anybody.
    WritesAnything,
    /// A new grant begins without the record of the last one.
    ForgetsRecords,
    /// All names are one.
    MixesNames,
    /// Says that it did what it refused.
    SaysDone,
}

/// A voter in memory with a fault.
#[derive(Debug)]
pub struct FaultyVoter {
    inner: MemoryVoter,
    fault: VoterFault,
}

impl FaultyVoter {
    /// A voter with this fault.
    pub fn new(fault: VoterFault) -> Self {
        Self { inner: MemoryVoter::new(), fault }
    }

    /// Makes room for what would be refused: the same term again, as if nobody had it.
    async fn make_way(&self, name: &str, anew: bool) -> Result<()> {
        let seen = self.inner.cast(name, Ballot::Read).await?;
        if !seen.remaining.is_zero() {
            let (term, owner) = (seen.term, seen.owner);
            self.inner.cast(name, Ballot::Release { term, owner }).await?;
        }
        if anew {
            self.inner.forget(name);
        }
        Ok(())
    }
}

#[async_trait]
impl Voter for FaultyVoter {
    async fn cast(&self, name: &str, ballot: Ballot) -> Result<Vote> {
        let name = if self.fault == VoterFault::MixesNames { "one" } else { name };
        match (self.fault, &ballot) {
            (VoterFault::GrantsLiveOnes, Ballot::Grant { .. }) => {
                self.make_way(name, false).await?
            }
            (VoterFault::GrantsTermsTwice, Ballot::Grant { .. }) => {
                let seen = self.inner.cast(name, Ballot::Read).await?;
                if seen.remaining.is_zero() {
                    self.make_way(name, true).await?;
                }
            }
            _ => {}
        }
        let ballot = match (self.fault, ballot) {
            (VoterFault::NeverEnds, Ballot::Grant { term, owner, .. }) => {
                Ballot::Grant { term, owner, ttl: Duration::from_secs(86_400) }
            }
            (VoterFault::RenewsForAnybody, Ballot::Renew { ttl, .. }) => {
                let seen = self.inner.cast(name, Ballot::Read).await?;
                Ballot::Renew { term: seen.term, owner: seen.owner, ttl }
            }
            (VoterFault::WritesAnything, Ballot::Write { record, .. }) => {
                self.inner.replace_record(name, record);
                let vote = self.inner.cast(name, Ballot::Read).await?;
                return Ok(Vote { done: true, ..vote });
            }
            (_, ballot) => ballot,
        };
        let granted = matches!(ballot, Ballot::Grant { .. });
        let mut vote = self.inner.cast(name, ballot).await?;
        if self.fault == VoterFault::ForgetsRecords && granted && vote.done {
            vote.record = None;
        }
        if self.fault == VoterFault::SaysDone {
            vote.done = true;
        }
        Ok(vote)
    }
}
