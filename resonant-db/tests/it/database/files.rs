//! SQLite's own sides: files that are missing or damaged, locks of others, limits, memory.

use std::time::Duration;

use resonant_db::backend::{Access, Backend, Target, sqlite};
use resonant_db::{Database, ErrorKind, PoolConfig, Result, params, row};

use super::basics::file;

/// A statement that runs for minutes unless it is stopped.
pub(super) const ENDLESS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000000000) \
                       SELECT count(*) FROM n";

#[tokio::test]
async fn a_file_that_cannot_be_opened_names_itself_and_the_next_step() -> std::io::Result<()> {
    let folder = tempfile::tempdir()?;
    let damaged = folder.path().join("damaged.db");
    std::fs::write(&damaged, b"this is no database, although it is long enough to have a header of one hundred bytes ........")?;
    let cases = [
        (
            sqlite::url(folder.path().join("no/such/folder/x.db")),
            "x.db",
            "check that its folder exists",
        ),
        (sqlite::url(folder.path().join("missing.db")) + "?mode=rw", "missing.db", "check that"),
        (sqlite::url(&damaged), "damaged.db", "restore it from a backup"),
    ];
    for (url, name, step) in cases {
        let pool = PoolConfig::default().acquire_timeout(Duration::from_secs(5));
        let error = Database::builder().primary(url).pool(pool).connect().await.expect_err(name);
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        let text = error.to_string();
        assert!(text.contains(name) && text.contains(step), "{text}");
    }
    Ok(())
}

#[tokio::test]
async fn a_lazy_start_reads_before_anybody_wrote() -> Result<()> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let url = sqlite::url(folder.path().join("new.db"));
    let db = Database::builder().primary(url).connect_lazy()?;
    let tables: i64 =
        db.read().query_one_as("SELECT count(*) FROM sqlite_schema", params![]).await?;
    assert_eq!(tables, 0);
    db.ping().await
}

#[tokio::test]
async fn reads_cannot_write_whatever_they_look_like() -> Result<()> {
    let (folder, db) = file().await;
    db.write().batch("CREATE TABLE t (n INTEGER); INSERT INTO t VALUES (1)").await?;
    let path = sqlite::url(folder.path().join("test.db"));
    let replicated = Database::builder().primary(&path).replicas([&path]).connect().await?;
    for sql in [
        "INSERT INTO t VALUES (2) RETURNING n",
        "WITH x AS (SELECT 2) INSERT INTO t SELECT * FROM x RETURNING n",
        "UPDATE t SET n = 2",
        "DROP TABLE t",
        "CREATE TABLE other (n INTEGER)",
    ] {
        for db in [&db, &replicated] {
            let error = db.read().query(sql, params![]).await.expect_err(sql);
            assert_eq!(error.kind(), ErrorKind::Rejected, "{sql}: {error}");
            assert!(error.to_string().contains("write()"), "the way out is named: {error}");
        }
    }
    // Switching it off does not help: the file itself is open for reading only.
    db.read().query("PRAGMA query_only = 0", params![]).await?;
    assert!(db.read().query("DELETE FROM t", params![]).await.is_err());
    assert_eq!(db.read().query_one_as::<i64>("SELECT sum(n) FROM t", params![]).await?, 1);
    Ok(())
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_reopening() -> Result<()> {
    let (folder, db) = file().await;
    db.write().batch("CREATE TABLE t (n INTEGER)").await?;
    db.write().execute_many("INSERT INTO t VALUES ($1)", (0..5000_i64).map(|n| row![n])).await?;
    // Readers are many and may be the last to close.
    let reads = (0..20).map(|_| db.read().query("SELECT count(*) FROM t", params![]));
    futures::future::try_join_all(reads).await?;
    db.close(Duration::from_secs(10)).await?;
    // A connection that was still being opened is closed by its own thread, a moment later.
    let parts = || std::fs::read_dir(folder.path()).expect("the folder").count();
    let whole = async {
        while parts() > 1 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let whole = tokio::time::timeout(Duration::from_secs(20), whole).await;
    assert!(whole.is_ok(), "closing folds the log into the file; there are {} parts", parts());
    let url = sqlite::url(folder.path().join("test.db")) + "?mode=ro";
    let db = Database::connect(url).await?;
    let count: i64 = db.read().query_one_as("SELECT count(*) FROM t", params![]).await?;
    assert_eq!(count, 5000);
    let error = db.write().execute("DELETE FROM t", params![]).await.expect_err("read only");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    Ok(())
}

#[tokio::test]
async fn a_lock_of_another_process_is_a_conflict_after_the_wait() -> Result<()> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("busy.db");
    let db = Database::connect(sqlite::url(&path) + "?busy_timeout=20ms").await?;
    db.write().batch("CREATE TABLE t (n INTEGER)").await?;
    // Another handle is another process, as far as locks go.
    let other = Database::connect(sqlite::url(&path)).await?;
    let held = other
        .transaction(async |tx| {
            tx.execute("INSERT INTO t VALUES (1)", params![]).await?;
            let error = db.write().execute("INSERT INTO t VALUES (2)", params![]).await;
            let error = error.expect_err("the lock is held");
            assert!(error.kind() == ErrorKind::Conflict && error.is_transient(), "{error}");
            assert!(error.to_string().contains("busy_timeout"), "{error}");
            // Readers do not wait.
            db.read().query_one_as::<i64>("SELECT count(*) FROM t", params![]).await
        })
        .await?;
    assert_eq!(held, 0);
    db.write().execute("INSERT INTO t VALUES (2)", params![]).await?;
    Ok(())
}

#[tokio::test]
async fn a_statement_that_runs_too_long_is_stopped_and_its_connection_lives() -> Result<()> {
    let db = Database::builder()
        .primary("sqlite::memory:")
        .statement_timeout(Duration::from_millis(50))
        .connect()
        .await?;
    for _ in 0..3 {
        let error = db.read().query(ENDLESS, params![]).await.expect_err("it never ends");
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    }
    let opened = db.status().nodes[1].pool.opened;
    assert_eq!(opened, db.status().nodes[1].pool.opened);
    assert_eq!(db.read().query_one_as::<i64>("SELECT 1", params![]).await?, 1);
    assert!(opened <= 2, "connections were replaced: {opened}");
    Ok(())
}

#[tokio::test]
async fn dropped_reads_give_their_connections_back_and_stop_nobody_else() -> Result<()> {
    let pool = PoolConfig::default().min_size(1).max_size(2);
    let db = Database::builder().primary("sqlite::memory:").pool(pool).connect().await?;
    for turn in 0..100 {
        let slow = db.read();
        let mut slow = std::pin::pin!(slow.query(ENDLESS, params![]));
        for _ in 0..turn % 4 {
            assert!(futures::poll!(&mut slow).is_pending());
            tokio::task::yield_now().await;
        }
        // A neighbour's read is not hit by the interrupt that follows.
        let neighbour = db.read().query_one_as::<i64>("SELECT 42", params![]);
        assert_eq!(neighbour.await?, 42, "turn {turn}");
    }
    assert_eq!(db.read().query_one_as::<i64>("SELECT 42", params![]).await?, 42);
    assert!(db.status().nodes[1].pool.opened <= 2, "{:?}", db.status().nodes[1]);
    Ok(())
}

#[tokio::test]
async fn each_memory_database_is_its_own_and_lives_as_long_as_its_handle() -> Result<()> {
    let (one, other) =
        (Database::connect("sqlite::memory:").await?, Database::connect("sqlite::memory:").await?);
    one.write().batch("CREATE TABLE t (n INTEGER); INSERT INTO t VALUES (1)").await?;
    // A session setting costs the connection, not the data.
    one.write().execute("PRAGMA case_sensitive_like = ON", params![]).await?;
    assert_eq!(one.read().query_one_as::<i64>("SELECT n FROM t", params![]).await?, 1);
    assert_eq!(one.write().query_one_as::<i64>("SELECT n FROM t", params![]).await?, 1);
    assert!(other.read().query("SELECT n FROM t", params![]).await.is_err());
    Ok(())
}

#[tokio::test]
async fn session_settings_do_not_reach_the_next_caller() -> Result<()> {
    let (_folder, db) = file().await;
    db.write().execute("PRAGMA foreign_keys = OFF", params![]).await?;
    assert_eq!(db.write().query_one_as::<i64>("PRAGMA foreign_keys", params![]).await?, 1);
    db.write().execute("PRAGMA synchronous = OFF", params![]).await?;
    assert_eq!(db.write().query_one_as::<i64>("PRAGMA synchronous", params![]).await?, 2, "full");
    Ok(())
}

#[tokio::test]
async fn a_schema_change_under_prepared_statements_heals_itself() -> Result<()> {
    let (_folder, db) = file().await;
    db.write().batch("CREATE TABLE t (a INTEGER); INSERT INTO t VALUES (1)").await?;
    assert_eq!(db.read().query("SELECT * FROM t", params![]).await?.columns().len(), 1);
    db.write().execute("ALTER TABLE t ADD COLUMN b TEXT DEFAULT 'x'", params![]).await?;
    let rows = db.read().query("SELECT * FROM t", params![]).await?;
    assert_eq!(rows.decode::<(i64, String)>()?, [(1, "x".into())]);
    Ok(())
}

#[tokio::test]
async fn odd_values_are_refused_rather_than_changed() -> Result<()> {
    let (_folder, db) = file().await;
    db.write().batch("CREATE TABLE t (n REAL)").await?;
    let error = db.write().execute("INSERT INTO t VALUES ($1)", params![f64::NAN]).await;
    assert_eq!(error.expect_err("SQLite would store NULL").kind(), ErrorKind::Rejected);
    let error = db.read().query("SELECT $1::bigint", params![1]).await.expect_err("a cast");
    assert!(error.to_string().contains("CAST($1 AS"), "{error}");
    let error = db.read().query("SELECT ?", params![1]).await.expect_err("a question mark");
    assert!(error.to_string().contains("$1, $2"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_replica_is_the_same_file_or_refused() -> Result<()> {
    let (folder, _db) = file().await;
    let at = |name: &str| sqlite::url(folder.path().join(name));
    let builder = Database::builder().primary(at("test.db"));
    let refused =
        builder.clone().replicas([at("other.db")]).connect_lazy().expect_err("another file");
    assert_eq!(refused.kind(), ErrorKind::Config);
    assert!(refused.to_string().contains("the file of the primary"), "{refused}");
    let refused = builder.clone().replicas([at("test.db") + "?cache=0"]).connect_lazy();
    assert_eq!(refused.expect_err("a bad setting").kind(), ErrorKind::Config);
    let db = builder.replicas([at("test.db") + "?cache=64", at("test.db")]).connect().await?;
    assert_eq!(db.status().nodes.len(), 3);
    assert_eq!(db.read().query_one_as::<i64>("SELECT 1", params![]).await?, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_that_open_a_new_file_at_once_all_come_in() {
    for round in 0..8 {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = sqlite::url(folder.path().join("new.db"));
        // Each as a process of its own would: with a backend of its own.
        let opening = (0..16).map(|_| {
            let url = url.clone();
            tokio::spawn(async move {
                let backend = sqlite::Sqlite::from_url(&url)?;
                let target = Target::new(&url, Access::ReadWrite, None);
                let mut connection = backend.connect(&target).await?;
                connection.batch("CREATE TABLE IF NOT EXISTS t (n INTEGER)").await?;
                connection.execute("INSERT INTO t VALUES (1)", &[]).await?;
                let target = Target::new(&url, Access::ReadOnly, None);
                backend.connect(&target).await?.query("SELECT n FROM t", &[]).await.map(drop)
            })
        });
        for opened in futures::future::join_all(opening).await {
            opened.expect("no panic").unwrap_or_else(|error| panic!("round {round}: {error:?}"));
        }
    }
}

#[tokio::test]
async fn a_new_file_that_somebody_writes_to_is_waited_for() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("new.db");
    // SQLite refuses at once whoever would turn the log on now.
    let other = rusqlite::Connection::open(&path).expect("open");
    other.execute_batch("BEGIN IMMEDIATE; CREATE TABLE t (n INTEGER)").expect("a write");
    let opening = tokio::spawn(async move {
        let url = sqlite::url(&path);
        let backend = sqlite::Sqlite::from_url(&url)?;
        let target = Target::new(&url, Access::ReadWrite, None);
        backend.connect(&target).await?.query("SELECT n FROM t", &[]).await.map(drop)
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!opening.is_finished(), "it waits");
    other.execute_batch("COMMIT").expect("commit");
    opening.await.expect("no panic").expect("it has come in");
    // Who never lets go is waited for as long as the settings say.
    let path = folder.path().join("held.db");
    let other = rusqlite::Connection::open(&path).expect("open");
    other.execute_batch("BEGIN EXCLUSIVE; CREATE TABLE t (n INTEGER)").expect("a write");
    let url = sqlite::url(&path) + "?busy_timeout=200ms";
    let backend = sqlite::Sqlite::from_url(&url).expect("a URL");
    let target = Target::new(&url, Access::ReadWrite, None);
    let opened = tokio::time::timeout(Duration::from_secs(20), backend.connect(&target)).await;
    let error = opened.expect("a deadline").expect_err("held");
    assert!(error.is_transient(), "{error}");
}
