//! Sessions over TLS.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use resonant_ha::backend::postgres::{PostgresRegion, PostgresVoter};
use resonant_ha::voter::{Ballot, Voter as _};
use resonant_ha::{Error, Pledge, RegionBackend as _, RegionTarget, Role};
use resonant_testkit::{PgNode, PostgresCluster};

use super::stage::until;

#[tokio::test]
async fn probes_orders_and_votes_go_over_tls_to_a_server_whose_certificate_is_known() {
    let cluster = PostgresCluster::builder().replicas(1).tls_only().start().await;
    let cluster = cluster.expect("a cluster");
    let (primary, standby) = (cluster.primary(), cluster.replica(0));
    // Where a standby, which runs as somebody else, can read it, too.
    let root = standby.socket_dir().join("authority.crt");
    std::fs::copy(primary.ca_file().expect("an authority"), &root).expect("copied");
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o644)).expect("readable");
    let root = root.display().to_string().replace('/', "%2F");
    let url = |node: &PgNode| format!("{}?sslmode=verify-full&sslrootcert={root}", node.url());
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
    let done = |done: Result<(), Error>| done.inspect_err(|error| println!("{error:?}")).is_ok();
    until("frozen", async || done(follower.freeze(&order).await.map(drop))).await;
    let target =
        RegionTarget { region: "east".into(), url: url(&primary), replication_url: url(&primary) };
    // Whether the standby gets there is its libpq's business; it is given the URL as it is.
    let _ = done(follower.repoint(&order, &target).await);
    let given = standby.value("SHOW primary_conninfo").await.expect("a setting");
    assert!(given.contains("sslmode=verify-full") && given.contains("authority.crt"), "{given}");
    for node in [&primary, &standby] {
        let plain = "SELECT count(*) || ' of which plain: ' || count(*) FILTER (WHERE NOT ssl) \
             FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'resonant_ha'";
        let found = node.value(plain).await.expect("a count");
        assert!(found.ends_with(" of which plain: 0") && !found.starts_with("0 "), "{found}");
    }

    // Whom nobody vouches for is not believed.
    let stranger = PostgresRegion::new(format!("{}?sslmode=verify-full", primary.url()));
    stranger.probe(recent).await.expect_err("an unknown authority");
    let strict = PostgresRegion::new(format!("{}?sslmode=require", primary.url()));
    strict.probe(recent).await.expect_err("an unknown authority");
}
