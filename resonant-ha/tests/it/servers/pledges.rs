//! The pledge of a server whose data are replaced.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use resonant_ha::backend::postgres::{PostgresAgent, PostgresRegion};
use resonant_ha::{Pledge, RegionBackend, RegionTarget, Result};
use resonant_testkit::postgres::Synchronous;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::agent::KitAgent;
use super::stage::{Stage, until};

fn order(epoch: u64) -> Pledge {
    Pledge { epoch, operation: format!("test/{epoch}") }
}

/// Takes its time before it does anything.
#[derive(Debug)]
struct Slow {
    agent: KitAgent,
    asked: Arc<Notify>,
    go_on: Arc<Notify>,
}

#[async_trait]
impl PostgresAgent for Slow {
    async fn stop(&self, order: &Pledge) -> Result<String> {
        self.agent.stop(order).await
    }
    async fn rejoin(&self, order: &Pledge, primary: &RegionTarget) -> Result<()> {
        self.asked.notify_one();
        self.go_on.notified().await;
        self.agent.rejoin(order, primary).await
    }
}

/// An old primary beside a new one, which is node 1.
async fn parted() -> Stage {
    let stage = Stage::set(Synchronous::Off).await;
    let heir = stage.region(1);
    until("frozen", async || {
        let frozen = timeout(Duration::from_secs(2), heir.freeze(&order(4))).await;
        matches!(frozen, Ok(Ok(_)))
    })
    .await;
    stage.nodes[0].sql("INSERT INTO t VALUES (1)").await.expect("only here");
    heir.promote(&order(4)).await.expect("promoted");
    heir.confirm(&order(4)).await.expect("confirmed");
    stage
}

fn target(stage: &Stage) -> RegionTarget {
    let url = stage.nodes[1].url();
    RegionTarget { region: "us-west-2".into(), url: url.clone(), replication_url: url }
}

async fn pledged(region: &PostgresRegion) -> u64 {
    region.probe(Duration::from_secs(1)).await.expect("a probe").pledge.epoch
}

#[tokio::test]
async fn a_pledge_given_while_an_agent_works_outlives_the_rewind() {
    let stage = parted().await;
    let (asked, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let agent = KitAgent::new(&stage.cluster, stage.nodes[0].clone());
    let slow = Slow { agent, asked: Arc::clone(&asked), go_on: Arc::clone(&go_on) };
    let region = stage.region(0).agent(slow);
    let primary = target(&stage);
    let rejoining = tokio::spawn(async move { region.rejoin(&order(4), &primary).await });
    asked.notified().await;
    // A newer manager asks for the server, for as long as the old one's agent takes.
    let other = stage.region(0);
    let newer = tokio::spawn(async move {
        loop {
            if let Ok(Ok(frozen)) = timeout(Duration::from_secs(1), other.freeze(&order(5))).await {
                return frozen;
            }
            sleep(Duration::from_millis(20)).await;
        }
    });
    sleep(Duration::from_millis(1500)).await;
    let obeyed_before = newer.is_finished();
    go_on.notify_one();
    let rejoined = rejoining.await.expect("no panic");
    let frozen = timeout(Duration::from_secs(60), newer).await.expect("in time").expect("ok");
    let region = stage.region(0);
    assert_eq!(pledged(&region).await, 5, "rejoined: {rejoined:?}, frozen: {frozen:?}");
    assert!(
        !obeyed_before || rejoined.is_err(),
        "{frozen:?} was weighed, and its data were replaced: {rejoined:?}"
    );
    let receives = "SELECT count(*) FROM pg_stat_wal_receiver";
    let receives = stage.nodes[0].value(receives).await.expect("a count");
    assert_eq!(receives, "0", "it receives, though it was frozen");
}

#[tokio::test]
async fn a_server_that_went_down_pledged_to_somebody_newer_is_not_rewound_by_an_older_order() {
    let stage = parted().await;
    stage.region(0).freeze(&order(7)).await.expect("pledged");
    stage.nodes[0].kill().await.expect("killed");
    let agent = KitAgent::new(&stage.cluster, stage.nodes[0].clone());
    let region = stage.region(0).agent(agent);
    let refused = region.rejoin(&order(4), &target(&stage)).await.expect_err("refused");
    assert_eq!(refused.code(), "ha.fenced");
    assert_eq!(region.fence(&order(4)).await.expect_err("refused").code(), "ha.fenced");
    // The newer one brings it back, and it keeps that pledge.
    region.rejoin(&order(7), &target(&stage)).await.expect("rejoined");
    assert_eq!(pledged(&region).await, 7);
    until("it receives", async || {
        let receives = "SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'";
        stage.nodes[0].value(receives).await.expect("a count") == "1"
    })
    .await;
    assert!(stage.ids(0).await.is_empty(), "what only it had is given up");
}
