//! What is refused before anything is touched, and what a shard refuses afterwards, whoever asks.

use resonant_db::backend::ErrorExt;
use resonant_db::sharding::Migrations;
use resonant_db::{ErrorKind, KeyType, ShardedDatabase, params};

use super::super::sharding::databases;
use super::{at_home, builder, fill, grown, nothing_left, process, three};

#[tokio::test]
async fn what_cannot_be_moved_is_refused_by_name_before_anything_is_touched() {
    const GOOD: &str =
        "CREATE TABLE agents (org_id text NOT NULL, id bigint, PRIMARY KEY (org_id, id))";
    let cases = [
        ("CREATE TABLE agents (org_id text NOT NULL, id bigint)", "", "no primary key"),
        (
            "CREATE TABLE agents (org_id text NOT NULL, id bigint PRIMARY KEY); CREATE INDEX ON agents (org_id)",
            "",
            "primary key of agents does not hold org_id",
        ),
        (
            "CREATE TABLE agents (org_id text NOT NULL, id bigint, PRIMARY KEY (id, org_id))",
            "",
            "no index that begins with org_id",
        ),
        (
            "CREATE TABLE agents (org_id text NOT NULL, id bigint, n bigint GENERATED ALWAYS AS (id + 1) STORED, PRIMARY KEY (org_id, n))",
            "",
            "holds n, which is generated",
        ),
        (GOOD, "ALTER TABLE agents ADD COLUMN more text", "other columns"),
        (GOOD, "ALTER TABLE agents ADD CHECK (id > 0)", "other constraints"),
        (GOOD, "DROP TABLE agents", "has no table agents"),
        (
            GOOD,
            "INSERT INTO agents SELECT 'org_' || n, n FROM generate_series(1, 100) n",
            "rows of buckets",
        ),
        (
            "CREATE TABLE agents (org_id text NOT NULL, id bigint, PRIMARY KEY (org_id, id)) PARTITION BY HASH (org_id)",
            "",
            "is partitioned",
        ),
        (
            "CREATE UNLOGGED TABLE agents (org_id text NOT NULL, id bigint, PRIMARY KEY (org_id, id))",
            "",
            "unlogged",
        ),
        (
            "CREATE TABLE agents (org_id text NOT NULL, id bigint, PRIMARY KEY (org_id, id)); CREATE TABLE notes (org_id text, id bigint, FOREIGN KEY (org_id, id) REFERENCES agents)",
            "",
            "notes is not declared",
        ),
        (
            "CREATE TABLE agents (org_id text NOT NULL, id bigint, boss text, boss_id bigint, PRIMARY KEY (org_id, id), FOREIGN KEY (boss, boss_id) REFERENCES agents)",
            "",
            "does not carry the shard key",
        ),
        (
            "CREATE TABLE agents (org_id text NOT NULL, id bigint, PRIMARY KEY (org_id, id)); ALTER TABLE agents ENABLE ROW LEVEL SECURITY",
            "",
            "row-level security",
        ),
        (
            "CREATE TABLE agents (org_id text NOT NULL, id bigint, PRIMARY KEY (org_id, id)); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER audit BEFORE INSERT ON agents FOR EACH ROW EXECUTE FUNCTION f()",
            "",
            "triggers of its own, which would run for rows that move: audit",
        ),
    ];
    for (schema, other, reason) in cases {
        let held = databases(2, schema).await;
        if !other.is_empty() {
            held[1].sql(other).await.expect("changed");
        }
        let mut db = ShardedDatabase::builder()
            .table("agents", "org_id", KeyType::Text)
            .bucket_map(resonant_db::sharding::BucketMap::dealt(1).expect("a map"))
            .live_map(true);
        for (shard, database) in held.iter().enumerate() {
            db = db.shard(format!("shard_{shard}"), database.url());
        }
        let db = db.connect().await.expect("shards");
        let map = db.bucket_map().await.expect("asked").expect("buckets");
        let plan = map.plan(&[0, 1]).expect("a plan");
        let error = db.mover().run(&plan).await.expect_err(reason);
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        assert!(error.message().contains(reason), "{reason}: {error}");
        assert!(error.message().contains("nothing was changed"), "{error}");
        nothing_left(&db).await;
    }
    // Without a live map nobody would hear of it.
    let held = databases(2, GOOD).await;
    let db = ShardedDatabase::builder()
        .table("agents", "org_id", KeyType::Text)
        .shard("a", held[0].url())
        .shard("b", held[1].url());
    let db = db.connect().await.expect("shards");
    let plan = db.bucket_map().await.expect("given").expect("buckets").plan(&[0]).expect("a plan");
    let error = db.mover().run(&plan).await.expect_err("no live map");
    assert!(error.kind() == ErrorKind::Config && error.message().contains("live_map"), "{error}");
}

#[tokio::test]
async fn a_stale_router_is_refused_by_the_shard_and_finds_its_way() {
    let held = three().await;
    let db = process(&held, 2).await;
    fill(&db, 60, 3).await;
    // It has asked for nothing yet, and does not until the move is over.
    let late = process(&held, 2).await;
    // It never asks: its settings are those of a program from before.
    let frozen = builder(&held, 2).live_map(false).guard(false).connect().await.expect("shards");
    let plan = grown(&db).await;
    for report in db.mover().run(&plan).await.expect("moved") {
        println!("{report}");
    }
    nothing_left(&db).await;
    at_home(&db).await;
    let moved: Vec<String> = (0..60)
        .map(|org| format!("org_{org}"))
        .filter(|org| db.shard_for(org).expect("a shard") == "shard_2")
        .collect();
    assert!(moved.len() > 5, "{moved:?}");
    for org in &moved {
        assert_ne!(frozen.shard_for(org).expect("a shard"), "shard_2");
        let sql = "INSERT INTO agents (org_id, id, score) VALUES ($1, 99, 0)";
        let error = frozen.execute(sql, params![org]).await.expect_err("it has gone");
        assert_eq!(error.sqlstate(), Some("RS001"), "{error}");
        // A program in another language that writes to the old shard.
        let home = frozen.shard_for(org).expect("a shard");
        let raw = frozen.shard(home).expect("a shard").write();
        let error = raw.execute(sql, params![org]).await.expect_err("it has gone");
        assert_eq!(error.sqlstate(), Some("RS001"), "{error}");
        assert!(error.message().contains("has moved to shard_2"), "{error}");
    }
    let org = &moved[0];
    let count: Vec<i64> = late
        .query_as("SELECT count(*) FROM agents WHERE org_id = $1", params![org])
        .await
        .expect("found");
    assert_eq!(count, [3]);
    assert_eq!(late.shard_for(org).expect("a shard"), "shard_2");
    let sql = "UPDATE agents SET score = 7 WHERE org_id = $1 AND id = 2";
    assert_eq!(process(&held, 2).await.execute(sql, params![org]).await.expect("written"), 1);
    let all: Vec<i64> = process(&held, 2)
        .await
        .query_all("SELECT count(*) FROM agents", params![])
        .await
        .expect("counted")
        .decode()
        .expect("one");
    assert_eq!(all, [180]);
    // Back again, by a plan of its own: what was written since comes along.
    let map = db.bucket_map().await.expect("asked").expect("buckets");
    assert_eq!(map.epoch(), 2);
    let back = map.plan(&[0, 1]).expect("a plan");
    db.mover().run(&back).await.expect("moved back");
    nothing_left(&db).await;
    assert_eq!(at_home(&db).await[2], 0);
    let score: Vec<i64> = frozen
        .query_as("SELECT score FROM agents WHERE org_id = $1 AND id = 2", params![org])
        .await
        .expect("found");
    // Not to where it was perhaps, as the plan deals evenly; but wherever it is, there.
    let now: Vec<i64> = late
        .query_as("SELECT score FROM agents WHERE org_id = $1 AND id = 2", params![org])
        .await
        .expect("found");
    assert_eq!(now, [7]);
    assert!(score.is_empty() || score == [7]);
    db.mover().release().await.expect("released");
    let sql = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'resonant%'";
    for (name, shard) in db.shards() {
        let left: i64 = shard.write().query_one_as(sql, params![]).await.expect("counted");
        assert_eq!(left, 0, "{name}");
    }
}

#[tokio::test]
async fn tables_are_left_alone_and_movers_wait_while_one_is_at_work() {
    let held = three().await;
    let db = process(&held, 2).await;
    fill(&db, 30, 2).await;
    let plan = grown(&db).await;
    let (sender, mut events) = tokio::sync::mpsc::unbounded_channel();
    let moving = {
        let db = db.clone();
        let plan = plan.clone();
        tokio::spawn(async move {
            let mover = db.mover().on_event(move |event| drop(sender.send(event)));
            mover.run(&plan).await.map(drop)
        })
    };
    while let Some(event) = events.recv().await {
        if matches!(event, resonant_db::sharding::MoveEvent::Copied { .. }) {
            break;
        }
    }
    let error = db.on_all("CREATE INDEX ON agents (score)").await.expect_err("a move is on");
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    let set = Migrations::from_files([("1_more.sql", "ALTER TABLE agents ADD COLUMN more text")]);
    let error = db.migrator(&set.expect("a set")).run().await.expect_err("a move is on");
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    let error = db.mover().run(&plan).await.expect_err("a move is on");
    assert!(error.message().contains("unfinished"), "{error}");
    moving.await.expect("joined").expect("moved");
    nothing_left(&db).await;
    db.on_all("CREATE INDEX ON agents (score)").await.expect("at rest");
}
