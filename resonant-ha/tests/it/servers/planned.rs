//! Switchover, failback, and what is refused.

use std::time::Duration;

use resonant_ha::{ErrorKind, EventKind, FailoverConfig, Kind};
use resonant_testkit::postgres::Synchronous;
use tokio::time::Instant;

use super::stage::{REGIONS, Stage, WAIT, Writer, event, leads, quick, settled, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switchover_under_writes_loses_none_and_clients_see_no_error() {
    let stage = Stage::set(Synchronous::Any(1)).await;
    let manager = stage.start(quick()).await;
    until("the first topology", async || settled(&manager)).await;
    let db = stage.database(&manager).await;
    let writer = Writer::start(&db, 0, Duration::from_millis(4));
    until("writes flow", async || writer.count() > 50).await;
    let same = manager.switchover(REGIONS[0]).await.expect_err("it is the primary");
    assert_eq!(same.kind(), ErrorKind::Refused);
    let began = Instant::now();
    let epoch = manager.switchover(REGIONS[1]).await.expect("switched");
    assert!(leads(&manager, 1) && manager.status().epoch == epoch);
    let count = writer.count();
    until("writes flow on", async || writer.count() > count + 50).await;
    until("the old one follows", async || settled(&manager)).await;
    let (gap, failures) = (writer.longest_gap(began), writer.failures());
    println!("FIGURE the longest gap between two writes: {gap:?}");
    let acknowledged = writer.finish().await;
    let stored = stage.ids(1).await;
    assert!(acknowledged.iter().all(|id| stored.binary_search(id).is_ok()), "a write is lost");
    assert_eq!(failures, Vec::<String>::new());
    assert!(gap < WAIT, "no write for {gap:?}");
    manager.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_go_back_once_the_primary_region_was_well_for_its_hold() {
    let stage = Stage::set(Synchronous::Any(1)).await;
    let delay = Duration::from_secs(3);
    let manager =
        stage.start(FailoverConfig { auto_failback: true, failback_delay: delay, ..quick() }).await;
    until("the first topology", async || settled(&manager)).await;
    let db = stage.database(&manager).await;
    let writer = Writer::start(&db, 0, Duration::from_millis(10));
    until("writes flow", async || writer.count() > 5).await;
    stage.nodes[0].kill().await.expect("killed");
    until("another primary", async || !leads(&manager, 0)).await;
    let lost = Instant::now();
    let back = event(&manager, "the failback", |kind| {
        matches!(kind, EventKind::Published { kind: Kind::Failback, .. })
    });
    back.await;
    assert!(lost.elapsed() >= delay, "it went back before its hold: {:?}", lost.elapsed());
    until("it is told", async || leads(&manager, 0)).await;
    let count = writer.count();
    until("writes flow on", async || writer.count() > count + 20).await;
    let acknowledged = writer.finish().await;
    let stored = stage.ids(0).await;
    assert!(acknowledged.iter().all(|id| stored.binary_search(id).is_ok()), "a write is lost");
    let rejoined = manager.history().into_iter().any(
        |event| matches!(&event.kind, EventKind::Rejoined { region, .. } if *region == REGIONS[0]),
    );
    assert!(rejoined, "it was not brought back by the manager");
    manager.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_manager_takes_over_and_a_pause_holds_for_both() {
    let stage = Stage::set(Synchronous::Any(1)).await;
    let first = stage.start(quick()).await;
    until("the first topology", async || settled(&first)).await;
    let second = stage.start(quick()).await;
    until("it reads the record", async || second.status().epoch == 1).await;
    assert_eq!(second.pause("me").await.expect_err("not the holder").kind(), ErrorKind::Refused);
    first.pause("maintenance").await.expect("paused");
    first.close().await;
    until("the other takes over", async || !second.status().lease_remaining.is_zero()).await;
    assert_eq!(second.status().paused.as_deref(), Some("maintenance"));
    stage.nodes[0].kill().await.expect("killed");
    event(&second, "the refusal", |kind| {
        matches!(kind, EventKind::Refused { reason: resonant_ha::Reason::Paused, .. })
    })
    .await;
    assert!(leads(&second, 0));
    second.resume().await.expect("resumed");
    until("another primary", async || !leads(&second, 0)).await;
    second.close().await;
}
