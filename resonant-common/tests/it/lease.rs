use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use resonant_common::join::{
    Acquired, Lease, LeaseError, LeaseStore, LeaseView, MemoryLeaseStore, testing,
};

#[tokio::test(start_paused = true)]
async fn memory_store_conforms() {
    testing::suite(Arc::new(MemoryLeaseStore::new()), "memory", Duration::from_millis(200)).await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_may_be_asked_for_for_ever() -> Result<(), LeaseError> {
    let store = MemoryLeaseStore::new();
    let Acquired::Granted(lease) = store.acquire("n", "a", Duration::MAX).await? else {
        panic!("nobody holds it")
    };
    store.renew(&lease, Duration::MAX).await?;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(matches!(store.acquire("n", "b", Duration::MAX).await?, Acquired::Held(_)));
    Ok(())
}

/// A suite that cannot fail proves nothing: each of these breaks one clause and must be caught.
#[tokio::test(start_paused = true)]
async fn broken_stores_are_caught() {
    for flaw in [
        Flaw::EpochStandsStill,
        Flaw::RegrantsToHolder,
        Flaw::RenewsTheDead,
        Flaw::ReleasesForAnybody,
    ] {
        let store =
            Arc::new(Broken { inner: MemoryLeaseStore::new(), flaw, epoch: AtomicU64::new(7) });
        let run = tokio::spawn(
            AssertUnwindSafe(testing::suite(store, "broken", Duration::from_millis(200))).0,
        );
        assert!(run.await.is_err(), "{flaw:?} passed the suite");
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Flaw {
    EpochStandsStill,
    RegrantsToHolder,
    RenewsTheDead,
    ReleasesForAnybody,
}

#[derive(Debug)]
struct Broken {
    inner: MemoryLeaseStore,
    flaw: Flaw,
    epoch: AtomicU64,
}

#[async_trait]
impl LeaseStore for Broken {
    async fn acquire(
        &self,
        name: &str,
        owner: &str,
        ttl: Duration,
    ) -> Result<Acquired, LeaseError> {
        match self.inner.acquire(name, owner, ttl).await? {
            Acquired::Granted(lease) if self.flaw == Flaw::EpochStandsStill => {
                Ok(Acquired::Granted(Lease { epoch: self.epoch.load(Ordering::Relaxed), ..lease }))
            }
            Acquired::Held(view) if self.flaw == Flaw::RegrantsToHolder && view.owner == owner => {
                Ok(Acquired::Granted(Lease {
                    name: name.into(),
                    owner: owner.into(),
                    epoch: view.epoch,
                    ttl,
                }))
            }
            other => Ok(other),
        }
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<Lease, LeaseError> {
        match self.inner.renew(lease, ttl).await {
            Err(_) if self.flaw == Flaw::RenewsTheDead => Ok(Lease { ttl, ..lease.clone() }),
            other => other,
        }
    }

    async fn release(&self, lease: &Lease) -> Result<(), LeaseError> {
        match self.inner.release(lease).await {
            Err(_) if self.flaw == Flaw::ReleasesForAnybody => Ok(()),
            other => other,
        }
    }

    async fn inspect(&self, name: &str) -> Result<Option<LeaseView>, LeaseError> {
        self.inner.inspect(name).await
    }
}
