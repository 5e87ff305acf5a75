//! A bad network: every wait has an end, and what heals is used again.

use std::time::Duration;

use resonant_db::backend::postgres::Postgres;
use resonant_db::backend::{Access, Backend, Target};
use resonant_db::pool::Verdict;
use resonant_db::{Database, ErrorKind, PoolConfig, params};
use resonant_testkit::proxy::Direction;
use resonant_testkit::{FaultProxy, PostgresCluster};
use tokio::time::timeout;

use super::{LIMIT, until};

#[tokio::test]
async fn a_black_hole_ends_by_its_deadline_wherever_it_opens() {
    let cluster = PostgresCluster::builder().start().await.expect("a server");
    let proxy = FaultProxy::start(cluster.primary().address()).await.expect("a proxy");
    let url = cluster.primary().url_through(&proxy);
    let pool = PoolConfig::default()
        .min_size(1)
        .max_size(2)
        .connect_timeout(Duration::from_millis(300))
        .acquire_timeout(Duration::from_millis(900))
        .clean_timeout(Duration::from_millis(300));
    let limit = Duration::from_millis(200);
    let build =
        || Database::builder().primary(url.clone()).pool(pool.clone()).statement_timeout(limit);
    let db = build().connect().await.expect("connect");
    let one = async || {
        timeout(LIMIT, db.write().query_one_as::<i64>("SELECT 1", params![]))
            .await
            .expect("a deadline")
    };
    assert_eq!(one().await.expect("a read"), 1);

    // Under a statement, on an idle connection.
    proxy.black_hole().await.expect("a black hole");
    let error = one().await.expect_err("no answer");
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    assert!(error.may_have_applied(), "it may have run: {error:?}");
    // Now with nothing open: at the login.
    let error = one().await.expect_err("no login");
    assert!(
        matches!(
            error.kind(),
            ErrorKind::TimedOut | ErrorKind::Unavailable | ErrorKind::Overloaded
        ),
        "{error}"
    );
    let error = timeout(LIMIT, build().connect()).await.expect("a deadline").expect_err("no login");
    assert!(error.is_transient(), "{error}");
    proxy.heal().await.expect("healed");
    until("it works again", async || one().await.is_ok()).await;

    // The answer does not come through, the statement does.
    proxy.one_way(Direction::ToServer).await.expect("one way");
    let error = one().await.expect_err("no answer");
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    proxy.heal().await.expect("healed");
    until("it works again", async || one().await.is_ok()).await;

    // The host does not even answer the knock.
    proxy.hang_connects().await.expect("hanging");
    let error =
        timeout(LIMIT, build().connect()).await.expect("a deadline").expect_err("no connection");
    assert!(error.is_transient(), "{error}");
    proxy.heal().await.expect("healed");
    until("it works again", async || one().await.is_ok()).await;
    let status = db.status().nodes[0].pool.clone();
    assert!(status.total() <= 2, "{status:?}");
    db.close(LIMIT).await.expect("every slot is free again");
}

#[tokio::test]
async fn connect_timeout_of_the_url_covers_the_login() {
    let cluster = PostgresCluster::builder().start().await.expect("a server");
    let proxy = FaultProxy::start(cluster.primary().address()).await.expect("a proxy");
    proxy.one_way(Direction::ToServer).await.expect("one way");
    let url = format!("{}?connect_timeout=1", cluster.primary().url_through(&proxy));
    let backend = Postgres::from_url(&url).expect("a good URL");
    let target = Target::new(&url, Access::ReadWrite, None);
    let error =
        timeout(LIMIT, backend.connect(&target)).await.expect("a deadline").expect_err("no login");
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    assert!(error.to_string().contains("connect_timeout"), "{error}");
}

#[tokio::test]
async fn a_session_that_was_ended_behind_our_back_is_not_used() {
    let cluster = PostgresCluster::builder().start().await.expect("a server");
    let node = cluster.primary();
    let url = node.url();
    let backend = Postgres::from_url(&url).expect("a good URL");
    let target = Target::new(&url, Access::ReadWrite, None);
    let mut connection = backend.connect(&target).await.expect("a connection");
    connection.query("SELECT 1", &[]).await.expect("select");
    node.close_sessions().await.expect("closed");
    until("it is noticed without asking", async || connection.verdict() == Verdict::Discard).await;
    let error = connection.execute("SELECT 1", &[]).await.expect_err("it is closed");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!error.may_have_applied() && error.to_string().contains("57P01"), "{error:?}");

    // Through a pool nobody notices.
    let db = Database::connect(url).await.expect("connect");
    for _ in 0..5 {
        db.write().execute("SELECT 1", params![]).await.expect("a call");
        node.close_sessions().await.expect("closed");
        until("they are gone", async || {
            let idle = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
            db.write().query_one_as::<i64>(idle, params![]).await.is_ok()
        })
        .await;
    }
}

#[tokio::test]
async fn a_promoted_standby_takes_the_writes_when_the_url_names_both() {
    let cluster = PostgresCluster::builder().replicas(1).start().await.expect("a cluster");
    let (old, new) = (cluster.primary(), cluster.replica(0));
    old.sql("CREATE TABLE t (n int)").await.expect("create");
    cluster.caught_up().await.expect("caught up");
    let url =
        format!("postgresql://postgres@127.0.0.1:{},127.0.0.1:{}/postgres", new.port(), old.port());
    let pool = PoolConfig::default().min_size(1).max_size(4);
    let db = Database::builder()
        .primary(url)
        .pool(pool)
        .connect()
        .await
        .expect("the second host takes writes");
    let write = async |n: i64| db.write().execute("INSERT INTO t VALUES ($1)", params![n]).await;
    assert_eq!(write(1).await.expect("a write"), 1);
    cluster.caught_up().await.expect("caught up");
    old.kill().await.expect("killed");
    let error = write(2).await.expect_err("nobody takes writes");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    new.promote().await.expect("promoted");
    until("the new primary is found", async || write(3).await.is_ok()).await;
    assert_eq!(new.value("SELECT max(n) FROM t").await.expect("max"), "3");
    // A session from before the change of timeline reads at the primary, and writes on the new one.
    let session = db.session();
    session.write().execute("INSERT INTO t VALUES (4)", params![]).await.expect("a write");
    let token = session.token().expect("a token");
    assert_eq!(token.split(':').nth(1), Some("2"), "the second timeline: {token}");
    let older = token.replacen(":2:", ":1:", 1);
    let older = db.session_from(&older).expect("a token");
    let seen: i64 = older
        .read()
        .query_one_as("SELECT max(n) FROM t", params![])
        .await
        .expect("the primary answers");
    assert_eq!(seen, 4);
}

#[tokio::test]
async fn a_host_that_is_gone_does_not_use_up_the_time_of_the_next() {
    let cluster = PostgresCluster::builder().start().await.expect("a server");
    let node = cluster.primary();
    let gone = FaultProxy::start(node.address()).await.expect("a proxy");
    gone.black_hole().await.expect("a black hole");
    let url = format!("postgresql://postgres@{},{}/postgres", gone.address(), node.address());
    let pool = PoolConfig::default().min_size(1).max_size(3);
    let db = Database::builder().primary(url).pool(pool).connect().await.expect("the second host");
    let asked = gone.stats().connections;
    assert!(asked > 0, "the first host was tried");
    // From now on the good one is asked first.
    let calls = (0..3).map(|_| db.write().execute("SELECT pg_sleep(0.1)", params![]));
    for call in futures::future::join_all(calls).await {
        assert_eq!(call.expect("a call"), 0, "it reads, so it changes no rows");
    }
    assert_eq!(gone.stats().connections, asked);
}
