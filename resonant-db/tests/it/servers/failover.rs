//! A promotion under load, and the old primary's return: no setting is changed, no write lands on an old history.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use resonant_common::join::{Node, Topology};
use resonant_db::backend::ErrorExt;
use resonant_db::{Database, PoolConfig, Role, params};
use resonant_testkit::{PgNode, PostgresCluster};
use tokio::time::{Instant, sleep};

use super::{LIMIT, until};

fn pool() -> PoolConfig {
    PoolConfig::default().min_size(1).max_size(16)
}

async fn handle(nodes: &[PgNode]) -> Database {
    Database::builder()
        .primary(nodes[0].url())
        .replicas(nodes[1..].iter().map(PgNode::url))
        .pool(pool())
        .statement_timeout(Duration::from_secs(2))
        .connect()
        .await
        .expect("connect")
}

async fn sessions_at(node: &PgNode) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' \
               AND pid <> pg_backend_pid() AND application_name NOT LIKE 'p%'";
    node.value(sql).await.expect("a count").parse().expect("a number")
}

#[tokio::test]
async fn after_a_promotion_under_load_writes_find_the_new_primary() {
    let cluster = PostgresCluster::builder().replicas(2).start().await.expect("a cluster");
    let nodes = cluster.nodes().to_vec();
    nodes[0].sql("CREATE TABLE t (n bigint PRIMARY KEY)").await.expect("create");
    cluster.caught_up().await.expect("caught up");
    let db = handle(&nodes).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (next, refused) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicU64::new(0)));
    let writers: Vec<_> = (0..16)
        .map(|_| {
            let (db, stop) = (db.clone(), Arc::clone(&stop));
            let (next, refused) = (Arc::clone(&next), Arc::clone(&refused));
            tokio::spawn(async move {
                let mut last = None;
                while !stop.load(Ordering::Relaxed) {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    match db.write().execute("INSERT INTO t VALUES ($1)", params![n]).await {
                        Ok(_) => last = Some((Instant::now(), n)),
                        Err(error) => {
                            let read_only = error.sqlstate() == Some("25006");
                            refused.fetch_add(u64::from(read_only), Ordering::Relaxed);
                            sleep(Duration::from_millis(5)).await;
                        }
                    }
                }
                last
            })
        })
        .collect();
    until("writes flow", async || next.load(Ordering::Relaxed) > 200).await;
    nodes[0].kill().await.expect("killed");
    nodes[1].promote().await.expect("promoted");
    let promoted = Instant::now();
    let session = db.session();
    until("a write is acknowledged", async || {
        session.write().execute("INSERT INTO t VALUES (-1)", params![]).await.is_ok()
    })
    .await;
    let found = promoted.elapsed();
    println!("FIGURE from pg_promote to the first acknowledged write: {found:?}");
    assert!(found < Duration::from_secs(5), "{found:?}");
    // The session reads its write, whoever answers.
    let seen = session.read().query_one_as::<i64>("SELECT count(*) FROM t WHERE n = -1", params![]);
    assert_eq!(seen.await.expect("a read"), 1);
    let flowing = next.load(Ordering::Relaxed);
    until("writes flow again", async || next.load(Ordering::Relaxed) > flowing + 200).await;
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        let (at, _) = writer.await.expect("no panic").expect("it has written");
        assert!(at > promoted, "every writer has found the new primary");
    }
    assert_eq!(refused.load(Ordering::Relaxed), 0, "a refusal by a standby reached a caller");
    assert_eq!(db.topology().primary, Some(db.status().nodes[1].name.clone()));

    // The old primary starts as it was: it would take writes, in the old history.
    nodes[0].start().await.expect("started");
    assert!(!nodes[0].is_in_recovery().await.expect("an answer"));
    let before: i64 =
        nodes[0].value("SELECT count(*) FROM t").await.expect("count").parse().expect("n");
    let after_that = handle(&nodes).await;
    for n in 0..500_i64 {
        for (db, n) in [(&db, 10_000_000 + n), (&after_that, 20_000_000 + n)] {
            db.write().execute("INSERT INTO t VALUES ($1)", params![n]).await.expect("a write");
        }
    }
    // Not even while the new one is gone.
    nodes[1].kill().await.expect("killed");
    for n in 0..5_i64 {
        let written =
            db.write().execute("INSERT INTO t VALUES ($1)", params![30_000_000 + n]).await;
        assert!(written.is_err());
    }
    let after: i64 =
        nodes[0].value("SELECT count(*) FROM t").await.expect("count").parse().expect("n");
    assert_eq!(after, before, "a write landed on the old history");
    nodes[1].start().await.expect("started");
    until("it takes writes again", async || {
        db.write().execute("INSERT INTO t VALUES (-2)", params![]).await.is_ok()
    })
    .await;

    // Rejoined it is one of the replicas, and answers reads.
    cluster.repoint_all().await.expect("repointed");
    cluster.rejoin_by_rewind(0).await.expect("rejoined");
    cluster.caught_up().await.expect("caught up");
    let port = i64::from(nodes[0].port());
    until("it answers reads", async || {
        let at = db.read().query_one_as::<i64>("SELECT inet_server_port()", params![]).await;
        at.is_ok_and(|at| at == port)
    })
    .await;
    assert_eq!(db.status().nodes[0].role, Role::Replica);
    let total: i64 = db
        .write()
        .query_one_as("SELECT count(*) FROM t WHERE n >= 10000000", params![])
        .await
        .expect("count");
    assert_eq!(total, 1000);
}

#[tokio::test]
async fn connections_to_a_frozen_and_replaced_primary_go_and_a_topology_leads() {
    let cluster = PostgresCluster::builder().replicas(1).start().await.expect("a cluster");
    let nodes = cluster.nodes().to_vec();
    nodes[0].sql("CREATE TABLE t (n bigint)").await.expect("create");
    cluster.caught_up().await.expect("caught up");
    let db = handle(&nodes).await;
    let write = async |n: i64| db.write().execute("INSERT INTO t VALUES ($1)", params![n]).await;
    let burst = futures::future::join_all((0..8).map(write)).await;
    assert!(burst.into_iter().all(|written| written.is_ok()));
    assert!(sessions_at(&nodes[0]).await > 2, "there are idle connections");
    nodes[0].freeze().expect("frozen");
    nodes[1].promote().await.expect("promoted");
    let start = Instant::now();
    until("the new primary is found", async || db.topology().epoch > 0).await;
    write(100).await.expect("a write");
    println!(
        "FIGURE from the promotion beside a frozen primary to the first write: {:?}",
        start.elapsed()
    );
    // The old one wakes up, and thinks that it is the primary still.
    nodes[0].thaw().expect("thawed");
    let before: i64 =
        nodes[0].value("SELECT count(*) FROM t").await.expect("count").parse().expect("n");
    let start = Instant::now();
    // What is left is the one that asks what it is, and the one for reading that is kept open.
    until("idle connections to it are gone", async || sessions_at(&nodes[0]).await <= 2).await;
    println!("FIGURE idle connections to the replaced primary gone after {:?}", start.elapsed());
    for n in 0..200 {
        write(200 + n).await.expect("a write");
    }
    let after: i64 =
        nodes[0].value("SELECT count(*) FROM t").await.expect("count").parse().expect("n");
    assert_eq!(after, before, "a write landed on the old history");

    // A topology goes before what the nodes say, and never goes back.
    let node = |node: &PgNode| Node { name: format!("n{}", node.index()), url: node.url() };
    let topology = |epoch, primary: usize| Topology {
        epoch,
        primary: Some(format!("n{primary}")),
        nodes: nodes.iter().map(node).collect(),
    };
    let (publish, topologies) = tokio::sync::watch::channel(topology(5, 1));
    db.follow(topologies);
    let led = |place: usize| db.topology().primary == Some(db.status().nodes[place].name.clone());
    until("it is followed", async || db.topology().epoch >= 5).await;
    write(1000).await.expect("a write");
    publish.send_replace(topology(6, 0));
    until("it is followed", async || led(0)).await;
    write(1001).await.expect("told so, it is written there");
    publish.send_replace(topology(4, 1));
    sleep(Duration::from_millis(100)).await;
    assert!(led(0), "it went back");
    publish.send_replace(topology(7, 1));
    until("it is followed", async || led(1)).await;
    tokio::time::timeout(LIMIT, write(1002)).await.expect("a deadline").expect("a write");
}
