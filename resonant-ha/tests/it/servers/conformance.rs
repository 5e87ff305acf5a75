//! The suites on PostgreSQL.

use std::sync::Arc;

use async_trait::async_trait;
use resonant_ha::backend::postgres::PostgresVoter;
use resonant_ha::testing::{RegionBench, VoterBench};
use resonant_ha::voter::{Ballot, Vote, Voter};
use resonant_ha::{RegionBackend, Result};
use resonant_testkit::Postgres;
use resonant_testkit::postgres::{Synchronous, TempDatabase};

use super::stage::Stage;

/// A voter in a database that goes with it.
#[derive(Debug)]
struct Temporary {
    voter: PostgresVoter,
    _database: Arc<TempDatabase>,
}

#[async_trait]
impl Voter for Temporary {
    async fn cast(&self, name: &str, ballot: Ballot) -> Result<Vote> {
        self.voter.cast(name, ballot).await
    }
}

async fn voter() -> VoterBench {
    let database = Arc::new(Postgres::temp().await.expect("a database"));
    let voter = || {
        let voter = PostgresVoter::new(database.url());
        Arc::new(Temporary { voter, _database: Arc::clone(&database) })
    };
    voter().voter.create_table().await.expect("the table");
    VoterBench::new(voter()).beside(voter())
}

/// Three servers of the case's own, with power over their hosts.
async fn regions() -> RegionBench {
    let stage = Arc::new(Stage::set(Synchronous::Off).await);
    let region = |number| -> Arc<dyn RegionBackend> { Arc::new(stage.with_agent(number)) };
    let regions = [region(0), region(1), region(2)];
    RegionBench::new(regions, move |number| {
        let node = stage.nodes[number].clone();
        async move { node.sql("INSERT INTO t SELECT coalesce(max(n), 0) + 1 FROM t").await.is_ok() }
    })
}

resonant_ha::voter_conformance!(postgres_voter, super::voter());
resonant_ha::region_conformance!(postgres_regions, super::regions());
