//! What the suites are run on.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::LIMIT;
use crate::error::{ErrorKind, Result};
use crate::region::{Frozen, Observation, Pledge, RegionBackend, RegionTarget};
use crate::voter::{Ballot, Stored, Vote, Voter};

/// A voter to test.
#[derive(Debug)]
pub struct VoterBench {
    voter: Arc<dyn Voter>,
    other: Arc<dyn Voter>,
    /// Keeps the names of one run apart from those of another on a shared store.
    run: String,
    pub(super) short: Duration,
}

impl VoterBench {
    /// This voter, which may know other names from before.
    pub fn new(voter: Arc<dyn Voter>) -> Self {
        static RUN: AtomicU64 = AtomicU64::new(0);
        let run = format!("case-{}-{}", std::process::id(), RUN.fetch_add(1, Ordering::Relaxed));
        let other = Arc::clone(&voter);
        Self { voter, other, run, short: Duration::from_millis(800) }
    }

    /// Another handle on the same store, as a process beside this one has it. Default: the same handle.
    #[must_use]
    pub fn beside(mut self, other: Arc<dyn Voter>) -> Self {
        self.other = other;
        self
    }

    /// A time to live that the voter can measure; cases wait for it to pass. Default 800 ms.
    #[must_use]
    pub fn short(mut self, short: Duration) -> Self {
        self.short = short;
        self
    }

    pub(super) fn name(&self) -> &str {
        &self.run
    }

    pub(super) fn voter(&self) -> Arc<dyn Voter> {
        Arc::clone(&self.voter)
    }

    pub(super) async fn cast(&self, ballot: Ballot) -> Vote {
        ask(&*self.voter, &self.run, ballot).await
    }

    pub(super) async fn cast_beside(&self, ballot: Ballot) -> Vote {
        ask(&*self.other, &self.run, ballot).await
    }

    pub(super) async fn grant(&self, term: u64, owner: &str, ttl: Duration) -> Vote {
        self.cast(Ballot::Grant { term, owner: owner.to_owned(), ttl }).await
    }

    pub(super) async fn renew(&self, term: u64, owner: &str, ttl: Duration) -> Vote {
        self.cast(Ballot::Renew { term, owner: owner.to_owned(), ttl }).await
    }

    pub(super) async fn release(&self, term: u64, owner: &str) -> Vote {
        self.cast(Ballot::Release { term, owner: owner.to_owned() }).await
    }

    pub(super) async fn write(&self, term: u64, version: u64, owner: &str) -> Vote {
        let value = format!("{term}.{version} of {owner}").into();
        let record = Stored { term, version, value };
        self.cast(Ballot::Write { owner: owner.to_owned(), record }).await
    }

    /// Lets the short time to live pass.
    pub(super) async fn pass(&self) {
        sleep(self.short + self.short / 4).await;
    }
}

async fn ask(voter: &dyn Voter, name: &str, ballot: Ballot) -> Vote {
    match voter.cast(name, ballot.clone()).await {
        Ok(vote) => vote,
        Err(error) => panic!("{ballot:?} failed: {error}"),
    }
}

type Write = dyn Fn(usize) -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync;

/// Regions to test: the first is the primary, two others are its standbys, and its commits wait for none of them.
pub struct RegionBench {
    regions: Vec<Arc<dyn RegionBackend>>,
    write: Box<Write>,
}

impl fmt::Debug for RegionBench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegionBench").field("regions", &self.regions).finish_non_exhaustive()
    }
}

impl RegionBench {
    /// These regions. `write` writes something at the region of this number as a client would, and says whether that was
    /// acknowledged.
    pub fn new<F, Fut>(regions: [Arc<dyn RegionBackend>; 3], write: F) -> Self
    where
        F: Fn(usize) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = bool> + Send + 'static,
    {
        Self { regions: regions.into(), write: Box::new(move |region| Box::pin(write(region))) }
    }

    pub(super) fn region(&self, number: usize) -> &dyn RegionBackend {
        match self.regions.get(number) {
            Some(region) => &**region,
            None => panic!("there is no region {number}"),
        }
    }

    pub(super) fn target(&self, number: usize) -> RegionTarget {
        // By the names that the bench's maker gave them, if any: what counts is where.
        let region = self.region(number);
        let (url, replication_url) = (region.url(), region.replication_url());
        RegionTarget { region: format!("region-{number}").into(), url, replication_url }
    }

    /// Whether a client's write is acknowledged.
    pub(super) async fn writes(&self, number: usize) -> bool {
        timeout(LIMIT, (self.write)(number)).await.unwrap_or(false)
    }

    pub(super) async fn probe(&self, number: usize) -> Observation {
        let mut last = None;
        let seen = async {
            loop {
                match self.region(number).probe(Duration::from_secs(1)).await {
                    Ok(seen) => return seen,
                    Err(error) => last = Some(error),
                }
                sleep(PAUSE).await;
            }
        };
        match timeout(LIMIT, seen).await {
            Ok(seen) => seen,
            Err(_) => panic!("region {number} does not answer its probes: {last:?}"),
        }
    }

    /// Waits for what follows by itself, such as a standby that catches up.
    pub(super) async fn until(
        &self,
        number: usize,
        what: &str,
        wanted: impl Fn(&Observation) -> bool,
    ) -> Observation {
        let began = Instant::now();
        loop {
            let seen = self.probe(number).await;
            if wanted(&seen) {
                return seen;
            }
            assert!(began.elapsed() < LIMIT, "region {number}: not {what}: {seen:?}");
            sleep(PAUSE).await;
        }
    }

    /// Freezes a region, which may take several orders.
    pub(super) async fn freeze(&self, number: usize, order: &Pledge) -> Frozen {
        self.insist("freeze", || self.region(number).freeze(order)).await
    }

    pub(super) async fn promote(&self, number: usize, order: &Pledge) {
        self.insist("promote", || self.region(number).promote(order)).await;
    }

    /// Gives an order again for as long as it fails with something that passes, as a manager does.
    pub(super) async fn insist<T, Fut: Future<Output = Result<T>>>(
        &self,
        what: &str,
        order: impl Fn() -> Fut,
    ) -> T {
        use ErrorKind::{Failed, TimedOut, Unavailable, Unsettled};
        let began = Instant::now();
        loop {
            match order().await {
                Ok(done) => return done,
                Err(error) => {
                    let passes =
                        matches!(error.kind(), Failed | TimedOut | Unavailable | Unsettled);
                    let late = began.elapsed() >= LIMIT;
                    assert!(passes && !late, "{what} is not obeyed: {error}");
                }
            }
            sleep(PAUSE).await;
        }
    }
}

const PAUSE: Duration = Duration::from_millis(20);
