//! The everyday calls, on a SQLite file.

use resonant_db::backend::sqlite;
use resonant_db::{Database, ErrorKind, Result, params, row};
use serde::Deserialize;
use tempfile::TempDir;

/// A database in a folder that goes away with the test.
pub(crate) async fn file() -> (TempDir, Database) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let db =
        Database::connect(sqlite::url(folder.path().join("test.db"))).await.expect("a database");
    (folder, db)
}

#[derive(Debug, PartialEq, Deserialize)]
struct User {
    id: i64,
    name: String,
}

#[tokio::test]
async fn writes_are_read_back() -> Result<()> {
    let (_folder, db) = file().await;
    db.write()
        .batch("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL, org TEXT)")
        .await?;
    let added = db
        .write()
        .execute(
            "INSERT INTO users (id, name, org) VALUES ($1, $2, $3)",
            params![7, "Ada", "org_1"],
        )
        .await?;
    assert_eq!(added, 1);
    let users: Vec<User> =
        db.read().query_as("SELECT id, name FROM users WHERE org = $1", params!["org_1"]).await?;
    assert_eq!(users, [User { id: 7, name: "Ada".into() }]);
    let name: String =
        db.read().query_one_as("SELECT name FROM users WHERE id = $1", params![7]).await?;
    assert_eq!(name, "Ada");
    let none = db.read().query_opt("SELECT * FROM users WHERE id = $1", params![8]).await?;
    assert!(none.is_none());
    let error = db.read().query_one("SELECT * FROM users WHERE id = 8", params![]).await;
    assert_eq!(error.expect_err("no row").kind(), ErrorKind::NotFound);
    Ok(())
}

#[tokio::test]
async fn many_rows_go_in_at_once() -> Result<()> {
    let (_folder, db) = file().await;
    db.write().batch("CREATE TABLE n (n INTEGER, text TEXT)").await?;
    let texts: Vec<String> = (0..10_000).map(|n| format!("row {n}")).collect();
    let rows = texts.iter().enumerate().map(|(n, text)| row![n as i64, text]);
    let added = db.write().execute_many("INSERT INTO n VALUES ($1, $2)", rows).await?;
    assert_eq!(added, 10_000);
    let (count, sum): (i64, i64) =
        db.read().query_one_as("SELECT count(*), sum(n) FROM n", params![]).await?;
    assert_eq!((count, sum), (10_000, 49_995_000));
    Ok(())
}

#[tokio::test]
async fn a_transaction_runs_inside_a_spawned_task() -> Result<()> {
    let (_folder, db) = file().await;
    db.write().batch("CREATE TABLE a (n INTEGER)").await?;
    let task = tokio::spawn({
        let (db, text) = (db.clone(), String::from("captured"));
        async move {
            db.transaction(async |tx| {
                tx.execute(
                    "INSERT INTO a VALUES ($1)",
                    params![i64::try_from(text.len()).unwrap_or(0)],
                )
                .await?;
                tx.query_one_as::<i64>("SELECT n FROM a", params![]).await
            })
            .await
        }
    });
    assert_eq!(task.await.expect("no panic")?, 8);
    let undone: Result<()> = db
        .transaction(async |tx| {
            tx.execute("DELETE FROM a", params![]).await?;
            Err(resonant_db::Error::new(ErrorKind::Refused, "test", "changed my mind"))
        })
        .await;
    assert_eq!(undone.expect_err("refused").kind(), ErrorKind::Refused);
    let count: i64 = db.read().query_one_as("SELECT count(*) FROM a", params![]).await?;
    assert_eq!(count, 1);
    db.close(std::time::Duration::from_secs(5)).await
}
