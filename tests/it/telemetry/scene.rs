//! A service with every primitive, first in good order and then in trouble, observed through the shipped recorder.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::routing::get;
use axum::{Router, middleware};
use resonant_batch::BatchProcessor;
use resonant_cache::DistributedCache;
use resonant_db::pool::testing::{Answer, Scripted};
use resonant_db::replica_set::{Observation, ReplicaSet, Role};
use resonant_db::{
    ConnectionPool, Database, KeyType, PoolConfig, ShardFunction, ShardedDatabase, params,
};
use resonant_ha::backend::ServiceRegion;
use resonant_ha::voter::{MemoryVoter, Quorum};
use resonant_ha::{EventKind, FailoverConfig, FailoverManager};
use resonant_health::{Check, HealthChecker, HealthConfig, Watchdog};
use resonant_queue::{
    Delivery, HandlerError, Memory, PartitionedQueue, RetryConfig, SequenceCheck,
};
use resonant_scale::testing::{FakeMetric, FakeTarget};
use resonant_scale::{Autoscaler, guide};
use resonant_sdk::telemetry::prometheus::Prometheus;
use resonant_sdk::telemetry::{Requests, count_requests};
use tower::ServiceExt;

/// What a scrape would have read.
pub(crate) struct Scene {
    /// All is well.
    pub(crate) calm: String,
    /// Trouble began, …
    pub(crate) troubled: String,
    /// … and as much of it again later.
    pub(crate) later: String,
}

/// Time for what goes on in the background.
const MOMENT: Duration = Duration::from_millis(300);

impl Scene {
    /// Plays it, in some seconds. Call it on a runtime of one thread, which is where the recorder is installed.
    pub(crate) async fn play() -> Self {
        let (recorder, metrics) = Prometheus::builder().build().unwrap();
        let _installed = metrics::set_default_local_recorder(&recorder);
        let stage = Stage::set().await;
        stage.work().await;
        fail_over().await;
        lag_behind().await;
        let calm = metrics.render();
        stage.trouble().await;
        let troubled = metrics.render();
        stage.trouble().await;
        Self { calm, troubled, later: metrics.render() }
    }
}

/// Regions without data: the first is lost and the second takes over; it is lost too, and there is nowhere to go.
async fn fail_over() {
    let listen = async || tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (lost, heir) = (listen().await, listen().await);
    let address = |it: &tokio::net::TcpListener| it.local_addr().unwrap().to_string();
    let failover = FailoverManager::builder()
        .name("regions")
        .primary_region("east")
        .secondary_regions(["west"])
        .config(FailoverConfig::fast())
        .allow_promotion(true)
        .lease_store(Quorum::of(MemoryVoter::new()))
        .region("east", ServiceRegion::tcp("http://east.internal", address(&lost)))
        .region("west", ServiceRegion::tcp("http://west.internal", address(&heir)))
        .build()
        .unwrap();
    failover.start().await.unwrap();
    let mut topologies = failover.subscribe();
    topologies.wait_for(|topology| topology.epoch > 0).await.unwrap();
    let before = topologies.borrow().epoch;
    drop(lost);
    topologies.wait_for(|topology| topology.epoch > before).await.unwrap();
    drop(heir);
    let refused = || {
        let history = failover.history();
        history.iter().any(|event| matches!(event.kind, EventKind::Refused { .. }))
    };
    while !refused() {
        tokio::time::sleep(MOMENT).await;
    }
    failover.close().await;
}

/// A replica that says how far it is behind.
async fn lag_behind() {
    let nodes = ReplicaSet::builder()
        .primary("one", Role::Primary)
        .replica("other", Role::Replica)
        .probe(|role: Role| async move {
            let behind = (role == Role::Replica).then_some(Duration::from_millis(5));
            Ok::<_, std::io::Error>(Observation::alive().role(role).lag(behind))
        })
        .build()
        .unwrap();
    nodes.ready().await;
}

struct Stage {
    pool: ConnectionPool<Scripted>,
    db: Database,
    queue: PartitionedQueue<u64>,
    deep: PartitionedQueue<u64>,
    batch: BatchProcessor<u64, u64>,
    cache: DistributedCache,
    health: HealthChecker,
    flag: resonant_health::Flag,
    app: Router,
    scaler: Autoscaler,
    load: FakeMetric,
    workers: FakeTarget,
    /// One that will want more than it may have, one that will be told nothing, one whose target will be gone.
    others: [(Autoscaler, FakeMetric, FakeTarget); 3],
}

impl Stage {
    async fn set() -> Self {
        let config = PoolConfig::default().min_size(0).max_size(1);
        let pool = ConnectionPool::new("main", Scripted::new(), config).unwrap();
        let db = Database::connect("sqlite::memory:").await.unwrap();
        let retry = RetryConfig { max_attempts: 1, ..RetryConfig::default() };
        let builder = PartitionedQueue::<u64>::builder("tasks").partitions(2).retry(retry);
        let builder = builder.key(|number: &u64| number.to_string()).backend(Memory::new());
        let queue = builder.build().await.unwrap();
        let builder = PartitionedQueue::<u64>::builder("deep").partitions(2);
        let builder = builder.key(|number: &u64| number.to_string()).backend(Memory::new());
        let deep = builder.build().await.unwrap();
        let batch = BatchProcessor::builder(async |items: Vec<u64>| {
            tokio::time::sleep(Duration::from_millis(10)).await;
            if items[0] == u64::MAX { Err("down") } else { Ok(items) }
        });
        let batch =
            batch.name("orders").max_batch_size(4).max_queued(4).max_in_flight(1).build().unwrap();
        let cache = DistributedCache::memory(1 << 20);
        let (flag, watchdog) = Watchdog::flag("writer");
        let settings = HealthConfig { dwell: Duration::ZERO, ..HealthConfig::default() };
        let health = HealthChecker::with_config(settings)
            .unwrap()
            .live(watchdog)
            .with(
                Check::new("database", {
                    let pool = pool.clone();
                    move || {
                        let pool = pool.clone();
                        async move { pool.get_timeout(Duration::from_millis(50)).await.map(drop) }
                    }
                })
                .fall(1),
            )
            .with(
                Check::findings("batch", {
                    let batch = batch.clone();
                    move || batch.findings()
                })
                .fall(1),
            );
        let app = Router::new()
            .route("/users/{id}", get(async || "Ada"))
            .route("/broken/{id}", get(async || StatusCode::SERVICE_UNAVAILABLE))
            .layer(middleware::from_fn_with_state(Requests::new(), count_requests));
        let (load, workers) = (FakeMetric::new(40.0), FakeTarget::new(2));
        let scaler = Autoscaler::builder("session-workers")
            .policy(guide::workers())
            .source("queue_depth", load.clone())
            .target(workers.clone())
            .build()
            .unwrap();
        let others = ["full", "blind", "gone"].map(|name| {
            let (load, target) = (FakeMetric::new(500.0), FakeTarget::new(50));
            let builder = Autoscaler::builder(name).policy(guide::workers());
            let builder = builder.source("queue_depth", load.clone()).target(target.clone());
            (builder.build().unwrap(), load, target)
        });
        Self {
            pool,
            db,
            queue,
            deep,
            batch,
            cache,
            health,
            flag,
            app,
            scaler,
            load,
            workers,
            others,
        }
    }

    /// What a service does on a good day.
    async fn work(&self) {
        drop(self.pool.get().await.unwrap());
        let one: Vec<i64> = self.db.read().query_as("SELECT 1", params![]).await.unwrap();
        assert_eq!(one, [1]);
        let shards = ShardedDatabase::builder()
            .shard("shard_0", "sqlite::memory:")
            .shard_key("org_id")
            .shard_function(ShardFunction::HashMod)
            .table("agents", "org_id", KeyType::Text)
            .connect()
            .await
            .unwrap();
        shards.on_all("CREATE TABLE agents (org_id TEXT NOT NULL)").await.unwrap();
        shards.query("SELECT * FROM agents WHERE org_id = $1", params!["a"]).await.unwrap();
        self.queue.publish_many([1, 2, 3]).await.unwrap();
        let check = SequenceCheck::new("tasks");
        let handler = async move |delivery: Delivery<u64>| {
            check.observe(&delivery);
            Ok(())
        };
        self.queue.worker(handler).start().await.unwrap().drain().await.unwrap();
        assert_eq!(self.batch.submit(7).await.unwrap(), 7);
        let users = self.cache.namespace::<u64>("user");
        for _ in 0..2 {
            users.get_or_load("7", async move || Ok::<_, std::io::Error>(7)).await.unwrap();
        }
        self.health.run_all().await;
        assert!(self.scaler.evaluate().await.changes());
        for (other, ..) in &self.others {
            assert!(!other.evaluate().await.changes());
        }
        self.ask("/users/7", 100).await;
        tokio::time::sleep(MOMENT).await;
        self.health.run_all().await;
    }

    /// Everything the alerts are there for.
    async fn trouble(&self) {
        // Somebody waits long for the only connection.
        let held = self.pool.get().await.unwrap();
        let release = async {
            tokio::time::sleep(MOMENT).await;
            drop(held);
        };
        let (held, ()) = tokio::join!(self.pool.get(), release);
        let held = held.unwrap();
        // Nobody gets one, and opening another is not allowed.
        self.pool.manager().on_connect(Answer::Hang);
        for _ in 0..5 {
            self.pool.get_timeout(Duration::from_millis(300)).await.map(drop).unwrap_err();
        }
        self.deep.publish_many(0..700).await.unwrap();
        self.deep.depth().await.unwrap();
        self.queue.publish_many([10, 11]).await.unwrap();
        let handler = async move |delivery: Delivery<u64>| match delivery.message() {
            10 => Err(HandlerError::reject("no")),
            _ => Err(HandlerError::retry("no")),
        };
        let worker = self.queue.worker(handler).start().await.unwrap();
        tokio::time::sleep(MOMENT).await;
        worker.drain().await.unwrap();
        self.queue.depth().await.unwrap();
        for _ in 0..5 {
            // More than the queue holds while a batch runs; and every batch fails.
            let taken: Vec<_> = (0..20).map(|_| self.batch.try_submit(u64::MAX)).collect();
            for submitted in taken.into_iter().flatten() {
                submitted.await.unwrap_err();
            }
        }
        // More work than workers are allowed for, and then nobody knows how much.
        self.load.set(10_000.0);
        self.scaler.evaluate().await;
        self.load.set(None);
        self.workers.fail_to_set(true);
        self.scaler.evaluate().await;
        self.load.set(0.0);
        self.scaler.evaluate().await;
        let [(full, high, _), (blind, none, _), (gone, _, target)] = &self.others;
        high.set(10_000.0);
        none.set(None);
        target.fail_to_read(true);
        for other in [full, blind, gone] {
            other.evaluate().await;
        }
        self.flag.raise("scene.writer.gone");
        let report = self.health.run_all().await;
        assert!(!report.is_up());
        self.ask("/broken/7", 50).await;
        self.ask("/users/7", 50).await;
        tokio::time::sleep(MOMENT).await;
        self.health.run_all().await;
        // The gauges are to show the pool in use.
        tokio::time::sleep(Duration::from_millis(1)).await;
        std::mem::forget(held);
        self.pool.resize(0, 2).unwrap();
        self.pool.manager().on_connect(Answer::Work);
    }

    async fn ask(&self, path: &str, times: usize) {
        for _ in 0..times {
            let request = Request::builder().uri(path).body(Body::empty()).unwrap();
            self.app.clone().oneshot(request).await.unwrap();
        }
    }
}
