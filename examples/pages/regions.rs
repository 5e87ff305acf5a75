//! FailoverManager: writes move to another region when theirs is lost, and back once it is well for a while.
//!
//! `cargo run --example regions`. The regions are listeners of this process, which it closes and opens again. Regions of
//! PostgreSQL are `backend::postgres::PostgresRegion`: docs/high-availability.md says what their servers need.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use resonant_sdk::ha::backend::ServiceRegion;
use resonant_sdk::ha::voter::{MemoryVoter, Quorum, Voter};
use resonant_sdk::ha::{FailoverConfig, FailoverManager, Topology};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Outcome {
    let (east, here) = region("127.0.0.1:0").await?;
    let (west, there) = region("127.0.0.1:0").await?;

    // Who says which manager may act: three `PostgresVoter`s in three places, or a Lease of Kubernetes. This one forgets with its
    // process, which is enough for a program that is alone.
    let voter = Arc::new(MemoryVoter::new()) as Arc<dyn Voter>;
    let failover = FailoverManager::builder()
        .primary_region("us-east-1")
        .secondary_regions(["us-west-2"])
        .region("us-east-1", ServiceRegion::tcp("http://east.internal", here.to_string()))
        .region("us-west-2", ServiceRegion::tcp("http://west.internal", there.to_string()))
        .config(FailoverConfig {
            failover_threshold: 3,
            auto_failback: true,
            failback_delay: Duration::from_secs(1), // the guide's 300 s, where nobody watches
            allow_promotion: true, // without it: watches, publishes, answers plan()
            ..FailoverConfig::fast()  // probes every 250 ms instead of every 10 s
        })
        .lease_store(Quorum::new([voter])?)
        .build()?;
    println!("a lost region is left within {:?}", failover.config().recovery().total);
    failover.start().await?;

    // What clients follow: db.follow(failover.subscribe()), or whoever asks where to write.
    let mut topology = failover.subscribe();
    let first = primary_is("us-east-1", &mut topology).await?;
    println!("writes go to us-east-1");

    east.abort();
    let second = primary_is("us-west-2", &mut topology).await?;
    println!("us-east-1 is lost: writes go to us-west-2");

    let (east, _) = region(&here.to_string()).await?;
    let third = primary_is("us-east-1", &mut topology).await?;
    println!("us-east-1 is well again: writes go to us-east-1");

    // Who hears of a change late knows that it is late: epochs only rise.
    assert!(first < second && second < third);

    failover.close().await;
    east.abort();
    west.abort();
    Ok(())
}

/// Waits until clients are told so; answers with the epoch.
async fn primary_is(region: &str, topology: &mut watch::Receiver<Topology>) -> Outcome<u64> {
    let told = topology.wait_for(|it| it.primary.as_deref() == Some(region));
    Ok(timeout(Duration::from_secs(60), told).await??.epoch)
}

/// A service that takes connections for as long as its task runs.
async fn region(address: &str) -> Outcome<(JoinHandle<()>, SocketAddr)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let serving = tokio::spawn(async move {
        loop {
            let _ = listener.accept().await;
        }
    });
    Ok((serving, address))
}
