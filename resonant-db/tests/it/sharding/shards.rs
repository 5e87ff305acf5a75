//! Reading, writing, transactions and faults over several shards.

use std::collections::BTreeSet;
use std::time::Duration;

use resonant_db::{ErrorKind, KeyType, ShardedDatabase, params, row};

use super::{cluster, connect};

const INSERT: &str = "INSERT INTO agents (org_id, id, name, score) VALUES ($1, $2, $3, $4)";

async fn count(db: &ShardedDatabase) -> i64 {
    let mut sum = 0;
    for (_, shard) in db.shards() {
        sum += shard
            .read()
            .query_one_as::<i64>("SELECT count(*) FROM agents", params![])
            .await
            .expect("a count");
    }
    sum
}

#[tokio::test]
async fn the_guides_query_goes_to_the_shard_of_its_key() {
    let cluster = cluster(4).await;
    cluster.db.execute(INSERT, params!["org_123", 1, "Ada", 7]).await.expect("stored");
    let rows = cluster
        .db
        .query("SELECT * FROM agents WHERE org_id = $1", params!["org_123"])
        .await
        .expect("read");
    assert_eq!(rows.len(), 1);
    let home = cluster.db.shard_for("org_123").expect("a shard");
    for (name, shard) in cluster.db.shards() {
        let stored: i64 = shard
            .read()
            .query_one_as("SELECT count(*) FROM agents", params![])
            .await
            .expect("a count");
        assert_eq!(stored, i64::from(name == home), "{name}");
    }
}

#[tokio::test]
async fn rows_by_the_thousand_land_on_their_shards_in_order() {
    let cluster = cluster(4).await;
    let rows: Vec<_> = (0..2_000_i64).map(|n| (format!("org_{}", n % 50), n)).collect();
    let params = rows.iter().map(|(org, n)| row![org, *n, "x", *n]);
    assert_eq!(cluster.db.execute_many(INSERT, params).await.expect("stored"), 2_000);
    assert_eq!(count(&cluster.db).await, 2_000);
    let mut used = BTreeSet::new();
    for (name, shard) in cluster.db.shards() {
        let sql = "SELECT org_id, id FROM agents ORDER BY rowid";
        let stored: Vec<(String, i64)> = shard.read().query_as(sql, params![]).await.expect("rows");
        assert!(stored.iter().all(|(org, _)| cluster.db.shard_for(org).expect("a shard") == name));
        assert!(stored.is_sorted_by_key(|(_, n)| *n), "{name} keeps the order given");
        used.insert(name.to_owned());
    }
    assert_eq!(used.len(), 4);
}

#[tokio::test]
async fn a_row_without_a_key_stops_all_before_anything_is_sent() {
    let cluster = cluster(3).await;
    let rows = [row!["org_1", 1, "a", 1], row![resonant_db::Param::Null, 2, "b", 2]];
    let error = cluster.db.execute_many(INSERT, rows).await.expect_err("no key");
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert_eq!(count(&cluster.db).await, 0);
}

#[tokio::test]
async fn a_failed_shard_is_named_and_the_others_have_applied_theirs() {
    let cluster = cluster(3).await;
    let orgs: Vec<String> = (0..30).map(|n| format!("org_{n}")).collect();
    let broken = cluster.db.shard_for("org_0").expect("a shard").to_owned();
    cluster.db.execute(INSERT, params!["org_0", 1, "first", 0]).await.expect("stored");
    let rows = orgs.iter().map(|org| row![org, 1, "again", 1]);
    let error = cluster.db.execute_many(INSERT, rows).await.expect_err("org_0 is there already");
    assert_eq!(error.kind(), ErrorKind::Constraint);
    assert!(error.message().contains(&broken), "{error}");
    for org in &orgs {
        let here = cluster
            .db
            .query("SELECT 1 AS one FROM agents WHERE org_id = $1", params![org])
            .await
            .expect("read");
        let expected = cluster.db.shard_for(org).expect("a shard") != broken || org == "org_0";
        assert_eq!(here.len() == 1, expected, "{org}");
    }
}

#[tokio::test]
async fn keys_on_several_shards_are_read_from_each_and_written_on_request_only() {
    let cluster = cluster(3).await;
    let orgs: Vec<String> = (0..9).map(|n| format!("org_{n}")).collect();
    let insert = "INSERT INTO agents (org_id, id) VALUES ($1, 1), ($2, 1), ($3, 1), ($4, 1), ($5, 1), ($6, 1)";
    let six = params![orgs[0], orgs[1], orgs[2], orgs[3], orgs[4], orgs[5]];
    let error = cluster.db.execute(insert, six).await.expect_err("not atomic");
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert_eq!(count(&cluster.db).await, 0);
    assert_eq!(cluster.db.execute_split(insert, six).await.expect("split"), 6);
    let found: Vec<String> = cluster
        .db
        .query_as("SELECT org_id FROM agents WHERE org_id IN ($1, $2, $3, $4, $5, $6)", six)
        .await
        .expect("read");
    assert_eq!(found.iter().collect::<BTreeSet<_>>(), orgs[..6].iter().collect());
    assert_eq!(found.len(), 6);
    let all: Vec<String> = cluster
        .db
        .query_all("SELECT org_id FROM agents", params![])
        .await
        .expect("all")
        .decode()
        .expect("text");
    assert_eq!(all.len(), 6);
    let counted = cluster.db.query_all("SELECT count(*), max(id) FROM agents", params![]).await;
    let counted: Vec<(i64, i64)> = counted.expect("folded").decode().expect("numbers");
    assert_eq!(counted, [(6, 1)]);
    let error = cluster.db.query_all("SELECT group_concat(id) FROM agents", params![]).await;
    let error = error.expect_err("needs more than folding");
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
}

#[tokio::test]
async fn a_transaction_stays_on_its_shard() {
    let cluster = cluster(3).await;
    let other = (0..).map(|n| format!("org_{n}")).find(|org| {
        cluster.db.shard_for(org).expect("a shard")
            != cluster.db.shard_for("org_a").expect("a shard")
    });
    let other = other.expect("some key lives elsewhere");
    let refused = cluster
        .db
        .transaction("org_a", async |tx| {
            tx.execute(INSERT, params!["org_a", 1, "in", 1]).await?;
            let escape = tx.execute(INSERT, params![other, 1, "out", 1]).await;
            assert_eq!(
                escape.as_ref().err().map(|error| error.kind()),
                Some(ErrorKind::Refused),
                "{escape:?}"
            );
            tx.query("SELECT name FROM agents WHERE org_id = $1", params!["org_a"])
                .await
                .map(|rows| rows.len())
        })
        .await;
    assert_eq!(refused.expect("committed"), 1);
    assert_eq!(count(&cluster.db).await, 1);
    let rolled_back: Result<(), _> = cluster
        .db
        .transaction("org_a", async |tx| {
            tx.execute(INSERT, params!["org_a", 2, "in", 1]).await?;
            tx.execute(INSERT, params!["org_a", 2, "again", 1]).await.map(drop)
        })
        .await;
    assert_eq!(rolled_back.expect_err("a constraint").kind(), ErrorKind::Constraint);
    assert_eq!(count(&cluster.db).await, 1);
}

#[tokio::test]
async fn a_dead_shard_stops_neither_a_start_nor_the_others() {
    let cluster = cluster(3).await;
    cluster.db.close(Duration::from_secs(5)).await.expect("closed");
    let dead = cluster.db.shard_for("org_0").expect("a shard").to_owned();
    let file = cluster.folder.path().join(format!("{dead}.db"));
    for leftover in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{leftover}", file.display()));
    }
    std::fs::create_dir(&file).expect("a folder where the file was");
    let db = connect(cluster.folder.path(), 3).await;
    let error = db.ping().await.expect_err("one is dead");
    assert!(error.message().contains(&dead), "{error}");
    for n in 1..30 {
        let org = format!("org_{n}");
        let stored = db.execute(INSERT, params![org, n, "x", 1]).await;
        let home = db.shard_for(&org).expect("a shard");
        assert_eq!(stored.is_ok(), home != dead, "{org} on {home}: {stored:?}");
    }
}

#[tokio::test]
async fn bad_settings_are_refused_by_a_message_that_names_the_rule() {
    let builder = ShardedDatabase::builder;
    let cases = [
        (builder(), "no shard is declared"),
        (
            builder().shard("a", "sqlite::memory:").shard("a", "sqlite::memory:"),
            "\"a\" of an earlier one",
        ),
        (builder().shard("a", "sqlite::memory:").table("t;x", "id", KeyType::Int), "no plain name"),
        (
            builder().shard("a", "sqlite::memory:").table("t", "id", KeyType::Int).reference("t"),
            "declared twice",
        ),
    ];
    for (builder, rule) in cases {
        let error = builder.connect().await.expect_err(rule);
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.message().contains(rule), "{error}");
    }
}
