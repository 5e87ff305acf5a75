//! How a voter decides; shared by the voter in memory and those of the simulation.

use std::time::Duration;

#[cfg(feature = "simulation")]
use crate::core::flaw::{Flaw, Flaws};

use super::{Ballot, Stored, Vote};

/// What a voter keeps about one name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cell {
    pub(super) term: u64,
    pub(super) owner: String,
    pub(super) expires: Option<Duration>,
    pub(super) record: Option<Stored>,
}

impl Cell {
    pub(crate) fn cast(&mut self, now: Duration, ballot: Ballot) -> Vote {
        let live = self.expires.is_some_and(|expires| now < expires);
        let holds = |term: u64, owner: &str| live && term == self.term && owner == self.owner;
        let done = match ballot {
            Ballot::Read => true,
            Ballot::Grant { term, owner, ttl } => {
                let may = term > self.term && !live;
                if may {
                    (self.term, self.owner, self.expires) = (term, owner, Some(now + ttl));
                }
                may
            }
            Ballot::Renew { term, owner, ttl } => {
                let may = holds(term, &owner);
                if may {
                    self.expires = Some(now + ttl);
                }
                may
            }
            Ballot::Release { term, owner } => {
                let may = holds(term, &owner);
                if may {
                    self.expires = None;
                }
                may
            }
            Ballot::Write { owner, record } => {
                let old = self.record.as_ref().map(Stored::stamp).unwrap_or_default();
                let may = holds(record.term, &owner) && record.stamp() >= old;
                if may {
                    self.record = Some(record);
                }
                may
            }
        };
        self.vote(now, done)
    }

    #[cfg(feature = "simulation")]
    pub(crate) fn cast_flawed(&mut self, now: Duration, ballot: Ballot, flaws: Flaws) -> Vote {
        if let Ballot::Write { record, .. } = &ballot
            && flaws.has(Flaw::WriteWithoutTerm)
        {
            self.replace_record(record.clone());
            return self.vote(now, true);
        }
        self.cast(now, ballot)
    }

    /// Takes a record without a look at it.
    #[cfg(any(feature = "simulation", feature = "testing"))]
    pub(crate) fn replace_record(&mut self, record: Stored) {
        self.record = Some(record);
    }

    /// The stamp of the record.
    #[cfg(feature = "simulation")]
    pub(crate) fn stamp(&self) -> (u64, u64) {
        self.record.as_ref().map(Stored::stamp).unwrap_or_default()
    }

    fn vote(&self, now: Duration, done: bool) -> Vote {
        let remaining = self.expires.map_or(Duration::ZERO, |expires| expires.saturating_sub(now));
        let (owner, record) = (self.owner.clone(), self.record.clone());
        Vote { done, term: self.term, owner, remaining, record }
    }
}
