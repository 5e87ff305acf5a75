//! Everything that needs a server: the PostgreSQL backend on real PostgreSQL.
#![expect(clippy::expect_used, reason = "helpers of tests fail by panicking")]

mod commits;
mod conformance;
mod credentials;
mod failover;
mod faults;
mod flow;
mod guard;
mod http;
mod lag;
mod lanes;
mod lanes_faults;
mod lanes_place;
mod listen;
mod meddler;
mod patroni;
mod pooler;
mod refusals;
mod replicas;
mod resolver;
mod runtimes;
mod sessions;
mod sharding;
mod sharding_arrays;
mod sharding_catalogue;
mod sharding_copy;
mod sharding_faults;
mod sharding_hash;
mod sharding_merge;
mod sharding_midway;
mod sharding_migrations;
mod sharding_moves;
mod sharding_stream;
mod statements;
mod tls;
mod traps;
mod turns;
mod types;
mod values;
mod warnings;

use std::time::Duration;

use resonant_db::backend::postgres::Postgres;
use resonant_db::backend::{Access, Backend, Connection, Target};
use resonant_testkit::postgres::TempDatabase;

/// How long a test waits for something that should happen.
pub(super) const LIMIT: Duration = Duration::from_secs(30);

/// A fresh database.
pub(super) async fn database() -> TempDatabase {
    resonant_testkit::Postgres::temp().await.expect("a database")
}

/// A connection that writes.
pub(super) async fn connect(url: &str) -> Box<dyn Connection> {
    open(url, Access::ReadWrite, None).await
}

pub(super) async fn open(
    url: &str,
    access: Access,
    statement_timeout: Option<Duration>,
) -> Box<dyn Connection> {
    let backend = Postgres::from_url(url).expect("a good URL");
    backend.connect(&Target::new(url, access, statement_timeout)).await.expect("a connection")
}

/// Waits until a state is reached.
pub(super) async fn until<F: AsyncFnMut() -> bool>(what: &str, mut reached: F) {
    let deadline = tokio::time::Instant::now() + LIMIT;
    while !reached().await {
        assert!(tokio::time::Instant::now() < deadline, "{what}: not within {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
