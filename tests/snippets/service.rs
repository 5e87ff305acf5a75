//! A service that has every primitive in its state, and no generic parameter for an engine.

use std::time::Duration;

use resonant_batch::BatchProcessor;
use resonant_cache::{DistributedCache, Namespace};
use resonant_db::{Database, KeyType, ShardFunction, ShardedDatabase, params};
use resonant_health::HealthChecker;
use resonant_queue::{Memory, PartitionedQueue};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct User {
    pub(crate) id: i64,
    pub(crate) name: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) agent_id: String,
    pub(crate) goal: String,
}

/// Plain types: clone it into handlers and tasks.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) db: Database,
    pub(crate) shards: ShardedDatabase,
    pub(crate) users: Namespace<User>,
    pub(crate) queue: PartitionedQueue<Task>,
    pub(crate) batch: BatchProcessor<i64, Option<User>>,
    pub(crate) health: HealthChecker,
}

impl Service {
    pub(crate) async fn start(folder: &std::path::Path) -> Self {
        let file = |name: &str| format!("sqlite:{}", folder.join(name).display());
        let db = Database::connect(file("main.db")).await.unwrap();
        db.write()
            .batch("CREATE TABLE users (id BIGINT PRIMARY KEY, name TEXT NOT NULL)")
            .await
            .unwrap();
        db.write()
            .execute("INSERT INTO users (id, name) VALUES ($1, $2)", params![7, "Ada"])
            .await
            .unwrap();

        let shards = ShardedDatabase::builder()
            .shard("shard_0", file("shard_0.db"))
            .shard("shard_1", file("shard_1.db"))
            .shard_key("org_id")
            .shard_function(ShardFunction::HashMod)
            .table("agents", "org_id", KeyType::Text)
            .connect()
            .await
            .unwrap();
        shards
            .on_all("CREATE TABLE agents (org_id TEXT NOT NULL, name TEXT NOT NULL)")
            .await
            .unwrap();

        let cache = DistributedCache::memory(1 << 20);
        let users = cache.namespace("user");
        let queue = PartitionedQueue::<Task>::builder("session-tasks")
            .partition_key("agent_id")
            .backend(Memory::new())
            .build()
            .await
            .unwrap();
        let batch = BatchProcessor::builder({
            let db = db.clone();
            async move |ids: Vec<i64>| {
                let mut found = Vec::with_capacity(ids.len());
                for id in ids {
                    let sql = "SELECT id, name FROM users WHERE id = $1";
                    found.push(db.read().query_opt_as::<User>(sql, params![id]).await);
                }
                found
            }
        })
        .max_batch_size(100)
        .max_wait_time(Duration::from_millis(100))
        .build()
        .unwrap();
        let health = HealthChecker::new()
            .check("database", {
                let db = db.clone();
                move || db.ping()
            })
            .check("shards", {
                let shards = shards.clone();
                move || shards.ping()
            })
            .check("cache", move || cache.ping())
            .check("queue", {
                let queue = queue.clone();
                move || queue.ping()
            })
            .findings("backlog", {
                let queue = queue.clone();
                move || queue.findings()
            });
        Self { db, shards, users, queue, batch, health }
    }
}
