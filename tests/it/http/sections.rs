//! Every section of the page, fed from the primitives themselves: what is shown is what they say, and changes with them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use resonant_batch::BatchProcessor;
use resonant_cache::DistributedCache;
use resonant_db::pool::testing::Scripted;
use resonant_db::replica_set::{Observation, ReplicaSet, Role};
use resonant_db::{
    ConnectionPool, Database, KeyType, PoolConfig, ShardFunction, ShardedDatabase, params,
};
use resonant_ha::backend::ServiceRegion;
use resonant_ha::voter::{MemoryVoter, Quorum};
use resonant_ha::{FailoverConfig, FailoverManager};
use resonant_health::{Check, HealthChecker};
use resonant_queue::{Delivery, Memory, PartitionedQueue, Worker};
use resonant_scale::{Autoscaler, HpaConfig, MetricSpec, WorkerPool};
use resonant_sdk::http::{Api, rows};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::{TOKEN, ask, generous, request};

const MOMENT: Duration = Duration::from_millis(10);

/// One of each, as a service holds them.
struct Stage {
    api: Api,
    failover: FailoverManager,
    /// East and west.
    regions: Vec<TcpListener>,
    pool: ConnectionPool<Scripted>,
    batch: BatchProcessor<u64, u64>,
    queue: PartitionedQueue<u64>,
    cache: DistributedCache,
    /// A permit lets a handler of the queue finish.
    gate: Arc<Semaphore>,
    workers: WorkerPool<Worker>,
    scaler: Autoscaler,
    health: HealthChecker,
}

impl Stage {
    async fn set() -> Self {
        let listen = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
        let regions = vec![listen().await, listen().await];
        let failover = failover(&regions).await;
        let pool = {
            let config = PoolConfig::default().min_size(0).max_size(1);
            ConnectionPool::new("main", Scripted::new(), config).unwrap()
        };
        let db = Database::connect("sqlite::memory:").await.unwrap();
        let one: Vec<i64> = db.read().query_as("SELECT 1", params![]).await.unwrap();
        assert_eq!(one, [1]);
        let nodes = nodes().await;
        let shards = shards().await;
        let cache = DistributedCache::memory(1 << 20);
        let batch = BatchProcessor::builder(async |items: Vec<u64>| Ok::<_, io::Error>(items))
            .name("orders")
            .build()
            .unwrap();
        let queue = PartitionedQueue::<u64>::builder("tasks")
            .partitions(4)
            .key(|number: &u64| number.to_string())
            .backend(Memory::new())
            .build()
            .await
            .unwrap();
        let gate = Arc::new(Semaphore::new(0));
        let (workers, scaler) = workers(&queue, &gate);
        let health = HealthChecker::new().with(
            Check::findings("batch", {
                let batch = batch.clone();
                move || batch.findings()
            })
            .fall(1),
        );
        let api = api(&failover, &pool, &db, &nodes, &shards, &cache, &batch, &queue)
            .scaler(scaler.clone())
            .health(health.clone())
            .build()
            .unwrap();
        Self { api, failover, regions, pool, batch, queue, cache, gate, workers, scaler, health }
    }

    /// The page's answer; asked after a table's answer is no longer told again.
    async fn overview(&self) -> Overview {
        sleep(Duration::from_millis(1100)).await;
        let app = self.api.router();
        let answer = ask(&app, request("GET", "/api/v1/overview", Some(TOKEN), &[], "")).await;
        Overview(answer.json())
    }
}

/// The closures a service gives: plain values of what the primitives say.
#[allow(clippy::too_many_arguments)]
fn api(
    failover: &FailoverManager,
    pool: &ConnectionPool<Scripted>,
    db: &Database,
    nodes: &ReplicaSet<Role>,
    shards: &ShardedDatabase,
    cache: &DistributedCache,
    batch: &BatchProcessor<u64, u64>,
    queue: &PartitionedQueue<u64>,
) -> resonant_sdk::http::ApiBuilder {
    fn told<T>(rows: Vec<T>) -> std::future::Ready<io::Result<Vec<T>>> {
        std::future::ready(Ok(rows))
    }
    let (failover, pool, db, nodes) = (failover.clone(), pool.clone(), db.clone(), nodes.clone());
    let (shards, cache, batch, queue) =
        (shards.clone(), cache.clone(), batch.clone(), queue.clone());
    Api::builder()
        .config(generous())
        .token("ada", TOKEN)
        .show(move || told(rows::Region::of_manager(&failover.status())))
        .show({
            let db = db.clone();
            move || {
                let mut rows = rows::Node::of_database(&db.status());
                rows.extend(nodes.status().into_iter().map(|node| rows::Node {
                    name: node.name,
                    role: Some(node.role.as_str().into()),
                    lag_seconds: node.staleness.map(|lag| lag.as_secs_f64()),
                    ..Default::default()
                }));
                told(rows)
            }
        })
        .show(move || {
            let mut rows = rows::Pool::of_database(&db.status());
            rows.push(rows::Pool::of(pool.name(), &pool.status()));
            told(rows)
        })
        .show(move || told(rows::Shard::of_database(&shards)))
        .show(move || told(rows::CacheTier::of_cache("users", &cache)))
        .show(move || told(vec![rows::Batch::of("orders", &batch.stats(), &batch.findings())]))
        .show(move || {
            let queue = queue.clone();
            async move {
                let depth = queue.depth().await?;
                Ok::<_, resonant_queue::Error>(vec![rows::Queue::of(
                    queue.name(),
                    &depth,
                    &queue.findings(),
                )])
            }
        })
}

async fn failover(regions: &[TcpListener]) -> FailoverManager {
    let address = |it: &TcpListener| it.local_addr().unwrap().to_string();
    let failover = FailoverManager::builder()
        .name("regions")
        .primary_region("east")
        .secondary_regions(["west"])
        .config(FailoverConfig::fast())
        .allow_promotion(true)
        .lease_store(Quorum::of(MemoryVoter::new()))
        .region("east", ServiceRegion::tcp("http://east.internal", address(&regions[0])))
        .region("west", ServiceRegion::tcp("http://west.internal", address(&regions[1])))
        .build()
        .unwrap();
    failover.start().await.unwrap();
    failover.subscribe().wait_for(|topology| topology.epoch > 0).await.unwrap();
    failover
}

async fn nodes() -> ReplicaSet<Role> {
    let nodes = ReplicaSet::builder()
        .primary("one", Role::Primary)
        .replica("other", Role::Replica)
        .probe(|role: Role| async move {
            let behind = (role == Role::Replica).then_some(Duration::from_millis(5));
            Ok::<_, io::Error>(Observation::alive().role(role).lag(behind))
        })
        .build()
        .unwrap();
    nodes.ready().await;
    nodes
}

async fn shards() -> ShardedDatabase {
    ShardedDatabase::builder()
        .shard("shard_0", "sqlite::memory:")
        .shard("shard_1", "sqlite::memory:")
        .shard_key("org_id")
        .shard_function(ShardFunction::HashMod)
        .table("agents", "org_id", KeyType::Text)
        .connect()
        .await
        .unwrap()
}

/// A worker for ten messages, one at least and four at most.
fn workers(
    queue: &PartitionedQueue<u64>,
    gate: &Arc<Semaphore>,
) -> (WorkerPool<Worker>, Autoscaler) {
    let workers = WorkerPool::new(
        {
            let (queue, gate) = (queue.clone(), Arc::clone(gate));
            move || {
                let (queue, gate) = (queue.clone(), Arc::clone(&gate));
                async move {
                    let handler = async move |_: Delivery<u64>| {
                        gate.acquire().await?.forget();
                        Ok(())
                    };
                    queue.worker(handler).concurrency(2).start().await
                }
            }
        },
        |worker: Worker| worker.drain(),
    );
    let queue = queue.clone();
    let scaler = Autoscaler::builder("task-workers")
        .policy(HpaConfig::new(1, 4).metric(MetricSpec::external_average("queue_depth", 10.0)))
        .measure("queue_depth", move || {
            let queue = queue.clone();
            async move { queue.depth().await.map(|depth| depth.unfinished() as f64) }
        })
        .target(workers.clone())
        .build()
        .unwrap();
    (workers, scaler)
}

struct Overview(Value);

impl Overview {
    fn table(&self, id: &str) -> &Value {
        let tables = self.0["tables"].as_array().unwrap();
        tables.iter().find(|table| table["id"] == id).unwrap_or_else(|| panic!("no table {id}"))
    }

    fn row(&self, id: &str, name: &str) -> &Value {
        let rows = self.table(id)["rows"].as_array().unwrap();
        let row = rows.iter().find(|row| row["name"].as_str().is_some_and(|it| it.contains(name)));
        row.unwrap_or_else(|| panic!("no {name} in {rows:?}"))
    }
}

#[tokio::test]
async fn every_section_shows_what_its_primitive_says() {
    let mut stage = Stage::set().await;
    stage.queue.publish_many(0..30).await.unwrap();
    stage
        .cache
        .namespace::<u64>("user")
        .get_or_load("7", async || Ok::<_, io::Error>(7))
        .await
        .unwrap();
    let held = stage.pool.get().await.unwrap();
    let waiting = tokio::spawn({
        let pool = stage.pool.clone();
        async move { pool.get().await.map(drop) }
    });
    while stage.pool.status().waiting == 0 {
        sleep(MOMENT).await;
    }
    stage.health.run_all().await;
    stage.scaler.evaluate().await;
    stage.scaler.evaluate().await;

    let shown = stage.overview().await;
    let east = shown.row("regions", "east");
    assert_eq!((&east["role"], &east["state"]), (&"primary".into(), &"ok".into()));
    let epoch = east["epoch"].as_u64().unwrap();
    assert_eq!(epoch, stage.failover.status().epoch);
    assert_eq!(shown.row("regions", "west")["role"], "secondary");
    assert_eq!(shown.row("nodes", "one")["role"], "primary");
    assert_eq!(shown.row("nodes", "other")["role"], "replica");
    let lag = shown.row("nodes", "other")["lag_seconds"].as_f64();
    assert!(lag.is_some_and(|lag| lag >= 0.005), "{lag:?}");
    let count = |id: &str| shown.table(id)["count"].as_u64().unwrap();
    assert!(count("nodes") > 2 && count("pools") > 1, "the database's own, too");
    let main = shown.row("pools", "main");
    assert_eq!(
        (&main["in_use"], &main["max"], &main["waiting"], &main["state"]),
        (&1.into(), &1.into(), &1.into(), &"warn".into())
    );
    assert_eq!(shown.row("shards", "shard_1")["state"], "ok");
    assert_eq!(shown.row("caches", "in the process")["entries"], 1);
    assert!(shown.row("caches", "in the process")["bytes"].as_u64().is_some_and(|it| it > 0));
    assert_eq!(shown.row("caches", "the store")["state"], "ok");
    let orders = shown.row("batches", "orders");
    assert_eq!((&orders["queued"], &orders["state"]), (&0.into(), &"ok".into()));
    let tasks = shown.row("queues", "tasks");
    assert_eq!(tasks["depth"], 30);
    assert!(tasks["oldest_seconds"].as_f64().is_some_and(|age| age >= 1.0), "{tasks}");
    assert!(tasks["in_flight"].as_u64().is_some_and(|it| it > 0), "{tasks}");
    assert_eq!(shown.0["health"]["checks"]["batch"]["status"], "pass");
    let scaling = &shown.0["scaling"][0];
    assert_eq!(
        (&scaling["target"], &scaling["replicas"]["desired"]),
        (&"task-workers".into(), &3.into())
    );
    let reasons = ["a metric is above its target", "fewer than the minimum"];
    for (decision, reason) in scaling["decisions"].as_array().unwrap().iter().zip(reasons) {
        assert!(decision["text"].as_str().unwrap().contains(reason), "{decision}");
    }
    assert_eq!(scaling["history"].as_array().unwrap().len(), 2);
    assert_eq!(stage.workers.running(), 3);

    // And when they change, it does.
    drop(held);
    waiting.await.unwrap().unwrap();
    stage.gate.add_permits(30);
    while stage.queue.depth().await.unwrap().unfinished() > 0 {
        sleep(MOMENT).await;
    }
    stage.batch.close();
    stage.health.run_all().await;
    drop(stage.regions.remove(0));
    stage.failover.subscribe().wait_for(|topology| topology.epoch > epoch).await.unwrap();
    // That it is down is known when it is asked next, which nothing here hurries.
    let shown = loop {
        let shown = stage.overview().await;
        if shown.row("regions", "east")["state"] == "warn" {
            break shown;
        }
    };
    let west = shown.row("regions", "west");
    assert_eq!((&west["role"], &west["state"]), (&"primary".into(), &"ok".into()));
    assert!(west["epoch"].as_u64().is_some_and(|now| now > epoch));
    let main = shown.row("pools", "main");
    assert_eq!(
        (&main["in_use"], &main["waiting"], &main["state"]),
        (&0.into(), &0.into(), &"ok".into())
    );
    assert_eq!(shown.row("queues", "tasks")["depth"], 0);
    assert_eq!(shown.row("batches", "orders")["state"], "fail");
    assert_eq!(shown.0["health"]["checks"]["batch"]["status"], "fail");
    assert_eq!(shown.0["status"], "fail");
    stage.failover.close().await;
    stage.workers.close().await;
}
