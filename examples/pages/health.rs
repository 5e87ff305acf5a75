//! HealthChecker: checks run in the background; a probe is answered from what is known, at once.
//!
//! `cargo run --example health`

use std::error::Error;
use std::time::Duration;

use resonant_cache::DistributedCache;
use resonant_db::Database;
use resonant_health::{Check, HealthChecker, HealthConfig, Probe, Watchdog};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let db = Database::connect("sqlite::memory:").await?;
    let cache = DistributedCache::memory(1 << 20);
    let (heartbeat, watchdog) = Watchdog::heartbeat("worker-loop", Duration::from_secs(30));

    let health = HealthChecker::with_config(HealthConfig {
        drain_delay: Duration::from_millis(100),
        ..HealthConfig::default()
    })?
    .check("database", {
        let db = db.clone();
        move || db.ping()
    })
    // A slow cache makes the service slower, not wrong.
    .with(Check::new("cache", move || cache.ping()).degrading().timeout(Duration::from_millis(200)))
    .findings("pools", move || db.findings())
    .live(watchdog);

    let report = health.run_all().await;
    println!("{}", serde_json::to_string_pretty(&report)?);
    assert!(report.is_up());

    // In a service: health.start()?, and health.router() (feature `axum`) for the orchestrator's probes.
    health.start()?;
    heartbeat.beat();
    assert!(health.snapshot().probe(Probe::Live).is_up());

    // Before a stop: not ready at once, still alive, so that the load balancer moves on first.
    health.drain().await;
    assert!(!health.snapshot().probe(Probe::Ready).is_up());
    assert!(health.snapshot().probe(Probe::Live).is_up());
    health.stop().await;
    Ok(())
}
