//! What was decided, how it came about, and pauses.

use axum::http::StatusCode;

use super::{Answer, Service, TOKEN, request, scaler};

pub(super) const HISTORY: &str = "/api/v1/scaling/history";
pub(super) const EXPLAIN: &str = "/api/v1/scaling/explain";
pub(super) const PAUSE: &str = "/api/v1/scaling/pause";
pub(super) const RESUME: &str = "/api/v1/scaling/resume";

async fn post(service: &Service, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    service.ask(request("POST", path, Some(TOKEN), headers, body)).await
}

#[tokio::test(start_paused = true)]
async fn the_latest_stand_first_and_decisions_have_their_reasons() {
    let service = Service::new();
    let nothing = service.get(HISTORY, Some(TOKEN)).await.json();
    assert_eq!(nothing["targets"][0]["decisions"], serde_json::json!([]));
    service.scaler.evaluate().await;
    service.scaler.evaluate().await;
    service.scale(r#"{"replicas": 6, "reason": "a sale"}"#, &[]).await;
    service.target.fail_to_read(true);
    service.scaler.evaluate().await;
    let told = service.get(&format!("{HISTORY}?target=workers"), Some(TOKEN)).await.json();
    let workers = &told["targets"][0];
    assert_eq!(
        (&workers["changes"][0]["reason"], &workers["changes"][0]["actor"]),
        (&"a sale".into(), &"ada".into())
    );
    let decision = |index: usize| {
        let it = &workers["decisions"][index];
        (it["reason"].as_str().unwrap(), it["rounds"].as_u64().unwrap())
    };
    assert_eq!((decision(0), decision(1)), (("FailedGetScale", 1), ("WithinTolerance", 2)));
    assert!(workers["decisions"][1]["text"].as_str().unwrap().starts_with("keep 4: "));
    assert_eq!(service.get(HISTORY, None).await.problem(), (401, "unauthorized".into()));
    let nobody = service.get(&format!("{HISTORY}?target=nobody"), Some(TOKEN)).await;
    assert_eq!(nobody.problem(), (404, "no-target".into()));
}

#[tokio::test(start_paused = true)]
async fn an_explanation_goes_from_what_there_was_to_what_was_done() {
    let service = Service::with(|builder| builder.scaler(scaler("others").0));
    let before = service.get(EXPLAIN, Some(TOKEN)).await.json();
    assert_eq!(before["targets"][1]["explanation"], serde_json::Value::Null);
    service.scaler.evaluate().await;
    let told = service.get(&format!("{EXPLAIN}?target=workers"), Some(TOKEN)).await.json();
    assert_eq!(told["targets"].as_array().unwrap().len(), 1);
    let explanation = &told["targets"][0]["explanation"];
    let steps: Vec<_> = explanation["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| (step["name"].as_str().unwrap(), step["replicas"].as_u64().unwrap()))
        .collect();
    let names = ["current", "metric", "metrics", "windows", "limits", "decision"];
    assert_eq!(steps, names.map(|name| (name, 4)));
    assert_eq!(explanation["allowed"], serde_json::json!({"fewest": 1, "most": 8}));
    assert_eq!(service.get(EXPLAIN, None).await.problem(), (401, "unauthorized".into()));
}

#[tokio::test(start_paused = true)]
async fn a_pause_by_hand_says_who_and_why_until_it_ends() {
    let service = Service::new();
    let paused = post(&service, PAUSE, &[], r#"{"reason": "an incident"}"#).await;
    assert_eq!((paused.status, paused.header("etag")), (StatusCode::OK, "\"2\""));
    let status = paused.json();
    assert_eq!(
        (&status["paused"], &status["paused_by"]["actor"], &status["paused_by"]["reason"]),
        (&true.into(), &"ada".into(), &"an incident".into())
    );
    assert_eq!(service.scale(r#"{"replicas": 6}"#, &[]).await.problem(), (423, "held".into()));
    // A second one says the same, and an old generation is refused.
    let again = post(&service, PAUSE, &[], "{}").await;
    assert_eq!(
        (again.header("etag"), &again.json()["paused_by"]["reason"]),
        ("\"2\"", &"an incident".into())
    );
    let stale = post(&service, RESUME, &[("if-match", "\"1\"")], "{}").await;
    assert_eq!(stale.problem(), (412, "stale".into()));
    let resumed =
        post(&service, RESUME, &[("if-match", "\"2\"")], r#"{"target": "workers"}"#).await;
    assert_eq!(
        (&resumed.json()["paused"], &resumed.json()["paused_by"], resumed.header("etag")),
        (&false.into(), &serde_json::Value::Null, "\"3\"")
    );
    assert_eq!(service.scale(r#"{"replicas": 6}"#, &[]).await.status, StatusCode::ACCEPTED);
}

#[tokio::test(start_paused = true)]
async fn in_an_incident_it_does_to_ask_without_a_word() {
    let service = Service::new();
    for (path, paused) in [(PAUSE, true), (RESUME, false)] {
        let answer =
            post(&service, path, &[("content-type", "application/octet-stream")], "").await;
        assert_eq!((answer.status, service.scaler.status().paused), (StatusCode::OK, paused));
    }
    assert!(service.target.sets().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_no_pause_is_refused_by_its_name() {
    let service = Service::new();
    let long = format!(r#"{{"reason": "{}"}}"#, "x".repeat(501));
    for (headers, body, status, code) in [
        (&[][..], "{", 400, "bad-json"),
        (&[], "[null, null]", 422, "invalid"),
        (&[], r#"{"replicas": 5}"#, 422, "invalid"),
        (&[], r#"{"reason": 7}"#, 422, "invalid"),
        (&[], r#"{"target": "nobody"}"#, 404, "no-target"),
        (&[], &long, 422, "invalid"),
        (&[("content-type", "text/plain")], "{}", 415, "not-json"),
        (&[("if-match", "seven")], "{}", 400, "bad-if-match"),
        (&[("content-length", "99999999999")], "{}", 413, "too-large"),
    ] {
        let answer = post(&service, PAUSE, headers, body).await;
        assert_eq!(answer.problem(), (status, code.to_owned()), "{body}: {}", answer.text);
    }
    for token in [None, Some("not the secret of ada")] {
        let answer = service.ask(request("POST", PAUSE, token, &[], "{}")).await;
        assert_eq!(answer.problem(), (401, "unauthorized".into()));
    }
    assert_eq!(service.get(PAUSE, Some(TOKEN)).await.problem(), (405, "method-not-allowed".into()));
    assert!(!service.scaler.status().paused);
    let several = Service::with(|builder| builder.scaler(scaler("others").0));
    assert_eq!(post(&several, PAUSE, &[], "{}").await.problem(), (422, "invalid".into()));
}

#[tokio::test(start_paused = true)]
async fn what_the_health_routes_refuse_is_a_problem_too() {
    let service = Service::new();
    for prefix in ["", "/api/v1"] {
        for (method, path, status, code) in [
            ("GET", "/health/checks/nobody", 404, "no-check"),
            ("GET", "/health/checks/%ff", 400, "bad-path"),
            ("DELETE", "/health/live", 405, "method-not-allowed"),
        ] {
            let path = format!("{prefix}{path}");
            let answer = service.ask(request(method, &path, None, &[], "")).await;
            assert_eq!(answer.problem(), (status, code.to_owned()), "{path}");
        }
        let head = service
            .ask(request("HEAD", &format!("{prefix}/health/checks/nobody"), None, &[], ""))
            .await;
        assert_eq!((head.status.as_u16(), head.text.as_str()), (404, ""));
    }
}
