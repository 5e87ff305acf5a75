//! Nothing dirty comes back, and a dropped future stops the server.

use std::future::Future;
use std::time::Duration;

use rand::RngExt;
use resonant_db::backend::{Access, Connection};
use resonant_db::pool::Verdict;
use resonant_db::{Database, ErrorKind, PoolConfig, params};
use tokio::time::timeout;

use super::{LIMIT, connect, database, open, until};

async fn text(connection: &mut dyn Connection, sql: &str) -> String {
    let rows = connection.query(sql, &[]).await.expect(sql);
    rows.first().expect("a row").get(0).expect("text")
}

#[tokio::test]
async fn a_session_that_somebody_changed_is_reset_and_kept() {
    let database = database().await;
    database.sql("CREATE SEQUENCE numbers").await.expect("a sequence");
    let mut connection = connect(&database.url()).await;
    let pid = text(&mut *connection, "SELECT pg_backend_pid()::text").await;
    let look = "SELECT concat_ws('|', current_setting('work_mem'), current_setting('app.user', true), \
                (SELECT count(*) FROM pg_listening_channels()), (SELECT count(*) FROM pg_cursors WHERE name = 'c'), \
                to_regclass('pg_temp.mine') IS NULL, current_user = session_user, \
                (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()))";
    let fresh = text(&mut *connection, look).await;
    assert_eq!(connection.verdict(), Verdict::Reuse, "looking changes nothing");
    for sql in [
        "SET work_mem = '8MB'",
        "SELECT set_config('app.user', 'ada', false)",
        "LISTEN news",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "CREATE TEMP TABLE mine (n int)",
        "SELECT 1 AS n INTO TEMPORARY mine",
        "SELECT pg_advisory_lock(1)",
        "SET ROLE pg_monitor",
        "DO $$ BEGIN PERFORM set_config('app.user', 'eve', false); END $$",
    ] {
        if sql.starts_with("SELECT pg") || sql.starts_with("SELECT set") {
            connection.query(sql, &[]).await.expect(sql);
        } else {
            connection.execute(sql, &[]).await.expect(sql);
        }
        assert_eq!(connection.verdict(), Verdict::Clean, "{sql}");
        assert_ne!(text(&mut *connection, look).await, fresh, "{sql}");
        connection.clean().await.expect(sql);
        assert_eq!(connection.verdict(), Verdict::Reuse, "{sql}");
        let now = text(&mut *connection, look).await.replace("||0", "|0");
        assert_eq!(now, fresh.replace("||0", "|0"), "{sql}");
    }
    assert_eq!(text(&mut *connection, "SELECT pg_backend_pid()::text").await, pid);
}

#[tokio::test]
async fn a_session_whose_statements_were_touched_is_closed() {
    let database = database().await;
    for sql in ["DEALLOCATE ALL", "DISCARD ALL", "PREPARE mine AS SELECT 1"] {
        let mut connection = connect(&database.url()).await;
        connection.query("SELECT 1", &[]).await.expect("select");
        connection.execute(sql, &[]).await.expect(sql);
        assert_eq!(connection.verdict(), Verdict::Discard, "{sql}");
    }
}

#[tokio::test]
async fn with_session_reset_always_even_what_a_function_hides_is_undone() {
    let database = database().await;
    database
        .sql("CREATE FUNCTION hidden() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN set_config('app.user', 'ada', false); END $$")
        .await
        .expect("a function");
    let mut connection = connect(&format!("{}?session_reset=always", database.url())).await;
    connection.query("SELECT hidden()", &[]).await.expect("select");
    assert_eq!(connection.verdict(), Verdict::Clean);
    connection.clean().await.expect("clean");
    assert_eq!(connection.verdict(), Verdict::Reuse);
    let user = "SELECT coalesce(current_setting('app.user', true), '')";
    assert_eq!(text(&mut *connection, user).await, "");
}

#[tokio::test]
async fn a_copy_is_refused_before_it_can_block_the_session() {
    let database = database().await;
    let mut connection = connect(&database.url()).await;
    connection.batch("CREATE TABLE t (n int)").await.expect("create");
    for sql in ["COPY t FROM STDIN", "copy t to stdout"] {
        for refused in [
            connection.execute(sql, &[]).await.map(drop),
            connection.query(sql, &[]).await.map(drop),
            connection.batch(sql).await,
        ] {
            assert_eq!(refused.expect_err(sql).kind(), ErrorKind::Rejected);
        }
    }
    assert_eq!(text(&mut *connection, "SELECT 'fine'").await, "fine");
    assert_eq!(connection.verdict(), Verdict::Reuse);
}

/// Runs a future for a moment and drops it.
async fn cut_short<F: Future>(moment: Duration, future: F) {
    let _ = timeout(moment, future).await;
}

#[tokio::test]
async fn a_dropped_statement_is_gone_from_the_server_and_the_next_is_not_hit() {
    let database = database().await;
    let mut connection = open(&database.url(), Access::ReadOnly, Some(LIMIT)).await;
    let pid = text(&mut *connection, "SELECT pg_backend_pid()::text").await;
    let short = "SELECT count(*)::text FROM generate_series(1, 3000)";
    for turn in 0..120_u32 {
        // From never sent to well under way; also some that end by themselves as the request to cancel travels.
        let moment = Duration::from_micros(u64::from(turn % 12) * 150);
        if turn % 2 == 0 {
            cut_short(moment, connection.query("SELECT pg_sleep(60)", &[])).await;
        } else {
            cut_short(
                moment,
                connection.query("SELECT count(*) FROM generate_series(1, 10000)", &[]),
            )
            .await;
        }
        if connection.verdict() == Verdict::Clean {
            connection.clean().await.expect("clean");
        }
        for _ in 0..3 {
            assert_eq!(
                text(&mut *connection, short).await,
                "3000",
                "a stray cancel in turn {turn}"
            );
        }
    }
    assert_eq!(
        text(&mut *connection, "SELECT pg_backend_pid()::text").await,
        pid,
        "it is still the same session"
    );
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(60)%' \
                    AND pid <> pg_backend_pid()";
    assert_eq!(database.value(sleeping).await.expect("count"), "0");
}

#[tokio::test]
async fn a_call_dropped_in_a_pool_stops_on_the_server() {
    let database = database().await;
    let pool = PoolConfig::default().min_size(1).max_size(1);
    let db =
        Database::builder().primary(database.url()).pool(pool).connect().await.expect("connect");
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(61)%' \
                    AND pid <> pg_backend_pid()";
    let handle = {
        let db = db.clone();
        tokio::spawn(async move { db.write().execute("SELECT pg_sleep(61)", params![]).await })
    };
    until("the statement runs", async || database.value(sleeping).await.expect("count") == "1")
        .await;
    handle.abort();
    until("the statement is gone", async || database.value(sleeping).await.expect("count") == "0")
        .await;
    let one: i64 =
        db.write().query_one_as("SELECT 1", params![]).await.expect("the slot is free again");
    assert_eq!(one, 1);
}

#[tokio::test]
async fn whatever_is_dropped_wherever_the_next_borrower_meets_a_fresh_session() {
    let database = database().await;
    database.sql("CREATE TABLE t (n int)").await.expect("create");
    let pool = PoolConfig::default().min_size(2).max_size(2);
    let db =
        Database::builder().primary(database.url()).pool(pool).connect().await.expect("connect");
    let look = "SELECT concat_ws('|', current_setting('work_mem'), to_regclass('pg_temp.mine') IS NULL, \
                (SELECT count(*) FROM pg_listening_channels()), pg_current_xact_id_if_assigned() IS NULL)";
    let fresh: String = db.write().query_one_as(look, params![]).await.expect("look");
    for turn in 0..150 {
        let moment = Duration::from_micros(rand::rng().random_range(0..4_000));
        let write = db.write();
        match turn % 7 {
            0 => cut_short(moment, write.execute("SET work_mem = '9MB'", params![])).await,
            1 => {
                cut_short(moment, write.execute("CREATE TEMP TABLE mine (n int)", params![])).await
            }
            2 => cut_short(moment, write.execute("LISTEN news", params![])).await,
            3 => {
                cut_short(
                    moment,
                    write.query("SELECT * FROM generate_series(1, 200000)", params![]),
                )
                .await
            }
            4 => {
                let work = db.transaction(async |tx| {
                    tx.execute("INSERT INTO t VALUES (1)", params![]).await?;
                    tx.execute("SELECT pg_sleep(60)", params![]).await
                });
                cut_short(moment, work).await;
            }
            5 => {
                let work = db.transaction(async |tx| tx.execute("SELECT 1 / 0", params![]).await);
                cut_short(moment, work).await;
            }
            _ => cut_short(moment, write.execute("BEGIN", params![])).await,
        }
        for _ in 0..2 {
            let seen: String = db.write().query_one_as(look, params![]).await.expect("look");
            assert_eq!(seen, fresh, "after turn {turn}");
        }
    }
    until("no session is left in a transaction", async || {
        let open = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' \
                    AND datname = current_database()";
        database.value(open).await.expect("count") == "0"
    })
    .await;
    assert_eq!(database.value("SELECT count(*) FROM t").await.expect("count"), "0");
    db.close(LIMIT).await.expect("close");
}
