//! One primary, two streaming replicas: who answers what, and what happens when one is late, gone or back.

use std::collections::BTreeMap;
use std::time::Duration;

use resonant_db::{Database, ErrorKind, PoolConfig, ReadStrategy, RoutingConfig, params};
use resonant_testkit::{FaultProxy, PgNode, PostgresCluster};
use tokio::sync::{Mutex, MutexGuard, OnceCell};

use super::{LIMIT, until};

/// One cluster for all tests here, one test at a time; each leaves it whole.
async fn cluster() -> MutexGuard<'static, PostgresCluster> {
    static CLUSTER: OnceCell<Mutex<PostgresCluster>> = OnceCell::const_new();
    let start = async || PostgresCluster::builder().replicas(2).start().await.map(Mutex::new);
    let cluster = CLUSTER.get_or_try_init(start).await.expect("a cluster").lock().await;
    // A test that failed half-way may have left it otherwise.
    for node in cluster.nodes() {
        let _ = node.thaw();
        node.start().await.expect("it runs");
    }
    cluster
}

fn small() -> PoolConfig {
    PoolConfig::default().min_size(1).max_size(4)
}

/// A database of a test's own on the cluster.
async fn database(cluster: &PostgresCluster, name: &str) -> Database {
    let primary = cluster.primary();
    primary.sql(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await.expect("drop");
    primary.sql(&format!("CREATE DATABASE {name}")).await.expect("create");
    cluster.caught_up().await.expect("caught up");
    handle(cluster, name).await
}

async fn handle(cluster: &PostgresCluster, name: &str) -> Database {
    let replicas = [0, 1].map(|place| cluster.replica(place).url_for(name));
    Database::builder()
        .primary(cluster.primary().url_for(name))
        .replicas(replicas)
        .read_strategy(ReadStrategy::RoundRobin)
        .pool(small())
        .statement_timeout(Duration::from_secs(1))
        .connect()
        .await
        .expect("connect")
}

const PORT: &str = "SELECT inet_server_port()";

async fn port(db: &Database) -> i64 {
    db.read().query_one_as(PORT, params![]).await.expect("a read")
}

fn port_of(node: &PgNode) -> i64 {
    i64::from(node.port())
}

#[tokio::test]
async fn reads_take_turns_on_the_replicas_and_writes_go_to_the_primary() {
    let cluster = cluster().await;
    let db = database(&cluster, "turns").await;
    let mut answered = BTreeMap::new();
    for _ in 0..20 {
        *answered.entry(port(&db).await).or_insert(0) += 1;
    }
    let replicas = [0, 1].map(|place| (port_of(&cluster.replica(place)), 10));
    assert_eq!(answered, BTreeMap::from(replicas));
    let primary: i64 = db.write().query_one_as(PORT, params![]).await.expect("on the primary");
    assert_eq!(primary, port_of(&cluster.primary()));
    let inside = db.transaction(async |tx| tx.query_one_as::<i64>(PORT, params![]).await).await;
    assert_eq!(inside.expect("on the primary"), primary);

    db.write().batch("CREATE TABLE t (n int)").await.expect("create");
    cluster.caught_up().await.expect("caught up");
    let error = db
        .read()
        .query("INSERT INTO t VALUES (1) RETURNING n", params![])
        .await
        .expect_err("a replica reads");
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    // A primary's URL that leads to a standby is no primary.
    let error = Database::builder()
        .primary(cluster.replica(0).url())
        .pool(small())
        .connect()
        .await
        .expect_err("a standby");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("standby"), "{error}");
}

#[tokio::test]
async fn a_session_reads_what_it_wrote_however_late_the_replicas_are() {
    let cluster = cluster().await;
    let db = database(&cluster, "own_writes").await;
    db.write().batch("CREATE TABLE t (n int); INSERT INTO t VALUES (0)").await.expect("create");
    cluster.caught_up().await.expect("caught up");
    let elsewhere = handle(&cluster, "own_writes").await;
    let (mut stale, mut on_replicas) = (0, 0);
    for round in ["both stand still", "one is late", "both follow"] {
        match round {
            "both stand still" => {
                for place in [0, 1] {
                    cluster.replica(place).pause_replay().await.expect("paused");
                }
            }
            "one is late" => {
                cluster.replica(0).resume_replay().await.expect("resumed");
                cluster.replica(1).resume_replay().await.expect("resumed");
                cluster.replica(1).delay_replay(Duration::from_millis(50)).await.expect("late");
            }
            _ => cluster.replica(1).delay_replay(Duration::ZERO).await.expect("no delay"),
        }
        let session = db.session();
        for _ in 0..60 {
            session.write().execute("UPDATE t SET n = n + 1", params![]).await.expect("a write");
            let written: i64 =
                db.write().query_one_as("SELECT n FROM t", params![]).await.expect("the truth");
            let read = "SELECT n, inet_server_port() FROM t";
            let (seen, at): (i64, i64) =
                session.read().query_one_as(read, params![]).await.expect("a read");
            on_replicas += u32::from(at != port_of(&cluster.primary()));
            stale += u32::from(seen != written);
            // And so does another process with the token.
            let token = session.token().expect("a token");
            let other = elsewhere.session_from(&token).expect("a token");
            let seen: i64 =
                other.read().query_one_as("SELECT n FROM t", params![]).await.expect("a read");
            stale += u32::from(seen != written);
        }
        if round == "both stand still" {
            assert_eq!(on_replicas, 0, "a replica that stands still answered");
            let old: i64 =
                db.read().query_one_as("SELECT n FROM t", params![]).await.expect("a read");
            assert_eq!(old, 0, "without a session the old state is seen, so the test can fail");
        }
    }
    assert_eq!(stale, 0);
    // Replicas that have caught up answer: the primary is not asked for what they can.
    let session = db.session();
    session.write().execute("UPDATE t SET n = n + 1", params![]).await.expect("a write");
    cluster.caught_up().await.expect("caught up");
    for _ in 0..10 {
        let at: i64 = session.read().query_one_as(PORT, params![]).await.expect("a read");
        assert_ne!(at, port_of(&cluster.primary()));
    }
    // What the session made is there, although the statement could not even be prepared on a replica that is behind.
    cluster.replica(0).pause_replay().await.expect("paused");
    cluster.replica(1).pause_replay().await.expect("paused");
    session
        .write()
        .batch("CREATE TABLE new (n int); INSERT INTO new VALUES (7)")
        .await
        .expect("create");
    let seen: i64 =
        session.read().query_one_as("SELECT n FROM new", params![]).await.expect("a read");
    assert_eq!(seen, 7);
    cluster.replica(0).resume_replay().await.expect("resumed");
    cluster.replica(1).resume_replay().await.expect("resumed");
    // A token of another database is refused.
    let error = db
        .session_from("1:1:1")
        .expect("well formed")
        .read()
        .query(PORT, params![])
        .await
        .expect_err("foreign");
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
}

#[tokio::test]
async fn the_check_how_far_a_replica_is_costs_no_round_trip() {
    let cluster = cluster().await;
    let db = database(&cluster, "trips").await;
    let proxy = FaultProxy::start(cluster.replica(0).address()).await.expect("a proxy");
    let through = format!("postgresql://postgres@{}/trips", proxy.address());
    let through = Database::builder()
        .primary(cluster.primary().url_for("trips"))
        .replicas([through])
        .pool(small().max_size(1))
        // Or else what it asks in the background would be counted.
        .routing(RoutingConfig::default().probe_interval(LIMIT * 4))
        .connect()
        .await
        .expect("connect");
    db.write().batch("CREATE TABLE t (n int); INSERT INTO t VALUES (1)").await.expect("create");
    let session = through.session();
    session.write().execute("UPDATE t SET n = 2", params![]).await.expect("a write");
    cluster.caught_up().await.expect("caught up");
    let read = async || {
        session.read().query_one_as::<i64>("SELECT n FROM t", params![]).await.expect("a read")
    };
    // The first ones prepare.
    read().await;
    read().await;
    // What it asks in the background once, at the start, may come while the reads are counted; it does not come again.
    until("twenty reads are twenty round trips", async || {
        let before = proxy.stats().round_trips;
        for _ in 0..20 {
            assert_eq!(read().await, 2);
        }
        proxy.stats().round_trips - before == 20
    })
    .await;
}

#[tokio::test]
async fn a_killed_replica_is_left_out_and_comes_back() {
    let cluster = cluster().await;
    let db = database(&cluster, "killed").await;
    let victim = cluster.replica(0);
    until("both answer", async || port(&db).await == port_of(&victim)).await;
    victim.kill().await.expect("killed");
    for _ in 0..60 {
        assert_ne!(port(&db).await, port_of(&victim));
    }
    let status = db.status();
    assert!(status.nodes[1].ejected && !status.nodes[2].ejected, "{status:?}");
    assert!(db.findings().iter().any(|finding| finding.code == "db.replica.ejected"));
    victim.start().await.expect("started");
    until("it is back", async || port(&db).await == port_of(&victim)).await;
    assert!(!db.status().nodes[1].ejected);
}

#[tokio::test]
async fn a_frozen_replica_holds_nobody_past_the_deadline() {
    let cluster = cluster().await;
    drop(database(&cluster, "frozen").await);
    let moment = Duration::from_millis(300);
    let pool = small().connect_timeout(moment).acquire_timeout(moment).clean_timeout(moment);
    let db = Database::builder()
        .primary(cluster.primary().url_for("frozen"))
        .replicas([0, 1].map(|place| cluster.replica(place).url_for("frozen")))
        .pool(pool)
        .statement_timeout(moment)
        .connect()
        .await
        .expect("connect");
    let victim = cluster.replica(1);
    until("both answer", async || port(&db).await == port_of(&victim)).await;
    victim.freeze().expect("frozen");
    // Calls that are on it when it freezes run into the deadline; then it is left out.
    let mut failed = 0;
    until("it is left out", async || {
        let read = || db.read().query_one_as::<i64>(PORT, params![]);
        let reads = futures::future::join_all([read(), read(), read(), read()]);
        for answer in tokio::time::timeout(LIMIT, reads).await.expect("a deadline") {
            match answer {
                Ok(at) => assert_ne!(at, port_of(&victim)),
                Err(error) => {
                    // On it, or waiting for a connection to it.
                    let late = [ErrorKind::TimedOut, ErrorKind::Overloaded].contains(&error.kind());
                    assert!(late, "{error}");
                    failed += 1;
                }
            }
        }
        db.status().nodes[2].ejected
    })
    .await;
    assert!(failed <= 30, "{failed} calls were lost");
    for _ in 0..20 {
        assert_ne!(port(&db).await, port_of(&victim));
    }
    victim.thaw().expect("thawed");
    until("it is back", async || {
        // The probe itself may still run into the deadline.
        db.read().query_one_as::<i64>(PORT, params![]).await.is_ok_and(|at| at == port_of(&victim))
    })
    .await;
}

#[tokio::test]
async fn a_role_without_privileges_reads_its_own_writes_too() {
    let cluster = PostgresCluster::builder()
        .replicas(1)
        .login("app", "s3cret")
        .start()
        .await
        .expect("a cluster");
    let db = Database::builder()
        .primary(cluster.primary().url_as("app").expect("a login"))
        .replicas([cluster.replica(0).url_as("app").expect("a login")])
        .pool(small())
        .connect()
        .await
        .expect("connect");
    db.write().batch("CREATE TABLE t (n int); INSERT INTO t VALUES (0)").await.expect("create");
    let session = db.session();
    let replica = port_of(&cluster.replica(0));
    for n in 1..=20_i64 {
        session.write().execute("UPDATE t SET n = $1", params![n]).await.expect("a write");
        let read = async || {
            let sql = "SELECT n, inet_server_port() FROM t";
            session.read().query_one_as::<(i64, i64)>(sql, params![]).await.expect("a read")
        };
        assert_eq!(read().await.0, n);
        if n % 2 == 0 {
            cluster.caught_up().await.expect("caught up");
            // On a busy machine it may have been seen far behind a moment ago, and is not asked before it is seen again.
            until("the replica answers", async || {
                let (seen, at) = read().await;
                assert_eq!(seen, n);
                at == replica
            })
            .await;
        }
    }
    let all = db.capabilities();
    assert!(all.positions && all.reports_role && all.notifications, "{all:?}");
}

#[tokio::test]
async fn what_a_server_does_not_say_is_published_and_done_without() {
    let cluster = PostgresCluster::builder()
        .replicas(1)
        .login("app", "s3cret")
        .start()
        .await
        .expect("a cluster");
    // As a managed service may have it: nobody is told the place in the log.
    let revoke = "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC";
    cluster.primary().sql(revoke).await.expect("revoked");
    cluster.caught_up().await.expect("caught up");
    let db = Database::builder()
        .primary(cluster.primary().url_as("app").expect("a login"))
        .replicas([cluster.replica(0).url_as("app").expect("a login")])
        .pool(small())
        .connect()
        .await
        .expect("connect");
    let found = db.capabilities();
    assert!(!found.positions && found.reports_role && found.notifications, "{found:?}");
    db.write().batch("CREATE TABLE t (n int); INSERT INTO t VALUES (0)").await.expect("create");
    cluster.replica(0).pause_replay().await.expect("paused");
    let session = db.session();
    for n in 1..=20_i64 {
        session.write().execute("UPDATE t SET n = $1", params![n]).await.expect("a write");
        let seen: i64 =
            session.read().query_one_as("SELECT n FROM t", params![]).await.expect("a read");
        assert_eq!(seen, n, "the primary answers");
    }
}

#[tokio::test]
async fn a_replica_that_is_far_behind_is_a_finding() {
    let cluster = cluster().await;
    let name = "behind";
    drop(database(&cluster, name).await);
    let routing = resonant_db::RoutingConfig::default().stale_after(Duration::from_millis(600));
    let db = Database::builder()
        .primary(cluster.primary().url_for(name))
        .replicas([cluster.replica(0).url_for(name)])
        .routing(routing)
        .pool(small())
        .connect()
        .await
        .expect("connect");
    let stale = || db.findings().iter().any(|finding| finding.code == "db.replica.stale");
    cluster.replica(0).pause_replay().await.expect("paused");
    db.write().batch("CREATE TABLE t (n int)").await.expect("create");
    until("it is reported", async || stale()).await;
    cluster.replica(0).resume_replay().await.expect("resumed");
    until("it is no longer", async || !stale()).await;
}

#[tokio::test]
async fn the_restart_of_the_primary_heals() {
    let cluster = cluster().await;
    let db = database(&cluster, "restarted").await;
    db.write().batch("CREATE TABLE t (n int)").await.expect("create");
    let primary = cluster.primary();
    primary.stop().await.expect("stopped");
    let error =
        db.write().execute("INSERT INTO t VALUES (1)", params![]).await.expect_err("nobody there");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(!error.may_have_applied(), "{error:?}");
    // Reads go on.
    port(&db).await;
    primary.start().await.expect("started");
    until("writes work", async || {
        db.write().execute("INSERT INTO t VALUES (2)", params![]).await.is_ok()
    })
    .await;
    let count: i64 =
        db.write().query_one_as("SELECT count(*) FROM t", params![]).await.expect("count");
    assert_eq!(count, 1);
}
