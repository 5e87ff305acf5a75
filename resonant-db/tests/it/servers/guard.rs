//! A read that the primary serves cannot write, although it runs on a connection that also writes.

use std::time::Duration;

use resonant_db::backend::{Access, BeginOptions};
use resonant_db::pool::Verdict;
use resonant_db::{Database, ErrorKind, PoolConfig, TransactionOptions, params};
use tokio::time::timeout;

use super::lanes::{BY_KEY, item, lanes};
use super::meddler::{Meddler, swap};
use super::pooler::Pooled;
use super::{LIMIT, connect, database, open};

fn one(url: &str) -> resonant_db::DatabaseBuilder {
    Database::builder().primary(url).pool(PoolConfig::default().min_size(1).max_size(1))
}

#[tokio::test]
async fn a_read_on_the_primary_cannot_write_and_a_write_behind_it_can() {
    let database = database().await;
    database.sql("CREATE TABLE t (n int); CREATE SEQUENCE numbers").await.expect("a table");
    database
        .sql("CREATE FUNCTION writing() RETURNS int LANGUAGE sql AS 'INSERT INTO t VALUES (1) RETURNING 1'")
        .await
        .expect("a function");
    let db = one(&database.url()).connect().await.expect("connect");
    let pid = "SELECT pg_backend_pid()";
    let session: i64 = db.write().query_one_as(pid, params![]).await.expect("pid");
    let mut written = 0_i64;
    for turn in 0..20 {
        for sql in [
            "INSERT INTO t VALUES (0) RETURNING n",
            "SELECT writing()",
            "SELECT nextval('numbers')",
            "WITH d AS (DELETE FROM t RETURNING n) SELECT count(*) FROM d",
            "CREATE TABLE never (n int)",
        ] {
            let error = db.read().query(sql, params![]).await.expect_err(sql);
            assert_eq!(error.kind(), ErrorKind::Rejected, "{sql}: {error}");
            assert!(!error.may_have_applied(), "{sql}");
        }
        match turn % 5 {
            0 => db
                .write()
                .execute("INSERT INTO t VALUES (1)", params![])
                .await
                .map(drop)
                .expect("a write"),
            1 => drop(db.write().query("SELECT writing()", params![]).await.expect("a write")),
            2 => db.write().batch("INSERT INTO t VALUES (1)").await.expect("a write"),
            3 => {
                let rows = [[1_i64.into()]];
                db.write()
                    .execute_many("INSERT INTO t VALUES ($1)", rows)
                    .await
                    .map(drop)
                    .expect("a write");
            }
            _ => {
                let work = db.transaction(async |tx| {
                    tx.execute("INSERT INTO t VALUES (1)", params![]).await
                });
                work.await.map(drop).expect("a write");
            }
        }
        written += 1;
        let count: i64 =
            db.read().query_one_as("SELECT count(*) FROM t", params![]).await.expect("count");
        assert_eq!(count, written);
    }
    let line = || futures::stream::iter([Ok::<_, std::convert::Infallible>("1\n")]);
    for _ in 0..2 {
        let reads = db.read().query("SELECT 1", params![]).await;
        reads.expect("a read");
        let copied = db.write().copy_in("COPY t FROM STDIN", line()).await.expect("a COPY");
        assert_eq!(copied, 1);
        written += 1;
    }
    let count: i64 =
        db.read().query_one_as("SELECT count(*) FROM t", params![]).await.expect("count");
    assert_eq!(count, written);
    let reading = TransactionOptions::default().read_only();
    let refused =
        db.transaction_with(reading, async |tx| tx.query("SELECT writing()", params![]).await);
    assert_eq!(refused.await.expect_err("it writes").kind(), ErrorKind::Rejected);
    let mut rows = db.read().stream("SELECT writing()", params![]).await.expect("a stream");
    rows.next().await.expect_err("it writes");
    let same: i64 = db.read().query_one_as(pid, params![]).await.expect("pid");
    assert_eq!(same, session, "all of it on one session, which was never reset");
}

#[tokio::test]
async fn a_stream_that_writes_runs_behind_a_read_and_leaves_nothing_to_reset() {
    let database = database().await;
    database.sql("CREATE TABLE t (n int)").await.expect("a table");
    let mut connection = open(&database.url(), Access::ReadWrite, Some(LIMIT)).await;
    let insert = "INSERT INTO t SELECT generate_series(1, 3) RETURNING n";
    for _ in 0..3 {
        connection.restrict(Access::ReadOnly);
        connection.query("SELECT 1", &[]).await.expect("a read");
        let refused = {
            let flow = connection.streaming().expect("it streams");
            match flow.open_rows(insert, &[]).await {
                Ok(()) => flow.next_rows().await.map(drop),
                refused => refused,
            }
        };
        assert_eq!(refused.expect_err("it only reads").kind(), ErrorKind::Rejected);
        connection.restrict(Access::ReadWrite);
        let flow = connection.streaming().expect("it streams");
        flow.open_rows(insert, &[]).await.expect("it writes");
        let mut rows = 0;
        while let Some(piece) = flow.next_rows().await.expect("it writes") {
            rows += piece.len();
        }
        assert_eq!(rows, 3);
        connection.restrict(Access::ReadOnly);
        connection.query("SELECT 1", &[]).await.expect("a read");
        connection.restrict(Access::ReadWrite);
        let flow = connection.streaming().expect("it streams");
        flow.open_copy_in("COPY t FROM STDIN").await.expect("it writes");
        flow.send_copy(b"4\n").await.expect("data");
        assert_eq!(flow.finish_copy_in().await.expect("copied"), 1);
        // What it was told for that is no setting of the caller's.
        assert_eq!(connection.verdict(), Verdict::Reuse);
        connection.execute("SET work_mem = '9MB'", &[]).await.expect("set");
        assert_eq!(connection.verdict(), Verdict::Clean, "and this one is");
        connection.clean().await.expect("clean");
    }
    assert_eq!(database.value("SELECT count(*) FROM t").await.expect("count"), "12");
}

#[tokio::test]
async fn the_guard_survives_dropped_calls_and_resets() {
    let database = database().await;
    database.sql("CREATE TABLE t (n int)").await.expect("a table");
    let mut connection = open(&database.url(), Access::ReadWrite, Some(LIMIT)).await;
    let insert = "INSERT INTO t VALUES (1) RETURNING n";
    for turn in 0..60_u64 {
        let access = if turn % 2 == 0 { Access::ReadOnly } else { Access::ReadWrite };
        connection.restrict(access);
        let moment = Duration::from_micros(turn % 12 * 100);
        let _ = timeout(moment, connection.query("SELECT pg_sleep(60)", params![])).await;
        connection.clean().await.expect("clean");
        if turn % 3 == 0 {
            connection.restrict(Access::ReadWrite);
            connection.execute("SET work_mem = '9MB'", params![]).await.expect("set");
            connection.clean().await.expect("clean");
        }
        connection.restrict(Access::ReadOnly);
        let error = connection.query(insert, params![]).await.expect_err("it only reads");
        assert_eq!(error.kind(), ErrorKind::Rejected, "turn {turn}: {error}");
        connection.restrict(Access::ReadWrite);
        connection.query(insert, params![]).await.expect("it writes");
    }
    connection.restrict(Access::ReadOnly);
    let mut reading = open(&database.url(), Access::ReadOnly, None).await;
    reading.restrict(Access::ReadWrite);
    reading.query(insert, params![]).await.expect_err("it was opened for reading");
}

#[tokio::test]
async fn behind_a_pooler_a_read_cannot_write_either_and_nothing_is_shared() {
    let place = Pooled::new().await;
    place
        .database
        .sql("CREATE TABLE item (id int8 PRIMARY KEY, name text NOT NULL); INSERT INTO item SELECT n, 'item ' || n FROM generate_series(0, 99) AS n")
        .await
        .expect("items");
    let pool = PoolConfig::default().min_size(1).max_size(2).acquire_timeout(LIMIT);
    let db = Database::builder().primary(place.url()).pool(pool).connect().await.expect("connect");
    for _ in 0..5 {
        let insert = "INSERT INTO item VALUES (500, 'x') RETURNING id";
        let error = db.read().query(insert, params![]).await.expect_err("it only reads");
        assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
        db.write()
            .execute("UPDATE item SET name = name WHERE id = 1", params![])
            .await
            .expect("a write");
    }
    for _ in 0..4 {
        let reads = (0..50).map(|id| item(&db, id));
        for read in futures::future::join_all(reads).await {
            read.expect(BY_KEY);
        }
    }
    assert_eq!((lanes(&db).open, lanes(&db).reads), (0, 0));
}

#[tokio::test]
async fn a_guard_that_is_not_taken_does_not_hide_that_the_statement_ran() {
    let database = database().await;
    database.sql("CREATE TABLE t (n int)").await.expect("a table");
    let address = super::pooler::address_of(&database.url());
    let refuse = |bytes: &mut Vec<u8>| {
        swap(bytes, "SET default_transaction_read_only TO", "SET default_transaction_read_onlx TO");
    };
    let meddler = Meddler::start(address, refuse, |_| None).await;
    let url = meddler.url(&database.url(), address);
    let mut connection = open(&url, Access::ReadWrite, Some(LIMIT)).await;
    connection.restrict(Access::ReadOnly);
    connection.query("SELECT 1", &[]).await.expect("a read");
    // What it was told is still there, so the server refuses it.
    connection.restrict(Access::ReadWrite);
    let error = connection.execute("INSERT INTO t VALUES (1)", &[]).await.expect_err("not taken");
    assert!(!error.may_have_applied(), "the server has refused it: {error}");
    // One that the server lets through all the same.
    let mut connection = open(&url, Access::ReadWrite, Some(LIMIT)).await;
    connection.restrict(Access::ReadOnly);
    connection.query("SELECT 1", &[]).await.expect("a read");
    connection.restrict(Access::ReadWrite);
    let around = "BEGIN; SET LOCAL transaction_read_only = off; INSERT INTO t VALUES (2); COMMIT";
    let error = connection.batch(around).await.expect_err("not taken");
    assert_eq!(database.value("SELECT count(*) FROM t").await.expect("count"), "1");
    assert!(error.may_have_applied(), "it was applied: {error}");
    // A transaction that was not begun has done nothing.
    let mut connection = open(&url, Access::ReadWrite, Some(LIMIT)).await;
    connection.restrict(Access::ReadOnly);
    connection.query("SELECT 1", &[]).await.expect("a read");
    connection.restrict(Access::ReadWrite);
    let error = connection.begin(BeginOptions::default()).await.expect_err("not taken");
    assert!(!error.may_have_applied(), "{error}");
    connect(&url).await.ping().await.expect("nothing else is changed");
}
