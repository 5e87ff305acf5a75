//! FailoverManager: the primary is killed, and the writes go on at another region; none that was acknowledged is lost.
//!
//! `cargo run -p resonant-ha --example failover` starts three PostgreSQL servers of its own in a temporary folder.

use std::error::Error;
use std::time::Duration;

use resonant_db::{Database, PoolConfig, params};
use resonant_ha::backend::postgres::PostgresRegion;
use resonant_ha::voter::{MemoryVoter, Quorum};
use resonant_ha::{FailoverConfig, FailoverManager};
use resonant_testkit::PostgresCluster;
use resonant_testkit::postgres::Synchronous;
use tokio::time::{Instant, sleep};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Each commit waits for one of the two others.
    let cluster = PostgresCluster::builder().replicas(2).synchronous(Synchronous::Any(1));
    let cluster = cluster.start().await?;
    let nodes = cluster.nodes().to_vec();
    PostgresRegion::new(nodes[0].url()).create_table().await?;

    let region =
        |number: usize| PostgresRegion::new(nodes[number].url()).standby_name(nodes[number].name());
    let failover = FailoverManager::builder()
        .primary_region("us-east-1")
        .secondary_regions(["us-west-2", "eu-west-1"])
        .config(FailoverConfig {
            health_check_interval: Duration::from_millis(500),
            probe_timeout: Duration::from_millis(400),
            synchronous_standbys: 1,
            auto_failback: false,
            ..FailoverConfig::fast()
        })
        .allow_promotion(true)
        // One voter in this process will do for a demonstration; three PostgresVoter in three places for anything else.
        .lease_store(Quorum::of(MemoryVoter::new()))
        .region("us-east-1", region(0))
        .region("us-west-2", region(1))
        .region("eu-west-1", region(2))
        .build()?;
    failover.start().await?;
    let mut topologies = failover.subscribe();
    topologies.wait_for(|topology| topology.primary.as_deref() == Some("us-east-1")).await?;

    let db = Database::builder()
        .primary(nodes[0].url())
        .replicas([nodes[1].url(), nodes[2].url()])
        .pool(PoolConfig::default().min_size(1).max_size(4))
        .statement_timeout(Duration::from_secs(2))
        .connect()
        .await?;
    db.follow(failover.subscribe());
    db.write().batch("CREATE TABLE orders (id BIGINT PRIMARY KEY)").await?;

    let (mut acknowledged, mut lost) = (Vec::new(), None);
    let mut id = 0;
    // Twenty writes before the primary is lost, and twenty at its heir.
    while acknowledged.len() < 40 {
        id += 1;
        match db.write().execute("INSERT INTO orders VALUES ($1)", params![id]).await {
            Ok(_) => acknowledged.push(id),
            Err(error) => println!("order {id} was not acknowledged: {}", error.code()),
        }
        if acknowledged.len() == 20 && lost.is_none() {
            println!("20 orders are in; the primary is killed");
            nodes[0].kill().await?;
            lost = Some(Instant::now());
        }
        if let Some(moment) = lost.filter(|_| acknowledged.len() == 21) {
            println!("writes go on after {:.1} s", moment.elapsed().as_secs_f64());
        }
        sleep(Duration::from_millis(10)).await;
    }

    let topology = topologies.borrow().clone();
    let primary = topology.primary.unwrap_or_default();
    println!("{primary} is the primary, in epoch {}", topology.epoch);
    assert_ne!(primary, "us-east-1");
    for id in &acknowledged {
        let found = db.write().query("SELECT 1 FROM orders WHERE id = $1", params![*id]).await?;
        assert_eq!(found.len(), 1, "order {id} was acknowledged and is lost");
    }
    println!("all {} acknowledged orders are there", acknowledged.len());
    failover.close().await;
    Ok(())
}
