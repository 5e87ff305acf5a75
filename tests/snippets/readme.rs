//! The README's pieces of code, compiled and run; [`the_readme_shows_only_code_of_this_file`] holds both together.

use std::error::Error;

type Result = std::result::Result<(), Box<dyn Error>>;

#[tokio::test]
async fn database() -> Result {
    use resonant_db::{Database, ReadStrategy, params};

    let db = Database::builder()
        .primary("sqlite::memory:")
        .read_strategy(ReadStrategy::RoundRobin)
        .connect()
        .await?;
    db.write().batch("CREATE TABLE users (id BIGINT PRIMARY KEY, name TEXT NOT NULL)").await?;
    db.write().execute("INSERT INTO users (id, name) VALUES ($1, $2)", params![7, "Ada"]).await?;
    let names: Vec<String> =
        db.read().query_as("SELECT name FROM users WHERE id = $1", params![7]).await?;
    assert_eq!(names, ["Ada"]);
    Ok(())
}

#[tokio::test]
async fn sharded_database() -> Result {
    use resonant_db::{KeyType, ShardFunction, ShardedDatabase, params};

    let db = ShardedDatabase::builder()
        .shard("shard_0", "sqlite::memory:")
        .shard("shard_1", "sqlite::memory:")
        .shard_key("org_id")
        .shard_function(ShardFunction::HashMod)
        .table("agents", "org_id", KeyType::Text)
        .connect()
        .await?;
    db.on_all("CREATE TABLE agents (org_id TEXT NOT NULL, name TEXT NOT NULL)").await?;
    let insert = "INSERT INTO agents (org_id, name) VALUES ($1, $2)";
    db.execute(insert, params!["org_123", "Ada"]).await?;
    let rows = db.query("SELECT * FROM agents WHERE org_id = $1", params!["org_123"]).await?;
    assert_eq!(rows.len(), 1);
    // No key, no shard: refused, with the reason and what to write instead.
    assert!(db.query("SELECT * FROM agents WHERE name = $1", params!["Ada"]).await.is_err());
    Ok(())
}

#[tokio::test]
async fn cache() -> Result {
    use resonant_cache::DistributedCache;

    let cache = DistributedCache::memory(64 << 20); // bytes
    let users = cache.namespace::<String>("user");
    let load = async move || Ok::<_, std::io::Error>("Ada".to_string());
    let name = users.get_or_load("7", load).await?;
    assert_eq!(*name, "Ada");
    Ok(())
}

#[tokio::test]
async fn queue() -> Result {
    use resonant_queue::{Delivery, Memory, PartitionedQueue};
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    struct Task {
        agent_id: String,
        goal: String,
    }

    let queue = PartitionedQueue::<Task>::builder("session-tasks")
        .partitions(16)
        .partition_key("agent_id")
        .backend(Memory::new())
        .build()
        .await?;
    queue.publish(&Task { agent_id: "agent_123".into(), goal: "Process data".into() }).await?;
    let worker = queue
        .worker(async move |delivery: Delivery<Task>| {
            println!("{}", delivery.message().goal);
            Ok(())
        })
        .concurrency(64)
        .start()
        .await?;
    worker.drain().await?;
    Ok(())
}

#[tokio::test]
async fn batch() -> Result {
    use resonant_batch::BatchProcessor;
    use std::time::Duration;

    let batch = BatchProcessor::builder(async |requests: Vec<u64>| {
        Ok::<Vec<u64>, std::io::Error>(requests.iter().map(|n| n * 2).collect())
    })
    .max_batch_size(100)
    .max_wait_time(Duration::from_millis(100))
    .build()?;
    assert_eq!(batch.submit(21).await?, 42);
    Ok(())
}

#[tokio::test]
async fn health() -> Result {
    use resonant_db::Database;
    use resonant_health::HealthChecker;

    let db = Database::connect("sqlite::memory:").await?;
    let health = HealthChecker::new().check("database", move || db.ping());
    let report = health.run_all().await;
    assert!(report.is_up());
    Ok(())
}

#[tokio::test]
async fn failover() -> Result {
    use resonant_ha::FailoverManager;
    use resonant_ha::backend::ServiceRegion;

    let failover = FailoverManager::builder()
        .primary_region("us-east-1")
        .secondary_regions(["us-west-2", "eu-west-1"])
        .region("us-east-1", ServiceRegion::tcp("http://east.internal", "127.0.0.1:1"))
        .region("us-west-2", ServiceRegion::tcp("http://west.internal", "127.0.0.1:1"))
        .region("eu-west-1", ServiceRegion::tcp("http://europe.internal", "127.0.0.1:1"))
        .build()?;
    failover.start().await?;
    let topologies = failover.subscribe(); // db.follow(topologies) makes a Database go along
    assert_eq!(topologies.borrow().epoch, 0); // nobody has answered yet
    Ok(())
}

#[tokio::test]
async fn autoscaler() -> Result {
    use resonant_scale::{Autoscaler, HpaConfig, MetricSpec, WorkerPool};

    let workers = WorkerPool::new(
        async || Ok::<_, std::io::Error>("a worker"), // queue.worker(handler).start()
        async |_worker| Ok::<_, std::io::Error>(()),  // worker.drain()
    );
    let autoscaler = Autoscaler::builder("workers")
        .policy(HpaConfig::new(2, 50).metric(MetricSpec::external_average("queue_depth", 10.0)))
        .measure("queue_depth", async || Ok::<_, std::io::Error>(42.0)) // queue.depth()
        .target(workers.clone())
        .build()?;
    assert_eq!(autoscaler.evaluate().await.to, 2); // autoscaler.start()? decides every 15 s
    workers.close().await;
    Ok(())
}

/// Not run: a test binary may install one recorder only, and other tests bring their own.
#[expect(dead_code, reason = "compiled, not run")]
fn telemetry() -> Result {
    use resonant_sdk::telemetry::prometheus::Prometheus;

    let metrics = Prometheus::builder().install()?;
    // In the handler of GET /metrics, with Prometheus::CONTENT_TYPE:
    let text = metrics.render();
    drop(text);
    Ok(())
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().map(str::trim).collect()
}

#[test]
fn the_readme_shows_only_code_of_this_file() {
    let compiled = lines(include_str!("readme.rs"));
    let readme = include_str!("../../README.md");
    let pieces: Vec<&str> = readme
        .split("```rust\n")
        .skip(1)
        .map(|rest| rest.split("\n```").next().unwrap_or_default())
        .collect();
    assert!(pieces.len() >= 7, "the README lost its code");
    for piece in pieces {
        let shown = lines(piece);
        let found = compiled.windows(shown.len()).any(|window| window == shown);
        assert!(found, "the README shows code that no test runs; copy it from readme.rs:\n{piece}");
    }
}
