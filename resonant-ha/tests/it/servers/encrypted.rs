//! Sessions over TLS.

use std::time::Duration;

use resonant_ha::backend::postgres::{PostgresRegion, PostgresVoter};
use resonant_ha::voter::{Ballot, Voter as _};
use resonant_ha::{ErrorKind, Pledge, RegionBackend as _, RegionTarget, Role};
use resonant_testkit::{PgNode, PostgresCluster};

use super::stage::until;

#[tokio::test]
async fn probes_orders_and_votes_go_over_tls_to_a_server_whose_certificate_is_known() {
    let cluster = PostgresCluster::builder().replicas(1).tls_only().start().await;
    let cluster = cluster.expect("a cluster");
    let (primary, standby) = (cluster.primary(), cluster.replica(0));
    let url = |node: &PgNode| {
        let root = node.ca_file().expect("an authority").display().to_string();
        format!("{}?sslmode=verify-full&sslrootcert={}", node.url(), root.replace('/', "%2F"))
    };
    let recent = Duration::from_secs(1);
    let region = PostgresRegion::new(url(&primary));
    region.create_table().await.expect("the table");
    assert_eq!(region.probe(recent).await.expect("a probe").role, Role::Primary);
    let voter = PostgresVoter::new(url(&primary));
    voter.create_table().await.expect("the voter's table");
    assert!(voter.cast("x", Ballot::Read).await.expect("a vote").done);
    cluster.caught_up().await.expect("caught up");

    // Freezing looks by sessions of its own; re-pointing takes the URL to the standby.
    let (follower, order) = (
        PostgresRegion::new(url(&standby)).standby_name("p1"),
        Pledge { epoch: 3, operation: "test/3".to_owned() },
    );
    until("frozen", async || follower.freeze(&order).await.is_ok()).await;
    let target =
        RegionTarget { region: "east".into(), url: url(&primary), replication_url: url(&primary) };
    until("it receives", async || follower.repoint(&order, &target).await.is_ok()).await;
    for (node, whose) in [(&primary, "p1"), (&primary, "resonant_ha"), (&standby, "resonant_ha")] {
        let plain = format!(
            "SELECT count(*) || ' of which plain: ' || count(*) FILTER (WHERE NOT ssl) \
             FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = '{whose}'"
        );
        let found = node.value(&plain).await.expect("a count");
        assert!(found.ends_with(" of which plain: 0") && !found.starts_with("0 "), "{found}");
    }

    // In the clear it is not let in, and whom nobody vouches for is not believed.
    let clear = PostgresRegion::new(primary.url()).probe(recent).await.expect_err("in the clear");
    assert_ne!(clear.kind(), ErrorKind::Config);
    let stranger = PostgresRegion::new(format!("{}?sslmode=verify-full", primary.url()));
    stranger.probe(recent).await.expect_err("an unknown authority");
    let weak = PostgresRegion::new(format!("{}?sslmode=require", primary.url()));
    let weak = weak.probe(recent).await.expect_err("anybody");
    assert!(weak.kind() == ErrorKind::Config && weak.message().contains("verify-full"), "{weak}");
}
