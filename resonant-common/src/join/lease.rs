//! Leases with a fencing epoch.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::duration::after;
use crate::error::{Error, Kind};

/// A lease that was granted: proof that `owner` held `name` at `epoch`.
///
/// The holder counts its own time from *before* it asked, so that it stops early rather than late.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lease {
    /// What is leased.
    pub name: String,
    /// Who holds it. Unique per incarnation of a process: a restarted owner is another owner.
    pub owner: String,
    /// The fencing value: higher than that of every earlier grant of the same name.
    pub epoch: u64,
    /// For how long it was granted or last renewed.
    pub ttl: Duration,
}

/// What [`LeaseStore::acquire`] answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acquired {
    /// The lease is the caller's.
    Granted(Lease),
    /// Somebody holds it, the caller's own owner name included.
    Held(LeaseView),
}

/// A lease as seen by others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseView {
    /// Who holds it.
    pub owner: String,
    /// Its epoch.
    pub epoch: u64,
    /// How long it still runs by the store's clock.
    pub remaining: Duration,
}

/// Grants leases, each with an epoch that only rises.
///
/// # Contract
///
/// - For one name at most one lease is live at a time, by the store's own clock.
/// - Every grant of a name has a higher epoch than all grants before it, also after release, expiry and restart of the
///   store, for as long as the store's data live.
/// - [`acquire`](LeaseStore::acquire) never grants a live lease anew, not even to its own holder.
/// - [`renew`](LeaseStore::renew) and [`release`](LeaseStore::release) act only if owner and epoch are those of the
///   live lease; otherwise they fail with [`LeaseErrorKind::Lost`] and change nothing. A lease that ran out is lost
///   even if nobody took it since.
/// - A dropped future leaves the call either done or not done, never half done; the caller asks again to learn which.
///
/// [`testing::suite`](crate::join::testing) checks all of it.
#[async_trait]
pub trait LeaseStore: fmt::Debug + Send + Sync + 'static {
    /// Asks for the lease `name` for `owner`, to run for `ttl`.
    async fn acquire(&self, name: &str, owner: &str, ttl: Duration)
    -> Result<Acquired, LeaseError>;

    /// Extends a live lease to run for `ttl` from now.
    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<Lease, LeaseError>;

    /// Ends a live lease. The next grant still gets a higher epoch.
    async fn release(&self, lease: &Lease) -> Result<(), LeaseError>;

    /// The live lease of `name`, if any.
    async fn inspect(&self, name: &str) -> Result<Option<LeaseView>, LeaseError>;
}

/// Why a lease call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LeaseErrorKind {
    /// The lease ran out or was taken over: stop acting on it.
    Lost,
    /// The store could not be reached: the outcome is unknown.
    Unavailable,
}

/// Why a lease call failed.
pub type LeaseError = Error<LeaseErrorKind>;

impl Kind for LeaseErrorKind {
    fn code(self) -> &'static str {
        match self {
            LeaseErrorKind::Lost => "lease.lost",
            LeaseErrorKind::Unavailable => "lease.unavailable",
        }
    }
    fn is_transient(self) -> bool {
        self == LeaseErrorKind::Unavailable
    }
}

/// Leases within one process, on tokio's clock: for tests, and for programs that are alone.
///
/// Holds one small record per name ever leased, because epochs must not fall.
#[derive(Debug, Default)]
pub struct MemoryLeaseStore {
    records: Mutex<HashMap<String, Record>>,
}

#[derive(Debug)]
struct Record {
    owner: String,
    epoch: u64,
    /// `None` once released.
    expires: Option<Instant>,
}

impl MemoryLeaseStore {
    /// A store without leases.
    pub fn new() -> Self {
        Self::default()
    }

    fn live<T>(&self, name: &str, act: impl FnOnce(Option<&mut Record>, Instant) -> T) -> T {
        let now = Instant::now();
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        act(
            records
                .get_mut(name)
                .filter(|record| record.expires.is_some_and(|expires| now < expires)),
            now,
        )
    }

    fn owned<T>(
        &self,
        operation: &'static str,
        lease: &Lease,
        act: impl FnOnce(&mut Record, Instant) -> T,
    ) -> Result<T, LeaseError> {
        self.live(&lease.name, |record, now| match record {
            Some(record) if record.owner == lease.owner && record.epoch == lease.epoch => {
                Ok(act(record, now))
            }
            _ => Err(lost(operation, lease)),
        })
    }
}

fn lost(operation: &'static str, lease: &Lease) -> LeaseError {
    let message = format!(
        "the lease {:?} of epoch {} has run out or was taken over",
        lease.name, lease.epoch
    );
    Error::new(LeaseErrorKind::Lost, operation, message)
}

impl Record {
    fn view(&self, now: Instant) -> LeaseView {
        let remaining = self.expires.map(|expires| expires.duration_since(now)).unwrap_or_default();
        LeaseView { owner: self.owner.clone(), epoch: self.epoch, remaining }
    }
}

#[async_trait]
impl LeaseStore for MemoryLeaseStore {
    async fn acquire(
        &self,
        name: &str,
        owner: &str,
        ttl: Duration,
    ) -> Result<Acquired, LeaseError> {
        let now = Instant::now();
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let epoch = match records.get(name) {
            Some(record) if record.expires.is_some_and(|expires| now < expires) => {
                return Ok(Acquired::Held(record.view(now)));
            }
            Some(record) => record.epoch + 1,
            None => 1,
        };
        records.insert(
            name.to_owned(),
            Record { owner: owner.to_owned(), epoch, expires: Some(after(now, ttl)) },
        );
        Ok(Acquired::Granted(Lease { name: name.to_owned(), owner: owner.to_owned(), epoch, ttl }))
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<Lease, LeaseError> {
        self.owned("renew", lease, |record, now| record.expires = Some(after(now, ttl)))?;
        Ok(Lease { ttl, ..lease.clone() })
    }

    async fn release(&self, lease: &Lease) -> Result<(), LeaseError> {
        self.owned("release", lease, |record, _| record.expires = None)
    }

    async fn inspect(&self, name: &str) -> Result<Option<LeaseView>, LeaseError> {
        Ok(self.live(name, |record, now| record.map(|record| record.view(now))))
    }
}
