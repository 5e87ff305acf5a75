//! Another node becomes the primary, and nobody changes a setting.

use std::time::Duration;

use resonant_common::join::{Node, Topology};
use resonant_db::{ErrorKind, Result, Role, params};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::double::{Cluster, Fails};

const DOWN: (Fails, ErrorKind) = (Fails::Running, ErrorKind::Unavailable);

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// The primary dies and `node` is promoted.
fn promote(cluster: &Cluster, node: &str, timeline: u32) {
    cluster.fail("primary", (Fails::Connecting, ErrorKind::Unavailable));
    cluster.turn(node, Role::Primary, timeline);
}

#[tokio::test(start_paused = true)]
async fn after_a_promotion_writes_go_to_the_new_primary_and_reads_leave_it() -> Result<()> {
    let cluster = Cluster::with_roles();
    let db = cluster.builder(&["a", "b"]).connect().await?;
    db.write().execute("write", params![]).await?;
    cluster.fail("primary", DOWN);
    let start = Instant::now();
    let writing = tokio::spawn({
        let db = db.clone();
        async move { db.write().execute("write", params![]).await }
    });
    sleep(millis(300)).await;
    cluster.turn("a", Role::Primary, 2);
    assert_eq!(writing.await.expect("no panic")?, 1, "the write waits for the new primary");
    assert!(start.elapsed() < millis(700), "{:?}", start.elapsed());
    let moved = db.transaction(async |tx| tx.query_one_as::<String>("newest", params![]).await);
    assert_eq!(moved.await?, "a");
    for _ in 0..4 {
        assert_eq!(db.read().query_one_as::<String>("read", params![]).await?, "b");
    }
    let topology = db.topology();
    assert_eq!((topology.primary.as_deref(), topology.epoch), (Some("a"), 1));
    let roles: Vec<_> = db.status().nodes.iter().map(|node| node.role).collect();
    assert_eq!(roles, [Role::Replica, Role::Primary, Role::Replica]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_old_primary_gets_no_write_until_it_is_promoted_again() -> Result<()> {
    let cluster = Cluster::with_roles();
    let db = cluster.builder(&["a"]).connect().await?;
    promote(&cluster, "a", 2);
    db.write().execute("write", params![]).await?;
    // It comes back as it was: it takes writes, in the old history.
    cluster.fail("primary", None);
    sleep(millis(1000)).await;
    cluster.log();
    for _ in 0..20 {
        db.write().execute("write", params![]).await?;
    }
    assert_eq!(cluster.log(), ["a:write"; 20]);
    // Also while the new one is down.
    cluster.fail("a", DOWN);
    sleep(millis(1000)).await;
    for _ in 0..5 {
        let error = db.write().execute("write", params![]).await.expect_err("nobody takes it");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
    // Nor is it read: its history is another one.
    assert!(db.read().query("read", params![]).await.is_err());
    // Nor by somebody whose settings name it.
    let late = cluster.builder(&["a"]).connect_lazy()?;
    cluster.fail("a", None);
    late.write().execute("write", params![]).await?;
    cluster.fail("a", DOWN);
    assert!(cluster.log().iter().all(|line| line != "primary:write"));
    cluster.turn("primary", Role::Primary, 3);
    db.write().execute("write", params![]).await?;
    assert_eq!(cluster.log().last().map(String::as_str), Some("primary:write"));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_node_that_takes_no_writes_any_more_never_sticks() -> Result<()> {
    let cluster = Cluster::with_roles();
    let db = cluster.builder(&["a"]).connect().await?;
    db.write().execute("write", params![]).await?;
    // The connections stay open; each write is refused there.
    cluster.turn("primary", Role::Replica, 2);
    cluster.turn("a", Role::Primary, 2);
    for _ in 0..10 {
        db.write().execute("write", params![]).await?;
    }
    db.transaction(async |tx| tx.execute("write", params![]).await).await?;
    assert_eq!(db.status().nodes[0].role, Role::Replica);
    // Nothing of the demoted node's pool for writing is left, and it answers reads.
    assert_eq!(db.read().query_one_as::<String>("read", params![]).await?, "primary");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_transaction_is_run_again_on_the_new_primary() -> Result<()> {
    let cluster = Cluster::with_roles();
    let db = cluster.builder(&["a"]).connect().await?;
    let demote = cluster.clone();
    let node = db
        .transaction(async move |tx| {
            let node: String = tx.query_one_as("where", params![]).await?;
            if node == "primary" {
                demote.turn("primary", Role::Replica, 2);
                demote.turn("a", Role::Primary, 2);
            }
            tx.execute("write", params![]).await?;
            Ok(node)
        })
        .await?;
    assert_eq!(node, "a");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_may_have_been_applied_is_not_sent_to_the_new_primary() -> Result<()> {
    let cluster = Cluster::with_roles();
    let db = cluster.builder(&["a"]).connect().await?;
    cluster.fail_commits(&[(ErrorKind::Unavailable, true)]);
    cluster.turn("a", Role::Primary, 2);
    let error = db
        .transaction(async |tx| tx.execute("write", params![]).await)
        .await
        .expect_err("its outcome is unknown");
    assert!(error.may_have_applied());
    assert_eq!(cluster.log().iter().filter(|line| line.ends_with(":commit")).count(), 1);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn settings_from_before_a_failover_do() -> Result<()> {
    let cluster = Cluster::with_roles();
    cluster.turn("primary", Role::Replica, 2);
    cluster.turn("a", Role::Primary, 2);
    let pool = resonant_db::PoolConfig::default().min_size(1).max_size(4);
    let db = cluster.builder(&["a"]).pool(pool.clone()).connect().await?;
    db.write().execute("write", params![]).await?;
    assert_eq!(cluster.log().last().map(String::as_str), Some("a:write"));
    // With nobody there who takes writes, the start says so.
    cluster.turn("a", Role::Replica, 2);
    let error = cluster.builder(&["a"]).pool(pool).connect().await.expect_err("two replicas");
    assert!(error.to_string().contains("no node takes writes"), "{error}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_write_without_a_primary_fails_in_its_time_and_names_the_nodes() -> Result<()> {
    let cluster = Cluster::with_roles();
    let db = cluster.builder(&["a"]).connect().await?;
    cluster.turn("primary", Role::Replica, 1);
    sleep(millis(400)).await;
    let start = Instant::now();
    let error = db.write().execute("write", params![]).await.expect_err("two replicas");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("primary, a"), "{error}");
    assert!(start.elapsed() <= millis(1100), "{:?}", start.elapsed());
    assert!(db.findings().iter().any(|finding| finding.code == "db.primary.none"));
    // Reads go on.
    db.read().query("read", params![]).await.map(drop)
}

fn topology(epoch: u64, primary: Option<&str>, nodes: &[&str]) -> Topology {
    let node = |name: &&str| Node { name: (*name).into(), url: format!("double://{name}") };
    Topology { epoch, primary: primary.map(Into::into), nodes: nodes.iter().map(node).collect() }
}

#[tokio::test(start_paused = true)]
async fn a_topology_is_followed_and_never_goes_back() -> Result<()> {
    let cluster = Cluster::with_roles();
    let db = cluster.builder(&["a"]).connect().await?;
    let (publish, topologies) = watch::channel(topology(7, Some("primary"), &["primary", "a"]));
    db.follow(topologies);
    let writer = async || {
        sleep(millis(400)).await;
        db.write().execute("write", params![]).await?;
        Ok(cluster.log().last().cloned().unwrap_or_default())
    };
    assert_eq!(writer().await?, "primary:write");
    // The order goes before what the nodes say; a new node is asked for reads.
    cluster.turn("a", Role::Primary, 2);
    assert_eq!(writer().await?, "primary:write");
    publish.send_replace(topology(9, Some("a"), &["a", "new"]));
    assert_eq!(writer().await?, "a:write");
    assert_eq!(db.read().query_one_as::<String>("read", params![]).await?, "new");
    assert!(!db.status().nodes.iter().any(|node| node.name == "primary"), "it has left");
    // An older one comes late.
    publish.send_replace(topology(8, Some("primary"), &["primary", "a"]));
    assert_eq!(writer().await?, "a:write");
    assert_eq!(db.topology().epoch, 9);
    // There is none for a while.
    publish.send_replace(topology(10, None, &["a", "new"]));
    sleep(millis(10)).await;
    let error = db.write().execute("write", params![]).await.expect_err("none");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    cluster.turn("new", Role::Primary, 3);
    publish.send_replace(topology(11, Some("new"), &["a", "new"]));
    assert_eq!(writer().await?, "new:write");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_topology_can_be_asked_for() -> Result<()> {
    let cluster = Cluster::with_roles();
    let db = cluster.builder(&["a"]).connect().await?;
    let (publish, known) = watch::channel(None);
    db.follow_with(Duration::from_secs(1), move || {
        let answer = known.borrow().clone();
        async move { answer.ok_or_else(|| std::io::Error::other("the registry is down")) }
    });
    sleep(millis(1500)).await;
    db.write().execute("write", params![]).await?;
    cluster.turn("a", Role::Primary, 2);
    publish.send_replace(Some(topology(1, Some("a"), &["primary", "a"])));
    sleep(millis(1500)).await;
    db.write().execute("write", params![]).await?;
    assert_eq!(cluster.log().last().map(String::as_str), Some("a:write"));
    Ok(())
}
