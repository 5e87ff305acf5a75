//! What must not cause a failover.

use std::time::Duration;

use resonant_ha::backend::postgres::PostgresRegion;
use resonant_ha::{EventKind, Reason};
use resonant_testkit::FaultProxy;
use resonant_testkit::postgres::Synchronous;
use tokio::time::sleep;

use super::stage::{REGIONS, Stage, event, leads, quick, settled, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_is_cut_off_and_regions_that_hang_or_flap_cause_no_failover() {
    let stage = Stage::set(Synchronous::Any(1)).await;
    let mut builder = stage.builder(quick());
    let mut links = Vec::new();
    for (number, name) in REGIONS.iter().enumerate() {
        let node = &stage.nodes[number];
        let link = FaultProxy::start(node.address()).await.expect("a link");
        let region = PostgresRegion::new(node.url_through(&link)).replication_url(node.url());
        builder = builder.region(*name, region.standby_name(node.name()));
        links.push(link);
    }
    let manager = builder.build().expect("a manager");
    manager.start().await.expect("started");
    until("the first topology", async || settled(&manager)).await;
    let refused = async |wanted: Reason| {
        let told = |kind: &EventKind| matches!(kind, EventKind::Refused { reason, .. } if *reason == wanted);
        event(&manager, wanted.as_str(), told).await;
    };

    // The primary lives for everybody but this manager, however its link fails.
    links[0].black_hole().await.expect("hangs");
    refused(Reason::PrimaryHeard).await;
    links[0].heal().await.expect("healed");
    until("well again", async || settled(&manager)).await;

    // Nobody answers: the fault is on this side.
    for link in &links {
        link.black_hole().await.expect("hangs");
    }
    refused(Reason::Alone).await;
    for link in &links {
        link.heal().await.expect("healed");
    }
    until("well again", async || settled(&manager)).await;

    // Standbys that hang and come back are no reason for anything.
    for _ in 0..3 {
        stage.nodes[2].freeze().expect("frozen");
        sleep(Duration::from_millis(700)).await;
        stage.nodes[2].thaw().expect("thawed");
        sleep(Duration::from_millis(300)).await;
    }
    until("well again", async || settled(&manager)).await;
    assert!(leads(&manager, 0) && manager.status().epoch == 1, "{:?}", manager.history());
    manager.close().await;
}
