//! Every target keeps the contract, and the suite finds those that do not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use resonant_scale::testing::{FakeTarget, cases};
use resonant_scale::{Result, Scale, ScaleTarget, TargetState, WorkerPool, conformance};

conformance!(fake, async |replicas| FakeTarget::new(replicas));

conformance!(workers, workers);

conformance!(deployment, crate::kubernetes::deployment);

/// Workers that take a moment to start.
async fn workers(replicas: u32) -> WorkerPool<()> {
    let start = async || {
        tokio::task::yield_now().await;
        Ok::<_, std::io::Error>(())
    };
    let pool = WorkerPool::new(start, async |()| Ok::<_, std::io::Error>(()));
    pool.set(replicas).await.unwrap();
    pool
}

/// A target that is wrong in the way its function says.
#[derive(Debug)]
struct Broken {
    number: Arc<AtomicU32>,
    take: fn(&AtomicU32, u32),
    read: fn(&AtomicU32) -> u32,
}

#[async_trait]
impl ScaleTarget for Broken {
    async fn read(&self) -> Result<TargetState> {
        Ok(Scale::steady((self.read)(&self.number)).into())
    }

    async fn set(&self, replicas: u32) -> Result<()> {
        (self.take)(&self.number, replicas);
        Ok(())
    }
}

fn broken(take: fn(&AtomicU32, u32), read: fn(&AtomicU32) -> u32) -> impl AsyncFn(u32) -> Broken {
    async move |replicas| Broken { number: Arc::new(AtomicU32::new(replicas)), take, read }
}

fn load(number: &AtomicU32) -> u32 {
    number.load(Ordering::SeqCst)
}

fn store(number: &AtomicU32, replicas: u32) {
    number.store(replicas, Ordering::SeqCst);
}

#[tokio::test]
#[should_panic(expected = "left: 2")]
async fn one_that_forgets_is_found() {
    cases::what_was_asked_for_is_read(broken(|_, _| (), load)).await;
}

#[tokio::test]
#[should_panic(expected = "left: 8")]
async fn one_that_adds_is_found() {
    let add = |number: &AtomicU32, replicas: u32| {
        let now = number.load(Ordering::SeqCst);
        let more = if now == replicas { replicas } else { replicas - now.min(replicas) };
        number.store(now + more, Ordering::SeqCst);
    };
    cases::asking_again_changes_nothing(broken(add, load)).await;
}

#[tokio::test]
#[should_panic(expected = "left: 1")]
async fn one_that_keeps_one_is_found() {
    let at_least_one = |number: &AtomicU32, replicas: u32| store(number, replicas.max(1));
    cases::it_goes_to_none_and_back(broken(at_least_one, load)).await;
}

#[tokio::test]
#[should_panic(expected = "left: 2")]
async fn one_that_changes_when_it_is_read_is_found() {
    cases::reading_changes_nothing(broken(store, |number| number.fetch_sub(1, Ordering::SeqCst)))
        .await;
}

#[tokio::test]
#[should_panic(expected = "8 of 2 and 6")]
async fn one_that_sums_is_found() {
    let sum = |number: &AtomicU32, replicas: u32| {
        let now = number.load(Ordering::SeqCst);
        number.store(if now == 3 { replicas } else { now + replicas }, Ordering::SeqCst);
    };
    cases::two_changes_at_once_come_to_one_of_them(broken(sum, load)).await;
}
