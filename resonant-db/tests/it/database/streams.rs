//! Rows piece by piece from SQLite, alone and over shards.

use std::time::Duration;

use futures::{FutureExt, StreamExt};
use resonant_db::backend::sqlite;
use resonant_db::{Database, ErrorKind, PoolConfig, Result, params};

use super::basics::file;
use super::files::ENDLESS;
use crate::sharding::cluster;

const NUMBERS: &str =
    "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < $1) SELECT i FROM n";

/// Of a statement, for writes to a slow disk, too.
const LIMIT: Duration = Duration::from_secs(2);

async fn one_reader() -> (tempfile::TempDir, Database) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let db = Database::builder()
        .primary(sqlite::url(folder.path().join("test.db")))
        .pool(PoolConfig::default().min_size(1).max_size(1))
        .statement_timeout(LIMIT)
        .connect()
        .await
        .expect("connect");
    db.write().batch("CREATE TABLE t (n INTEGER)").await.expect("create");
    (folder, db)
}

#[tokio::test]
async fn rows_come_as_they_are_taken_and_in_their_order() -> Result<()> {
    let (_folder, db) = file().await;
    let mut rows = db.read().stream(NUMBERS, params![100_000]).await?;
    let mut next = 0;
    while let Some(row) = rows.next().await? {
        assert_eq!(row.get::<i64>("i")?, next);
        next += 1;
    }
    assert_eq!(next, 100_001);
    assert!(rows.next().await?.is_none(), "it is over");
    let mut none = db.read().stream("SELECT 1 AS n WHERE 1 = 0", params![]).await?;
    assert!(none.next().await?.is_none());
    // Large rows too.
    let wide = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40) SELECT i, zeroblob(300000) AS b FROM n";
    let mut rows = db.read().stream(wide, params![]).await?;
    let mut count = 0;
    while let Some(row) = rows.next().await? {
        assert_eq!(row.get::<Vec<u8>>("b")?.len(), 300_000);
        count += 1;
    }
    assert_eq!(count, 40);
    Ok(())
}

#[tokio::test]
async fn who_gives_up_or_waits_for_long_holds_up_nobody_else() -> Result<()> {
    let (_folder, db) = one_reader().await;
    for taken in [0, 1, 300] {
        let mut rows = db.read().stream(NUMBERS, params![1_000_000_000]).await?;
        for n in 0..taken {
            assert_eq!(rows.next().await?.expect("a row").get::<i64>(0)?, n);
        }
        if taken > 1 {
            // Longer than a statement may take: the limit is that of each piece, and nobody has asked for one.
            tokio::time::sleep(LIMIT + Duration::from_millis(500)).await;
        }
        assert!(rows.next().await?.is_some());
        // The writer has a connection to itself.
        db.write().execute("INSERT INTO t VALUES (1)", params![]).await?;
        drop(rows);
        let one: i64 = db.read().query_one_as("SELECT 1", params![]).await?;
        assert_eq!(one, 1, "the one reading connection is clean again");
    }
    // Dropped while it waits for rows that do not come.
    let sql = format!("{ENDLESS} WHERE i < 0");
    for _ in 0..3 {
        let opened = db.read().stream(&sql, params![]).await;
        if let Ok(mut rows) = opened {
            let _ = tokio::time::timeout(Duration::from_millis(20), rows.next()).await;
        }
    }
    let rows = db.read().stream(NUMBERS, params![1_000_000_000]).await?;
    let closed = db.close(Duration::from_millis(300)).await;
    assert_eq!(closed.expect_err("one is out").kind(), ErrorKind::TimedOut);
    drop(rows);
    Ok(())
}

#[tokio::test]
async fn a_stream_that_outlives_its_database_stops_with_its_owner() -> Result<()> {
    let log = |folder: &tempfile::TempDir| folder.path().join("test.db-wal").exists();
    for asked in [false, true] {
        let (folder, db) = one_reader().await;
        // It looks for rows for minutes, and never finds one.
        let mut rows = db.read().stream(&format!("{ENDLESS} WHERE i < 0"), params![]).await?;
        if asked {
            assert!(rows.next().now_or_never().is_none());
        }
        let rows = (!asked).then_some(rows);
        let _ = db.close(Duration::ZERO).await;
        assert!(asked || log(&folder), "its connection is open");
        drop(rows);
        // The last connection that ends folds the log into the file.
        let ended = async {
            while log(&folder) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), ended).await.expect("the statement goes on");
    }
    Ok(())
}

#[tokio::test]
async fn a_call_for_rows_that_is_dropped_is_never_taken_for_their_end() -> Result<()> {
    let (_folder, db) = one_reader().await;
    let mut rows = db.read().stream(NUMBERS, params![1_000_000_000]).await?;
    while let Some(row) = rows.next().now_or_never() {
        row?.expect("a row");
    }
    let missing = rows.next().await.expect_err("rows are missing");
    assert_eq!(missing.kind(), ErrorKind::Rejected, "{missing}");
    assert!(rows.next().await?.is_none(), "it is over");
    // As a stream of rows, too, from which whoever is late takes the next one.
    let rows = db.read().stream(NUMBERS, params![1_000_000_000]).await?;
    let mut rows = std::pin::pin!(rows.into_stream());
    let mut seen = 0;
    while let Some(row) = rows.next().now_or_never() {
        row.expect("a row")?;
        seen += 1;
    }
    let after = rows.next().await.expect("a call that is dropped does not end it")?;
    assert_eq!(after.get::<i64>(0)?, seen, "nothing is lost");

    let lost = db
        .transaction(async |tx| {
            let mut rows = tx.stream(NUMBERS, params![1_000_000_000]).await?;
            while let Some(row) = rows.next().now_or_never() {
                row?.expect("a row");
            }
            let missing = rows.next().await.expect_err("rows are missing");
            assert_eq!(missing.kind(), ErrorKind::Rejected, "{missing}");
            assert!(rows.next().await?.is_none(), "it is over");
            Ok(())
        })
        .await;
    lost.expect_err("rolled back");
    Ok(())
}

#[tokio::test]
async fn errors_come_where_they_are() -> Result<()> {
    let (_folder, db) = one_reader().await;
    for sql in ["SELEC 1", "SELECT n FROM nowhere", "SELECT 1; SELECT 2"] {
        let error = db.read().stream(sql, params![]).await.expect_err(sql);
        assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    }
    let error = db.read().stream("INSERT INTO t VALUES (1) RETURNING n", params![]).await;
    let error = match error {
        Ok(mut rows) => rows.next().await.expect_err("it only reads"),
        Err(error) => error,
    };
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    // After the rows before it.
    let mut rows = db
        .read()
        .stream(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 999) \
             SELECT CASE WHEN i = 600 THEN abs(-9223372036854775807 - 1) ELSE i END AS i FROM n",
            params![],
        )
        .await?;
    let mut seen = 0;
    let error = loop {
        match rows.next().await {
            Ok(Some(_)) => seen += 1,
            Ok(None) => panic!("it did not fail"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    assert!((512..=600).contains(&seen), "{seen}");
    assert!(rows.next().await?.is_none(), "it is over");
    // What takes too long for its first row.
    let mut rows = db.read().stream(ENDLESS, params![]).await?;
    let error = rows.next().await.expect_err("too long");
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    let one: i64 = db.read().query_one_as("SELECT 1", params![]).await?;
    assert_eq!(one, 1);
    let error = db.read().copy_out("COPY t TO STDOUT").await.expect_err("no COPY");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    Ok(())
}

#[tokio::test]
async fn a_stream_in_a_transaction_shows_its_own_writes() -> Result<()> {
    let (_folder, db) = file().await;
    db.write().batch("CREATE TABLE t (n INTEGER)").await?;
    let fill = format!("INSERT INTO t {NUMBERS}");
    let sum = db
        .transaction(async |tx| {
            tx.execute(&fill, params![999]).await?;
            let (mut rows, mut sum) = (tx.stream("SELECT n FROM t", params![]).await?, 0);
            while let Some(row) = rows.next().await? {
                sum += row.get::<i64>(0)?;
            }
            tx.execute("DELETE FROM t WHERE n > 9", params![]).await?;
            Ok(sum)
        })
        .await?;
    assert_eq!(sum, 999 * 1000 / 2);
    let count = async || db.read().query_one_as::<i64>("SELECT count(*) FROM t", params![]).await;
    assert_eq!(count().await?, 10);
    // Given up half-way the transaction is lost.
    let lost = db
        .transaction(async |tx| {
            tx.execute(&fill, params![99_999]).await?;
            let mut rows = tx.stream("SELECT n FROM t", params![]).await?;
            assert!(rows.next().await?.is_some());
            drop(rows);
            tx.query("SELECT 1", params![]).await.map(drop)
        })
        .await;
    lost.expect_err("lost");
    assert_eq!(count().await?, 10);
    db.write().execute("INSERT INTO t VALUES (1)", params![]).await.map(drop)
}

#[tokio::test]
async fn the_rows_of_all_shards_come_in_one_order() {
    let cluster = cluster(3).await;
    let insert = "INSERT INTO agents (org_id, id, name, score) VALUES ($1, $2, $3, $4)";
    let orgs: Vec<_> = (0..30).map(|org| format!("org_{org}")).collect();
    let rows = (0..6_000_i64)
        .map(|n| resonant_db::row![&orgs[(n % 30) as usize], n, "x", (n * 7919) % 6_000]);
    cluster.db.execute_many(insert, rows).await.expect("stored");
    let ordered = "SELECT org_id, id, score FROM agents ORDER BY score LIMIT 5000 OFFSET 100";
    let whole: Vec<(String, i64, i64)> =
        cluster.db.query_all(ordered, params![]).await.expect("rows").decode().expect("decode");
    let mut rows = cluster.db.stream_all(ordered, params![]).await.expect("a stream");
    let mut taken = Vec::new();
    while let Some(row) = rows.next().await.expect("a row") {
        taken.push(row.decode::<(String, i64, i64)>().expect("decode"));
    }
    assert_eq!(taken.len(), 5_000);
    assert_eq!(taken, whole);
    let one = "SELECT id FROM agents WHERE org_id = $1 ORDER BY id";
    let mut rows = cluster.db.stream(one, params!["org_7"]).await.expect("a stream");
    let mut count = 0;
    while let Some(row) = rows.next().await.expect("a row") {
        assert_eq!(row.get::<i64>(0).expect("an id"), 7 + count * 30);
        count += 1;
    }
    assert_eq!(count, 200);
    // Given up, no shard goes on.
    let mut rows =
        cluster.db.stream_all("SELECT id FROM agents", params![]).await.expect("a stream");
    assert!(rows.next().await.expect("a row").is_some());
    drop(rows);
    cluster
        .db
        .execute_many(insert, [resonant_db::row!["org_1", 9_999_i64, "x", 1_i64]])
        .await
        .expect("a write");
}
