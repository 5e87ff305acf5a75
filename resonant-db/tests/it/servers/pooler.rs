//! PgBouncer 1.18 in transaction mode between here and the server: no setting, the same contract.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use resonant_db::backend::postgres::Postgres;
use resonant_db::backend::{Access, Backend, Target};
use resonant_db::{Database, ErrorKind, PoolConfig, params};
use resonant_testkit::postgres::TempDatabase;
use resonant_testkit::{FaultProxy, PgBouncer, PostgresCluster};

use super::meddler::{Meddler, holds};
use super::{LIMIT, connect, database, open, until};

/// The address a URL of the kit's names.
pub(super) fn address_of(url: &str) -> SocketAddr {
    let address = url.split(['@', '/']).nth(3).expect("an address");
    address.replace("localhost", "127.0.0.1").parse().expect("an address")
}

/// A database behind a pooler of its own, which has fewer sessions than it has clients.
#[derive(Debug)]
pub(super) struct Pooled {
    pub(super) pooler: PgBouncer,
    pub(super) database: TempDatabase,
}

impl Pooled {
    pub(super) async fn new() -> Self {
        let database = database().await;
        let address = address_of(&database.url());
        let pooler = PgBouncer::builder().in_front_of(address).setting("default_pool_size", "3");
        Self { pooler: pooler.start().await.expect("a pooler"), database }
    }

    pub(super) fn url(&self) -> String {
        let url = self.database.url();
        self.pooler.url_for(url.rsplit('/').next().expect("a name"))
    }

    async fn connect(&self) -> Database {
        let pool = PoolConfig::default().min_size(1).max_size(8);
        Database::builder().primary(self.url()).pool(pool).connect().await.expect("connect")
    }
}

impl resonant_db::testing::Place for Pooled {
    fn backend(&self) -> Arc<dyn Backend> {
        Arc::new(Postgres::from_url(&self.url()).expect("a good URL"))
    }
    fn url(&self) -> String {
        Self::url(self)
    }
}

#[tokio::test]
async fn statements_run_on_whatever_session_the_pooler_gives() {
    let place = Pooled::new().await;
    let db = place.connect().await;
    db.write()
        .batch("CREATE TYPE mood AS ENUM ('fine', 'bad'); CREATE TABLE t (id int PRIMARY KEY, n bigint, m mood)")
        .await
        .expect("create");
    let tasks = (0..8_i64).map(|task| {
        let db = db.clone();
        tokio::spawn(async move {
            for round in 0..25_i64 {
                let id = task * 100 + round;
                let insert = "INSERT INTO t VALUES ($1, $2, $3)";
                db.write().execute(insert, params![id, 5_000_000_000 + id, "fine"]).await?;
                let (n, mood): (i64, String) = db
                    .write()
                    .query_one_as("SELECT n, m FROM t WHERE id = $1", params![id])
                    .await?;
                assert_eq!((n, mood.as_str()), (5_000_000_000 + id, "fine"));
                let moved = db
                    .transaction(async |tx| {
                        let change = "UPDATE t SET m = $2 WHERE id = $1";
                        tx.execute(change, params![id, "bad"]).await?;
                        tx.query_one_as::<String>("SELECT m FROM t WHERE id = $1", params![id])
                            .await
                    })
                    .await?;
                assert_eq!(moved, "bad");
            }
            let rows = (0..50_i64).map(|n| [resonant_db::Param::Int(10_000 + task * 100 + n)]);
            db.write().execute_many("INSERT INTO t (id) VALUES ($1)", rows).await
        })
    });
    for task in futures::future::join_all(tasks).await {
        assert_eq!(task.expect("no panic").expect("no error"), 50);
    }
    let count = place.database.value("SELECT count(*) FROM t").await.expect("count");
    assert_eq!(count, "600");
    // No statement was left prepared, nor is any session in a transaction.
    let left = "SELECT count(*) FROM pg_prepared_statements";
    for _ in 0..9 {
        assert_eq!(db.write().query_one_as::<i64>(left, params![]).await.expect("count"), 0);
    }
    let stuck = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%' AND datname = current_database()";
    assert_eq!(place.database.value(stuck).await.expect("count"), "0");
}

#[tokio::test]
async fn a_schema_change_is_seen_at_once_behind_a_pooler() {
    let place = Pooled::new().await;
    let mut connection = open(&place.url(), Access::ReadWrite, None).await;
    connection.batch("CREATE TABLE t (a int); INSERT INTO t VALUES (1)").await.expect("create");
    let select = "SELECT * FROM t";
    assert_eq!(connection.query(select, &[]).await.expect("rows").columns().len(), 1);
    place.database.sql("ALTER TABLE t ADD COLUMN b text DEFAULT 'new'").await.expect("alter");
    let rows = connection.query(select, &[]).await.expect("rows");
    assert_eq!(rows.decode::<(i64, String)>().expect("decode"), [(1, "new".into())]);
    let insert = "INSERT INTO t (a) VALUES ($1)";
    connection.execute(insert, params![2]).await.expect("insert");
    place.database.sql("ALTER TABLE t ALTER COLUMN a TYPE text").await.expect("alter");
    connection.execute(insert, params!["three"]).await.expect("a text now");
    let none = connection.query("SELECT a, b FROM t WHERE a = 'no'", &[]).await.expect("no rows");
    assert_eq!(none.columns().iter().map(|column| column.name()).collect::<Vec<_>>(), ["a", "b"]);
}

#[tokio::test]
async fn limits_hold_and_reads_only_read_behind_a_pooler_that_keeps_no_options() {
    let place = Pooled::new().await;
    place.database.sql("CREATE TABLE t (n int)").await.expect("create");
    let limit = Some(Duration::from_millis(200));
    let mut writer = open(&place.url(), Access::ReadWrite, limit).await;
    let error = writer.query("SELECT pg_sleep(60)", &[]).await.expect_err("too long");
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    writer.query("SELECT 1", &[]).await.expect("it goes on");
    let error = writer.batch("SELECT pg_sleep(60)").await.expect_err("too long");
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    let running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND state = 'active' \
                   AND pid <> pg_backend_pid()";
    until("it was stopped", async || place.database.value(running).await.is_ok_and(|n| n == "0"))
        .await;

    let mut reader = open(&place.url(), Access::ReadOnly, limit).await;
    for sql in [
        "INSERT INTO t VALUES (1)",
        "WITH x AS (DELETE FROM t RETURNING n) SELECT n FROM x",
        "DROP TABLE t",
    ] {
        let error = reader.query(sql, &[]).await.expect_err(sql);
        assert_eq!(error.kind(), ErrorKind::Rejected, "{sql}: {error}");
        let error = reader.execute(sql, &[]).await.expect_err(sql);
        assert_eq!(error.kind(), ErrorKind::Rejected, "{sql}: {error}");
    }
    let error = reader.batch("COMMIT; INSERT INTO t VALUES (1)").await.expect_err("a way out");
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    assert_eq!(place.database.value("SELECT count(*) FROM t").await.expect("count"), "0");

    // What would reach the next owner of the session is refused.
    let mut writer = open(&place.url(), Access::ReadWrite, None).await;
    for sql in ["SET work_mem = '8MB'", "LISTEN x", "PREPARE x AS SELECT 1"] {
        let error = writer.execute(sql, &[]).await.expect_err(sql);
        assert_eq!(error.kind(), ErrorKind::Rejected, "{sql}: {error}");
    }
}

#[tokio::test]
async fn a_pooler_costs_no_round_trip_and_a_dropped_future_stops_the_server_through_it() {
    let place = Pooled::new().await;
    let proxy = FaultProxy::start(place.pooler.address()).await.expect("a proxy");
    let url =
        place.url().replace(&place.pooler.address().to_string(), &proxy.address().to_string());
    let pool = PoolConfig::default().min_size(1).max_size(1);
    let db = Database::builder().primary(url).pool(pool).connect().await.expect("connect");
    let ask = async |n: i64| {
        let found: i64 =
            db.write().query_one_as("SELECT $1::bigint", params![n]).await.expect("a row");
        assert_eq!(found, n);
    };
    ask(0).await;
    let before = proxy.stats().round_trips;
    for n in 0..20 {
        ask(n).await;
    }
    assert_eq!(proxy.stats().round_trips - before, 20);

    let sleep = tokio::time::timeout(
        Duration::from_millis(100),
        db.write().query("SELECT pg_sleep(60)", params![]),
    );
    sleep.await.expect_err("dropped");
    tokio::time::timeout(LIMIT, ask(7)).await.expect("the one connection is clean again");
    let running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND state = 'active' \
                   AND pid <> pg_backend_pid()";
    assert_eq!(place.database.value(running).await.expect("count"), "0");
}

#[tokio::test]
async fn every_kind_of_pooler_is_noticed_by_itself() {
    let cluster = PostgresCluster::builder().start().await.expect("a server");
    let pooler = |ignored: &str| {
        let pooler = PgBouncer::builder().in_front_of(cluster.primary().address());
        pooler.setting("ignore_startup_parameters", ignored)
    };
    // One that refuses what a session is opened with, one that swallows it, and one where the role's own settings look
    // like ours.
    let strict = pooler("extra_float_digits").start().await.expect("a pooler");
    let forgetful = pooler("options").start().await.expect("a pooler");
    let backend = |url: &str| Postgres::from_url(url).expect("a good URL");
    for round in ["plain", "the role only reads"] {
        if round != "plain" {
            let alter = "ALTER ROLE postgres SET default_transaction_read_only = on";
            cluster.primary().sql(alter).await.expect("alter");
        }
        for pooler in [&strict, &forgetful] {
            let url = pooler.url();
            for access in [Access::ReadOnly, Access::ReadWrite] {
                let backend = backend(&url);
                // The second one knows already.
                for _ in 0..2 {
                    let target = Target::new(&url, access, None);
                    let mut connection = backend.connect(&target).await.expect("connect");
                    for n in 0..5 {
                        let rows =
                            connection.query("SELECT $1::int", params![n]).await.expect("rows");
                        assert_eq!(rows.decode::<i64>().expect("decode"), [n]);
                    }
                    let left = "SELECT count(*) FROM pg_prepared_statements";
                    let left = connection.query(left, &[]).await.expect("count");
                    assert_eq!(left.decode::<i64>().expect("decode"), [0], "{round}");
                }
            }
            // Options that would be lost are not lost in silence.
            let url = format!("{url}?options=-c%20work_mem%3D8MB");
            let target = Target::new(&url, Access::ReadWrite, None);
            let error = backend(&url).connect(&target).await.expect_err("options");
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        }
    }
    let error = Database::builder()
        .primary(forgetful.url())
        .connect_lazy()
        .expect("lazy")
        .listen(["x"])
        .await
        .expect_err("no notifications");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}

#[tokio::test]
async fn what_a_standby_behind_a_pooler_refused_before_it_had_caught_up_reaches_nobody() {
    let cluster = PostgresCluster::builder().replicas(1).start().await.expect("a cluster");
    let (primary, standby) = (cluster.primary(), cluster.replica(0));
    let pooler =
        PgBouncer::builder().in_front_of(standby.address()).start().await.expect("a pooler");
    standby.pause_replay().await.expect("paused");
    primary.sql("CREATE TABLE fresh (n int); INSERT INTO fresh VALUES (7)").await.expect("create");
    let mut writer = connect(&primary.url()).await;
    let after = writer.position().await.expect("an answer").expect("a place");
    let follow = {
        let (primary, standby) = (primary.clone(), standby.clone());
        move |answer: &[u8]| {
            // It says that there is no such table; until that is heard, there is.
            let refused = holds(answer, "42P01");
            let (primary, standby) = (primary.clone(), standby.clone());
            refused.then(|| -> futures::future::BoxFuture<'static, ()> {
                Box::pin(async move {
                    standby.resume_replay().await.expect("resumed");
                    standby.caught_up_with(&primary).await.expect("caught up");
                })
            })
        }
    };
    let meddler = Meddler::start(pooler.address(), |_| {}, follow).await;
    let url = meddler.url(&pooler.url(), pooler.address());
    for limit in [Some(LIMIT), None] {
        let mut reader = open(&url, Access::ReadOnly, limit).await;
        let rows = reader.query_after(&after, "SELECT n FROM fresh", &[]).await;
        let rows = rows.expect("no error of before").expect("it has caught up");
        assert_eq!(rows.decode::<i64>().expect("decode"), [7]);
    }
    // A table that there never was is refused also by one that has caught up.
    let mut reader = open(&url, Access::ReadOnly, None).await;
    let error = reader.query_after(&after, "SELECT n FROM never", &[]).await.expect_err("no table");
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
}

resonant_db::conformance!(pooled, Pooled::new().await);
