//! Rows piece by piece, COPY in and out, the driver's own client.

use std::convert::Infallible;
use std::time::Duration;

use futures::{FutureExt, TryStreamExt};
use resonant_db::backend::ErrorExt;
use resonant_db::{Database, ErrorKind, PoolConfig, params};
use resonant_testkit::postgres::TempDatabase;

use super::pooler::Pooled;
use super::{LIMIT, database, until};

async fn connect(url: String) -> Database {
    let pool = PoolConfig::default().min_size(1).max_size(1);
    Database::builder()
        .primary(url)
        .pool(pool)
        .statement_timeout(Duration::from_secs(2))
        .connect()
        .await
        .expect("connect")
}

/// With and without a pooler in between.
async fn places() -> [(Database, Option<Pooled>, Option<TempDatabase>); 2] {
    let direct = database().await;
    let pooled = Pooled::new().await;
    [
        (connect(direct.url()).await, None, Some(direct)),
        (connect(pooled.url()).await, Some(pooled), None),
    ]
}

async fn count(db: &Database) -> i64 {
    let count = db.write().query_one_as("SELECT count(*) FROM t", params![]);
    tokio::time::timeout(LIMIT, count).await.expect("the connection is free").expect("count")
}

const MANY: &str =
    "SELECT n, repeat('x', 1000) FROM (SELECT generate_series(1, $1::bigint) AS n) AS t";

#[tokio::test]
async fn a_stream_answers_every_row_and_gives_its_connection_back() {
    for (db, _pooled, _direct) in places().await {
        let mut rows = db.read().stream(MANY, params![20_000]).await.expect("opened");
        let mut expected = 0;
        while let Some(row) = rows.next().await.expect("a row") {
            expected += 1;
            assert_eq!(row.get::<i64>(0).expect("n"), expected);
        }
        assert_eq!(expected, 20_000);
        assert!(rows.next().await.expect("over").is_none());
        let one: i64 = db.read().query_one_as("SELECT 1", params![]).await.expect("it is back");
        assert_eq!(one, 1);
        let all: Vec<_> = db
            .read()
            .stream(MANY, params![300])
            .await
            .expect("opened")
            .into_stream()
            .try_collect()
            .await
            .expect("rows");
        assert_eq!(all.len(), 300);
        let none = db.read().stream(MANY, params![0]).await.expect("opened").next().await;
        assert!(none.expect("over").is_none());
    }
}

#[tokio::test]
async fn who_does_not_take_rows_holds_the_server_back_and_who_gives_up_frees_it() {
    for (db, pooled, direct) in places().await {
        let mut rows = db.read().stream(MANY, params![100_000_000]).await.expect("opened");
        rows.next().await.expect("a row").expect("a row");
        let server = direct.as_ref().or(pooled.as_ref().map(|place| &place.database));
        let server = server.expect("a server");
        let held = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%generate_series(1, $1%' AND state = 'active' \
                    AND wait_event = 'ClientWrite'";
        until("the server waits", async || server.value(held).await.is_ok_and(|n| n == "1")).await;
        // Longer than the limit of a statement, which does not count for the stream as a whole.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        for _ in 0..5000 {
            rows.next().await.expect("it goes on").expect("a row");
        }
        drop(rows);
        let one = db.read().query_one_as::<i64>("SELECT 1", params![]);
        let one = tokio::time::timeout(LIMIT, one).await.expect("freed").expect("a row");
        assert_eq!(one, 1);
        let active = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%generate_series(1, $1%' \
                      AND state = 'active' AND pid <> pg_backend_pid()";
        until("it was stopped", async || server.value(active).await.is_ok_and(|n| n == "0")).await;
    }
}

#[tokio::test]
async fn a_call_for_data_that_is_dropped_is_never_taken_for_their_end() {
    for (db, _pooled, _direct) in places().await {
        let mut rows = db.read().stream(MANY, params![100_000_000]).await.expect("opened");
        while let Some(row) = rows.next().now_or_never() {
            row.expect("a row").expect("a row");
        }
        let missing = rows.next().await.expect_err("rows are missing");
        assert_eq!(missing.kind(), ErrorKind::Rejected, "{missing}");
        assert!(rows.next().await.expect("over").is_none());

        let copy = "COPY (SELECT repeat('x', 1000), generate_series(1, 100000000)) TO STDOUT";
        let mut data = db.read().copy_out(copy).await.expect("opened");
        while let Some(piece) = data.next().now_or_never() {
            piece.expect("data").expect("data");
        }
        let missing = data.next().await.expect_err("data are missing");
        assert_eq!(missing.kind(), ErrorKind::Rejected, "{missing}");
        assert!(data.next().await.expect("over").is_none());

        let lost = db
            .transaction(async |tx| {
                let mut data = tx.copy_out(copy).await?;
                while let Some(piece) = data.next().now_or_never() {
                    piece?.expect("data");
                }
                let missing = data.next().await.expect_err("data are missing");
                assert_eq!(missing.kind(), ErrorKind::Rejected, "{missing}");
                assert!(data.next().await?.is_none());
                Ok(())
            })
            .await;
        lost.expect_err("rolled back");
    }
}

#[tokio::test]
async fn an_error_in_the_middle_of_a_stream_is_told_after_the_rows_before_it() {
    for (db, _pooled, _direct) in places().await {
        let late = "SELECT 1 / (1000 - n) FROM generate_series(1, 2000) AS n";
        let mut rows = db.read().stream(late, params![]).await.expect("opened");
        let mut seen = 0;
        let error = loop {
            match rows.next().await {
                Ok(row) => seen += i32::from(row.is_some()),
                Err(error) => break error,
            }
        };
        assert_eq!(seen, 999);
        assert_eq!(
            (error.kind(), error.sqlstate()),
            (ErrorKind::Rejected, Some("22012")),
            "{error}"
        );
        assert!(rows.next().await.expect("over").is_none());
        drop(rows);
        assert_eq!(db.read().query_one_as::<i64>("SELECT 1", params![]).await.expect("a row"), 1);
        let error = db.read().stream("SELECT nothing", params![]).await.expect_err("no column");
        assert_eq!(error.sqlstate(), Some("42703"));
    }
}

#[tokio::test]
async fn copy_takes_data_in_and_out_whole() {
    for (db, _pooled, _direct) in places().await {
        db.write().batch("CREATE TABLE t (id int PRIMARY KEY, name text)").await.expect("create");
        let lines = (0..50_000).map(|n| Ok::<_, Infallible>(format!("{n}\tname of {n}\n")));
        let copied = db
            .write()
            .copy_in("COPY t (id, name) FROM STDIN", futures::stream::iter(lines))
            .await
            .expect("copied");
        assert_eq!(copied, 50_000);
        assert_eq!(count(&db).await, 50_000);
        let mut out = db
            .read()
            .copy_out("COPY (SELECT id FROM t ORDER BY id) TO STDOUT")
            .await
            .expect("opened");
        let mut data = Vec::new();
        while let Some(piece) = out.next().await.expect("data") {
            data.extend(piece);
        }
        let expected: String = (0..50_000).map(|n| format!("{n}\n")).collect();
        assert!(data == expected.as_bytes(), "{} bytes", data.len());
        drop(out);
        // In a transaction it is the transaction that decides.
        let undone = db
            .transaction(async |tx| {
                let line = futures::stream::iter([Ok::<_, Infallible>("70000\tx\n")]);
                tx.copy_in("COPY t FROM STDIN", line).await?;
                assert_eq!(
                    tx.query_one_as::<i64>("SELECT count(*) FROM t", params![]).await?,
                    50_001
                );
                Err::<(), _>(resonant_db::Error::new(ErrorKind::Rejected, "test", "undo"))
            })
            .await;
        undone.expect_err("undone");
        assert_eq!(count(&db).await, 50_000);
    }
}

#[tokio::test]
async fn a_copy_out_of_a_transaction_shows_its_own_writes() {
    for (db, _pooled, _direct) in places().await {
        db.write().batch("CREATE TABLE t (id int PRIMARY KEY, name text)").await.expect("create");
        let copy = "COPY (SELECT id FROM t ORDER BY id) TO STDOUT";
        let whole = db.transaction(async |tx| {
            tx.execute(
                "INSERT INTO t SELECT n, 'x' FROM generate_series(0, 49999) AS n",
                params![],
            )
            .await?;
            let (mut out, mut data) = (tx.copy_out(copy).await?, Vec::new());
            while let Some(piece) = out.next().await? {
                data.extend(piece);
            }
            assert_eq!(out.next().await?, None, "it is over");
            // And the transaction goes on.
            tx.execute("DELETE FROM t WHERE id > 9", params![]).await?;
            Ok(data)
        });
        let whole = whole.await.expect("copied");
        let expected: String = (0..50_000).map(|n| format!("{n}\n")).collect();
        assert!(whole == expected.as_bytes(), "{} bytes", whole.len());
        assert_eq!(count(&db).await, 10);
        // Given up half-way, the transaction is lost, and so is what it wrote.
        let given_up = db.transaction(async |tx| {
            tx.execute(
                "INSERT INTO t SELECT n, 'x' FROM generate_series(100, 49999) AS n",
                params![],
            )
            .await?;
            assert!(tx.copy_out(copy).await?.next().await?.is_some());
            tx.query("SELECT 1", params![]).await.map(drop)
        });
        given_up.await.expect_err("lost");
        assert_eq!(count(&db).await, 10);
        // Refused, it fails it too.
        let refused = db.transaction(async |tx| tx.copy_out("SELECT 1").await.map(drop)).await;
        assert_eq!(refused.expect_err("no copy").kind(), ErrorKind::Rejected);
        let broken = db.transaction(async |tx| {
            let mut out =
                tx.copy_out("COPY (SELECT 1 / (id - 5) FROM t ORDER BY id) TO STDOUT").await?;
            while out.next().await?.is_some() {}
            Ok(())
        });
        let error = broken.await.expect_err("by zero");
        assert_eq!(error.sqlstate(), Some("22012"), "{error}");
        assert_eq!(count(&db).await, 10);
    }
}

#[tokio::test]
async fn a_copy_that_fails_or_is_dropped_copies_nothing_and_spoils_nobody() {
    for (db, _pooled, _direct) in places().await {
        db.write().batch("CREATE TABLE t (id int PRIMARY KEY)").await.expect("create");
        let copy = "COPY t FROM STDIN";
        let lines = |n: i32| (0..n).map(|n| Ok::<_, std::io::Error>(format!("{n}\n")));
        // The data are wrong.
        let twice = futures::stream::iter(lines(9000).chain(lines(1)));
        let error = db.write().copy_in(copy, twice).await.expect_err("a key twice");
        assert!(error.is_unique_violation(), "{error}");
        assert_eq!(count(&db).await, 0);
        // The source fails.
        let broken = lines(9000).chain([Err(std::io::Error::other("the disk"))]);
        let error =
            db.write().copy_in(copy, futures::stream::iter(broken)).await.expect_err("no source");
        assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
        assert_eq!(count(&db).await, 0);
        // The caller gives up.
        let endless = futures::stream::iter(lines(i32::MAX));
        let copying =
            tokio::time::timeout(Duration::from_millis(200), db.write().copy_in(copy, endless));
        copying.await.expect_err("dropped");
        assert_eq!(count(&db).await, 0);
        // No such table, no such statement.
        let none = || futures::stream::iter(lines(1));
        let error =
            db.write().copy_in("COPY nowhere FROM STDIN", none()).await.expect_err("no table");
        assert_eq!(error.sqlstate(), Some("42P01"), "{error}");
        for sql in ["SELECT 1", "INSERT INTO t VALUES (1)"] {
            assert_eq!(
                db.write().copy_in(sql, none()).await.expect_err(sql).kind(),
                ErrorKind::Rejected
            );
        }
        assert_eq!(
            db.read().copy_out("SELECT 1").await.expect_err("no copy").kind(),
            ErrorKind::Rejected
        );
        assert_eq!(count(&db).await, 0);
    }
}

#[tokio::test]
async fn the_drivers_client_is_lent_and_comes_back_clean() {
    let database = database().await;
    let db = connect(database.url()).await;
    let default: String = db.write().query_one_as("SHOW work_mem", params![]).await.expect("a row");
    let found = db
        .write()
        .with_client(async |client| {
            client
                .batch_execute(
                    "SET work_mem = '7MB'; SELECT set_config('a.b', 'c', false); LISTEN x",
                )
                .await?;
            let row = client.query_one("SELECT $1::int4 + 1", &[&41_i32]).await?;
            Ok(row.get::<_, i32>(0))
        })
        .await
        .expect("lent");
    assert_eq!(found, 42);
    let now: String = db.write().query_one_as("SHOW work_mem", params![]).await.expect("a row");
    assert_eq!(now, default);
    let error = db
        .write()
        .with_client(async |client| client.batch_execute("BEGIN").await)
        .await
        .expect_err("left open");
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    let error = db
        .write()
        .with_client(async |client| client.query("SELECT 1 / 0", &[]).await)
        .await
        .expect_err("divided");
    assert_eq!(error.sqlstate(), Some("22012"), "{error}");
    // It fits into a task.
    let spawned = db.clone();
    tokio::spawn(async move {
        spawned.write().with_client(async |client| client.query("SELECT 1", &[]).await).await
    })
    .await
    .expect("no panic")
    .expect("lent");
    assert_eq!(db.write().query_one_as::<i64>("SELECT 1", params![]).await.expect("a row"), 1);
}

#[tokio::test]
async fn a_stream_in_a_transaction_shows_its_own_writes_and_leaves_it_usable() {
    for (db, _pooled, _direct) in places().await {
        db.write().batch("CREATE TABLE t (n bigint)").await.expect("create");
        let seen = db
            .transaction(async |tx| {
                let insert = "INSERT INTO t SELECT generate_series(1, 5000)";
                tx.execute(insert, params![]).await?;
                let mut rows = tx.stream("SELECT n FROM t ORDER BY n", params![]).await?;
                let mut seen = 0;
                while let Some(row) = rows.next().await? {
                    seen += 1;
                    assert_eq!(row.get::<i64>(0)?, seen);
                }
                assert!(rows.next().await?.is_none());
                // The transaction goes on.
                tx.execute("DELETE FROM t WHERE n > 10", params![]).await?;
                Ok(seen)
            })
            .await
            .expect("committed");
        assert_eq!((seen, count(&db).await), (5000, 10));

        // One that is dropped half-way rolls all of it back, and the connection is fit for the next.
        let result = db
            .transaction(async |tx| {
                tx.execute("DELETE FROM t", params![]).await?;
                let mut rows = tx.stream(MANY, params![100_000]).await?;
                rows.next().await?;
                Ok(())
            })
            .await;
        assert_eq!(result.expect_err("rolled back").kind(), ErrorKind::Rejected);
        assert_eq!(count(&db).await, 10);

        // One that fails, at once or on the way, fails the transaction; within a savepoint only that.
        for sql in ["SELECT nothing FROM t", "SELECT 1 / (n - 5) FROM t ORDER BY n"] {
            let saved = db
                .transaction(async |tx| {
                    tx.execute("INSERT INTO t VALUES (11)", params![]).await?;
                    let failed = tx
                        .savepoint(async |tx| {
                            let mut rows = tx.stream(sql, params![]).await?;
                            while rows.next().await?.is_some() {}
                            Ok(())
                        })
                        .await;
                    assert_eq!(failed.expect_err(sql).kind(), ErrorKind::Rejected);
                    tx.execute("DELETE FROM t WHERE n = 11", params![]).await
                })
                .await;
            assert_eq!(saved.expect("committed"), 1, "{sql}");
            let result = db
                .transaction(async |tx| {
                    let mut rows = tx.stream(sql, params![]).await?;
                    while rows.next().await?.is_some() {}
                    Ok(())
                })
                .await;
            assert_eq!(result.expect_err(sql).kind(), ErrorKind::Rejected);
        }
        assert_eq!(count(&db).await, 10);
    }
}

#[tokio::test]
async fn what_a_pooler_cannot_do_is_published() {
    for (db, pooled, _direct) in places().await {
        let found = db.capabilities();
        let direct = pooled.is_none();
        assert_eq!((found.notifications, found.reports_role), (direct, direct), "{found:?}");
        assert!(found.positions && found.roles_change, "{found:?}");
        let listening = db.listen(["news"]).await;
        assert_eq!(listening.is_ok(), direct);
    }
}
