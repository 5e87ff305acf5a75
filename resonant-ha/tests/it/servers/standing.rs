//! The orders of a PostgreSQL region, one at a time: what a frozen standby is weighed by, and what a promoted one writes.

use std::time::Duration;

use resonant_ha::backend::postgres::PostgresRegion;
use resonant_ha::{Frozen, Pledge, RegionBackend, Result, Role};
use resonant_testkit::PgNode;
use resonant_testkit::postgres::Synchronous;
use tokio::time::timeout;

use super::stage::{Stage, until};

fn order(epoch: u64) -> Pledge {
    Pledge { epoch, operation: format!("test/{epoch}") }
}

/// One order, as the manager gives it: bounded, and given again if it fails.
async fn freeze(region: &PostgresRegion, order: &Pledge) -> Option<Result<Frozen>> {
    timeout(Duration::from_secs(2), region.freeze(order)).await.ok()
}

/// The end of the primary's log, once this standby has all of it on its disk.
async fn received(primary: &PgNode, standby: &PgNode) -> u64 {
    let end = primary.value("SELECT pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')").await;
    let end: u64 = end.expect("a position").parse().expect("a number");
    until("the standby has received everything", async || {
        let sql = "SELECT pg_wal_lsn_diff(pg_last_wal_receive_lsn(), '0/0')";
        let has = standby.value(sql).await.expect("a position");
        has.parse::<u64>().expect("a number") >= end
    })
    .await;
    end
}

/// Asserts that the standby is never weighed by less than `end`, and is weighed once `release` lets it replay.
async fn is_weighed_only_by_everything(
    region: &PostgresRegion,
    end: u64,
    release: impl AsyncFnOnce(),
) {
    let order = order(5);
    for _ in 0..3 {
        if let Some(Ok(frozen)) = freeze(region, &order).await {
            assert!(
                frozen.reach.offset >= end,
                "weighed by {} of the {end} it received and acknowledged",
                frozen.reach.offset
            );
        }
    }
    release().await;
    let mut weighed = None;
    until("it is weighed", async || {
        weighed = freeze(region, &order).await.and_then(Result::ok);
        weighed.is_some()
    })
    .await;
    let weighed = weighed.expect("weighed");
    assert_eq!(weighed.role, Role::Standby);
    assert!(weighed.reach.offset >= end, "{weighed:?} is short of {end}");
}

#[tokio::test]
async fn a_standby_whose_replay_is_paused_is_not_weighed_by_what_it_replayed() {
    let stage = Stage::set(Synchronous::Any(1)).await;
    let (primary, standby) = (&stage.nodes[0], &stage.nodes[1]);
    standby.pause_replay().await.expect("paused");
    primary.sql("INSERT INTO t SELECT generate_series(1, 1000)").await.expect("acknowledged");
    let end = received(primary, standby).await;
    primary.kill().await.expect("killed");
    let region = stage.region(1);
    let release = async || standby.resume_replay().await.expect("resumed");
    is_weighed_only_by_everything(&region, end, release).await;
}

#[tokio::test]
async fn a_standby_whose_replay_waits_for_a_reader_is_not_weighed_by_what_it_replayed() {
    let stage = Stage::set(Synchronous::Any(1)).await;
    let (primary, standby) = (&stage.nodes[0], &stage.nodes[1]);
    standby.set("max_standby_streaming_delay", "-1").await.expect("set");
    standby.set("max_standby_archive_delay", "-1").await.expect("set");
    let mut reader = standby.session().await.expect("a session");
    reader.sql("BEGIN; SELECT count(*) FROM t").await.expect("a lock");
    primary.sql("ALTER TABLE t ADD COLUMN m int").await.expect("altered");
    primary.sql("INSERT INTO t SELECT generate_series(1, 1000)").await.expect("acknowledged");
    let end = received(primary, standby).await;
    primary.kill().await.expect("killed");
    let region = stage.region(1);
    is_weighed_only_by_everything(&region, end, async || drop(reader)).await;
}

#[tokio::test]
async fn a_standby_that_was_restarted_is_not_weighed_by_what_it_replayed_so_far() {
    let stage = Stage::set(Synchronous::Any(1)).await;
    let (primary, standby) = (&stage.nodes[0], &stage.nodes[1]);
    standby.delay_replay(Duration::from_secs(3600)).await.expect("delayed");
    primary.sql("INSERT INTO t SELECT generate_series(1, 1000)").await.expect("acknowledged");
    let end = received(primary, standby).await;
    primary.kill().await.expect("killed");
    // It has never received anything since: what it received before is on its disk alone.
    standby.restart().await.expect("restarted");
    let region = stage.region(1);
    let release = async || standby.delay_replay(Duration::ZERO).await.expect("no delay");
    is_weighed_only_by_everything(&region, end, release).await;
}

#[tokio::test]
async fn a_standby_that_has_everything_is_weighed_at_once_and_receives_nothing_more() {
    let stage = Stage::set(Synchronous::Any(1)).await;
    let (primary, standby) = (&stage.nodes[0], &stage.nodes[1]);
    primary.sql("INSERT INTO t SELECT generate_series(1, 1000)").await.expect("written");
    let end = received(primary, standby).await;
    let region = stage.region(1);
    let frozen = region.freeze(&order(5)).await.expect("frozen");
    assert!(frozen.reach.offset >= end);
    // The other one acknowledges from here on; this one stands.
    primary.sql("INSERT INTO t SELECT generate_series(1001, 2000)").await.expect("written");
    received(primary, &stage.nodes[2]).await;
    let again = region.freeze(&order(5)).await.expect("frozen again");
    assert_eq!(again.reach, frozen.reach);
    assert_eq!(region.freeze(&order(4)).await.expect_err("older").code(), "ha.fenced");
}

#[tokio::test]
async fn a_promoted_server_takes_no_write_before_its_epoch_row() {
    let stage = Stage::set(Synchronous::Off).await;
    let (primary, standby) = (&stage.nodes[0], &stage.nodes[1]);
    stage.region(0).confirm(&order(3)).await.expect("an epoch row");
    primary.sql("CREATE TABLE w (epoch bigint)").await.expect("a table");
    received(primary, standby).await;
    let region = stage.region(1);
    until("frozen", async || matches!(freeze(&region, &order(4)).await, Some(Ok(_)))).await;
    primary.kill().await.expect("killed");
    // Somebody who tries all the time, as a client that looks for the server that takes writes.
    let client = standby.clone();
    let writer = tokio::spawn(async move {
        let mut session = client.session().await.expect("a session");
        while session.sql("INSERT INTO w SELECT epoch FROM resonant_ha").await.is_err() {
            tokio::task::yield_now().await;
        }
    });
    region.promote(&order(4)).await.expect("promoted");
    writer.await.expect("no panic");
    let first = standby.value("SELECT min(epoch) FROM w").await.expect("a row");
    assert_eq!(first, "4", "a write came before the epoch row");
    let writes = standby.value("SHOW default_transaction_read_only").await.expect("a setting");
    assert_eq!(writes, "off");
}

#[tokio::test]
async fn a_commit_whose_wait_is_cancelled_is_not_confirmed() {
    let stage = Stage::set(Synchronous::Any(1)).await;
    let node = &stage.nodes[0];
    for standby in &stage.nodes[1..] {
        standby.kill().await.expect("killed");
    }
    let region = stage.region(0);
    let confirming = tokio::spawn(async move { region.confirm(&order(3)).await });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    until("it waits", async || node.value(waits).await.expect("a count") == "1").await;
    let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    node.sql(cancel).await.expect("cancelled");
    until("the wait ends", async || node.value(waits).await.expect("a count") == "0").await;
    assert!(!confirming.is_finished(), "the row was taken for acknowledged");
    stage.nodes[1].start().await.expect("started");
    let confirmed = timeout(Duration::from_secs(30), confirming).await.expect("in time");
    confirmed.expect("no panic").expect("confirmed");
}
