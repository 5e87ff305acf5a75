//! The sharded oracle on PostgreSQL: three shards and one database answer alike, or the statement is refused.

use std::any::Any;

use resonant_db::{Database, KeyType, PoolConfig, ShardedDatabase};
use resonant_testkit::postgres::TempDatabase;

use crate::sharding::twins::{Engine, Twins};
use crate::sharding::{SCHEMA, oracle, sceptic};

pub(super) fn small() -> PoolConfig {
    PoolConfig::default().min_size(0).max_size(2)
}

/// Databases of a test's own, with a schema.
pub(super) async fn databases(count: usize, schema: &str) -> Vec<TempDatabase> {
    let mut databases = Vec::new();
    for _ in 0..count {
        let database = resonant_testkit::Postgres::temp().schema(schema).await;
        databases.push(database.expect("a database"));
    }
    databases
}

/// Three shards and one database with the schema of the oracle.
async fn twins() -> Twins {
    let databases = databases(4, SCHEMA).await;
    let mut builder = ShardedDatabase::builder()
        .shard_key("org_id")
        .table("agents", "org_id", KeyType::Text)
        .table("tasks", "org_id", KeyType::Text)
        .reference("countries")
        .pool(small());
    for (shard, database) in databases.iter().take(3).enumerate() {
        builder = builder.shard(format!("shard_{shard}"), database.url());
    }
    let db = builder.connect().await.expect("shards");
    let single = Database::builder().primary(databases[3].url()).pool(small());
    let single = single.connect().await.expect("a database");
    let held: Box<dyn Any + Send + Sync> = Box::new(databases);
    Twins::filled(Engine::Postgres, db, single, held).await
}

/// How many statements a test makes: few in the suite, or as many as `RESONANT_ORACLE` says.
pub(super) fn statements(few: usize) -> usize {
    std::env::var("RESONANT_ORACLE").ok().and_then(|count| count.parse().ok()).unwrap_or(few)
}

#[tokio::test]
async fn reads_answer_as_one_database_would() {
    oracle::reads(&twins().await, 20_011, statements(800)).await;
}

#[tokio::test]
async fn writes_leave_the_rows_of_one_database() {
    oracle::writes(&twins().await, 4_711, statements(300)).await;
}

#[tokio::test]
async fn reads_that_mislead() {
    sceptic::reads_that_mislead(&twins().await).await;
}

#[tokio::test]
async fn reads_of_every_shard_that_mislead() {
    sceptic::reads_of_every_shard_that_mislead(&twins().await).await;
}

#[tokio::test]
async fn writes_that_mislead() {
    sceptic::writes_that_mislead(&twins().await).await;
}

#[tokio::test]
async fn returned_rows_are_those_of_one_database() {
    sceptic::returned_rows_are_those_of_one_database(&twins().await).await;
}
