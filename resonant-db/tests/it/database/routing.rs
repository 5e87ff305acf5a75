//! Which node answers, and what happens when it does not.

use std::time::Duration;

use resonant_db::{Database, ErrorKind, PoolConfig, ReadStrategy, Result, params};
use tokio::time::Instant;

use super::double::{Cluster, Fails};

const DOWN: (Fails, ErrorKind) = (Fails::Running, ErrorKind::Unavailable);

/// The nodes that answered `count` reads.
async fn readers(db: &Database, count: usize) -> Result<Vec<String>> {
    let mut nodes = Vec::new();
    for _ in 0..count {
        nodes.push(db.read().query_one_as("read", params![]).await?);
    }
    Ok(nodes)
}

#[tokio::test(start_paused = true)]
async fn reads_go_round_the_replicas_and_writes_to_the_primary() -> Result<()> {
    let (cluster, replicas) = (Cluster::default(), ["a", "b"]);
    let db = cluster.database(&replicas);
    assert_eq!(readers(&db, 4).await?, ["a", "b", "a", "b"]);
    db.write().execute("write", params![]).await?;
    let seen: String = db.write().query_one_as("newest", params![]).await?;
    assert_eq!(seen, "primary");
    let db = cluster.builder(&replicas).read_strategy(ReadStrategy::Primary).connect_lazy()?;
    assert_eq!(readers(&db, 2).await?, ["primary", "primary"]);
    assert_eq!(readers(&cluster.database(&[]), 2).await?, ["primary", "primary"], "no replicas");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn by_chance_every_replica_answers_and_the_primary_does_not() -> Result<()> {
    let cluster = Cluster::default();
    let db = cluster.builder(&["a", "b"]).read_strategy(ReadStrategy::Random).connect_lazy()?;
    let mut seen = readers(&db, 100).await?;
    seen.sort();
    seen.dedup();
    assert_eq!(seen, ["a", "b"]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_least_busy_replica_answers() -> Result<()> {
    let cluster = Cluster::default();
    let db =
        cluster.builder(&["a", "b"]).read_strategy(ReadStrategy::LeastInFlight).connect_lazy()?;
    cluster.hang("a", "slow");
    let slow = tokio::spawn({
        let db = db.clone();
        async move { db.read().query("slow", params![]).await }
    });
    cluster.reached("a:slow").await;
    assert_eq!(db.status().nodes[1].in_flight, 1);
    assert_eq!(readers(&db, 3).await?, ["b", "b", "b"]);
    slow.abort();
    assert!(slow.await.is_err());
    assert_eq!(db.status().nodes[1].in_flight, 0, "who was dropped no longer counts");
    let mut both = readers(&db, 2).await?;
    both.sort();
    assert_eq!(both, ["a", "b"]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn who_prefers_the_primary_reads_from_replicas_while_it_is_down() -> Result<()> {
    let cluster = Cluster::default();
    let db = cluster.builder(&["a"]).read_strategy(ReadStrategy::PreferPrimary).connect_lazy()?;
    assert_eq!(readers(&db, 2).await?, ["primary", "primary"]);
    cluster.fail("primary", DOWN);
    assert_eq!(readers(&db, 5).await?, ["a"; 5]);
    cluster.log();
    assert_eq!(readers(&db, 5).await?, ["a"; 5]);
    assert_eq!(cluster.log(), ["a:read"; 5], "nobody asks the primary any more");
    cluster.fail("primary", None);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(readers(&db, 2).await?, ["primary", "primary"]);
    let db = cluster.builder(&["a"]).read_strategy(ReadStrategy::Primary).connect_lazy()?;
    cluster.fail("primary", DOWN);
    assert!(readers(&db, 1).await.is_err(), "the primary or nobody");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_last_replica_is_asked_although_it_kept_failing() -> Result<()> {
    let cluster = Cluster::default();
    let db = cluster.database(&["a"]);
    cluster.fail("a", DOWN);
    assert_eq!(readers(&db, 5).await?, ["primary"; 5]);
    assert!(db.status().nodes[1].ejected);
    // The primary goes down and the replica comes up: it is asked before its pause is over.
    cluster.fail("primary", DOWN);
    cluster.fail("a", None);
    assert_eq!(readers(&db, 1).await?, ["a"]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_hangs_while_connecting_holds_nobody_past_the_deadline() -> Result<()> {
    let cluster = Cluster::default();
    let pool = PoolConfig::default().min_size(0).acquire_timeout(Duration::from_secs(1));
    let db = cluster.builder(&["a"]).pool(pool).connect_lazy()?;
    cluster.hang("a", "connect");
    let start = Instant::now();
    assert_eq!(readers(&db, 1).await?, ["primary"]);
    assert!(start.elapsed() <= Duration::from_millis(1100), "{:?}", start.elapsed());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_read_moves_on_when_its_node_fails_and_a_wrong_statement_does_not() -> Result<()> {
    let cluster = Cluster::default();
    let db = cluster.database(&["a", "b"]);
    for fails in [Fails::Connecting, Fails::Running] {
        cluster.fail("a", (fails, ErrorKind::Unavailable));
        for node in readers(&db, 4).await? {
            assert_eq!(node, "b");
        }
    }
    cluster.fail("a", (Fails::Running, ErrorKind::Conflict));
    cluster.fail("b", (Fails::Running, ErrorKind::Unavailable));
    assert_eq!(readers(&db, 1).await?, ["primary"]);

    cluster.fail("a", (Fails::Running, ErrorKind::Rejected));
    cluster.fail("b", (Fails::Running, ErrorKind::Rejected));
    cluster.log();
    let error = db.read().query("typo", params![]).await.expect_err("rejected");
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert_eq!(cluster.log().len(), 1, "asked once");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn when_every_node_fails_each_is_asked_once() {
    let cluster = Cluster::default();
    let db = cluster.database(&["a", "b"]);
    for node in ["a", "b", "primary"] {
        cluster.fail(node, DOWN);
    }
    let error = db.read().query("read", params![]).await.expect_err("all down");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.retries_exhausted());
    assert_eq!(cluster.log(), ["a:read", "b:read", "primary:read"]);
}

#[tokio::test(start_paused = true)]
async fn a_write_is_never_sent_twice() {
    let cluster = Cluster::default();
    let db = cluster.database(&["a"]);
    cluster.fail("primary", DOWN);
    for _ in 0..3 {
        let error = db.write().execute("write", params![]).await.expect_err("down");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(cluster.log(), ["primary:write"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_keeps_failing_is_ejected_and_comes_back() -> Result<()> {
    let cluster = Cluster::default();
    let db = cluster.database(&["a", "b"]);
    cluster.fail("a", DOWN);
    readers(&db, 10).await?;
    assert!(db.status().nodes[1].ejected);
    assert!(db.findings().iter().any(|finding| finding.code == "db.replica.ejected"));
    cluster.log();
    readers(&db, 10).await?;
    assert!(cluster.log().iter().all(|line| line.starts_with("b:")), "nobody waits for it");

    cluster.fail("a", None);
    tokio::time::sleep(Duration::from_secs(2)).await;
    readers(&db, 4).await?;
    assert!(!db.status().nodes[1].ejected);
    // It is back with a growing share.
    tokio::time::sleep(Duration::from_secs(2)).await;
    cluster.log();
    readers(&db, 10).await?;
    assert_eq!(cluster.log().iter().filter(|line| line.starts_with("a:")).count(), 5);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn retries_keep_to_the_budget() {
    let cluster = Cluster::default();
    let db = cluster.database(&["a"]);
    cluster.fail("a", DOWN);
    cluster.fail("primary", DOWN);
    for _ in 0..200 {
        let _ = db.read().query("read", params![]).await;
    }
    // 20 in reserve and 8 % of the calls.
    let attempts = cluster.log().len();
    assert!((200..=240).contains(&attempts), "{attempts} attempts for 200 calls");
}

#[tokio::test(start_paused = true)]
async fn a_ping_asks_the_primary_where_there_are_no_local_readers() -> Result<()> {
    let cluster = Cluster::default();
    let db = cluster.database(&["a"]);
    db.ping().await?;
    assert_eq!(cluster.log(), ["primary:ping"]);
    cluster.fail("primary", DOWN);
    assert_eq!(db.ping().await.expect_err("down").kind(), ErrorKind::Unavailable);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn closing_refuses_new_calls_and_names_who_is_late() -> Result<()> {
    let cluster = Cluster::default();
    let db = cluster.database(&["a"]);
    cluster.hang("a", "slow");
    let late = tokio::spawn({
        let db = db.clone();
        async move { db.read().query("slow", params![]).await }
    });
    cluster.reached("a:slow").await;
    let error = db.close(Duration::from_secs(3)).await.expect_err("one is late");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(error.to_string().contains("routing.rs"), "the caller is named: {error}");
    let error = db.write().execute("write", params![]).await.expect_err("closed");
    assert_eq!(error.kind(), ErrorKind::Closed);
    late.abort();
    let _ = late.await;
    db.close(Duration::from_secs(3)).await
}

#[tokio::test(start_paused = true)]
async fn a_start_needs_the_primary_and_no_replica() -> Result<()> {
    let cluster = Cluster::default();
    let pool = resonant_db::PoolConfig::default().min_size(1);
    let builder = cluster.builder(&["a"]).pool(pool);
    cluster.fail("a", (Fails::Connecting, ErrorKind::Unavailable));
    builder.clone().connect().await?;
    cluster.fail("primary", (Fails::Connecting, ErrorKind::Unavailable));
    let error = builder.clone().connect().await.expect_err("the primary is down");
    assert!(error.to_string().contains("scripted to fail"), "{error}");
    builder.connect_lazy().map(drop)
}

/// The error of a database that cannot be built.
fn refused(url: &str) -> (ErrorKind, String) {
    let error = Database::builder().primary(url).connect_lazy().expect_err("no such engine");
    (error.kind(), error.to_string())
}

#[tokio::test]
async fn a_postgresql_url_is_read_when_the_database_is_built() -> Result<()> {
    let good = ["postgresql://app:s3cr3t@db/app", "postgres://app:s3cr3t@db/app"];
    for url in good {
        Database::builder().primary(url).connect_lazy()?;
    }
    for bad in ["postgresql://app:s3cr3t@db/app?sslmode=on", "postgresql://app:s3cr3t@db:port/app"]
    {
        assert_eq!(refused(bad).0, ErrorKind::Config);
        let error = Database::builder().primary(good[0]).replicas([bad]).connect_lazy();
        let error = error.expect_err("a bad replica");
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(!format!("{error:?}").contains("s3cr3t"), "{error:?}");
    }
    Ok(())
}

#[test]
fn a_wrong_url_says_what_is_wrong() {
    assert_eq!(refused("mysql://db/app").0, ErrorKind::Unsupported);
    assert_eq!(refused("/var/lib/app.db").0, ErrorKind::Config);
    assert_eq!(refused("").0, ErrorKind::Config);
    assert_eq!(refused("sqlite:/a.db?sync=full").0, ErrorKind::Config);
}
