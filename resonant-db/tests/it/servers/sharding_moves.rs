//! Buckets that move between PostgreSQL shards while two processes read and write them.

mod crowd;
mod meddling;
mod refusals;
mod returns;
mod stops;

use std::sync::Arc;

use resonant_db::sharding::{BucketMap, BucketPlan, MoveEvent, Mover, ShardedDatabaseBuilder};
use resonant_db::{KeyType, PoolConfig, ShardedDatabase, params};
use resonant_testkit::postgres::TempDatabase;
use tokio::sync::Notify;

use super::sharding::databases;

pub(super) const SCHEMA: &str = "
    CREATE TABLE agents (org_id text NOT NULL, id bigint NOT NULL, score bigint NOT NULL, note text,
        twice bigint GENERATED ALWAYS AS (score * 2) STORED, PRIMARY KEY (org_id, id));
    CREATE TABLE tasks (org_id text NOT NULL, agent bigint NOT NULL, n bigserial, done boolean, PRIMARY KEY (org_id, n),
        FOREIGN KEY (org_id, agent) REFERENCES agents (org_id, id) ON DELETE CASCADE);
    CREATE TABLE countries (code text PRIMARY KEY);";

/// One process: `shards` shards are declared, of which the first `owners` own the buckets.
pub(super) async fn process(held: &[TempDatabase], owners: u32) -> ShardedDatabase {
    builder(held, owners).connect().await.expect("shards")
}

pub(super) fn builder(held: &[TempDatabase], owners: u32) -> ShardedDatabaseBuilder {
    builder_at(held.iter().map(TempDatabase::url), owners)
}

pub(super) fn builder_at(
    urls: impl IntoIterator<Item = String>,
    owners: u32,
) -> ShardedDatabaseBuilder {
    let mut builder = ShardedDatabase::builder()
        .table("agents", "org_id", KeyType::Text)
        .table("tasks", "org_id", KeyType::Text)
        .reference("countries")
        .bucket_map(BucketMap::dealt(owners).expect("a map"))
        .live_map(true)
        .guard(true)
        .pool(PoolConfig::default().min_size(0).max_size(8));
    for (shard, url) in urls.into_iter().enumerate() {
        builder = builder.shard(format!("shard_{shard}"), url);
    }
    builder
}

/// Three databases, of which the third owns nothing yet.
pub(super) async fn three() -> Vec<TempDatabase> {
    databases(3, SCHEMA).await
}

pub(super) async fn fill(db: &ShardedDatabase, orgs: i64, each: i64) {
    for org in 0..orgs {
        let name = format!("org_{org}");
        let rows: Vec<_> = (0..each)
            .map(|id| resonant_db::row![&name, id, id, "a note\twith\nthings\\"])
            .collect();
        let sql = "INSERT INTO agents (org_id, id, score, note) VALUES ($1, $2, $3, $4)";
        db.execute_many(sql, rows.iter()).await.expect("filled");
        let sql = "INSERT INTO tasks (org_id, agent, done) VALUES ($1, 0, false)";
        db.execute(sql, params![&name]).await.expect("filled");
    }
}

pub(super) async fn grown(db: &ShardedDatabase) -> BucketPlan {
    let map = db.bucket_map().await.expect("asked").expect("buckets");
    map.plan(&[0, 1, 2]).expect("a plan")
}

/// Of a plan for the third shard what the first one gives, and of that only the buckets of organisations there are.
pub(super) async fn few(db: &ShardedDatabase, orgs: i64) -> BucketPlan {
    let buckets: Vec<u32> = (0..orgs)
        .map(|org| resonant_common::hash::slot(format!("org_{org}").as_bytes(), 4096))
        .collect();
    let mut plan = grown(db).await;
    plan.moves.retain(|step| step.from == 0 && buckets.contains(&step.bucket));
    assert!(plan.moves.len() > 1, "{plan:?}");
    plan
}

/// The organisations a shard has.
pub(super) fn orgs_of(db: &ShardedDatabase, orgs: i64, shard: &str) -> Vec<String> {
    let orgs = (0..orgs).map(|org| format!("org_{org}"));
    orgs.filter(|org| db.shard_for(org).expect("a shard") == shard).collect()
}

/// Runs a plan until something happens, and not a step further.
pub(super) async fn run_until(
    mover: Mover<'_>,
    plan: &BucketPlan,
    at: impl Fn(&MoveEvent) -> bool + Send + Sync + 'static,
) {
    let reached = Arc::new(Notify::new());
    let seen = Arc::clone(&reached);
    let mover = mover.on_event(move |event| {
        if at(&event) {
            seen.notify_one();
        }
    });
    tokio::select! {
        biased;
        () = reached.notified() => {}
        ended = mover.run(plan) => panic!("it was not reached: {ended:?}"),
    }
}

/// What each shard holds, and that every row of it is at home.
pub(super) async fn at_home(db: &ShardedDatabase) -> Vec<i64> {
    let mut counts = Vec::new();
    for (name, shard) in db.shards() {
        let mut count = 0;
        for table in ["agents", "tasks"] {
            let sql = format!("SELECT org_id, count(*) FROM {table} GROUP BY 1");
            let orgs: Vec<(String, i64)> =
                shard.write().query_as(&sql, params![]).await.expect("read");
            for (org, rows) in orgs {
                assert_eq!(db.shard_for(&org).expect("a shard"), name, "{org} of {table}");
                count += rows;
            }
        }
        counts.push(count);
    }
    counts
}

/// Nothing is left of a move but what a shard remembers of it.
pub(super) async fn nothing_left(db: &ShardedDatabase) {
    assert!(db.mover().status().await.expect("asked").is_empty());
    for (name, shard) in db.shards() {
        let sql = "SELECT (SELECT count(*) FROM pg_namespace WHERE nspname = 'resonant_move')
            + (SELECT count(*) FROM resonant.bucket WHERE state <> 'away')
            + (SELECT count(*) FROM resonant.place WHERE phase <> 0 OR landing IS NOT NULL)
            + (SELECT count(*) FROM pg_replication_slots) + (SELECT count(*) FROM pg_publication)
            + (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))
            + (SELECT count(*) FROM pg_proc WHERE strpos(prosrc, 'resonant_move.') > 0)
            + (SELECT count(*) FROM pg_trigger t WHERE tgname LIKE 'resonant%'
                AND NOT EXISTS (SELECT 1 FROM resonant.bucket WHERE state = 'away'))";
        super::until(&format!("{name} is clean"), async || {
            shard.write().query_one_as::<i64>(sql, params![]).await.expect("counted") == 0
        })
        .await;
    }
}
