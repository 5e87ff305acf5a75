//! The closure of a transaction: when it runs again, and what its failures leave.

use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::poll;
use resonant_db::backend::ErrorExt;
use resonant_db::{Error, ErrorKind, Result, TransactionOptions, params};
use tokio::time::Instant;

use super::basics::file;
use super::double::{Cluster, Fails};
use super::files::ENDLESS;

#[tokio::test(start_paused = true)]
async fn a_conflict_runs_all_of_it_again() -> Result<()> {
    let cluster = Cluster::default();
    let db = cluster.database(&[]);
    cluster.fail_begins(&[ErrorKind::Conflict]);
    cluster.fail_commits(&[(ErrorKind::Conflict, false), (ErrorKind::Conflict, false)]);
    let runs = AtomicU32::new(0);
    let done = db
        .transaction(async |tx| {
            runs.fetch_add(1, Ordering::Relaxed);
            tx.execute("write", params![]).await
        })
        .await?;
    assert_eq!((done, runs.load(Ordering::Relaxed)), (1, 3));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn conflicts_to_the_end_are_an_error_after_five_attempts() {
    let cluster = Cluster::default();
    let db = cluster.database(&[]);
    cluster.fail_commits(&[(ErrorKind::Conflict, false); 9]);
    let start = Instant::now();
    let error = db.transaction(async |tx| tx.execute("write", params![]).await).await;
    let error = error.expect_err("conflicts");
    assert!(error.kind() == ErrorKind::Conflict && error.retries_exhausted(), "{error}");
    assert_eq!(cluster.log().iter().filter(|line| *line == "primary:commit").count(), 5);
    assert!(start.elapsed() <= Duration::from_millis(10 + 20 + 40 + 80 + 10));
    let once = TransactionOptions::default().max_attempts(1);
    let error = db.transaction_with(once, async |tx| tx.execute("write", params![]).await).await;
    assert!(!error.expect_err("a conflict").retries_exhausted(), "it was not run again");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_commit_is_not_run_again() {
    let cluster = Cluster::default();
    let db = cluster.database(&[]);
    for kind in [ErrorKind::Conflict, ErrorKind::Unavailable] {
        cluster.fail_commits(&[(kind, true)]);
        let error = db.transaction(async |tx| tx.execute("write", params![]).await).await;
        assert!(error.expect_err("unknown").may_have_applied());
        assert_eq!(
            cluster.log(),
            ["primary:begin", "primary:write", "primary:commit", "primary:rollback"]
        );
    }
}

#[tokio::test]
async fn a_dropped_transaction_leaves_the_file_as_it_was() -> Result<()> {
    let (_folder, db) = file().await;
    db.write().batch("CREATE TABLE t (n INTEGER)").await?;
    for polls in 0..40 {
        let work = db.transaction(async |tx| {
            for n in 0..5 {
                tx.execute("INSERT INTO t VALUES ($1)", params![n]).await?;
            }
            tx.execute_many("INSERT INTO t VALUES ($1)", (0..5_i64).map(|n| resonant_db::row![n]))
                .await
        });
        let mut work = pin!(work);
        for _ in 0..polls {
            if poll!(&mut work).is_ready() {
                break;
            }
            // Not a wait for time: the thread is given the chance to answer.
            db.read().query("SELECT 1", params![]).await?;
        }
    }
    // The writing connection came back clean each time, and every transaction is there in full or not at all.
    db.write().execute("INSERT INTO t VALUES (0)", params![]).await?;
    let count: i64 = db.read().query_one_as("SELECT count(*) FROM t", params![]).await?;
    assert_eq!(count % 10, 1, "{count} rows");
    Ok(())
}

#[tokio::test]
async fn a_failed_statement_ends_it_and_a_savepoint_saves_it() -> Result<()> {
    let (_folder, db) = file().await;
    db.write().batch("CREATE TABLE tag (name TEXT UNIQUE); INSERT INTO tag VALUES ('old')").await?;
    let insert = "INSERT INTO tag VALUES ($1)";
    let swallowed = db
        .transaction(async |tx| {
            tx.execute(insert, params!["new"]).await?;
            let _ = tx.execute(insert, params!["old"]).await;
            let after = tx.execute(insert, params!["newer"]).await.expect_err("it has failed");
            assert_eq!(after.kind(), ErrorKind::Rejected);
            Ok(())
        })
        .await;
    assert!(swallowed.expect_err("a swallowed failure").is_unique_violation());

    let added = tokio::spawn({
        let (db, names) = (db.clone(), vec!["old".to_owned(), "new".to_owned(), "old".to_owned()]);
        async move {
            db.transaction(async |tx| {
                let mut added = 0;
                for name in &names {
                    let one =
                        tx.savepoint(async |tx| tx.execute(insert, params![name]).await).await;
                    match one {
                        Ok(rows) => added += rows,
                        Err(error) if error.is_unique_violation() => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(added)
            })
            .await
        }
    });
    assert_eq!(added.await.expect("no panic")?, 1);
    let names: Vec<String> =
        db.read().query_as("SELECT name FROM tag ORDER BY name", params![]).await?;
    assert_eq!(names, ["new", "old"]);
    Ok(())
}

#[tokio::test]
async fn a_statement_dropped_inside_ends_it() -> Result<()> {
    let (_folder, db) = file().await;
    db.write().batch("CREATE TABLE t (n INTEGER)").await?;
    for nested in [false, true] {
        let outcome = db
            .transaction(async |tx| {
                tx.execute("INSERT INTO t VALUES (1)", params![]).await?;
                if nested {
                    let inner = tx.savepoint(async |tx| {
                        assert!(poll!(pin!(tx.query(ENDLESS, params![]))).is_pending());
                        Ok(())
                    });
                    assert!(inner.await.is_err());
                } else {
                    assert!(poll!(pin!(tx.query(ENDLESS, params![]))).is_pending());
                }
                Ok(())
            })
            .await;
        assert_eq!(outcome.expect_err("dropped").kind(), ErrorKind::Rejected);
        let count: i64 = db.read().query_one_as("SELECT count(*) FROM t", params![]).await?;
        assert_eq!(count, 0);
    }
    Ok(())
}

#[tokio::test]
async fn a_panic_inside_rolls_back() -> Result<()> {
    let (_folder, db) = file().await;
    db.write().batch("CREATE TABLE t (n INTEGER)").await?;
    let task = tokio::spawn({
        let db = db.clone();
        async move {
            db.transaction(async |tx| {
                tx.execute("INSERT INTO t VALUES (1)", params![]).await?;
                assert_eq!(1, 2, "a bug of the user's");
                Ok(())
            })
            .await
        }
    });
    assert!(task.await.is_err());
    db.write().execute("INSERT INTO t VALUES (5)", params![]).await?;
    let sum: i64 = db.read().query_one_as("SELECT sum(n) FROM t", params![]).await?;
    assert_eq!(sum, 5);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_read_only_one_begins_on_a_node_that_works() -> Result<()> {
    let cluster = Cluster::default();
    let db = cluster.database(&["a", "b"]);
    let reading = TransactionOptions::default().read_only();
    let read = || {
        db.transaction_with(reading, async |tx| tx.query_one_as::<String>("read", params![]).await)
    };
    for fails in [Fails::Connecting, Fails::Running] {
        cluster.fail("a", (fails, ErrorKind::Unavailable));
        assert_eq!((read().await?, read().await?), ("b".into(), "b".into()));
    }
    cluster.fail("b", (Fails::Running, ErrorKind::Unavailable));
    assert_eq!(read().await?, "primary");
    cluster.fail("primary", (Fails::Running, ErrorKind::Unavailable));
    assert_eq!(read().await.expect_err("all down").kind(), ErrorKind::Unavailable);
    // One that writes has nowhere else to go.
    cluster.log();
    let error = db.transaction(async |tx| tx.execute("write", params![]).await).await;
    assert_eq!(error.expect_err("down").kind(), ErrorKind::Unavailable);
    assert_eq!(cluster.log(), ["primary:begin"]);
    Ok(())
}

#[tokio::test]
async fn a_read_only_one_sees_one_state_and_writes_nothing() -> Result<()> {
    let (_folder, db) = file().await;
    db.write().batch("CREATE TABLE t (n INTEGER)").await?;
    let reading = TransactionOptions::default().read_only();
    let (before, after): (i64, i64) = db
        .transaction_with(reading, async |tx| {
            let count = "SELECT count(*) FROM t";
            let before = tx.query_one_as(count, params![]).await?;
            db.write().execute("INSERT INTO t VALUES (1)", params![]).await?;
            Ok((before, tx.query_one_as(count, params![]).await?))
        })
        .await?;
    assert_eq!((before, after), (0, 0));
    let refused =
        db.transaction_with(reading, async |tx| tx.execute("DELETE FROM t", params![]).await).await;
    assert_eq!(refused.expect_err("it reads only").kind(), ErrorKind::Rejected);
    Ok(())
}

#[tokio::test]
async fn one_that_was_ended_by_hand_is_an_error() -> Result<()> {
    let (_folder, db) = file().await;
    db.write().batch("CREATE TABLE t (n INTEGER)").await?;
    for by_hand in ["COMMIT", "ROLLBACK"] {
        let outcome: Result<(), Error> = db
            .transaction(async |tx| {
                tx.execute("INSERT INTO t VALUES (1)", params![]).await?;
                let _ = tx.execute(by_hand, params![]).await;
                Ok(())
            })
            .await;
        assert!(outcome.expect_err("not a commit of ours").may_have_applied());
    }
    Ok(())
}
