//! A quorum as a lease store, and what a majority is for.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt as _;
use resonant_common::join::testing;
use resonant_common::join::{Acquired, LeaseStore as _};
use resonant_ha::voter::{Ballot, MemoryVoter, Quorum, Stored, Vote, Voter};
use resonant_ha::{Error, ErrorKind, Result};

const SHORT: Duration = Duration::from_millis(200);

/// A voter that can be down, or forget what it promised.
#[derive(Debug, Default)]
struct Shaky {
    inner: MemoryVoter,
    down: AtomicBool,
    forgets_terms: bool,
}

#[async_trait]
impl Voter for Shaky {
    async fn cast(&self, name: &str, ballot: Ballot) -> Result<Vote> {
        if self.down.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Unavailable, "vote", "down"));
        }
        let mut vote = self.inner.cast(name, ballot.clone()).await?;
        if self.forgets_terms && matches!(ballot, Ballot::Read) {
            vote.remaining = Duration::ZERO;
        }
        Ok(vote)
    }
}

fn quorum(voters: [Shaky; 3]) -> (Quorum, Vec<Arc<Shaky>>) {
    let voters: Vec<Arc<Shaky>> = voters.into_iter().map(Arc::new).collect();
    let shared = voters.iter().map(|voter| Arc::clone(voter) as Arc<dyn Voter>);
    (Quorum::new(shared).unwrap(), voters)
}

#[tokio::test(start_paused = true)]
async fn one_and_three_voters_keep_the_contract_of_leases() {
    testing::suite(Arc::new(Quorum::of(MemoryVoter::new())), "one", SHORT).await;
    let (three, _) = quorum(Default::default());
    testing::suite(Arc::new(three), "three", SHORT).await;
    for down in 0..3 {
        let (two, voters) = quorum(Default::default());
        voters[down].down.store(true, Ordering::Relaxed);
        testing::suite(Arc::new(two), "two", SHORT).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_majority_that_forgets_is_caught_by_the_suite() {
    let forgetful = || Shaky { forgets_terms: true, ..Shaky::default() };
    let (broken, _) = quorum([forgetful(), forgetful(), forgetful()]);
    let run = AssertUnwindSafe(testing::suite(Arc::new(broken), "broken", SHORT));
    assert!(run.catch_unwind().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn without_a_majority_nothing_is_granted_and_a_held_lease_is_not_renewed() {
    let (quorum, voters) = quorum(Default::default());
    let Ok(Acquired::Granted(lease)) = quorum.acquire("x", "a", SHORT * 10).await else {
        panic!("it is free");
    };
    for voter in &voters[..2] {
        voter.down.store(true, Ordering::Relaxed);
    }
    assert!(quorum.acquire("x", "b", SHORT).await.is_err());
    assert!(quorum.renew(&lease, SHORT).await.is_err_and(|error| error.is_transient()));
    voters[0].down.store(false, Ordering::Relaxed);
    assert!(quorum.renew(&lease, SHORT).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn records_are_written_at_the_live_term_only_and_never_go_back() {
    let voter = MemoryVoter::new();
    let cast = async |ballot| voter.cast("x", ballot).await.unwrap();
    let grant = |term: u64, owner: &str| Ballot::Grant { term, owner: owner.into(), ttl: SHORT };
    let write = |term, version, owner: &str| Ballot::Write {
        owner: owner.into(),
        record: Stored { term, version, value: format!("{term}.{version}").into() },
    };
    assert!(cast(grant(3, "a")).await.done);
    assert!(!cast(grant(4, "b")).await.done, "it is live");
    assert!(cast(write(3, 1, "a")).await.done);
    assert!(cast(write(3, 2, "a")).await.done);
    assert!(cast(write(3, 2, "a")).await.done, "the first answer may be lost");
    assert!(!cast(write(3, 1, "a")).await.done, "an older one comes late");
    assert!(!cast(write(3, 3, "b")).await.done, "it is not the holder");
    tokio::time::sleep(SHORT).await;
    assert!(!cast(write(3, 3, "a")).await.done, "the lease has run out");
    assert!(!cast(grant(3, "b")).await.done, "a term is granted once");
    let vote = cast(grant(4, "b")).await;
    assert!(vote.done && vote.record.is_some_and(|record| &*record.value == "3.2"));
    assert!(!cast(write(3, 9, "a")).await.done, "an old term");
    assert!(cast(write(4, 3, "b")).await.done);
}

#[test]
fn an_even_number_of_voters_is_refused() {
    let voters = |count: usize| (0..count).map(|_| Arc::new(MemoryVoter::new()) as Arc<dyn Voter>);
    for count in [0, 2, 4, 11] {
        assert_eq!(Quorum::new(voters(count)).unwrap_err().kind(), ErrorKind::Config);
    }
    assert!(Quorum::new(voters(3)).is_ok());
}
