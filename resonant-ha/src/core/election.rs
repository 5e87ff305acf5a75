//! Who may act: surveys, grants and renewals at the voters, decided without I/O.
//!
//! The holder counts its time from before it asked, on its own clock, shortened by the drift allowed and a guard, so that
//! it stops before any voter would grant the lease to somebody else. Nobody compares stamps of another machine.

use std::time::Duration;

use super::Output;
use super::chance::Chance;
use super::flaw::Flaw;
use super::flaw::Flaws;
use crate::config::FailoverConfig;
use crate::voter::{Ballot, Stored, Vote};

/// A lease this manager holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    term: u64,
    until: Duration,
    renew_at: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Survey,
    Grant(u64),
    Renew(u64),
}

#[derive(Debug)]
struct Round {
    id: u64,
    purpose: Purpose,
    sent: Duration,
    votes: Vec<Option<Option<Vote>>>,
}

/// What a round came to.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The lease is ours; the newest record a majority knows of.
    Granted(Option<Stored>),
    /// The lease is somebody else's.
    Lost,
    /// What a majority has, if it agrees.
    Surveyed(Option<Stored>),
}

#[derive(Debug)]
pub(super) struct Election {
    pub(super) owner: String,
    voters: usize,
    held: Option<Held>,
    round: Option<Round>,
    next: Duration,
    rounds: u64,
    highest: u64,
    /// Whether it must not ask for the lease.
    pub(super) barred: bool,
    flaws: Flaws,
}

impl Election {
    pub(super) fn new(owner: String, voters: usize, flaws: Flaws) -> Self {
        let next = Duration::ZERO;
        let (held, round) = (None, None);
        Self { owner, voters, held, round, next, rounds: 0, highest: 0, barred: false, flaws }
    }

    pub(super) fn majority(&self) -> usize {
        if self.flaws.has(Flaw::MinorityIsEnough) { 1 } else { self.voters / 2 + 1 }
    }

    /// The term of the lease held now, if one is.
    pub(super) fn term(&self, now: Duration) -> Option<u64> {
        let ignore = self.flaws.has(Flaw::IgnoreDeadline);
        self.held.filter(|held| now < held.until || ignore).map(|held| held.term)
    }

    pub(super) fn remaining(&self, now: Duration) -> Duration {
        self.held.map_or(Duration::ZERO, |held| held.until.saturating_sub(now))
    }

    /// A number no round had before.
    pub(super) fn next_round(&mut self) -> u64 {
        self.rounds += 1;
        self.rounds
    }

    /// Gives the lease up locally; the voters find out when it runs out, or by the release.
    pub(super) fn drop_lease(&mut self, release: bool, out: &mut Vec<Output>) {
        self.round = None;
        if let Some(held) = self.held.take()
            && release
        {
            self.release(held.term, out);
        }
    }

    /// Whether the lease was held and has run out since the last call.
    pub(super) fn expire(&mut self, now: Duration) -> bool {
        let over = self.held.is_some() && self.term(now).is_none();
        if over {
            self.held = None;
            self.round = None;
        }
        over
    }

    /// Starts the round that is due. `may_hold` is false for a manager that only reads.
    pub(super) fn tick(
        &mut self,
        now: Duration,
        config: &FailoverConfig,
        chance: &mut Chance,
        out: &mut Vec<Output>,
    ) {
        let patience = (config.lease_ttl / 5).min(Duration::from_secs(2));
        if self.round.as_ref().is_some_and(|round| now >= round.sent + patience) {
            self.give_up(now, config, chance, out);
        }
        if self.round.is_some() {
            return;
        }
        match self.held {
            Some(held) if now >= held.renew_at => {
                let (term, owner, ttl) = (held.term, self.owner.clone(), config.lease_ttl);
                self.begin(now, Purpose::Renew(term), &Ballot::Renew { term, owner, ttl }, out);
            }
            None if now >= self.next => {
                self.next = now + config.poll_interval;
                self.begin(now, Purpose::Survey, &Ballot::Read, out);
            }
            _ => {}
        }
    }

    /// Takes a voter's answer; `None` when it could not be reached.
    pub(super) fn vote(
        &mut self,
        now: Duration,
        (voter, id): (usize, u64),
        vote: Option<Vote>,
        config: &FailoverConfig,
        chance: &mut Chance,
        out: &mut Vec<Output>,
    ) -> Option<Outcome> {
        let majority = self.majority();
        let round = self.round.as_mut().filter(|round| round.id == id)?;
        *round.votes.get_mut(voter)? = Some(vote);
        let votes: Vec<&Vote> = round.votes.iter().flatten().flatten().collect();
        let asked = round.votes.len();
        let done = votes.iter().filter(|vote| vote.done).count();
        let failed = round.votes.iter().flatten().count() - done;
        if let Some(highest) = votes.iter().map(|vote| vote.term).max() {
            self.highest = self.highest.max(highest);
        }
        let (purpose, sent) = (round.purpose, round.sent);
        if done < majority {
            if failed > asked - majority {
                let refused = votes.iter().filter(|vote| !vote.done).count();
                let lost = matches!(purpose, Purpose::Renew(_)) && refused >= majority;
                self.give_up(now, config, chance, out);
                if lost {
                    self.held = None;
                    return Some(Outcome::Lost);
                }
            }
            return None;
        }
        match purpose {
            Purpose::Survey => {
                let live = votes.iter().any(|vote| {
                    let same = votes.iter().filter(|other| {
                        other.term == vote.term
                            && other.owner == vote.owner
                            && !other.remaining.is_zero()
                    });
                    same.count() + (asked - votes.len()) >= majority && !vote.remaining.is_zero()
                });
                let settled = settled(&votes, majority);
                self.round = None;
                if !live && !self.barred && now >= self.next.saturating_sub(config.poll_interval) {
                    // No term is asked for twice: the release of the first attempt may still come.
                    self.highest += 1;
                    let (term, owner) = (self.highest, self.owner.clone());
                    let ballot = Ballot::Grant { term, owner, ttl: config.lease_ttl };
                    self.begin(now, Purpose::Grant(term), &ballot, out);
                }
                Some(Outcome::Surveyed(settled))
            }
            Purpose::Grant(term) | Purpose::Renew(term) => {
                let newest = votes.iter().filter_map(|vote| vote.record.as_ref());
                let newest = newest.max_by_key(|record| record.stamp()).cloned();
                self.round = None;
                let from = if self.flaws.has(Flaw::StampAfterReply) { now } else { sent };
                let until = from + config.trusted();
                let renew_at = from + config.lease_ttl / 3;
                if now >= until && !self.flaws.has(Flaw::IgnoreDeadline) {
                    return None;
                }
                self.held = Some(Held { term, until, renew_at });
                matches!(purpose, Purpose::Grant(_)).then_some(Outcome::Granted(newest))
            }
        }
    }

    fn give_up(
        &mut self,
        now: Duration,
        config: &FailoverConfig,
        chance: &mut Chance,
        out: &mut Vec<Output>,
    ) {
        match self.round.take().map(|round| round.purpose) {
            // Contenders that met take their grants back and come again at different times.
            Some(Purpose::Grant(term)) => {
                self.release(term, out);
                self.next = now + config.poll_interval + chance.below(config.lease_ttl / 4);
            }
            Some(Purpose::Renew(_)) => {
                if let Some(held) = &mut self.held {
                    held.renew_at = now + config.lease_ttl / 20;
                }
            }
            Some(Purpose::Survey) | None => self.next = now + config.poll_interval,
        }
    }

    fn release(&mut self, term: u64, out: &mut Vec<Output>) {
        let ballot = Ballot::Release { term, owner: self.owner.clone() };
        let round = self.next_round();
        out.extend((0..self.voters).map(|voter| Output::Cast {
            voter,
            round,
            ballot: ballot.clone(),
        }));
    }

    fn begin(&mut self, now: Duration, purpose: Purpose, ballot: &Ballot, out: &mut Vec<Output>) {
        let id = self.next_round();
        self.round = Some(Round { id, purpose, sent: now, votes: vec![None; self.voters] });
        out.extend((0..self.voters).map(|voter| Output::Cast {
            voter,
            round: id,
            ballot: ballot.clone(),
        }));
    }
}

/// The record that a majority has exactly so.
fn settled(votes: &[&Vote], majority: usize) -> Option<Stored> {
    let newest = votes.iter().filter_map(|vote| vote.record.as_ref()).max_by_key(|r| r.stamp())?;
    let same = votes.iter().filter(|vote| vote.record.as_ref() == Some(newest)).count();
    (same >= majority).then(|| newest.clone())
}
