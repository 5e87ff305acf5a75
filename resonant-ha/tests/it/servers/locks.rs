//! What a manager that is lost in the middle of an order leaves behind on the server.

use std::time::Duration;

use async_trait::async_trait;
use resonant_ha::backend::postgres::PostgresRegion;
use resonant_ha::{
    Error, ErrorKind, Frozen, Observation, Pledge, RegionBackend, RegionTarget, Result,
};
use resonant_testkit::FaultProxy;
use resonant_testkit::postgres::Synchronous;
use tokio::time::{sleep, timeout};

use super::stage::{Stage, until};

fn order(epoch: u64) -> Pledge {
    Pledge { epoch, operation: format!("test/{epoch}") }
}

/// An heir whose answer never comes.
#[derive(Debug)]
struct Slow;

#[async_trait]
impl RegionBackend for Slow {
    fn url(&self) -> String {
        String::new()
    }
    async fn probe(&self, _: Duration) -> Result<Observation> {
        std::future::pending().await
    }
    async fn freeze(&self, _: &Pledge) -> Result<Frozen> {
        Err(Error::new(ErrorKind::Failed, "freeze", "not here"))
    }
    async fn promote(&self, _: &Pledge) -> Result<u32> {
        Ok(0)
    }
    async fn repoint(&self, _: &Pledge, _: &RegionTarget) -> Result<()> {
        Ok(())
    }
    async fn confirm(&self, _: &Pledge) -> Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_manager_that_is_cut_off_in_an_order_does_not_keep_the_servers_lock() {
    let stage = Stage::set(Synchronous::Off).await;
    let node = &stage.nodes[0];
    let link = FaultProxy::start(node.address()).await.expect("a link");
    let cut_off = PostgresRegion::new(node.url_through(&link)).standby_name(node.name());
    // It holds the lock and waits for its heir when its host is cut off: no word of its end ever comes through.
    let holding = tokio::spawn(async move { cut_off.demote(&order(5), &Slow).await.map(drop) });
    let holders = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted";
    until("the lock is held", async || node.value(holders).await.expect("a count") == "1").await;
    sleep(Duration::from_millis(700)).await;
    link.black_hole().await.expect("cut off");
    holding.abort();
    // The next order gets through before long.
    let region = stage.region(0);
    until("another order is obeyed", async || {
        let demoted = timeout(Duration::from_secs(5), region.freeze(&order(6))).await;
        matches!(demoted, Ok(Ok(_)))
    })
    .await;
}

#[tokio::test]
async fn orders_and_probes_of_a_frozen_server_that_are_given_up_leave_no_sessions() {
    let stage = Stage::set(Synchronous::Off).await;
    let node = &stage.nodes[0];
    let region = stage.region(0);
    region.probe(Duration::from_secs(1)).await.expect("a probe");
    node.freeze().expect("frozen");
    for epoch in 1..6 {
        let limit = Duration::from_millis(200);
        assert!(timeout(limit, region.probe(limit)).await.is_err(), "a frozen server answered");
        assert!(timeout(limit, region.freeze(&order(epoch))).await.is_err());
    }
    node.thaw().expect("thawed");
    node.ready().await.expect("ready");
    let left = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'resonant_ha'";
    until("the sessions end", async || node.value(left).await.expect("a count") == "0").await;
    // And the next order is obeyed.
    timeout(Duration::from_secs(10), region.freeze(&order(9))).await.expect("in time").expect("ok");
}
