//! The page and what it shows, without a browser.

use axum::http::StatusCode;
use resonant_common::join::{Node, Severity, Topology};
use resonant_sdk::http::rows;
use tokio::sync::watch;

use super::{Service, TOKEN, request};

const OVERVIEW: &str = "/api/v1/overview";

fn full() -> Service {
    let node = |name: &str| Node { name: name.into(), url: format!("postgresql://{name}") };
    let topology = Topology {
        epoch: 7,
        primary: Some("east".into()),
        nodes: vec![node("east"), node("west")],
    };
    let (_, topology) = watch::channel(topology);
    Service::with(|builder| {
        builder
            .service("flights")
            .topology(topology)
            .show(async || {
                let tasks = rows::Queue {
                    name: "tasks".into(),
                    depth: Some(12),
                    oldest_seconds: Some(3.5),
                    ..Default::default()
                };
                Ok::<_, std::io::Error>(vec![tasks])
            })
            .show(async || Err::<Vec<rows::Pool>, _>(std::io::Error::other("password=hunter2")))
            .show(async || -> Result<Vec<rows::Batch>, std::io::Error> {
                panic!("password=hunter2")
            })
            .show(std::future::pending::<Result<Vec<rows::Node>, std::io::Error>>)
            .show(async || {
                let row = |number| rows::Shard {
                    name: format!("shard_{number}"),
                    state: if number == 999 { Severity::Fail } else { Severity::Warn },
                    ..Default::default()
                };
                Ok::<_, std::io::Error>((0..1000).map(row).collect::<Vec<_>>())
            })
    })
}

#[tokio::test(start_paused = true)]
async fn who_has_a_token_sees_everything() {
    let service = full();
    service.scaler.evaluate().await;
    let answer = service.get(OVERVIEW, Some(TOKEN)).await;
    let overview = answer.json();
    assert_eq!((&overview["authorized"], &overview["service"]), (&true.into(), &"flights".into()));
    let table = |id: &str| {
        let tables = overview["tables"].as_array().unwrap();
        tables.iter().find(|table| table["id"] == id).unwrap().clone()
    };
    assert_eq!(table("regions")["rows"][0]["epoch"], 7);
    assert_eq!(table("regions")["rows"][0]["role"], "primary");
    assert_eq!(table("queues")["rows"][0]["depth"], 12);
    assert_eq!(table("pools")["error"], "could not be read");
    assert_eq!(table("batches")["error"], "could not be read");
    assert_eq!(table("nodes")["error"], "did not answer in time");
    assert_eq!(
        (table("shards")["rows"].as_array().unwrap().len(), &table("shards")["count"]),
        (500, &1000.into())
    );
    // The worst come first where not all are shown, and all are counted.
    let shards = table("shards");
    assert_eq!(
        (&shards["rows"][0]["name"], &shards["rows"][1]["name"]),
        (&"shard_999".into(), &"shard_0".into())
    );
    assert_eq!(shards["states"], serde_json::json!({"fail": 1, "warn": 999, "ok": 0}));
    assert_eq!(overview["scaling"][0]["target"], "workers");
    assert!(overview["health"]["checks"]["database"].is_object(), "{overview}");
    assert!(!answer.text.contains("hunter2"));
}

#[tokio::test(start_paused = true)]
async fn who_has_none_sees_no_name_and_no_reason() {
    let service = full();
    service.scaler.evaluate().await;
    let answer = service.get(OVERVIEW, None).await;
    assert_eq!((answer.status, &answer.json()["authorized"]), (StatusCode::OK, &false.into()));
    for hidden in ["flights", "east", "tasks", "workers", "database", "shard_", "epoch", "rows"] {
        assert!(!answer.text.contains(hidden), "{hidden}: {}", answer.text);
    }
    assert_eq!(service.get(OVERVIEW, Some("not the secret of ada")).await.problem().0, 401);
}

#[tokio::test(start_paused = true)]
async fn tables_are_read_once_a_second_for_all() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    let reads = Arc::new(AtomicUsize::new(0));
    let service = Service::with(|builder| {
        let reads = Arc::clone(&reads);
        builder.show(move || {
            reads.fetch_add(1, Ordering::SeqCst);
            std::future::ready(Ok::<_, std::io::Error>(Vec::<rows::Queue>::new()))
        })
    });
    let look = || service.get(OVERVIEW, Some(TOKEN));
    futures::future::join_all((0..50).map(|_| look())).await;
    assert_eq!(reads.load(Ordering::SeqCst), 1);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    look().await;
    assert_eq!(reads.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn the_page_is_one_file_that_runs_only_itself() {
    let service = full();
    let page = service.get("/", None).await;
    assert_eq!(
        (page.status, page.header("content-type")),
        (StatusCode::OK, "text/html; charset=utf-8")
    );
    let policy = page.header("content-security-policy");
    for rule in [
        "default-src 'none'",
        "script-src 'sha256-",
        "style-src 'sha256-",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "form-action 'none'",
        "base-uri 'none'",
    ] {
        assert!(policy.contains(rule), "{rule}: {policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains('*'));
    assert_eq!(page.header("referrer-policy"), "no-referrer");
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    assert!(!page.text.contains(TOKEN) && page.text.len() < 40_000);
    assert_eq!(service.ask(request("POST", "/", None, &[], "")).await.problem().0, 405);
}

#[tokio::test(start_paused = true)]
async fn health_and_metrics_are_served_beside_it() {
    let service = full();
    for prefix in ["", "/api/v1"] {
        for path in [
            "/health",
            "/health/live",
            "/health/ready",
            "/health/startup",
            "/health/checks/database",
        ] {
            let answer = service.get(&format!("{prefix}{path}"), None).await;
            assert!([200, 503].contains(&answer.status.as_u16()), "{prefix}{path}");
            assert_eq!(answer.header("content-type"), "application/health+json");
        }
    }
    let metrics = service.get("/api/v1/metrics", None).await;
    assert_eq!(
        (metrics.header("content-type"), metrics.text.as_str()),
        ("text/plain; version=0.0.4; charset=utf-8", "queue_depth 7\n")
    );
    let private = Service::with(|builder| builder.private_metrics());
    assert_eq!(private.get("/api/v1/metrics", None).await.problem(), (401, "unauthorized".into()));
    assert_eq!(private.get("/api/v1/metrics", Some(TOKEN)).await.status, StatusCode::OK);
    let bare = resonant_sdk::http::Api::builder().token("ada", TOKEN).build().unwrap().router();
    let answer = super::ask(&bare, request("GET", "/api/v1/metrics", None, &[], "")).await;
    assert_eq!(answer.problem(), (404, "no-metrics".into()));
    let answer = super::ask(&bare, request("GET", super::STATUS, Some(TOKEN), &[], "")).await;
    assert_eq!(answer.json()["targets"], serde_json::json!([]));
    let answer =
        super::ask(&bare, request("POST", super::SCALE, Some(TOKEN), &[], r#"{"replicas": 1}"#))
            .await;
    assert_eq!(answer.problem(), (404, "no-target".into()));
}

#[tokio::test(start_paused = true)]
async fn head_answers_the_length_of_what_get_answers() {
    let service = full();
    for path in ["/", "/api/v1/openapi.json", "/api/v1/metrics"] {
        let get = service.get(path, None).await;
        let head = service.ask(request("HEAD", path, None, &[], "")).await;
        assert_eq!((head.status, head.text.as_str()), (StatusCode::OK, ""), "{path}");
        assert_eq!(head.header("content-length"), get.text.len().to_string(), "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn under_a_prefix_it_is_the_same_service() {
    let app = axum::Router::new().nest("/ops", full().app);
    for path in ["/ops", "/ops/api/v1/overview", "/ops/health/live", "/ops/api/v1/metrics"] {
        let answer = super::ask(&app, request("GET", path, None, &[], "")).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
    }
}
