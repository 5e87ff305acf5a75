//! The closures and handles compile and work where users put them.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::routing::get;
use http::{Request, StatusCode};
use resonant_health::{Check, HealthChecker, Report};
use tower::ServiceExt as _;

use crate::support::{Dependency, checker, steady};

#[derive(Clone)]
struct App {
    health: HealthChecker,
    db: Arc<Dependency>,
}

async fn ask(app: &Router, path: &str) -> (StatusCode, String, String) {
    let request = Request::get(path).body(Body::empty()).expect("a request");
    let response = app.clone().oneshot(request).await.expect("infallible");
    let (head, body) = response.into_parts();
    let kind = head.headers.get("content-type").and_then(|kind| kind.to_str().ok());
    let bytes = to_bytes(body, 1 << 20).await.expect("a body");
    let text = String::from_utf8(bytes.to_vec()).expect("text");
    (head.status, kind.unwrap_or_default().to_owned(), text)
}

/// The guide's own shape.
async fn health_endpoint(State(app): State<App>) -> Report {
    app.health.run_all().await
}

async fn adds_a_check(State(app): State<App>) -> StatusCode {
    let db = Arc::clone(&app.db);
    let health = HealthChecker::new().check("db", move || db.ping());
    health.run_all().await.status().http_status()
}

#[tokio::test(start_paused = true)]
async fn in_axum_handlers_with_captured_state() {
    let db = Dependency::well();
    let health = checker(steady())
        .check("database", {
            let db = db.clone();
            move || db.ping()
        })
        .with(
            Check::new("cache", {
                let db = db.clone();
                move || db.ping()
            })
            .degrading(),
        );
    let app = App { health: health.clone(), db: Arc::new(db.clone()) };
    let app: Router = Router::new()
        .route("/health", get(health_endpoint))
        .route("/adds", get(adds_a_check))
        .nest("/api/v1", health.router())
        .with_state(app);

    let (status, kind, body) = ask(&app, "/health").await;
    assert_eq!((status, kind.as_str()), (StatusCode::OK, "application/json"));
    assert!(body.contains("\"database\""));
    assert_eq!(ask(&app, "/adds").await.0, StatusCode::OK);
    for path in
        ["/health", "/health/live", "/health/ready", "/health/startup", "/health/checks/database"]
    {
        let (status, kind, _) = ask(&app, &format!("/api/v1{path}")).await;
        assert_eq!((status, kind.as_str()), (StatusCode::OK, "application/health+json"), "{path}");
    }
    assert_eq!(ask(&app, "/api/v1/health/checks/none").await.0, StatusCode::NOT_FOUND);

    db.breaks();
    assert_eq!(ask(&app, "/health").await.0, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(start_paused = true)]
async fn in_spawned_tasks_with_captured_state() {
    let db = Arc::new(Dependency::well());
    let task = tokio::spawn(async move {
        let health = HealthChecker::new()
            .check("database", {
                let db = Arc::clone(&db);
                move || db.ping()
            })
            .check("queue", move || {
                let db = Arc::clone(&db);
                async move {
                    db.ping().await?;
                    db.ping().await
                }
            });
        health.start()?;
        let report = health.run_all().await;
        health.stop().await;
        Ok::<_, resonant_health::Error>(report)
    });
    let report = task.await.expect("no panic").expect("it starts");
    assert!(report.is_up());
}

#[tokio::test(start_paused = true)]
async fn head_requests_through_axum_have_no_body() {
    let health = checker(steady()).check("db", Dependency::well().probe());
    health.run_all().await;
    let app: Router = health.router();
    let request = Request::head("/health").body(Body::empty()).expect("a request");
    let response = app.oneshot(request).await.expect("infallible");
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.headers().contains_key("content-length"));
    assert!(to_bytes(response.into_body(), 1024).await.expect("a body").is_empty());
}

#[test]
fn handles_can_cross_threads() {
    fn is_send_and_sync<T: Send + Sync + 'static>(_: &T) {}
    let health = HealthChecker::new();
    is_send_and_sync(&health);
    is_send_and_sync(&health.snapshot());
}
