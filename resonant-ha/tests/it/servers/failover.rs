//! Failovers, one at a time.

use std::time::Duration;

use resonant_ha::{EventKind, FailoverConfig, Proof};
use resonant_testkit::postgres::Synchronous;
use tokio::time::sleep;

use super::stage::{REGIONS, Stage, Writer, event, leads, quick, settled, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_synchronous_standbys_power_over_the_host_is_the_proof() {
    let stage = Stage::set(Synchronous::Off).await;
    let manager = stage.start(FailoverConfig { synchronous_standbys: 0, ..quick() }).await;
    until("the first topology", async || settled(&manager)).await;
    stage.nodes[0].sql("INSERT INTO t SELECT generate_series(1, 100)").await.expect("written");
    stage.cluster.caught_up().await.expect("caught up");
    stage.nodes[0].freeze().expect("frozen");
    until("another primary", async || !leads(&manager, 0)).await;
    let step = event(&manager, "the proof", |kind| {
        matches!(kind, EventKind::Step { proof: Some(Proof::Stopped { .. }), .. })
    });
    step.await;
    until("the old one follows", async || settled(&manager)).await;
    assert!(stage.nodes[0].is_in_recovery().await.expect("an answer"));
    let new = (0..3).find(|region| leads(&manager, *region)).expect("a primary");
    assert_eq!(stage.ids(new).await.len(), 100);
    manager.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_proof_nobody_is_promoted_and_the_reason_is_told() {
    let stage = Stage::set(Synchronous::Off).await;
    let config = FailoverConfig { synchronous_standbys: 0, ..quick() };
    let mut builder = stage.builder(config);
    for (number, name) in REGIONS.iter().enumerate() {
        builder = builder.region(*name, stage.region(number));
    }
    let manager = builder.build().expect("a manager");
    manager.start().await.expect("started");
    until("the first topology", async || settled(&manager)).await;
    stage.nodes[0].kill().await.expect("killed");
    let refusal = event(&manager, "the refusal", |kind| {
        matches!(kind, EventKind::Refused { reason: resonant_ha::Reason::NoProof, .. })
    });
    refusal.await;
    assert!(manager.plan().failover.against.contains(&resonant_ha::Reason::NoProof));
    sleep(Duration::from_secs(2)).await;
    for node in &stage.nodes[1..] {
        assert!(node.is_in_recovery().await.expect("an answer"), "it was promoted");
    }
    // The primary comes back, and nothing has happened.
    stage.nodes[0].start().await.expect("started");
    until("all well", async || settled(&manager)).await;
    assert!(leads(&manager, 0) && manager.status().epoch == 1);
    manager.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_primary_beside_the_new_one_raises_the_alarm_and_gets_no_writes() {
    let stage = Stage::set(Synchronous::Any(1)).await;
    // No power over the hosts: the old one cannot be rewound.
    let mut builder = stage.builder(quick());
    for (number, name) in REGIONS.iter().enumerate() {
        builder = builder.region(*name, stage.region(number));
    }
    let manager = builder.build().expect("a manager");
    manager.start().await.expect("started");
    until("the first topology", async || settled(&manager)).await;
    let db = stage.database(&manager).await;
    let writer = Writer::start(&db, 0, Duration::from_millis(5));
    until("writes flow", async || writer.count() > 5).await;
    stage.nodes[0].kill().await.expect("killed");
    until("another primary", async || !leads(&manager, 0)).await;
    stage.nodes[0].start().await.expect("started");
    let before = stage.ids(0).await.len();
    event(&manager, "the alarm", |kind| matches!(kind, EventKind::TwoPrimaries { .. })).await;
    assert_eq!(manager.findings()[0].code, "ha.two_primaries");
    let count = writer.count();
    until("writes flow on", async || writer.count() > count + 100).await;
    assert_eq!(stage.ids(0).await.len(), before, "a write landed on the old history");
    writer.finish().await;
    manager.close().await;
}
