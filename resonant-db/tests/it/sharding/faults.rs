//! A shard that is dead, slow or not the one it should be.

use std::path::Path;
use std::time::Duration;

use resonant_db::sharding::{BucketMap, ShardFunction};
use resonant_db::{Database, ErrorKind, KeyType, ShardedDatabase, params};

use super::{SCHEMA, cluster, connect};

const INSERT: &str = "INSERT INTO agents (org_id, id, name, score) VALUES ($1, $2, $3, $4)";

fn url(folder: &Path, file: &str) -> String {
    format!("sqlite:{}", folder.join(file).display())
}

/// Guarded shards, named and placed as told.
async fn guarded(
    folder: &Path,
    shards: &[(&str, &str)],
    function: ShardFunction,
    map: Option<BucketMap>,
) -> ShardedDatabase {
    let mut builder = ShardedDatabase::builder()
        .table("agents", "org_id", KeyType::Text)
        .shard_function(function)
        .guard(true);
    for (name, file) in shards {
        builder = builder.shard(*name, url(folder, file));
    }
    if let Some(map) = map {
        builder = builder.bucket_map(map);
    }
    builder.connect().await.expect("shards")
}

async fn reads(db: &ShardedDatabase) -> Result<usize, resonant_db::Error> {
    db.query_all("SELECT org_id FROM agents", params![]).await.map(|rows| rows.len())
}

/// What the guard answers, and that the statement never ran.
async fn refused(db: &ShardedDatabase, reason: &str) {
    for n in 0..20 {
        let org = format!("org_{n}");
        let error = db.execute(INSERT, params![org, 99, "x", 1]).await.expect_err(reason);
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.message().contains(reason), "{error}");
    }
    for (_, shard) in db.shards() {
        let sql = "SELECT count(*) FROM agents WHERE id = 99";
        let stored: i64 = shard.read().query_one_as(sql, params![]).await.expect("a count");
        assert_eq!(stored, 0);
    }
}

#[tokio::test]
async fn shards_that_are_not_who_they_should_be_take_no_statement() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let (a, b) = (("a", "a.db"), ("b", "b.db"));
    let function = || ShardFunction::HashMod;
    let db = guarded(folder, &[a, b], function(), None).await;
    db.on_all(SCHEMA).await.expect("the schema");
    for n in 0..20 {
        db.execute(INSERT, params![format!("org_{n}"), 1, "x", 1]).await.expect("stored");
    }

    // The same again, from another process, is welcome.
    let again = guarded(folder, &[a, b], function(), None).await;
    assert_eq!(reads(&again).await.expect("read"), 20);

    let swapped = guarded(folder, &[("a", "b.db"), ("b", "a.db")], function(), None).await;
    refused(&swapped, "the URLs are swapped").await;
    let turned = guarded(folder, &[b, a], function(), None).await;
    refused(&turned, "number 1 of 2").await;
    let other = guarded(folder, &[a, b], ShardFunction::PostgresHash, None).await;
    refused(&other, "laid out by the shard function hash_mod").await;
    let alone = guarded(folder, &[a], function(), None).await;
    refused(&alone, "plan the move of their buckets").await;
}

#[tokio::test]
async fn a_new_bucket_map_is_taken_and_an_old_one_refused_from_then_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let (two, three) =
        ([("a", "a.db"), ("b", "b.db")], [("a", "a.db"), ("b", "b.db"), ("c", "c.db")]);
    let function = || ShardFunction::HashMod;
    guarded(folder, &two, function(), None).await.on_all(SCHEMA).await.expect("the schema");

    let old = BucketMap::dealt(2).expect("a map");
    let plan = old.plan(&[0, 1, 2]).expect("a plan");
    let new = old.apply(&plan).expect("a map");
    let grown = guarded(folder, &three, function(), Some(new.clone())).await;
    grown.shard("c").expect("c").write().batch(SCHEMA).await.expect("the schema");
    assert_eq!(reads(&grown).await.expect("read"), 0);

    let stale = guarded(folder, &two, function(), Some(old)).await;
    refused(&stale, "this process has an old one").await;
    let current = guarded(folder, &three, function(), Some(new)).await;
    assert_eq!(reads(&current).await.expect("read"), 0);
}

#[tokio::test]
async fn nothing_is_created_in_a_shard_unless_asked() {
    let cluster = cluster(2).await;
    cluster.db.execute(INSERT, params!["org_1", 1, "x", 1]).await.expect("stored");
    for (name, shard) in cluster.db.shards() {
        let sql = "SELECT count(*) FROM sqlite_master WHERE name LIKE 'resonant%'";
        let tables: i64 = shard.read().query_one_as(sql, params![]).await.expect("a count");
        assert_eq!(tables, 0, "{name}");
    }
}

#[tokio::test]
async fn one_wrong_shard_leaves_the_others_at_work() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let function = || ShardFunction::HashMod;
    let db = guarded(folder, &[("a", "a.db"), ("b", "b.db")], function(), None).await;
    db.on_all(SCHEMA).await.expect("the schema");
    // The file of a stranger in the place of b.
    let stranger = guarded(folder, &[("x", "x.db"), ("y", "y.db")], function(), None).await;
    stranger.on_all(SCHEMA).await.expect("the schema");
    let db = guarded(folder, &[("a", "a.db"), ("b", "y.db")], function(), None).await;
    for n in 0..20 {
        let org = format!("org_{n}");
        let stored = db.execute(INSERT, params![org, 1, "x", 1]).await;
        let home = db.shard_for(&org).expect("a shard");
        match stored {
            Ok(_) => assert_eq!(home, "a"),
            Err(error) => assert_eq!((home, error.kind()), ("b", ErrorKind::Config), "{error}"),
        }
    }
}

/// Puts a link to a folder, which no engine opens, in the place of a shard's file. Answers the shard's name.
async fn killed(db: &ShardedDatabase, folder: &Path, key: &str) -> String {
    db.close(Duration::from_secs(5)).await.expect("closed");
    let dead = db.shard_for(key).expect("a shard").to_owned();
    let file = folder.join(format!("{dead}.db"));
    for end in ["", "-wal", "-shm"] {
        let from = folder.join(format!("{dead}.db{end}"));
        let moved = std::fs::rename(from, folder.join(format!("kept.db{end}")));
        assert!(moved.is_ok() || !end.is_empty(), "{moved:?}");
    }
    std::fs::create_dir(folder.join("nothing")).expect("a folder");
    link(folder, "nothing", &file);
    dead
}

/// Makes `file` a link to something in the folder, in one step: at no time there is nothing.
fn link(folder: &Path, to: &str, file: &Path) {
    let fresh = folder.join("link");
    std::os::unix::fs::symlink(folder.join(to), &fresh).expect("a link");
    std::fs::rename(fresh, file).expect("put in place");
}

#[tokio::test]
async fn a_dead_shard_is_left_alone_and_comes_back() {
    let cluster = cluster(3).await;
    let folder = cluster.folder.path();
    let dead = killed(&cluster.db, folder, "org_0").await;
    let db = connect(folder, 3).await;
    assert!(db.findings().iter().all(|finding| finding.code != "db.shard.down"));
    let ask =
        async || db.query("SELECT name FROM agents WHERE org_id = $1", params!["org_0"]).await;
    for _ in 0..5 {
        let error = ask().await.expect_err("it is dead");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
    let error = ask().await.expect_err("it is left alone");
    assert!(error.message().contains("is left alone"), "{error}");
    assert!(error.retry_after().is_some_and(|wait| wait <= Duration::from_secs(1)), "{error:?}");
    assert!(std::error::Error::source(&error).is_some(), "the real error is kept");
    let down = |db: &ShardedDatabase| {
        db.findings().into_iter().any(|finding| finding.code == "db.shard.down")
    };
    assert!(down(&db));

    let file = folder.join(format!("{dead}.db"));
    link(folder, "kept.db", &file);
    // A sign of life brings it back before the wait is over. The pool may still be waiting by itself.
    while db.ping().await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(ask().await.expect("it is back").len(), 0);
    assert!(!down(&db));
}

#[tokio::test]
async fn what_any_shard_can_answer_is_answered_while_one_is_dead() {
    let cluster = cluster(3).await;
    let folder = cluster.folder.path();
    killed(&cluster.db, folder, "org_0").await;
    let db = connect(folder, 3).await;
    for _ in 0..9 {
        let found = db.query("SELECT name FROM countries", params![]).await.expect("two are alive");
        assert_eq!(found.len(), 2);
    }
}

#[tokio::test]
async fn a_slow_shard_slows_no_other() {
    let cluster = cluster(3).await;
    let (db, folder) = (&cluster.db, cluster.folder.path());
    let slow = db.shard_for("org_0").expect("a shard").to_owned();
    let locker = Database::connect(url(folder, &format!("{slow}.db"))).await.expect("a database");
    let (locked, is_locked) = tokio::sync::oneshot::channel::<()>();
    let (release, released) = tokio::sync::oneshot::channel::<()>();
    let (locked, released) =
        (std::sync::Mutex::new(Some(locked)), tokio::sync::Mutex::new(released));
    let hold = tokio::spawn(async move {
        let (locked, released) = (&locked, &released);
        locker
            .transaction(async move |tx| {
                tx.execute(INSERT, params!["held", 1, "x", 1]).await?;
                if let Some(locked) = locked.lock().expect("unpoisoned").take() {
                    let _ = locked.send(());
                }
                let _ = (&mut *released.lock().await).await;
                Ok(())
            })
            .await
    });
    is_locked.await.expect("locked");
    let waiting = tokio::spawn({
        let db = db.clone();
        async move { db.execute(INSERT, params!["org_0", 1, "x", 1]).await }
    });
    for n in 0..40 {
        let org = format!("org_{n}");
        if db.shard_for(&org).expect("a shard") != slow {
            db.execute(INSERT, params![org, 1, "x", 1]).await.expect("another shard");
        }
    }
    assert!(!waiting.is_finished(), "it waits for the lock");
    release.send(()).expect("held");
    hold.await.expect("no panic").expect("committed");
    assert_eq!(waiting.await.expect("no panic").expect("stored"), 1);
}
