//! Probes answer from the snapshot, whatever the checks do.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Request, StatusCode};
use resonant_health::{Check, Endpoint, Probe, Status};
use tokio::time::{Instant, sleep};
use tower::ServiceExt as _;

use crate::support::{Dependency, checker, get, settle, steady};

const LIVE: Endpoint<'static> = Endpoint::Probe(Probe::Live);
const READY: Endpoint<'static> = Endpoint::Probe(Probe::Ready);
const STARTUP: Endpoint<'static> = Endpoint::Probe(Probe::Startup);

#[tokio::test(start_paused = true)]
async fn endpoints_answer_at_once_while_five_checks_hang_for_ever() {
    let hung = Dependency::hung();
    let mut health = checker(steady());
    for index in 0..5 {
        health = health.check(&format!("hung-{index}"), hung.probe());
    }
    health.start().expect("it starts");
    let app: Router = health.router();
    for _round in 0..100 {
        sleep(Duration::from_millis(731)).await;
        let begun = Instant::now();
        for path in ["/health", "/health/live", "/health/ready", "/health/startup"] {
            for _ in 0..5 {
                let request = Request::get(path).body(Body::empty()).expect("a request");
                let response = app.clone().oneshot(request).await.expect("infallible");
                let live = path == "/health/live";
                assert_eq!(response.status().is_success(), live, "{path}");
            }
        }
        // The clock moves only when every task waits, so an answer that waited for anything would show.
        assert_eq!(begun.elapsed(), Duration::ZERO);
        assert!(hung.alive() <= 5, "{} probes alive", hung.alive());
    }
    assert!(hung.runs() > 20 && hung.most_alive() <= 5);
}

#[tokio::test(start_paused = true)]
async fn reading_never_runs_a_check() {
    let db = Dependency::well();
    let health = checker(steady()).check("db", db.probe());
    for _ in 0..100 {
        health.answer(Endpoint::Report, &get("/health?verbose"));
        health.answer(READY, &get("/health/ready"));
        let _ = (health.snapshot(), health.subscribe(), format!("{health:?}"));
        settle().await;
    }
    assert_eq!(db.runs(), 0);
}

#[tokio::test(start_paused = true)]
async fn before_the_first_run_only_live_is_up() {
    let health = checker(steady()).check("db", Dependency::well().probe());
    let status = |endpoint| health.answer(endpoint, &get("/")).status();
    assert_eq!(status(LIVE), StatusCode::OK);
    assert_eq!(status(READY), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(status(STARTUP), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(status(Endpoint::Report), StatusCode::SERVICE_UNAVAILABLE);
    health.start().expect("it starts");
    settle().await;
    assert_eq!(status(READY), StatusCode::OK);
    assert_eq!(status(STARTUP), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn startup_opens_once_when_all_required_works_and_every_gate_is_open() {
    let (db, cache) = (Dependency::broken(), Dependency::broken());
    let health = checker(steady())
        .check("db", db.probe())
        .with(Check::new("cache", cache.probe()).degrading());
    let (migrations, warm_up) = (health.startup_gate(), health.startup_gate());
    let probes = || {
        let snapshot = health.snapshot();
        (snapshot.probe(Probe::Startup), snapshot.probe(Probe::Ready))
    };
    health.start().expect("it starts");
    sleep(Duration::from_secs(5)).await;
    assert_eq!(probes(), (Status::Fail, Status::Fail));
    migrations.open();
    warm_up.open();
    assert_eq!(probes(), (Status::Fail, Status::Fail), "the database has never worked");
    db.heals();
    sleep(Duration::from_secs(20)).await;
    assert_eq!(probes(), (Status::Pass, Status::Warn), "the cache only degrades");
    // It never closes again.
    db.breaks();
    sleep(Duration::from_secs(20)).await;
    assert_eq!(probes(), (Status::Pass, Status::Fail));
    let _late = health.startup_gate();
    db.heals();
    sleep(Duration::from_secs(20)).await;
    assert_eq!(probes(), (Status::Pass, Status::Warn));
}

#[tokio::test(start_paused = true)]
async fn a_gate_holds_startup_and_one_dropped_unopened_holds_it_for_good() {
    let health = checker(steady()).check("db", Dependency::well().probe());
    let gate = health.startup_gate();
    health.start().expect("it starts");
    sleep(Duration::from_secs(5)).await;
    assert_eq!(health.snapshot().code(), Some("health.starting"));
    gate.open();
    assert!(health.snapshot().is_up());

    let health = checker(steady()).check("db", Dependency::well().probe());
    drop(health.startup_gate());
    health.run_all().await;
    assert_eq!(health.snapshot().code(), Some("health.starting"));
}

#[tokio::test(start_paused = true)]
async fn excluded_checks_do_not_count_in_that_answer() {
    let health = checker(steady())
        .check("db", Dependency::well().probe())
        .check("cache", Dependency::well().probe());
    health.run_all().await;
    let broken = Dependency::broken();
    let health = health.with(Check::new("search", broken.probe()).fall(1));
    health.run_all().await;
    let ask = |uri: &str| health.answer(READY, &get(uri));
    assert_eq!(ask("/health/ready").status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ask("/health/ready?exclude=search").status(), StatusCode::OK);
    assert_eq!(ask("/health/ready?exclude=db&exclude=search,cache").status(), StatusCode::OK);
    assert_eq!(ask("/health/ready?exclude=nothing").status(), StatusCode::SERVICE_UNAVAILABLE);
    health.begin_drain();
    assert_eq!(ask("/health/ready?exclude=search").status(), StatusCode::SERVICE_UNAVAILABLE);
}
