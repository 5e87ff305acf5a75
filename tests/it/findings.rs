//! What the primitives say of themselves, as checks: nobody has to write them, and no primitive knows the health crate.

use std::time::Duration;

use resonant_batch::BatchProcessor;
use resonant_cache::DistributedCache;
use resonant_db::pool::testing::Scripted;
use resonant_db::{ConnectionPool, Database, PoolConfig};
use resonant_health::{Check, HealthChecker, Report, Status};
use resonant_queue::{Memory, PartitionedQueue, QueueConfig};

use crate::telemetry::repository;

#[tokio::test]
async fn primitives_bring_their_own_checks() {
    let pool = PoolConfig::default().min_size(0).max_size(1);
    let pool = ConnectionPool::new("main", Scripted::new(), pool).unwrap();
    let db = Database::connect("sqlite::memory:").await.unwrap();
    let cache = DistributedCache::memory(1 << 20);
    let config = QueueConfig { max_age: Duration::from_millis(1), ..QueueConfig::new("tasks") };
    let queue = PartitionedQueue::<u64>::from_config(config).backend(Memory::new());
    let queue = queue.build().await.unwrap();
    let batch = BatchProcessor::builder(async |items: Vec<u64>| {
        std::future::pending::<()>().await;
        Ok::<_, std::io::Error>(items)
    });
    let batch = batch.max_batch_size(1).max_queued(1).max_in_flight(1).build().unwrap();
    let health = HealthChecker::new()
        .findings("pool", {
            let pool = pool.clone();
            move || pool.findings()
        })
        .findings("database", move || db.findings())
        .findings("cache", move || cache.findings())
        .with(
            Check::findings("queue", {
                let queue = queue.clone();
                move || queue.findings()
            })
            .degrading(),
        )
        .findings("batch", {
            let batch = batch.clone();
            move || batch.findings()
        });
    let code = |report: &Report, name: &str| {
        let row = report.get(name).unwrap();
        (row.status(), row.code().unwrap_or_default().to_owned())
    };
    let report = health.run_all().await;
    assert_eq!(report.status(), Status::Pass, "{report:?}");

    // Saturation and the age of the oldest message: no ping would notice.
    let held = pool.get().await.unwrap();
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { pool.get().await.map(drop) }
    });
    queue.publish(&7).await.unwrap();
    let (running, queued) = (
        batch.try_submit(1).unwrap(),
        loop {
            tokio::task::yield_now().await;
            if let Ok(queued) = batch.try_submit(2) {
                break queued;
            }
        },
    );
    while pool.status().waiting == 0
        || queue.depth().await.unwrap().oldest_age < Some(Duration::from_millis(2))
    {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let report = health.run_all().await;
    assert_eq!(code(&report, "pool"), (Status::Warn, "db.pool.saturated".to_owned()));
    assert_eq!(code(&report, "queue"), (Status::Warn, "queue.old".to_owned()));
    assert_eq!(code(&report, "batch"), (Status::Warn, "batch.saturated".to_owned()));
    assert!(report.is_up(), "the service goes on with less");
    drop((held, running, queued));
    waiting.await.unwrap().unwrap();
    batch.close();
    let report = health.run_all().await;
    assert_eq!(code(&report, "batch"), (Status::Fail, "batch.closed".to_owned()));
}

#[test]
fn no_primitive_depends_on_the_health_crate() {
    for name in ["batch", "cache", "common", "db", "queue"] {
        let path = repository().join(format!("resonant-{name}/Cargo.toml"));
        let manifest = std::fs::read_to_string(&path).unwrap();
        assert!(!manifest.contains("resonant-health"), "{}", path.display());
    }
}
