//! What one server can suffer.

use std::time::Duration;

use resonant_testkit::{ErrorKind, PostgresCluster, Result};

use crate::support::{HANG, assert_hangs, becomes, failure, freed};

#[tokio::test]
async fn a_killed_server_refuses_and_keeps_what_it_acknowledged() -> Result<()> {
    let pg = PostgresCluster::builder().durable().start().await?;
    let node = pg.primary();
    assert_eq!(node.value("SHOW fsync").await?, "on");
    node.sql("CREATE TABLE t (id int); INSERT INTO t SELECT generate_series(1, 100)").await?;
    let mut open = node.session().await?;

    node.kill().await?;
    assert!(!node.is_running());
    failure(open.sql("SELECT 1").await, ErrorKind::Lost);
    failure(node.sql("INSERT INTO t VALUES (101)").await, ErrorKind::Lost);
    node.start().await?;
    assert_eq!(node.value("SELECT count(*) FROM t").await?, "100");

    // A session that is busy outlives its postmaster; a new server can only start when it has ended.
    let mut busy = node.session().await?;
    let busy = tokio::spawn(async move {
        busy.sql("SELECT sum(sqrt(n)) FROM generate_series(1, 8000000) n").await
    });
    let running = "SELECT count(*)::text FROM pg_stat_activity WHERE query LIKE '%sqrt(n)%' AND pid <> pg_backend_pid()";
    becomes("the query", "1".to_owned(), async || node.value(running).await).await?;
    node.kill_postmaster().await?;
    assert!(!busy.is_finished(), "it works on");
    node.start().await?;
    assert!(busy.is_finished() || busy.await.is_ok());
    node.restart().await?;
    assert_eq!(node.value("SELECT count(*) FROM t").await?, "100");
    Ok(())
}

#[tokio::test]
async fn a_frozen_server_hangs_its_clients_until_it_is_thawed() -> Result<()> {
    let pg = PostgresCluster::builder().start().await?;
    let node = pg.primary();
    let mut open = node.session().await?.limit(HANG);
    let mut patient = node.session().await?;

    node.freeze()?;
    assert!(node.is_running(), "frozen is not dead");
    failure(open.sql("SELECT 1").await, ErrorKind::TimedOut);
    let stuck =
        assert_hangs(tokio::spawn(async move { patient.value("SELECT 'back'").await })).await;
    node.thaw()?;
    assert_eq!(freed(stuck).await?, "back");

    // Only the postmaster: who is in works on, who comes waits.
    let mut inside = node.session().await?;
    node.freeze_postmaster()?;
    assert_eq!(inside.value("SELECT 'inside'").await?, "inside");
    let newcomer = node.clone();
    let stuck =
        assert_hangs(tokio::spawn(async move { newcomer.value("SELECT 'in'").await })).await;
    node.thaw()?;
    assert_eq!(freed(stuck).await?, "in");

    let mut thrown_out = node.session().await?;
    assert!(node.close_sessions().await? >= 1);
    assert_eq!(failure(thrown_out.sql("SELECT 1").await, ErrorKind::Lost).code(), Some("57P01"));
    Ok(())
}

#[tokio::test]
async fn a_replica_is_stale_while_its_replay_is_paused_or_late() -> Result<()> {
    let pg = PostgresCluster::builder().replicas(1).start().await?;
    let (primary, replica) = (pg.primary(), pg.replica(0));
    let count = "SELECT count(*) FROM t";
    primary.sql("CREATE TABLE t (id int)").await?;
    pg.caught_up().await?;

    // Until it has arrived it proves nothing that it is not to be seen.
    let received = async || {
        let written = primary.value("SELECT pg_current_wal_lsn()").await?;
        let arrived = format!("SELECT pg_last_wal_receive_lsn() >= '{written}'::pg_lsn");
        becomes("receiving", "t".to_owned(), async || replica.value(&arrived).await).await
    };
    replica.pause_replay().await?;
    primary.sql("INSERT INTO t VALUES (1)").await?;
    received().await?;
    assert_eq!(replica.value(count).await?, "0", "received, not applied");
    replica.resume_replay().await?;
    pg.caught_up().await?;
    assert_eq!(replica.value(count).await?, "1");

    replica.delay_replay(Duration::from_secs(3600)).await?;
    primary.sql("INSERT INTO t VALUES (2)").await?;
    received().await?;
    assert_eq!(replica.value(count).await?, "1", "an hour late");
    replica.delay_replay(Duration::ZERO).await?;
    pg.caught_up().await?;
    assert_eq!(replica.value(count).await?, "2");
    failure(primary.pause_replay().await, ErrorKind::Rejected);
    Ok(())
}

#[tokio::test]
async fn shards_are_independent_servers() -> Result<()> {
    let shards =
        PostgresCluster::builder().setting("max_connections", "20").start_shards(3).await?;
    shards[0].primary().sql("CREATE TABLE t (id int)").await?;
    assert_eq!(
        failure(shards[1].primary().sql("SELECT * FROM t").await, ErrorKind::Rejected).code(),
        Some("42P01")
    );
    shards[0].primary().kill().await?;
    for shard in &shards[1..] {
        assert_eq!(shard.primary().value("SHOW max_connections").await?, "20");
    }
    failure(shards[0].primary().sql("SELECT 1").await, ErrorKind::Lost);
    Ok(())
}

#[tokio::test]
async fn a_replica_with_other_limits_than_the_template_starts_too() -> Result<()> {
    let pg = PostgresCluster::builder()
        .replicas(1)
        .setting("max_connections", "20")
        .setting("wal_level", "logical")
        .start()
        .await?;
    pg.primary().sql("CREATE TABLE t (id int)").await?;
    pg.caught_up().await?;
    assert_eq!(pg.replica(0).value("SELECT count(*) FROM t").await?, "0");
    pg.primary().set("work_mem", "7MB").await?;
    Ok(())
}

#[tokio::test]
async fn a_setting_that_the_server_refuses_ends_in_an_error_with_its_log() {
    let error = PostgresCluster::builder().setting("shared_buffers", "a lot").start().await;
    let error = failure(error, ErrorKind::Exited);
    assert!(error.log().is_some_and(|log| log.contains("shared_buffers")), "{error:?}");
}
