//! Draining: ready goes red first, listeners close later.

use std::time::Duration;

use resonant_health::{HealthConfig, Probe, Status};
use tokio::time::{Instant, sleep};

use crate::support::{Dependency, checker, steady};

#[tokio::test(start_paused = true)]
async fn ready_is_red_at_once_and_live_stays_green() {
    let health = checker(steady()).check("db", Dependency::well().probe());
    health.run_all().await;
    assert!(health.snapshot().is_up());
    let begun = Instant::now();
    health.begin_drain();
    let snapshot = health.snapshot();
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(snapshot.probe(Probe::Ready), Status::Fail);
    assert_eq!(snapshot.code(), Some("health.draining"));
    assert_eq!(snapshot.probe(Probe::Live), Status::Pass);
    assert_eq!(snapshot.probe(Probe::Startup), Status::Pass);
    // For good: no check brings it back.
    health.begin_drain();
    let report = health.run_all().await;
    assert!(report.is_draining() && !report.is_up());
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_closes_after_drain_was_red_for_the_whole_delay() {
    let health = checker(HealthConfig { drain_delay: Duration::from_secs(7), ..steady() })
        .check("db", Dependency::well().probe());
    health.run_all().await;
    let watched = health.clone();
    let balancer = tokio::spawn(async move {
        // Asks every 100 ms, as a balancer does, until ready is red.
        while watched.snapshot().is_up() {
            sleep(Duration::from_millis(100)).await;
        }
        Instant::now()
    });
    sleep(Duration::from_secs(3)).await;
    let told = Instant::now();
    health.drain().await;
    let closes = Instant::now();
    let noticed = balancer.await.expect("the balancer ends");
    assert!(noticed - told <= Duration::from_millis(101));
    assert!(closes - told >= Duration::from_secs(7));
    assert!(closes - noticed >= Duration::from_millis(6899), "{:?}", closes - noticed);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_drain_has_begun_all_the_same() {
    let health = checker(steady()).check("db", Dependency::well().probe());
    health.run_all().await;
    tokio::select! {
        biased;
        () = health.drain() => unreachable!("it waits"),
        () = tokio::task::yield_now() => {}
    }
    assert!(health.snapshot().is_draining());
}
