//! A lease held by a majority of voters.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use resonant_common::join::{Acquired, Lease, LeaseError, LeaseErrorKind, LeaseStore, LeaseView};
use tokio::time::{Instant, timeout};

use super::{Ballot, Vote, Voter};
use crate::error::{self, Result};

/// How long a voter may take to answer a ballot before the others decide without it.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the last ones may take once a majority has answered, where their answer still counts for something.
const COURTESY: Duration = Duration::from_millis(300);

/// An odd number of [`Voter`]s; a lease is live when a majority says so.
///
/// With three of them one may be lost. A lease that a minority granted before its asker gave up can keep others waiting
/// for up to its time to live; it is taken back where the voters can be reached.
#[derive(Debug, Clone)]
pub struct Quorum {
    voters: Arc<[Arc<dyn Voter>]>,
}

impl Quorum {
    /// A quorum of these voters. One is the simplest quorum.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config): their number is not odd, or more than nine.
    pub fn new(voters: impl IntoIterator<Item = Arc<dyn Voter>>) -> Result<Self> {
        let voters: Arc<[_]> = voters.into_iter().collect();
        if voters.len() % 2 == 0 || voters.len() > 9 {
            return Err(error::config(format!(
                "voters must be 1, 3, 5, 7 or 9, so that a majority exists; there are {}",
                voters.len()
            )));
        }
        Ok(Self { voters })
    }

    /// A single voter.
    pub fn of(voter: impl Voter) -> Self {
        Self { voters: Arc::new([Arc::new(voter)]) }
    }

    pub(crate) fn voters(&self) -> &[Arc<dyn Voter>] {
        &self.voters
    }

    fn majority(&self) -> usize {
        self.voters.len() / 2 + 1
    }

    /// Casts the ballot at all voters; returns once the rest cannot change what a majority said.
    async fn cast(&self, name: &str, ballot: &Ballot) -> Tally {
        let mut asked: FuturesUnordered<_> = self
            .voters
            .iter()
            .map(|voter| timeout(PATIENCE, voter.cast(name, ballot.clone())))
            .collect();
        let mut tally = Tally::default();
        loop {
            let done = tally.done();
            let refused = tally.votes.len() - done;
            let decided = done >= self.majority() || refused >= self.majority();
            // Who holds a lease is only clear when all have been heard; changes are done when a majority has them.
            let next = match (decided, ballot) {
                (true, Ballot::Read) => timeout(COURTESY, asked.next()).await.ok().flatten(),
                (true, _) => None,
                (false, _) => asked.next().await,
            };
            match next {
                Some(Ok(Ok(vote))) => tally.votes.push(vote),
                Some(Ok(Err(error))) => tally.failure = Some(error.to_string()),
                Some(Err(_)) => tally.failure = Some("a voter did not answer in time".to_owned()),
                None => break,
            }
        }
        tally
    }

    /// Asks one voter after the other in an order all share, so that contenders meet at the first and not each at another.
    async fn canvass(&self, name: &str, term: u64, owner: &str, ttl: Duration) -> Tally {
        let mut tally = Tally::default();
        for voter in self.voters.iter() {
            let ballot = Ballot::Grant { term, owner: owner.to_owned(), ttl };
            let patience = if tally.done() >= self.majority() { COURTESY } else { PATIENCE };
            match timeout(patience, voter.cast(name, ballot)).await {
                Ok(Ok(vote)) => {
                    let refused = !vote.done;
                    tally.votes.push(vote);
                    if refused {
                        break;
                    }
                }
                Ok(Err(error)) => tally.failure = Some(error.to_string()),
                Err(_) => tally.failure = Some("a voter did not answer in time".to_owned()),
            }
        }
        tally
    }

    fn unavailable(&self, operation: &'static str, tally: &Tally) -> LeaseError {
        let message = format!(
            "{} of {} voters answered, {} are needed; last failure: {}",
            tally.votes.len(),
            self.voters.len(),
            self.majority(),
            tally.failure.as_deref().unwrap_or("none")
        );
        LeaseError::new(LeaseErrorKind::Unavailable, operation, message)
    }

    /// What a majority says is live: the same term and owner.
    fn live(&self, votes: &[Vote]) -> Option<LeaseView> {
        votes.iter().find_map(|vote| {
            let mut same: Vec<_> = votes
                .iter()
                .filter(|other| (other.term, &other.owner) == (vote.term, &vote.owner))
                .map(|other| other.remaining)
                .filter(|remaining| !remaining.is_zero())
                .collect();
            same.sort_unstable();
            // As long as a majority still holds it; those that did not answer may hold it, too.
            let missing = self.voters.len() - votes.len();
            let surplus = (same.len() + missing).checked_sub(self.majority())?;
            let remaining = *same.get(surplus.min(same.len().checked_sub(1)?))?;
            Some(LeaseView { owner: vote.owner.clone(), epoch: vote.term, remaining })
        })
    }

    async fn change(
        &self,
        operation: &'static str,
        lease: &Lease,
        ballot: Ballot,
    ) -> Result<(), LeaseError> {
        let tally = self.cast(&lease.name, &ballot).await;
        if tally.done() >= self.majority() {
            Ok(())
        } else if tally.votes.len() - tally.done() >= self.majority() {
            let message = format!(
                "the lease {:?} of epoch {} has run out or was taken over",
                lease.name, lease.epoch
            );
            Err(LeaseError::new(LeaseErrorKind::Lost, operation, message))
        } else {
            Err(self.unavailable(operation, &tally))
        }
    }
}

#[derive(Debug, Default)]
struct Tally {
    votes: Vec<Vote>,
    failure: Option<String>,
}

impl Tally {
    fn done(&self) -> usize {
        self.votes.iter().filter(|vote| vote.done).count()
    }

    fn highest(&self) -> u64 {
        self.votes.iter().map(|vote| vote.term).max().unwrap_or(0)
    }
}

#[async_trait]
impl LeaseStore for Quorum {
    async fn acquire(
        &self,
        name: &str,
        owner: &str,
        ttl: Duration,
    ) -> Result<Acquired, LeaseError> {
        let mut last = Tally::default();
        // Others ask at the same moment: the one who has not got it looks who won, a little later if nobody has yet.
        for pause in [0, 5, 10, 20, 50, 100, 200] {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let began = Instant::now();
            let seen = self.cast(name, &Ballot::Read).await;
            if seen.votes.len() < self.majority() {
                return Err(self.unavailable("acquire", &seen));
            }
            if let Some(view) = self.live(&seen.votes) {
                return Ok(Acquired::Held(view));
            }
            let term = seen.highest() + 1;
            last = self.canvass(name, term, owner, ttl).await;
            if last.done() >= self.majority() && began.elapsed() < ttl {
                let (name, owner) = (name.to_owned(), owner.to_owned());
                return Ok(Acquired::Granted(Lease { name, owner, epoch: term, ttl }));
            }
            if last.done() > 0 {
                self.cast(name, &Ballot::Release { term, owner: owner.to_owned() }).await;
            }
        }
        Err(self.unavailable("acquire", &last))
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<Lease, LeaseError> {
        let began = Instant::now();
        let ballot = Ballot::Renew { term: lease.epoch, owner: lease.owner.clone(), ttl };
        self.change("renew", lease, ballot).await?;
        if began.elapsed() >= ttl {
            let message = "the renewal took longer than it was for";
            return Err(LeaseError::new(LeaseErrorKind::Lost, "renew", message));
        }
        Ok(Lease { ttl, ..lease.clone() })
    }

    async fn release(&self, lease: &Lease) -> Result<(), LeaseError> {
        let ballot = Ballot::Release { term: lease.epoch, owner: lease.owner.clone() };
        self.change("release", lease, ballot).await
    }

    async fn inspect(&self, name: &str) -> Result<Option<LeaseView>, LeaseError> {
        let seen = self.cast(name, &Ballot::Read).await;
        match seen.votes.len() < self.majority() {
            true => Err(self.unavailable("inspect", &seen)),
            false => Ok(self.live(&seen.votes)),
        }
    }
}
