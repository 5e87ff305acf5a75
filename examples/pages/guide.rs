//! The scaling guide from top to bottom, with its names: each Python snippet as Rust.
//!
//! `cargo run --example guide`. Everything is embedded, so the servers' URLs are files here; with the guide's own URLs (in the
//! comments) it is the same program. What the guide has as YAML, nginx and Terraform is in `deploy/`.

use std::error::Error;
use std::future::IntoFuture;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use axum::routing::get;
use axum::{Router, middleware};
use resonant_batch::{BatchProcessor, process_all};
use resonant_cache::DistributedCache;
use resonant_db::backend::sqlite;
use resonant_db::{
    Database, KeyType, PoolConfig, ReadStrategy, ShardFunction, ShardedDatabase, params,
};
use resonant_health::HealthChecker;
use resonant_queue::{Delivery, Memory, PartitionedQueue, Worker};
use resonant_scale::{Autoscaler, WorkerPool, guide};
use resonant_sdk::ha::{FailoverManager, backend::ServiceRegion};
use resonant_sdk::http::Api;
use resonant_sdk::telemetry::prometheus::Prometheus;
use resonant_sdk::telemetry::{Requests, count_requests};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// Of this example only. A service reads its own from where it keeps its secrets.
const TOKEN: &str = "only-for-this-example";

#[tokio::main]
async fn main() -> Outcome {
    let folder = tempfile::tempdir()?;
    // Monitoring comes first, so that it sees everything: requests_total, request_duration_seconds, active_connections, …
    let prometheus = Prometheus::builder().install()?;

    let db = database_scaling(folder.path()).await?;
    let shards = database_sharding(folder.path()).await?;
    let cache = cache_scaling().await?;
    let failover = failover_configuration().await?;
    let queue = queue_partitioning().await?;
    request_batching().await?;
    async_processing().await?;
    let (workers, scaler) = auto_scaling(&queue).await?;
    let health = health_checks(&db, &cache, &queue).await?;
    api_reference(health, &scaler, prometheus).await?;

    scaler.stop().await;
    workers.close().await;
    queue.close().await;
    failover.close().await;
    cache.close().await;
    shards.close(Duration::from_secs(5)).await?;
    db.close(Duration::from_secs(5)).await?;
    Ok(())
}

/// "Read Replicas" and "Connection Pooling".
async fn database_scaling(folder: &Path) -> Outcome<Database> {
    let primary = sqlite::url(folder.join("primary.db")); // "postgresql://primary:5432/resonant"
    let pool = PoolConfig::default()
        .min_size(10u32)
        .max_size(100u32)
        .max_idle_time(Duration::from_secs(300))
        .max_lifetime(Duration::from_secs(3600))
        .health_check_interval(Duration::from_secs(30));
    assert_eq!(pool, PoolConfig::default(), "the guide's numbers are the defaults");
    let db = Database::builder()
        .primary(primary)
        // .replicas(["postgresql://replica1:5432/resonant", …]): a file's readers stand for them here.
        .read_strategy(ReadStrategy::RoundRobin)
        .connect()
        .await?;

    db.write().batch("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL)").await?;
    // Writes go to primary
    let insert = "INSERT INTO users (id, name) VALUES ($1, $2)";
    db.write().execute(insert, params![7, "Ada"]).await?;
    // Reads go to replicas
    let users: Vec<(i64, String)> =
        db.read().query_as("SELECT id, name FROM users", params![]).await?;
    println!("Read Replicas: {users:?}");
    Ok(db)
}

/// "Database Sharding".
async fn database_sharding(folder: &Path) -> Outcome<ShardedDatabase> {
    let mut builder = ShardedDatabase::builder();
    for n in 0..4 {
        let name = format!("shard_{n}"); // "shard_0": "postgresql://shard0:5432/resonant"
        builder = builder.shard(&name, sqlite::url(folder.join(format!("{name}.db"))));
    }
    let db = builder
        .shard_key("org_id")
        .shard_function(ShardFunction::HashMod)
        .table("agents", "org_id", KeyType::Text)
        .connect()
        .await?;
    db.on_all("CREATE TABLE agents (org_id TEXT NOT NULL, name TEXT NOT NULL)").await?;
    let insert = "INSERT INTO agents (org_id, name) VALUES ($1, $2)";
    db.execute(insert, params!["org_123", "Ada"]).await?;
    // Queries automatically routed to correct shard
    let agent: String =
        db.query_one_as("SELECT name FROM agents WHERE org_id = $1", params!["org_123"]).await?;
    println!("Database Sharding: {agent} of org_123 lives on {}", db.shard_for("org_123")?);
    Ok(db)
}

/// "Cache Configuration".
async fn cache_scaling() -> Outcome<DistributedCache> {
    let cache = DistributedCache::builder()
        .nodes(["memory:"]) // ["redis://cache-1:6379", "redis://cache-2:6379", "redis://cache-3:6379"]
        .cluster_mode(true)
        .read_from_replicas(true)
        .connect()
        .await?;
    let names = cache.namespace::<String>("name");
    let name = names.get_or_load("7", async || Ok::<_, std::io::Error>("Ada".to_owned())).await?;
    println!("Cache Configuration: {name}, and from now on without a load");
    Ok(cache)
}

/// "Failover Configuration".
async fn failover_configuration() -> Outcome<FailoverManager> {
    let failover = FailoverManager::builder()
        .primary_region("us-east-1")
        .secondary_regions(["us-west-2", "eu-west-1"])
        .health_check_interval(Duration::from_secs(10))
        .failover_threshold(3)
        .auto_failback(true)
        .failback_delay(Duration::from_secs(300))
        .region("us-east-1", ServiceRegion::tcp("http://east.internal", "127.0.0.1:1"))
        .region("us-west-2", ServiceRegion::tcp("http://west.internal", "127.0.0.1:1"))
        .region("eu-west-1", ServiceRegion::tcp("http://europe.internal", "127.0.0.1:1"))
        .build()?;
    // Monitor and failover. Without a lease store it only watches; `db.follow(failover.subscribe())` makes a database follow.
    failover.start().await?;
    let recovery = failover.config().recovery();
    println!("Failover Configuration: a dead region is left within {:?}", recovery.total);
    Ok(failover)
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Task {
    goal: String,
    agent_id: String,
}

/// "Queue Partitioning".
async fn queue_partitioning() -> Outcome<PartitionedQueue<Task>> {
    let queue = PartitionedQueue::builder("session-tasks")
        .partitions(16)
        .partition_key("agent_id")
        .backend(Memory::new()) // RabbitMq::connect(["amqp://rabbitmq-1:5672", …]).leases(…).await?
        .build()
        .await?;
    // Messages distributed across partitions
    let task = Task {
        goal: "Process data".into(),
        agent_id: "agent_123".into(), // Determines partition
    };
    let receipt = queue.publish(&task).await?;
    println!("Queue Partitioning: agent_123 is in partition {} of 16", receipt.partition);
    Ok(queue)
}

/// "Request Batching".
async fn request_batching() -> Outcome {
    let process_batch = async move |requests: Vec<u64>| {
        requests.into_iter().map(|n| Ok::<_, std::io::Error>(n * n)).collect::<Vec<_>>()
    };
    let batch = BatchProcessor::builder(process_batch)
        .max_batch_size(100)
        .max_wait_time(Duration::from_millis(100))
        .build()?;
    // Requests automatically batched
    let result = batch.submit(12).await?;
    println!("Request Batching: {result}");
    batch.drain(Duration::from_secs(5)).await;
    Ok(())
}

/// "Async Processing".
async fn async_processing() -> Outcome {
    // Process concurrently
    let process_request = async |n: u64| Ok::<_, std::io::Error>(n + 1);
    let results = process_all([1, 2, 3], process_request).try_collect().await?;
    println!("Async Processing: {results:?}");
    Ok(())
}

/// "Custom Metrics Autoscaling": 2 to 50 workers, ten messages of `session-tasks` each.
async fn auto_scaling(queue: &PartitionedQueue<Task>) -> Outcome<(WorkerPool<Worker>, Autoscaler)> {
    let (tasks, measured) = (queue.clone(), queue.clone());
    let handler = async move |_: Delivery<Task>| Ok(());
    let workers =
        WorkerPool::new(move || tasks.worker(handler).start(), |worker: Worker| worker.drain());
    let scaler = Autoscaler::builder("resonant-worker-hpa")
        .policy(guide::workers()) // guide::api() and guide::aws_cpu() are the others of the guide
        .measure("queue_depth", move || {
            let queue = measured.clone();
            async move { queue.depth().await.map(|depth| depth.unfinished() as f64) }
        })
        .target(workers.clone())
        .build()?;
    let decision = scaler.evaluate().await; // scaler.start()? goes on every 15 s
    println!("Custom Metrics Autoscaling: from {} to {} workers", decision.from, decision.to);
    Ok((workers, scaler))
}

/// "Health Checks".
async fn health_checks(
    db: &Database,
    cache: &DistributedCache,
    queue: &PartitionedQueue<Task>,
) -> Outcome<HealthChecker> {
    let (db, cache, queue) = (db.clone(), cache.clone(), queue.clone());
    let health = HealthChecker::new()
        .check("database", move || db.ping())
        .check("cache", move || cache.ping())
        .check("queue", move || queue.ping());
    let report = health.run_all().await;
    let checks: Vec<_> =
        report.checks().map(|it| format!("{} {}", it.name(), it.status().as_str())).collect();
    println!("Health Checks: {}", checks.join(", "));
    Ok(health)
}

/// "API Reference", and what "Metrics Collection" has counted by then.
async fn api_reference(
    health: HealthChecker,
    scaler: &Autoscaler,
    prometheus: Prometheus,
) -> Outcome {
    let api = Api::builder()
        .token("reader", TOKEN)
        .health(health) // Expose health endpoint: /health and /api/v1/health
        .scaler(scaler.clone())
        .metrics(move || prometheus.render())
        .build()?;
    let app = Router::new()
        .route("/agents/{id}", get(async || "Ada"))
        .merge(api.router())
        .layer(middleware::from_fn_with_state(Requests::new(), count_requests));
    let listener = TcpListener::bind("127.0.0.1:0").await?; // "0.0.0.0:8000"
    let address = listener.local_addr()?;
    let server = tokio::spawn(axum::serve(listener, app).into_future());

    ask(address, "GET", "/agents/agent_123", "").await?;
    for (method, path, body) in [
        ("GET", "/health", ""),
        ("GET", "/api/v1/health", ""),
        ("GET", "/api/v1/scaling/status", ""),
        ("POST", "/api/v1/scaling/scale", r#"{"replicas": 5, "reason": "a busy evening"}"#),
        ("GET", "/api/v1/metrics", ""),
    ] {
        let (code, answer) = ask(address, method, path, body).await?;
        println!("{method} {path}: {code}");
        if path.ends_with("metrics") {
            let names =
                ["requests_total", "request_duration_seconds", "active_connections", "queue_depth"];
            let counted = |name: &&str| answer.lines().any(|line| line.starts_with(*name));
            let counted: Vec<_> = names.into_iter().filter(counted).collect();
            println!("Metrics Collection: {}", counted.join(", "));
        }
    }
    server.abort();
    Ok(())
}

async fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
) -> Outcome<(String, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let code = answer.split(' ').nth(1).unwrap_or_default().to_owned();
    Ok((code, answer))
}
