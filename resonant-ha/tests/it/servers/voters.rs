//! PostgreSQL servers as voters.

use std::sync::Arc;
use std::time::Duration;

use resonant_common::join::testing;
use resonant_ha::ErrorKind;
use resonant_ha::backend::postgres::PostgresVoter;
use resonant_ha::voter::{Ballot, Quorum, Voter};
use resonant_testkit::PostgresCluster;

#[tokio::test]
async fn one_row_and_three_servers_keep_the_contract_of_leases() {
    let servers = PostgresCluster::builder().start_shards(3).await.expect("three servers");
    let voter = |server: &PostgresCluster| PostgresVoter::new(server.primary().url());
    let missing = voter(&servers[0]).cast("x", Ballot::Read).await.expect_err("no table yet");
    assert_eq!(missing.kind(), ErrorKind::Config);
    assert!(missing.to_string().contains("create_table()"), "{missing}");
    for server in &servers {
        voter(server).create_table().await.expect("created");
        voter(server).create_table().await.expect("created once more");
    }
    let one = Quorum::of(voter(&servers[0]));
    testing::suite(Arc::new(one), "one", Duration::from_millis(800)).await;

    let voters = || servers.iter().map(|server| Arc::new(voter(server)) as Arc<dyn Voter>);
    let quorum = Quorum::new(voters()).expect("a quorum");
    testing::suite(Arc::new(quorum.clone()), "three", Duration::from_millis(800)).await;

    // One of them may be lost.
    servers[0].primary().kill().await.expect("killed");
    testing::suite(Arc::new(quorum), "two", Duration::from_millis(800)).await;
}
