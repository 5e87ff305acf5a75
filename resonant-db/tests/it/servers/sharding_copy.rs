//! COPY over three PostgreSQL shards: every row on its own, all or nothing, at the pace of the servers.

use std::convert::Infallible;
use std::io::Write as _;

use futures::stream;
use resonant_db::{ErrorKind, KeyType, ShardedDatabase, params};
use resonant_testkit::postgres::TempDatabase;

use super::sharding::{databases, small};
use super::until;

const SCHEMA: &str = "
    CREATE TABLE agents (org_id text NOT NULL, id bigint NOT NULL, note text, PRIMARY KEY (org_id, id));
    CREATE TABLE late (org_id text NOT NULL, id bigint NOT NULL, UNIQUE (id) DEFERRABLE INITIALLY DEFERRED);
    CREATE TABLE counted (k bigint NOT NULL, n int4);";

async fn shards() -> (Vec<TempDatabase>, ShardedDatabase) {
    let held = databases(3, SCHEMA).await;
    let mut builder = ShardedDatabase::builder()
        .table("agents", "org_id", KeyType::Text)
        .table("late", "org_id", KeyType::Text)
        .table("counted", "k", KeyType::Int)
        .pool(small());
    for (shard, database) in held.iter().enumerate() {
        builder = builder.shard(format!("shard_{shard}"), database.url());
    }
    let db = builder.connect().await.expect("shards");
    (held, db)
}

async fn count(db: &ShardedDatabase, table: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM {table}");
    db.query_all(&sql, params![]).await.expect("counted").decode().expect("one")[0]
}

/// Every row of a shard is one of its own.
async fn at_home(db: &ShardedDatabase) {
    for (name, shard) in db.shards() {
        let sql = "SELECT DISTINCT org_id FROM agents";
        let orgs: Vec<String> = shard.read().query_as(sql, params![]).await.expect("read");
        assert!(!orgs.is_empty(), "{name} has none");
        for org in orgs {
            assert_eq!(db.router().shard_for_table("agents", &org).expect("a shard"), name);
        }
    }
}

fn pieces(data: &[u8], size: usize) -> Vec<Result<Vec<u8>, Infallible>> {
    data.chunks(size).map(|piece| Ok(piece.to_vec())).collect()
}

#[tokio::test]
async fn each_shard_gets_its_own_rows_in_every_format() {
    let (_held, db) = shards().await;
    let (mut text, mut csv) = (Vec::new(), b"id,note,org_id\r\n".to_vec());
    let notes = ["plain", "tab\there", "new\nline", "back\\slash", "quote\"d", "", "żółć"];
    for n in 0..3_000_usize {
        let note = notes[n % notes.len()];
        let escaped = note.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n");
        writeln!(text, "org_{}\t{n}\t{escaped}", n % 97).expect("written");
        write!(csv, "{n},\"{}\",\"org {}\"\r\n", note.replace('"', "\"\""), n % 89)
            .expect("written");
    }
    let sql = "COPY agents (org_id, id, note) FROM STDIN";
    let report = db.copy_in(sql, stream::iter(pieces(&text, 777))).await.expect("copied");
    assert_eq!((report.rows, report.shards.len()), (3_000, 3), "{report:?}");
    let sql = "COPY agents (id, note, org_id) FROM STDIN WITH (FORMAT csv, HEADER match)";
    let report = db.copy_in(sql, stream::iter(pieces(&csv, 64 << 10))).await.expect("copied");
    assert_eq!(report.rows, 3_000);
    at_home(&db).await;
    for org in ["org_5", "org 5"] {
        let sql = "SELECT note FROM agents WHERE org_id = $1 ORDER BY id";
        let found: Vec<String> = db.query_as(sql, params![org]).await.expect("read");
        let step = if org == "org_5" { 97 } else { 89 };
        let expected: Vec<_> = (5..3_000).step_by(step).map(|n| notes[n % notes.len()]).collect();
        assert_eq!(found, expected, "{org}");
    }

    let mut binary = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
    for key in 0..500_i64 {
        binary.extend_from_slice(&2_i16.to_be_bytes());
        binary.extend_from_slice(&4_i32.to_be_bytes());
        binary.extend_from_slice(&7_i32.to_be_bytes());
        binary.extend_from_slice(&8_i32.to_be_bytes());
        binary.extend_from_slice(&key.to_be_bytes());
    }
    binary.extend_from_slice(&(-1_i16).to_be_bytes());
    let sql = "COPY counted (n, k) FROM STDIN (FORMAT binary)";
    let report = db.copy_in(sql, stream::iter(pieces(&binary, 1000))).await.expect("copied");
    assert_eq!(report.rows, 500);
    for key in [0_i64, 255, 499] {
        let found =
            db.query_one_as::<i64>("SELECT n FROM counted WHERE k = $1", params![key]).await;
        assert_eq!(found.expect("at home"), 7, "{key}");
    }
    let none = stream::iter(pieces(b"", 1));
    let report = db.copy_in("COPY counted (k) FROM STDIN", none).await.expect("nothing");
    assert_eq!((report.rows, report.shards.len()), (0, 0));
}

#[tokio::test]
async fn a_bad_row_leaves_every_shard_as_it_was_and_is_told() {
    let (_held, db) = shards().await;
    let good: String = (0..5_000).map(|n| format!("org_{}\t{n}\n", n % 50)).collect();
    let sql = "COPY agents (org_id, id) FROM STDIN";
    for (bad, row, kind) in [
        ("\\N\t1\n", "row 5001: the key is NULL", ErrorKind::Refused),
        ("org_1\n", "row 5001: the row has 1 fields", ErrorKind::Refused),
        ("org_1\tno number\n", "on shard_", ErrorKind::Rejected),
        ("org_1\t1\n", "on shard_", ErrorKind::Constraint),
    ] {
        let data =
            format!("{good}{bad}{}", if kind == ErrorKind::Constraint { "org_1\t1\n" } else { "" });
        let error = db.copy_in(sql, stream::iter(pieces(data.as_bytes(), 4096))).await;
        let error = error.expect_err(bad);
        assert_eq!(error.kind(), kind, "{error}");
        let message = error.message();
        assert!(
            message.contains(row) && message.contains("nothing was copied on any shard"),
            "{error}"
        );
        assert!(!error.may_have_applied());
        assert_eq!(count(&db, "agents").await, 0, "{bad}");
    }
    let broken = stream::iter([Ok(good.clone()), Err("the disk is gone")]);
    let error = db.copy_in(sql, broken).await.expect_err("the source failed");
    assert!(error.message().contains("nothing was copied"), "{error}");
    assert_eq!((error.kind(), count(&db, "agents").await), (ErrorKind::Rejected, 0));
    // All connections are there again.
    let report = db.copy_in(sql, stream::iter(pieces(good.as_bytes(), 4096))).await;
    assert_eq!(report.expect("copied").rows, 5_000);
}

#[tokio::test]
async fn what_fails_at_its_commit_is_told_by_shard() {
    let (_held, db) = shards().await;
    let home = db.router().shard_for_table("late", "org_0").expect("a shard").to_owned();
    let mut rows: Vec<String> = (0..60).map(|n| format!("org_{n}\t{n}\n")).collect();
    // Twice the same on one shard, which shows at the commit only.
    rows.push("org_0\t0\n".to_owned());
    let data = stream::iter(rows.into_iter().map(Ok::<_, Infallible>));
    let error = db.copy_in("COPY late (org_id, id) FROM STDIN", data).await.expect_err("twice");
    assert_eq!(error.kind(), ErrorKind::Constraint, "{error}");
    let others: Vec<_> = db.shards().map(|(name, _)| name).filter(|name| **name != home).collect();
    let (copied, not) = (others.join(", "), format!("not copied on: {home}; unknown on: none"));
    assert!(error.message().contains(&format!("copied on: {copied};")), "{error}");
    assert!(error.message().contains(&not), "{error}");
    for (name, shard) in db.shards() {
        let sql = "SELECT count(*) FROM late";
        let count: i64 = shard.read().query_one_as(sql, params![]).await.expect("counted");
        assert_eq!(count == 0, name == home, "{name}");
    }
}

#[tokio::test]
async fn a_dropped_copy_leaves_nothing_and_frees_its_connections() {
    let (held, db) = shards().await;
    let rows = (0..60_000).map(|n| Ok::<_, Infallible>(format!("org_{n}\t{n}\n")));
    let endless = stream::iter(rows).chain_pending();
    let copying = tokio::spawn({
        let db = db.clone();
        async move { db.copy_in("COPY agents (org_id, id) FROM STDIN", endless).await }
    });
    let copies = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY %' AND datname = current_database()";
    for database in &held {
        until("it copies", async || database.value(copies).await.is_ok_and(|n| n == "1")).await;
    }
    copying.abort();
    assert!(copying.await.expect_err("aborted").is_cancelled());
    let busy =
        "SELECT count(*) FROM pg_stat_activity WHERE state <> 'idle' AND pid <> pg_backend_pid()
                AND datname = current_database()";
    for database in &held {
        until("it is stopped", async || database.value(busy).await.is_ok_and(|n| n == "0")).await;
    }
    assert_eq!(count(&db, "agents").await, 0);
}

/// Rows, and then nothing more without an end.
trait ChainPending: Sized {
    fn chain_pending(
        self,
    ) -> impl futures::Stream<Item = Result<String, Infallible>> + Send + 'static;
}

impl<I> ChainPending for stream::Iter<I>
where
    I: Iterator<Item = Result<String, Infallible>> + Send + 'static,
{
    fn chain_pending(
        self,
    ) -> impl futures::Stream<Item = Result<String, Infallible>> + Send + 'static {
        futures::StreamExt::chain(self, stream::pending())
    }
}

#[tokio::test]
async fn what_cannot_be_dealt_is_refused_before_anything_is_sent() {
    let (_held, db) = shards().await;
    for sql in [
        "COPY agents FROM STDIN",
        "COPY agents (id) FROM STDIN",
        "COPY strangers (org_id) FROM STDIN",
        "COPY agents (org_id, id) FROM STDIN (FORMAT csv, FORCE_NULL (id))",
    ] {
        let error = db.copy_in(sql, stream::iter(pieces(b"a\t1\n", 9))).await.expect_err(sql);
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    }
}
