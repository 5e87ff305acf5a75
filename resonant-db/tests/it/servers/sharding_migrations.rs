//! Migrations on PostgreSQL shards: beside sqlx's ledger, outside transactions, and by two programs at once.

use std::time::Duration;

use resonant_db::sharding::Migrations;
use resonant_db::{KeyType, ShardedDatabase, params};
use resonant_testkit::postgres::TempDatabase;

use super::sharding::{databases, small};

const AGENTS: (&str, &str) =
    ("1_agents.sql", "CREATE TABLE agents (org_id text NOT NULL, id bigint NOT NULL)");
const INDEX: (&str, &str) = (
    "2_index.sql",
    "-- no-transaction\nCREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS by_id ON agents (id)",
);

async fn connect(held: &[TempDatabase]) -> ShardedDatabase {
    let mut builder =
        ShardedDatabase::builder().table("agents", "org_id", KeyType::Text).pool(small());
    for (shard, database) in held.iter().enumerate() {
        builder = builder.shard(format!("shard_{shard}"), database.url());
    }
    builder.connect().await.expect("shards")
}

fn set(files: &[(&str, &str)]) -> Migrations {
    Migrations::from_files(files.iter().copied()).expect("a set")
}

#[tokio::test]
async fn two_programs_at_once_apply_each_version_once() {
    let held = databases(3, "").await;
    let migrations =
        set(&[AGENTS, ("2_seed.sql", "INSERT INTO agents VALUES ('org_1', 1)"), INDEX_3]);
    let (one, two) = (connect(&held).await, connect(&held).await);
    let (one, two) = (one.migrator(&migrations), two.migrator(&migrations));
    let (first, second) = tokio::join!(one.run(), two.run());
    let (first, second) = (first.expect("migrated"), second.expect("migrated"));
    assert!(first.is_complete() && second.is_complete(), "{first}\n{second}");
    for (shard, database) in held.iter().enumerate() {
        let done = first.shards[shard].done.len() + second.shards[shard].done.len();
        assert_eq!(done, 3, "{first}\n{second}");
        assert_eq!(database.value("SELECT count(*) FROM agents").await.expect("counted"), "1");
    }
}

const INDEX_3: (&str, &str) = ("3_index.sql", INDEX.1);

#[tokio::test]
async fn the_ledger_is_sqlxs_in_every_column() {
    let held = databases(1, "").await;
    let db = connect(&held).await;
    // As sqlx writes it.
    let ledger = "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL, \
        installed_on TIMESTAMPTZ NOT NULL DEFAULT now(), success BOOLEAN NOT NULL, checksum BYTEA NOT NULL, \
        execution_time BIGINT NOT NULL); \
        INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
        VALUES (1, 'agents', TRUE, sha384($$CREATE TABLE agents (org_id text NOT NULL, id bigint NOT NULL)$$), 12345)";
    held[0].sql(ledger).await.expect("sqlx's");
    held[0].sql(AGENTS.1).await.expect("applied");
    let report = db.migrator(&set(&[AGENTS, INDEX])).run().await.expect("goes on from there");
    assert_eq!(report.shards[0].done.len(), 1, "{report}");
    let line = "SELECT description || ' ' || success || ' ' || (checksum = sha384(convert_to($1, 'UTF8'))) \
                FROM _sqlx_migrations WHERE version = 2";
    let (_, shard) = db.shards().next().expect("a shard");
    let line: String = shard.read().query_one_as(line, params![INDEX.1]).await.expect("a line");
    assert_eq!(line, "index true true");
}

#[tokio::test]
async fn what_runs_outside_a_transaction_is_taken_up_again_without_an_index_that_is_none() {
    let held = databases(2, "").await;
    let db = connect(&held).await;
    db.migrator(&set(&[AGENTS])).run().await.expect("migrated");
    held[1].sql("INSERT INTO agents VALUES ('org_1', 7), ('org_1', 7)").await.expect("twice");
    let migrations = set(&[AGENTS, INDEX]);
    let error = db.migrator(&migrations).run().await.expect_err("not unique");
    assert!(error.message().contains("shard_0: at 2, 1 done now"), "{error}");
    assert!(error.message().contains("shard_1: at 1, pending 2, stopped"), "{error}");
    let invalid = "SELECT count(*) FROM pg_index WHERE NOT indisvalid";
    assert_eq!(held[1].value(invalid).await.expect("asked"), "1", "it is left there");
    held[1].sql("DELETE FROM agents").await.expect("out of the way");
    let report = db.migrator(&migrations).run().await.expect("finished");
    assert!(report.is_complete(), "{report}");
    assert_eq!(held[1].value(invalid).await.expect("asked"), "0");
    let valid = "SELECT count(*) FROM pg_index WHERE indexrelid = 'by_id'::regclass AND indisvalid";
    assert_eq!(held[1].value(valid).await.expect("asked"), "1");
}

#[tokio::test]
async fn a_migration_gives_way_to_whoever_holds_a_table_and_tries_again() {
    let held = databases(1, "").await;
    let db = connect(&held).await;
    db.migrator(&set(&[AGENTS])).run().await.expect("migrated");
    let (_, shard) = db.shards().next().expect("a shard");
    let holder = tokio::spawn({
        let shard = shard.clone();
        async move {
            let work = shard.transaction(async |transaction| {
                transaction.execute("LOCK TABLE agents", params![]).await?;
                transaction.execute("SELECT pg_sleep(0.7)", params![]).await
            });
            work.await
        }
    });
    let table = "SELECT count(*) FROM pg_locks WHERE relation = 'agents'::regclass AND mode = 'AccessExclusiveLock' AND granted";
    super::until("it is locked", async || held[0].value(table).await.is_ok_and(|n| n == "1")).await;
    let migrations = set(&[AGENTS, ("2_more.sql", "ALTER TABLE agents ADD COLUMN note text")]);
    let short = Duration::from_millis(100);
    let error = db.migrator(&migrations).lock_timeout(short).attempts(1).run().await;
    assert!(error.expect_err("held").message().contains("pending 2"), "it gave way");
    let report = db.migrator(&migrations).lock_timeout(short).attempts(100).run().await;
    assert!(report.expect("in the end").is_complete());
    holder.await.expect("joined").expect("undisturbed");
}
