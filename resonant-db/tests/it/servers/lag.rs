//! Replicas that are late by different times, and one that freezes: nothing stale under a session, an honest age without.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use resonant_db::{Database, PoolConfig, ReadStrategy, params};
use resonant_testkit::{PgNode, PostgresCluster};
use tokio::time::{Instant, sleep};

use super::until;

const PORT: &str = "SELECT inet_server_port()";

fn builder(cluster: &PostgresCluster) -> resonant_db::DatabaseBuilder {
    Database::builder()
        .primary(cluster.node(0).url())
        .replicas(cluster.nodes()[1..].iter().map(PgNode::url))
        .pool(PoolConfig::default().min_size(1).max_size(8))
}

async fn write(db: &Database) {
    db.write().execute("UPDATE t SET n = n + 1 WHERE id = 0", params![]).await.expect("a write");
}

#[tokio::test]
async fn ten_thousand_pairs_over_replicas_that_are_late_and_an_honest_age() {
    const TASKS: i64 = 16;
    const PAIRS: i64 = 10_000;
    let cluster = PostgresCluster::builder().replicas(3).start().await.expect("a cluster");
    let sql = "CREATE TABLE t (id bigint PRIMARY KEY, n bigint); \
               INSERT INTO t SELECT id, 0 FROM generate_series(0, 100) id";
    cluster.node(0).sql(sql).await.expect("create");
    cluster.caught_up().await.expect("caught up");
    let delays = [0, 50, 2000].map(Duration::from_millis);
    for (place, delay) in delays.into_iter().enumerate() {
        cluster.node(place + 1).delay_replay(delay).await.expect("late");
    }
    let db = builder(&cluster).connect().await.expect("connect");
    let (stale, without) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let start = Instant::now();
    let tasks: Vec<_> = (1..=TASKS)
        .map(|id| {
            let (db, stale, without) = (db.clone(), Arc::clone(&stale), Arc::clone(&without));
            tokio::spawn(async move {
                let mut answered = BTreeMap::<i64, u64>::new();
                let session = db.session();
                for n in 1..=PAIRS / TASKS {
                    let update = "UPDATE t SET n = $1 WHERE id = $2";
                    session.write().execute(update, params![n, id]).await.expect("a write");
                    let read = "SELECT n, inet_server_port() FROM t WHERE id = $1";
                    let (seen, port): (i64, i64) =
                        session.read().query_one_as(read, params![id]).await.expect("a read");
                    stale.fetch_add(u64::from(seen != n), Ordering::Relaxed);
                    *answered.entry(port).or_default() += 1;
                    if n % 10 == 0 {
                        let (seen, _): (i64, i64) =
                            db.read().query_one_as(read, params![id]).await.expect("a read");
                        without.fetch_add(u64::from(seen != n), Ordering::Relaxed);
                    }
                }
                answered
            })
        })
        .collect();
    let mut answered = BTreeMap::<i64, u64>::new();
    for task in tasks {
        for (port, count) in task.await.expect("no panic") {
            *answered.entry(port).or_default() += count;
        }
    }
    let by_node: Vec<_> = cluster
        .nodes()
        .iter()
        .map(|node| answered.get(&i64::from(node.port())).copied().unwrap_or_default())
        .collect();
    println!(
        "FIGURE {PAIRS} pairs in {:?}; answered by the primary and replicas late by 0, 50 ms, 2 s: {by_node:?}; \
         stale {}; {} of {} reads without a session were stale",
        start.elapsed(),
        stale.load(Ordering::Relaxed),
        without.load(Ordering::Relaxed),
        PAIRS / 10,
    );
    assert_eq!(stale.load(Ordering::Relaxed), 0);
    assert!(without.load(Ordering::Relaxed) > 0, "the test could not fail");
    assert!(by_node[1] > 0, "the replica that follows is used: {by_node:?}");

    // The age that is told is at least the true one, and not much more.
    let mut errors = Vec::new();
    for _ in 0..20 {
        write(&db).await;
        sleep(Duration::from_millis(100)).await;
        let status = db.status();
        let told = status.nodes[3].staleness.expect("known");
        errors.push(told.saturating_sub(delays[2]));
        assert!(told + Duration::from_millis(20) >= delays[2], "too new: {told:?}");
    }
    errors.sort();
    println!(
        "FIGURE told age beyond the true 2 s: median {:?}, worst {:?}",
        errors[10], errors[19]
    );
    // Within a bound nobody late answers.
    let late = i64::from(cluster.node(3).port());
    for _ in 0..50 {
        write(&db).await;
        let fresh = db.read().max_staleness(Duration::from_millis(1500));
        assert_ne!(fresh.query_one_as::<i64>(PORT, params![]).await.expect("a read"), late);
    }
    let lowest =
        builder(&cluster).read_strategy(ReadStrategy::LowestLag).connect().await.expect("connect");
    until("ages are known", async || {
        write(&lowest).await;
        lowest.status().nodes[3].staleness.is_some_and(|age| age > Duration::from_secs(1))
    })
    .await;
    for _ in 0..50 {
        assert_ne!(lowest.read().query_one_as::<i64>(PORT, params![]).await.expect("a read"), late);
    }
    // An idle primary makes nobody look late.
    for place in 1..=3 {
        cluster.node(place).delay_replay(Duration::ZERO).await.expect("no delay");
    }
    cluster.caught_up().await.expect("caught up");
    until("nobody is late", async || {
        db.status()
            .nodes
            .iter()
            .all(|node| node.staleness.is_some_and(|age| age < Duration::from_secs(1)))
    })
    .await;

    // A stream that is broken while there are writes: the age grows.
    cluster.node(1).pause_replay().await.expect("paused");
    until("its age grows", async || {
        write(&db).await;
        sleep(Duration::from_millis(50)).await;
        db.status().nodes[1].staleness.is_some_and(|age| age > Duration::from_secs(2))
    })
    .await;
    cluster.node(1).resume_replay().await.expect("resumed");

    frozen(&cluster, &db).await;
}

/// A replica freezes: it leaves the rotation and comes back.
async fn frozen(cluster: &PostgresCluster, db: &Database) {
    let victim = cluster.node(2);
    let port = i64::from(victim.port());
    until("all answer", async || {
        db.read().query_one_as::<i64>(PORT, params![]).await.expect("a read") == port
    })
    .await;
    victim.freeze().expect("frozen");
    let start = Instant::now();
    until("it is left out", async || db.status().nodes[2].ejected).await;
    println!("FIGURE a frozen replica is left out after {:?}", start.elapsed());
    for _ in 0..30 {
        assert_ne!(db.read().query_one_as::<i64>(PORT, params![]).await.expect("a read"), port);
    }
    victim.thaw().expect("thawed");
    let start = Instant::now();
    until("it is back", async || {
        db.read().query_one_as::<i64>(PORT, params![]).await.expect("a read") == port
    })
    .await;
    println!("FIGURE it answers again after {:?}", start.elapsed());
}
