//! ShardedDatabase on real SQLite shards.

#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod coverage;
mod faults;
mod formats;
mod meters;
mod migrations;
pub(crate) mod oracle;
mod routing;
pub(crate) mod sceptic;
mod shards;
pub(crate) mod twins;

use resonant_db::{KeyType, ShardedDatabase};

/// Shards in files of a folder that goes with them.
pub(crate) struct Cluster {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) db: ShardedDatabase,
}

/// Shards with the tables `agents` and `tasks`, keyed by `org_id`, and the reference table `countries`.
pub(crate) async fn cluster(shards: usize) -> Cluster {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let db = connect(folder.path(), shards).await;
    db.on_all(SCHEMA).await.expect("the schema");
    Cluster { folder, db }
}

pub(crate) async fn connect(folder: &std::path::Path, shards: usize) -> ShardedDatabase {
    let mut builder = ShardedDatabase::builder()
        .shard_key("org_id")
        .table("agents", "org_id", KeyType::Text)
        .table("tasks", "org_id", KeyType::Text)
        .reference("countries");
    for shard in 0..shards {
        let name = format!("shard_{shard}");
        let url = format!("sqlite:{}", folder.join(format!("{name}.db")).display());
        builder = builder.shard(name, url);
    }
    builder.connect().await.expect("shards")
}

pub(crate) const SCHEMA: &str = "
    CREATE TABLE agents (org_id TEXT NOT NULL, id BIGINT NOT NULL, name TEXT, score BIGINT, PRIMARY KEY (org_id, id));
    CREATE TABLE tasks (org_id TEXT NOT NULL, agent_id BIGINT NOT NULL, goal TEXT);
    CREATE TABLE countries (code TEXT PRIMARY KEY, name TEXT NOT NULL);
    INSERT INTO countries (code, name) VALUES ('pl', 'Poland'), ('ke', 'Kenya');";
