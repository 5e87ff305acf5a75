//! On real PostgreSQL. One server is shared by the tests that do it no harm, each with a database of its own.

mod bloat;
mod conformance;
mod dropping;
mod effects;
mod faults;
mod holding;
mod publishing;

use std::time::Duration;

use resonant_queue::{Delivery, HandlerError, PartitionedQueue, Postgres, SequenceCheck, Worker};
use resonant_testkit::postgres::TempDatabase;

use super::{LIMIT, Seen, until};

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
