//! Switches for an incident, and how quiet an outage is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use resonant_db::{Database, ErrorKind, PoolConfig, Result, Role, params};
use tokio::time::sleep;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::double::{Cluster, Fails};

async fn readers(db: &Database, count: usize) -> Result<Vec<String>> {
    let mut nodes = Vec::new();
    for _ in 0..count {
        nodes.push(db.read().query_one_as("read", params![]).await?);
    }
    Ok(nodes)
}

#[tokio::test(start_paused = true)]
async fn a_node_is_taken_out_and_put_back_by_hand() -> Result<()> {
    let cluster = Cluster::default();
    let db = cluster.database(&["a", "b"]);
    db.eject("a")?;
    assert_eq!(readers(&db, 4).await?, ["b"; 4]);
    assert!(db.status().nodes[1].held);
    assert!(db.findings().iter().any(|finding| finding.code == "db.replica.held"));
    // By URL too; then only the primary is left, and it stays.
    db.eject("double://b")?;
    assert_eq!(readers(&db, 2).await?, ["primary"; 2]);
    let error = db.eject("primary").expect_err("the last one");
    assert_eq!(error.kind(), ErrorKind::Config);
    db.restore("a")?;
    db.restore("b")?;
    let mut seen = readers(&db, 2).await?;
    seen.sort();
    assert_eq!(seen, ["a", "b"]);
    let error = db.eject("postgresql://me:s3cr3t@elsewhere/app").expect_err("unknown");
    assert!(error.to_string().contains("primary, a, b") && !error.to_string().contains("s3cr3t"));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_primary_is_forced_by_hand_and_released() -> Result<()> {
    let cluster = Cluster::with_roles();
    let db = cluster.builder(&["a"]).connect().await?;
    cluster.turn("a", Role::Primary, 1);
    db.force_primary("a")?;
    db.write().execute("write", params![]).await?;
    assert_eq!(cluster.log().last().map(String::as_str), Some("a:write"));
    assert_eq!(db.force_primary("nobody").expect_err("unknown").kind(), ErrorKind::Config);
    sleep(Duration::from_secs(1)).await;
    // Released, the present one stays as long as it says that it is the primary.
    db.release_primary();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(db.topology().primary.as_deref(), Some("a"));
    cluster.turn("a", Role::Replica, 1);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(db.topology().primary.as_deref(), Some("primary"));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn pools_are_resized_live() -> Result<()> {
    let cluster = Cluster::with_roles();
    let db = cluster
        .builder(&["a"])
        .pool(PoolConfig::default().min_size(1).max_size(4))
        .connect()
        .await?;
    db.resize("a", 2, 3)?;
    let sizes = |place: usize| {
        let pool = db.status().nodes[place].pool.clone();
        (pool.min_size, pool.max_size)
    };
    assert_eq!((sizes(0), sizes(1)), ((1, 4), (2, 3)));
    // Also for the role it gets later.
    cluster.turn("primary", Role::Replica, 2);
    cluster.turn("a", Role::Primary, 2);
    sleep(Duration::from_secs(1)).await;
    db.write().execute("write", params![]).await?;
    assert_eq!((sizes(0), sizes(1)), ((1, 4), (2, 3)));
    assert_eq!(db.resize("a", 5, 3).expect_err("more than the most").kind(), ErrorKind::Config);
    assert_eq!(db.resize("b", 1, 3).expect_err("unknown").kind(), ErrorKind::Config);
    Ok(())
}

/// Counts what would be seen at the level of a service in production.
#[derive(Clone, Default)]
struct Lines(Arc<AtomicUsize>);

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("resonant")
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        if *event.metadata().level() <= tracing::Level::INFO {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_a_minute_is_quiet_and_multiplies_nothing() -> Result<()> {
    super::redaction::keep_attention();
    let lines = Lines::default();
    let _listening = tracing::subscriber::set_default(lines.clone());
    let cluster = Cluster::with_roles();
    let db = cluster.builder(&["a", "b"]).connect().await?;
    sleep(Duration::from_secs(1)).await;
    for node in ["primary", "a", "b"] {
        cluster.fail(node, (Fails::Running, ErrorKind::Unavailable));
    }
    cluster.log();
    let (mut calls, mut attempts) = (0, 0);
    for _ in 0..60 {
        for _ in 0..100 {
            // Ten each: a thousand in a second.
            let reads = (0..9).map(|_| db.read().query("read", params![]));
            let write = tokio::spawn({
                let db = db.clone();
                async move { db.write().execute("write", params![]).await }
            });
            for answer in futures::future::join_all(reads).await {
                assert!(answer.is_err());
            }
            drop(write);
            calls += 10;
            sleep(Duration::from_millis(10)).await;
        }
        attempts += cluster.log().len();
    }
    sleep(Duration::from_secs(3)).await;
    attempts += cluster.log().len();
    let written = lines.0.load(Ordering::Relaxed);
    println!("{calls} calls, {attempts} attempts, {written} lines");
    assert!(written >= 3, "the outage is told: {written} lines");
    assert!(written <= 20, "{written} lines for an outage of a minute");
    assert!(attempts as f64 <= calls as f64 * 1.1, "{attempts} attempts for {calls} calls");
    for node in ["primary", "a", "b"] {
        cluster.fail(node, None);
    }
    sleep(Duration::from_secs(3)).await;
    readers(&db, 4).await?;
    db.write().execute("write", params![]).await.map(drop)
}
