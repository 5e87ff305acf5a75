//! On real PostgreSQL. One server is shared by the tests that do it no harm, each with a database of its own.

mod bloat;
mod conformance;
mod dropping;
mod effects;
mod faults;
mod publishing;

use std::sync::Arc;
use std::time::Duration;

use resonant_queue::{Delivery, HandlerError, PartitionedQueue, Postgres, SequenceCheck, Worker};
use resonant_testkit::postgres::TempDatabase;

pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// An empty database with the tables, as a migration made them.
pub(crate) async fn database() -> TempDatabase {
    let up = Postgres::schema_sql(1).unwrap().up;
    resonant_testkit::Postgres::temp().schema(up).await.unwrap()
}

pub(crate) async fn postgres(url: &str) -> Postgres {
    Postgres::connect(url).await.unwrap()
}

/// A queue of numbers, with the last digit as the key.
pub(crate) async fn queue(postgres: &Postgres, partitions: u32) -> PartitionedQueue<u64> {
    let builder = PartitionedQueue::builder("numbers").partitions(partitions);
    let builder = builder.lease_ttl(Duration::from_secs(2)).key(|number: &u64| number % 10);
    builder.backend(postgres.clone()).build().await.unwrap()
}

/// What handlers finished, in order.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<std::sync::Mutex<Vec<u64>>>);

impl Seen {
    pub(crate) fn push(&self, number: u64) {
        self.0.lock().unwrap().push(number);
    }

    pub(crate) fn all(&self) -> Vec<u64> {
        self.0.lock().unwrap().clone()
    }

    /// How many different ones.
    pub(crate) fn count(&self) -> usize {
        self.all().into_iter().collect::<std::collections::BTreeSet<_>>().len()
    }

    /// First deliveries of each key rise.
    pub(crate) fn assert_in_order(&self) {
        let mut highest = std::collections::BTreeMap::new();
        let mut known = std::collections::BTreeSet::new();
        for number in self.all() {
            if known.insert(number) {
                let before = highest.insert(number % 10, number);
                assert!(before.is_none_or(|before| before < number), "{before:?} before {number}");
            }
        }
    }
}

pub(crate) async fn work(
    queue: &PartitionedQueue<u64>,
    seen: &Seen,
    check: &SequenceCheck,
) -> Worker {
    let (seen, check) = (seen.clone(), check.clone());
    let handler = async move |delivery: Delivery<u64>| {
        check.observe(&delivery);
        seen.push(delivery.into_message());
        Ok::<(), HandlerError>(())
    };
    queue.worker(handler).start().await.unwrap()
}

pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(LIMIT, wait).await.is_ok(), "{what} did not happen");
}
