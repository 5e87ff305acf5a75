//! What goes over the wire: codes, headers, forms. Every health+json body is validated by the published schema.

use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use resonant_health::{
    Check, Details, Endpoint, Finding, HealthChecker, Probe, Severity, Watchdog,
};
use serde_json::{Value, json};

use crate::support::{Dependency, checker, get, get_as, header, json, steady, validate};

const READY: Endpoint<'static> = Endpoint::Probe(Probe::Ready);
const HEALTH_JSON: &str = "application/health+json";

fn schema() -> Value {
    serde_json::from_str(include_str!("../../../docs/formats/health.schema.json"))
        .expect("a schema")
}

fn assert_valid(body: &Value) {
    let schema = schema();
    if let Err(error) = validate(&schema, &schema, body) {
        panic!("{error}\nin {body:#}");
    }
}

/// Checkers in every state there is.
async fn in_all_states() -> Vec<(&'static str, HealthChecker)> {
    let findings = || {
        vec![
            Finding::new("primary", Severity::Ok, "db.node.ok"),
            Finding::new("replica-1", Severity::Warn, "db.replica.lagging"),
            Finding::new("replica-1", Severity::Fail, "db.replica.ejected"),
            Finding::new("postgres://u:p@h/x", Severity::Ok, "db.node.ok"),
        ]
    };
    let base = || {
        let (_, watchdog) = Watchdog::heartbeat("loop", Duration::from_secs(3600));
        checker(steady()).live(watchdog).check("db", Dependency::well().probe())
    };
    let mut all = vec![("unknown", base()), ("none", checker(steady()))];
    let run = [
        ("pass", base()),
        ("warn", base().with(Check::new("cache", Dependency::broken().probe()).degrading())),
        ("fail", base().check("queue", Dependency::broken().probe())),
        ("timeout", base().check("queue", Dependency::hung().probe())),
        ("findings", base().with(Check::findings("pool", findings).degrading())),
        (
            "informational",
            base().with(Check::new("x", Dependency::broken().probe()).informational()),
        ),
    ];
    for (name, health) in run {
        health.run_all().await;
        // One more that has not run yet.
        all.push((name, health.with(Check::new("new", Dependency::well().probe()).degrading())));
    }
    let draining = base();
    draining.run_all().await;
    draining.begin_drain();
    all.push(("draining", draining));
    let (flag, watchdog) = Watchdog::flag("writer");
    let raised = base().live(watchdog);
    raised.run_all().await;
    flag.raise("app.writer.gone");
    all.push(("watchdog", raised));
    all
}

#[tokio::test(start_paused = true)]
async fn every_state_on_every_endpoint_is_valid_and_its_code_agrees() {
    for (name, health) in in_all_states().await {
        let endpoints = [
            Endpoint::Report,
            READY,
            Endpoint::Probe(Probe::Live),
            Endpoint::Probe(Probe::Startup),
            Endpoint::Check("db"),
            Endpoint::Check("pool"),
        ];
        for endpoint in endpoints {
            for uri in ["/", "/?verbose", "/?verbose&exclude=db"] {
                for details in [Details::Hidden, Details::Named, Details::ErrorTexts] {
                    let response = health.answer_with(endpoint, &get(uri), details);
                    if response.status() == StatusCode::NOT_FOUND {
                        continue;
                    }
                    assert_eq!(header(&response, "content-type"), HEALTH_JSON);
                    let body = json(&response);
                    assert_valid(&body);
                    // pass and warn are 2xx, fail is 5xx: the draft's own rule.
                    let up = body["status"] != "fail";
                    assert_eq!(response.status() == StatusCode::OK, up, "{name} {endpoint:?}");
                    let plain =
                        health.answer_with(endpoint, &get_as(uri, "application/json"), details);
                    assert_eq!(plain.status(), response.status());
                    let plain_state = json(&plain)["status"].clone();
                    assert!(
                        plain_state == body["status"]
                            || (plain_state == "unknown" && body["status"] == "fail"),
                    );
                    let text = health.answer_with(endpoint, &get_as(uri, "text/plain"), details);
                    assert_eq!(text.body().lines().count(), 1, "{:?}", text.body());
                    assert!(text.body().starts_with(plain_state.as_str().unwrap_or("?")));
                }
            }
        }
    }
}

#[test]
fn the_validator_and_the_schema_can_refuse() {
    let schema = schema();
    for bad in [
        json!({}),
        json!({"status": "ok"}),
        json!({"status": "fail"}),
        json!({"status": "pass", "output": "health.check.error"}),
        json!({"status": "pass", "extra": 1}),
        json!({"status": "pass", "checks": {"db": []}}),
        json!({"status": "pass", "checks": {"db": {"status": "pass"}}}),
        json!({"status": "pass", "checks": {"db": [{"status": "pass"}]}}),
        json!({"status": "pass", "checks": {"db": [{"status": "unknown", "componentType": "component"}]}}),
        json!({"status": "pass", "checks": {"db": [{"status": "fail", "componentType": "component"}]}}),
        json!({"status": "pass", "checks": {"db": [{"status": "pass", "componentType": "component", "observedValue": 1.0}]}}),
    ] {
        assert!(validate(&schema, &schema, &bad).is_err(), "{bad}");
    }
    assert_valid(&json!({"status": "pass"}));
}

#[tokio::test(start_paused = true)]
async fn probes_are_tiny_and_say_more_only_when_asked() {
    let health = checker(steady())
        .check("db", Dependency::well().probe())
        .with(Check::new("cache", Dependency::broken().probe()).degrading());
    health.run_all().await;
    let ready = health.answer(READY, &get("/health/ready"));
    assert_eq!(ready.body(), r#"{"status":"warn","output":"health.check.error"}"#);
    let live = health.answer(Endpoint::Probe(Probe::Live), &get("/health/live"));
    assert_eq!(live.body(), r#"{"status":"pass"}"#);
    let text = health.answer(READY, &get_as("/", "text/plain"));
    assert_eq!(text.body(), "warn (health.check.error)\n");
    let text = health.answer(READY, &get_as("/?verbose", "text/plain"));
    assert_eq!(
        text.body(),
        "warn (health.check.error): db=pass, cache=fail (health.check.error)\n"
    );
    let body = json(&health.answer(READY, &get("/health/ready?verbose")));
    assert_eq!(body["checks"]["db"][0]["status"], "pass");
    assert_eq!(body["checks"]["db"][0]["observedUnit"], "ms");
    assert!(body["checks"]["cache"][0]["time"].as_str().is_some_and(|time| time.ends_with('Z')));
}

#[tokio::test(start_paused = true)]
async fn the_report_in_plain_json() {
    let health = checker(steady())
        .check("db", Dependency::well().probe())
        .with(Check::new("cache", Dependency::broken().probe()).degrading());
    let report = health.run_all().await;
    let brief = json(&health.answer(Endpoint::Report, &get_as("/", "application/json")));
    assert_eq!(
        brief,
        json!({
            "status": "warn", "code": "health.check.error", "started": true, "draining": false,
            "checks": {
                "db": {"status": "pass", "kind": "dependency", "criticality": "required"},
                "cache": {"status": "fail", "code": "health.check.error", "kind": "dependency",
                          "criticality": "degrading"},
            }
        })
    );
    let mut full = serde_json::to_value(&report).expect("JSON");
    let db = full["checks"]["db"].take();
    assert_eq!(db["outcome"], "ok");
    assert!(db["duration_ms"].is_number() && db["time"].is_string());
    assert_eq!(db["history"][0]["to"], "pass");
    let response = report.to_response();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(header(&response, "content-type"), "application/json");
    // In the order they were added.
    let body = response.body();
    assert!(body.find("\"db\"") < body.find("\"cache\""));
}

#[tokio::test(start_paused = true)]
async fn findings_are_shown_by_part_and_only_under_fit_names() {
    let health = checker(steady()).findings("pool", || {
        vec![
            Finding::new("primary", Severity::Ok, "db.node.ok"),
            Finding::new("redis://u:p@h", Severity::Warn, "db.pool.saturated"),
        ]
    });
    health.run_all().await;
    let body = json(&health.answer(Endpoint::Report, &get("/?verbose")));
    assert_eq!(body["checks"]["pool:primary"][0]["status"], "pass");
    assert_eq!(body["checks"]["pool:part-2"][0]["output"], "db.pool.saturated");
    assert_eq!(body["checks"]["pool"][0]["status"], "warn");
}

#[tokio::test(start_paused = true)]
async fn accept_decides_the_form_and_never_the_state() {
    let health = checker(steady()).check("db", Dependency::well().probe());
    health.run_all().await;
    for (accept, form) in [
        ("*/*", HEALTH_JSON),
        ("application/*", HEALTH_JSON),
        (HEALTH_JSON, HEALTH_JSON),
        ("application/json", "application/json"),
        ("text/plain", "text/plain; charset=utf-8"),
        ("text/html, */*;q=0.1", HEALTH_JSON),
        ("image/png", HEALTH_JSON),
        ("no accept at all", HEALTH_JSON),
    ] {
        for endpoint in [Endpoint::Report, READY, Endpoint::Check("db")] {
            let response = health.answer(endpoint, &get_as("/", accept));
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(header(&response, "content-type"), form, "{accept}");
            assert_eq!(header(&response, "vary"), "accept");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn head_is_get_without_a_body_and_nothing_is_ever_stored() {
    let health = checker(steady()).check("db", Dependency::broken().probe());
    health.run_all().await;
    let ask = |method: Method| -> Response<String> {
        let request = Request::builder().method(method).uri("/health?verbose").body(());
        health.answer(Endpoint::Report, &request.expect("a request"))
    };
    let (get, head) = (ask(Method::GET), ask(Method::HEAD));
    assert_eq!(get.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(head.status(), get.status());
    assert_eq!(head.headers(), get.headers());
    assert_eq!(head.body(), "");
    assert_eq!(header(&get, "content-length"), get.body().len().to_string());
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let refused = ask(method);
        assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(header(&refused, "allow"), "GET, HEAD");
        assert_eq!(header(&refused, "cache-control"), "no-store");
    }
    assert_eq!(header(&get, "cache-control"), "no-store");
    assert_eq!(header(&get, "x-content-type-options"), "nosniff");
}

#[tokio::test(start_paused = true)]
async fn a_single_check_has_its_own_answer() {
    let health = checker(steady())
        .check("db", Dependency::well().probe())
        .with(Check::new("cache", Dependency::broken().probe()).degrading());
    health.run_all().await;
    let ask = |name| health.answer(Endpoint::Check(name), &get("/"));
    assert_eq!(ask("db").status(), StatusCode::OK);
    assert_eq!(ask("cache").status(), StatusCode::SERVICE_UNAVAILABLE);
    let unknown = ask("<script>");
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
    assert!(!unknown.body().contains("script"));
    let hidden = health.answer_with(Endpoint::Check("db"), &get("/"), Details::Hidden);
    assert_eq!(hidden.status(), StatusCode::NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn hidden_details_stay_hidden_and_error_texts_need_the_owner() {
    let health = checker(steady()).check("db", Dependency::broken().probe());
    health.run_all().await;
    for accept in ["*/*", "application/json", "text/plain"] {
        let request = get_as("/?verbose", accept);
        let hidden = health.answer_with(Endpoint::Report, &request, Details::Hidden);
        assert!(!hidden.body().contains("db"), "{}", hidden.body());
        let named = health.answer(Endpoint::Report, &request);
        assert!(named.body().contains("db") && !named.body().contains("refused"));
        let brief = health.answer_with(Endpoint::Report, &get_as("/", accept), Details::ErrorTexts);
        assert!(!brief.body().contains("refused"), "only when asked for");
    }
    let hidden = health.answer_with(
        Endpoint::Report,
        &get_as("/?verbose", "application/json"),
        Details::Hidden,
    );
    assert_eq!(hidden.body(), r#"{"status":"fail","code":"health.starting"}"#);
    let full = |accept| {
        let request = get_as("/?verbose", accept);
        health.answer_with(Endpoint::Report, &request, Details::ErrorTexts).into_body()
    };
    assert!(full("*/*").contains("connection refused"));
    assert!(full("application/json").contains("connection refused"));
}
