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

#[tokio::test]
async fn a_vote_is_durable_whatever_the_roles_settings_are() {
    let cluster = PostgresCluster::builder().start().await.expect("a server");
    let server = cluster.primary();
    let voter = PostgresVoter::new(server.url());
    voter.create_table().await.expect("created");
    let mut session = server.session().await.expect("a session");
    session.sql("ALTER ROLE postgres SET synchronous_commit = off").await.expect("set");
    // What was voted without waiting for the disk is refused here.
    session
        .sql(
            "CREATE FUNCTION durable() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF current_setting('synchronous_commit') <> 'on' THEN RAISE 'not durable'; END IF; \
             RETURN new; END $$; \
             CREATE TRIGGER durable BEFORE INSERT OR UPDATE ON resonant_ha_voter \
             FOR EACH ROW EXECUTE FUNCTION durable()",
        )
        .await
        .expect("a trigger");
    let voter = PostgresVoter::new(server.url());
    let (term, owner, ttl) = (1, "me".to_owned(), Duration::from_secs(5));
    let vote = voter.cast("x", Ballot::Grant { term, owner, ttl }).await.expect("a vote");
    assert!(vote.done);
}
