//! Migrations of all shards: in order, once, taken up where they stopped, with drift told by shard.

use std::sync::{Arc, Mutex};

use resonant_db::sharding::{Drift, MigrationEvent, Migrations};
use resonant_db::{ErrorKind, ShardedDatabase, params};

use super::connect;

const FILES: [(&str, &str); 4] = [
    ("0001_agents.sql", "CREATE TABLE agents (org_id TEXT NOT NULL, id BIGINT NOT NULL)"),
    (
        "0002_names.up.sql",
        "ALTER TABLE agents ADD COLUMN name TEXT; CREATE INDEX by_name ON agents (name)",
    ),
    ("0002_names.down.sql", "DROP INDEX by_name; ALTER TABLE agents DROP COLUMN name"),
    ("notes.md", "not a migration"),
];

fn set(files: &[(&str, &str)]) -> Migrations {
    Migrations::from_files(files.iter().copied()).expect("a set")
}

/// The versions each shard says it has.
async fn versions(db: &ShardedDatabase) -> Vec<Vec<i64>> {
    let mut all = Vec::new();
    for (_, shard) in db.shards() {
        let sql = "SELECT version FROM _sqlx_migrations WHERE success ORDER BY version";
        all.push(shard.read().query_as(sql, params![]).await.expect("the ledger"));
    }
    all
}

#[tokio::test]
async fn every_shard_gets_every_version_once_and_in_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let db = connect(folder.path(), 3).await;
    let migrations = set(&FILES);
    let before = db.migrator(&migrations).status().await.expect("a report");
    assert!(!before.is_complete());
    assert!(before.shards.iter().all(|shard| shard.pending == [1, 2] && shard.version.is_none()));

    let heard = Arc::new(Mutex::new(Vec::new()));
    let listener = {
        let heard = Arc::clone(&heard);
        move |event: MigrationEvent<'_>| {
            if let MigrationEvent::Finished { shard, version, .. } = event {
                heard.lock().expect("a lock").push((shard.to_owned(), version));
            }
        }
    };
    // It is a future that can be spawned.
    let report = tokio::spawn({
        let (db, migrations) = (db.clone(), migrations.clone());
        async move { db.migrator(&migrations).on_event(listener).run().await }
    });
    let report = report.await.expect("joined").expect("migrated");
    assert!(report.is_complete(), "{report}");
    assert!(report.to_string().contains("shard_2: at 2, 2 done now"), "{report}");
    let heard = heard.lock().expect("a lock").clone();
    assert_eq!(heard.len(), 6);
    assert_eq!(
        heard[..2],
        [("shard_0".to_owned(), 1), ("shard_0".to_owned(), 2)],
        "the first one alone"
    );
    assert_eq!(versions(&db).await, vec![vec![1, 2]; 3]);

    let again = db.migrator(&migrations).run().await.expect("nothing to do");
    assert!(again.shards.iter().all(|shard| shard.done.is_empty()));
    db.execute(
        "INSERT INTO agents (org_id, id, name) VALUES ($1, $2, $3)",
        params!["org_1", 1, "Ada"],
    )
    .await
    .expect("the schema is there");

    let back = db.migrator(&migrations).revert_to(1).await.expect("taken back");
    assert!(back.shards.iter().all(|shard| shard.version == Some(1) && shard.pending == [2]));
    assert_eq!(versions(&db).await, vec![vec![1]; 3]);
    let error = db.migrator(&migrations).revert_to(0).await.expect_err("no .down.sql");
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(db.migrator(&migrations).run().await.expect("up again").is_complete());
}

#[tokio::test]
async fn a_run_stops_before_the_others_and_goes_on_where_a_shard_failed() {
    let folder = tempfile::tempdir().expect("a folder");
    let db = connect(folder.path(), 3).await;
    db.migrator(&set(&FILES)).run().await.expect("migrated");
    let with = |more: &'static [(&'static str, &'static str)]| set(&[&FILES[..], more].concat());

    // It fails everywhere: the others never see it.
    let bad = with(&[("0003_bad.sql", "CREATE TABLE good (n INT); SELECT nonsense")]);
    let error = db.migrator(&bad).run().await.expect_err("nonsense");
    assert!(error.message().contains("shard_0: at 2, pending 3, stopped"), "{error}");
    assert!(error.message().contains("shard_1: at 2, pending 3;"), "{error}");
    assert_eq!(versions(&db).await, vec![vec![1, 2]; 3]);

    // It fails on one shard, where the rows are not as expected: the others have it, and the next run finishes.
    let (_, odd) = db.shards().nth(1).expect("a shard");
    odd.write().batch("CREATE TABLE jobs (n INT)").await.expect("in the way");
    let good = with(&[
        ("0003_jobs.sql", "CREATE TABLE jobs (org_id TEXT NOT NULL)"),
        ("0004_more.sql", "CREATE TABLE more (n INT)"),
    ]);
    let error = db.migrator(&good).run().await.expect_err("it is there");
    assert!(error.message().contains("shard_1: at 2, pending 3 4, stopped"), "{error}");
    assert_eq!(versions(&db).await, [vec![1, 2, 3, 4], vec![1, 2], vec![1, 2, 3, 4]]);
    odd.write().batch("DROP TABLE jobs").await.expect("out of the way");
    let report = db.migrator(&good).run().await.expect("finished");
    assert!(report.is_complete(), "{report}");
    assert_eq!(report.shards.iter().map(|shard| shard.done.len()).collect::<Vec<_>>(), [0, 2, 0]);
}

#[tokio::test]
async fn drift_is_told_by_shard_and_stops_a_run_before_it_changes_anything() {
    let folder = tempfile::tempdir().expect("a folder");
    let db = connect(folder.path(), 2).await;
    db.migrator(&set(&FILES)).run().await.expect("migrated");
    let changed = set(&[
        ("0001_agents.sql", "CREATE TABLE agents (org_id TEXT NOT NULL, id INT NOT NULL)"),
        ("0003_new.sql", "CREATE TABLE new (n INT)"),
    ]);
    let report = db.migrator(&changed).status().await.expect("a report");
    for shard in &report.shards {
        assert_eq!(shard.drift, [Drift::Changed(1), Drift::Unknown(2)], "{}", shard.name);
        assert_eq!(shard.pending, [3]);
    }
    let error = db.migrator(&changed).run().await.expect_err("drift");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("nothing was changed"), "{error}");
    assert!(error.message().contains("1 was changed after it was applied"), "{error}");
    assert_eq!(versions(&db).await, vec![vec![1, 2]; 2]);

    let (_, shard) = db.shards().next().expect("a shard");
    shard
        .write()
        .batch("UPDATE _sqlx_migrations SET success = FALSE WHERE version = 2")
        .await
        .expect("dirty");
    let report = db.migrator(&set(&FILES)).status().await.expect("a report");
    assert_eq!(report.shards[0].drift, [Drift::Dirty(2)]);
    assert!(report.shards[1].drift.is_empty());
    let odd = db.migrator(&changed).table("a; DROP TABLE b").status().await;
    assert_eq!(odd.expect_err("no name").kind(), ErrorKind::Config);
}

#[test]
fn a_directory_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, sql) in FILES {
        std::fs::write(folder.path().join(name), sql).expect("written");
    }
    std::fs::create_dir(folder.path().join("9_folder.sql")).expect("made");
    let migrations = Migrations::from_dir(folder.path()).expect("read");
    assert_eq!(migrations.versions().collect::<Vec<_>>(), [1, 2]);
    let error = Migrations::from_dir(folder.path().join("none")).expect_err("no folder");
    assert_eq!(error.kind(), ErrorKind::Config);
}

#[tokio::test]
async fn a_run_that_is_dropped_at_any_await_is_finished_by_the_next() {
    for polls in (1..60).step_by(4) {
        let folder = tempfile::tempdir().expect("a folder");
        let db = connect(folder.path(), 2).await;
        let migrations = set(&FILES);
        {
            let migrator = db.migrator(&migrations);
            let mut run = std::pin::pin!(migrator.run());
            for _ in 0..polls {
                if futures::poll!(run.as_mut()).is_ready() {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_micros(200)).await;
            }
        }
        let report = db.migrator(&migrations).run().await;
        let report = report.unwrap_or_else(|error| panic!("after {polls} polls: {error}"));
        assert!(report.is_complete(), "{report}");
        assert_eq!(versions(&db).await, vec![vec![1, 2]; 2], "after {polls} polls");
    }
}
