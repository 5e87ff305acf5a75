//! Promotion and coming back.

use resonant_testkit::postgres::Synchronous;
use resonant_testkit::{ErrorKind, PgNode, PostgresCluster, Result};

use tokio::time::Instant;

use crate::support::{assert_hangs, becomes, failure, freed};

async fn rows(node: &PgNode) -> Result<String> {
    node.value("SELECT string_agg(id::text, ',' ORDER BY id) FROM t").await
}

#[tokio::test]
async fn an_acknowledged_write_survives_the_primary_and_the_old_primary_comes_back() -> Result<()> {
    let pg =
        PostgresCluster::builder().replicas(2).synchronous(Synchronous::Any(1)).start().await?;
    let (old, heir) = (pg.primary(), pg.replica(0));
    old.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await?;
    pg.caught_up().await?;

    old.kill().await?;
    failure(old.sql("INSERT INTO t VALUES (2)").await, ErrorKind::Lost);
    assert_eq!(
        failure(heir.sql("INSERT INTO t VALUES (2)").await, ErrorKind::Rejected).code(),
        Some("25006")
    );

    heir.promote().await?;
    assert!(heir.is_primary() && !old.is_primary());
    assert_eq!(pg.primary().index(), 1);
    pg.repoint_all().await?;
    pg.primary().sql("INSERT INTO t VALUES (3)").await?;

    pg.rejoin_by_rewind(0).await?;
    pg.primary().sql("INSERT INTO t VALUES (4)").await?;
    pg.caught_up().await?;
    for node in pg.nodes() {
        assert_eq!(rows(node).await?, "1,3,4", "on {}", node.name());
    }
    assert!(old.is_in_recovery().await?);
    Ok(())
}

#[tokio::test]
async fn a_replica_that_got_further_than_the_promoted_one_is_rewound() -> Result<()> {
    let pg = PostgresCluster::builder().replicas(2).start().await?;
    let (primary, short, far) = (pg.node(0), pg.node(1), pg.node(2));
    primary.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await?;
    pg.caught_up().await?;
    short.stop().await?;
    primary.sql("INSERT INTO t VALUES (2)").await?;
    far.caught_up_with(&primary).await?;
    primary.kill().await?;
    short.start().await?;
    assert_eq!(rows(&far).await?, "1,2");

    short.promote().await?;
    short.sql("INSERT INTO t VALUES (3)").await?;
    pg.repoint_all().await?;
    pg.caught_up().await?;
    assert_eq!(
        rows(&far).await?,
        "1,3",
        "the row that only this replica had is gone, and it follows"
    );

    pg.rebuild(0).await?;
    pg.caught_up().await?;
    assert_eq!(rows(&primary).await?, "1,3");
    Ok(())
}

#[tokio::test]
async fn a_thawed_primary_takes_writes_beside_the_promoted_one() -> Result<()> {
    let pg = PostgresCluster::builder().replicas(2).start().await?;
    let (old, heir, other) = (pg.primary(), pg.replica(0), pg.replica(1));
    old.sql("CREATE TABLE t (id int PRIMARY KEY)").await?;
    pg.caught_up().await?;
    let mut open = old.session().await?;
    old.freeze()?;
    heir.promote().await?;
    // The frozen one is not waited for, neither here nor there.
    pg.repoint_all().await?;
    heir.sql("INSERT INTO t VALUES (1)").await?;
    pg.caught_up().await?;
    assert_eq!(rows(&other).await?, "1");
    let stuck =
        assert_hangs(tokio::spawn(async move { open.sql("INSERT INTO t VALUES (2)").await })).await;
    old.thaw()?;
    freed(stuck).await?;
    assert_eq!(
        (rows(&heir).await?, rows(&old).await?),
        ("1".into(), "2".into()),
        "two primaries, as in life"
    );

    pg.rejoin_by_rewind(0).await?;
    pg.caught_up().await?;
    assert_eq!(rows(&old).await?, "1");
    failure(pg.rejoin_by_rewind(1).await, ErrorKind::Config);
    Ok(())
}

#[tokio::test]
async fn a_commit_that_waits_for_a_dead_replica_hangs_until_it_need_not_wait() -> Result<()> {
    let pg =
        PostgresCluster::builder().replicas(1).synchronous(Synchronous::First(1)).start().await?;
    let primary = pg.primary();
    primary.sql("CREATE TABLE t (id int PRIMARY KEY)").await?;
    pg.replica(0).kill().await?;
    let writer = primary.clone();
    let stuck =
        assert_hangs(tokio::spawn(async move { writer.sql("INSERT INTO t VALUES (1)").await }))
            .await;
    assert_eq!(
        primary.value("SELECT count(*) FROM t").await?,
        "0",
        "not visible before it is acknowledged"
    );
    pg.set_synchronous(Synchronous::Off).await?;
    freed(stuck).await?;
    assert_eq!(primary.value("SELECT count(*) FROM t").await?, "1");

    // The same with one that is frozen: it is told when it thaws.
    let replica = pg.replica(0);
    replica.start().await?;
    pg.set_synchronous(Synchronous::First(1)).await?;
    replica.freeze()?;
    let writer = primary.clone();
    let stuck =
        assert_hangs(tokio::spawn(async move { writer.sql("INSERT INTO t VALUES (2)").await }))
            .await;
    pg.set_synchronous(Synchronous::Off).await?;
    freed(stuck).await?;
    replica.thaw()?;
    let names = "SHOW synchronous_standby_names";
    becomes("being told", String::new(), async || replica.value(names).await).await
}

#[tokio::test]
async fn replication_alone_can_be_cut_and_follows_the_new_primary_through_the_same_link()
-> Result<()> {
    let started = Instant::now();
    let pg = PostgresCluster::builder().replicas(2).replication_proxies().start().await?;
    println!("FIGURE PostgreSQL, a primary and two replicas: {:?}", started.elapsed());
    let (primary, cut, whole) = (pg.node(0), pg.node(1), pg.node(2));
    primary.sql("CREATE TABLE t (id int PRIMARY KEY)").await?;
    pg.caught_up().await?;
    let link = cut.replication_link().expect("built with proxies");
    link.black_hole().await?;
    primary.sql("INSERT INTO t VALUES (1)").await?;
    whole.caught_up_with(&primary).await?;
    assert_eq!(whole.value("SELECT count(*) FROM t").await?, "1");
    assert_eq!(cut.value("SELECT count(*) FROM t").await?, "0", "reachable, and stale");

    primary.kill().await?;
    whole.promote().await?;
    link.heal().await?;
    pg.repoint_all().await?;
    whole.sql("INSERT INTO t VALUES (2)").await?;
    pg.caught_up().await?;
    assert_eq!(rows(&cut).await?, "1,2");
    assert_eq!(link.upstream(), whole.address());
    Ok(())
}

#[tokio::test]
async fn waiting_for_more_replicas_than_there_are_is_refused() {
    let error =
        PostgresCluster::builder().replicas(1).synchronous(Synchronous::Any(2)).start().await;
    assert!(
        failure(error, ErrorKind::Config)
            .to_string()
            .contains("wait for 2 replicas, but there are 1")
    );
    let none = PostgresCluster::builder().replicas(1).synchronous(Synchronous::First(0)).start();
    failure(none.await, ErrorKind::Config);
}
