//! Status and scale.

use std::time::Duration;

use axum::http::StatusCode;
use tokio::time::sleep;

use super::{Answer, SCALE, STATUS, Service, TOKEN, request, scaler};

fn is(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.problem(), (status, code.to_owned()));
}

#[tokio::test(start_paused = true)]
async fn status_tells_all_and_scale_changes() {
    let service = Service::new();
    service.scaler.evaluate().await;
    let status = service.get(STATUS, Some(TOKEN)).await;
    assert_eq!((status.status, status.header("etag")), (StatusCode::OK, "\"1\""));
    assert_eq!(status.header("cache-control"), "no-store");
    let target = &status.json()["targets"][0];
    assert_eq!(
        target["replicas"],
        serde_json::json!({"current": 4, "ready": 4, "desired": 4, "min": 1, "max": 20})
    );
    assert_eq!(target["recommendation"]["reason"], "WithinTolerance");
    let answer = service.scale(r#"{"replicas": 6, "reason": "a sale"}"#, &[]).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let plan = answer.json();
    assert_eq!(
        (&plan["from"], &plan["to"], &plan["applied"]),
        (&4.into(), &6.into(), &true.into())
    );
    assert_eq!(service.target.sets(), [6]);
    let status = service.get(&format!("{STATUS}?target=workers"), Some(TOKEN)).await.json();
    let last = &status["targets"][0]["last_scale"];
    assert_eq!((&last["actor"], &last["reason"]), (&"ada".into(), &"a sale".into()));
    let nothing = service.scale(r#"{"delta": 0}"#, &[]).await;
    assert_eq!((nothing.status, &nothing.json()["applied"]), (StatusCode::OK, &false.into()));
}

#[tokio::test(start_paused = true)]
async fn every_refusal_has_its_status() {
    let service = Service::new();
    is(&service.scale(r#"{"replicas": 21}"#, &[]).await, 422, "out-of-bounds");
    is(&service.scale(r#"{"delta": -4}"#, &[]).await, 422, "out-of-bounds");
    is(
        &service.scale(r#"{"replicas": 21, "dry_run": true, "force": true}"#, &[]).await,
        422,
        "out-of-bounds",
    );
    is(&service.scale(r#"{"replicas": 5}"#, &[("if-match", "\"9\"")]).await, 412, "stale");
    is(&service.scale(r#"{"replicas": 5, "target": "nobody"}"#, &[]).await, 404, "no-target");
    is(&service.scale(r#"{"replicas": 5, "hold_for": "25h"}"#, &[]).await, 422, "invalid");
    service.scaler.pause();
    is(&service.scale(r#"{"replicas": 5}"#, &[]).await, 423, "held");
    service.scaler.resume();
    service.failover.send_replace(true);
    is(&service.scale(r#"{"replicas": 3, "force": true}"#, &[]).await, 423, "held");
    service.failover.send_replace(false);
    assert_eq!(
        service.scale(r#"{"replicas": 5}"#, &[("if-match", "3")]).await.status,
        StatusCode::ACCEPTED
    );
    let soon = service.scale(r#"{"replicas": 6}"#, &[]).await;
    is(&soon, 429, "cooldown");
    assert_eq!((soon.header("retry-after"), &soon.json()["retry_after"]), ("30", &30.into()));
    sleep(Duration::from_secs(30)).await;
    assert_eq!(service.scale(r#"{"replicas": 6}"#, &[]).await.status, StatusCode::ACCEPTED);
    service.target.fail_to_read(true);
    is(&service.scale(r#"{"replicas": 7, "force": true}"#, &[]).await, 503, "unavailable");
    service.target.fail_to_read(false);
    service.target.hang(true);
    let lost = service.scale(r#"{"replicas": 7, "force": true}"#, &[]).await;
    is(&lost, 503, "unavailable");
    assert_eq!(lost.json()["may_have_applied"], true);
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_changes_nothing() {
    let service = Service::new();
    let answer = service.scale(r#"{"replicas": 20, "dry_run": true}"#, &[]).await;
    let plan = answer.json();
    assert_eq!(
        (answer.status, &plan["to"], &plan["limited_by"]),
        (StatusCode::OK, &8.into(), &"ScaleUpLimit".into())
    );
    assert!(service.target.sets().is_empty());
}

#[tokio::test(start_paused = true)]
async fn several_targets_are_told_apart() {
    let (other, _target, _) = scaler("a name with ümläuts & spaces");
    let service = Service::with(|builder| builder.scaler(other));
    let all = service.get(STATUS, Some(TOKEN)).await;
    assert_eq!((all.json()["targets"].as_array().unwrap().len(), all.header("etag")), (2, ""));
    let path = format!("{STATUS}?target=a+name%20with+%C3%BCml%c3%a4uts+%26+spaces");
    assert_eq!(
        service.get(&path, Some(TOKEN)).await.json()["targets"].as_array().unwrap().len(),
        1
    );
    is(&service.scale(r#"{"replicas": 5}"#, &[]).await, 422, "invalid");
    let body = r#"{"replicas": 5, "target": "a name with ümläuts & spaces"}"#;
    assert_eq!(service.scale(body, &[]).await.status, StatusCode::ACCEPTED);
    assert!(service.target.sets().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_key_makes_a_repeated_request_the_same_request() {
    let service = Service::new();
    let key = [("idempotency-key", "6f8e4f6c")];
    let first = service.scale(r#"{"delta": 1}"#, &key).await;
    let again = service.scale(r#"{"delta": 1}"#, &key).await;
    assert_eq!((first.status, first.text.as_str()), (again.status, again.text.as_str()));
    assert_eq!(
        (first.header("idempotent-replayed"), again.header("idempotent-replayed")),
        ("", "true")
    );
    assert_eq!(service.target.sets(), [5]);
    is(&service.scale(r#"{"delta": 2}"#, &key).await, 422, "key-reused");
    let other = [key[0], ("if-match", "\"2\"")];
    is(&service.scale(r#"{"delta": 1}"#, &other).await, 422, "key-reused");
    // What was refused may be asked again under its key.
    let key = [("idempotency-key", "refused")];
    is(&service.scale(r#"{"delta": 1}"#, &key).await, 429, "cooldown");
    sleep(Duration::from_secs(30)).await;
    assert_eq!(service.scale(r#"{"delta": 1}"#, &key).await.status, StatusCode::ACCEPTED);
    assert_eq!(service.target.sets(), [5, 6]);
}

#[tokio::test(start_paused = true)]
async fn a_replayed_problem_is_a_problem_still() {
    let service = Service::new();
    service.target.hang(true);
    let key = [("idempotency-key", "lost")];
    let first = service.scale(r#"{"delta": 1}"#, &key).await;
    service.target.hang(false);
    let again = service.scale(r#"{"delta": 1}"#, &key).await;
    is(&first, 503, "unavailable");
    is(&again, 503, "unavailable");
    assert_eq!((&first.text, again.header("idempotent-replayed")), (&again.text, "true"));
    assert_eq!(first.header("retry-after"), again.header("retry-after"));
    assert_eq!(service.target.sets(), [5], "what may have been done is not done again");
}

#[tokio::test(start_paused = true)]
async fn of_sixteen_with_one_key_one_does_it() {
    let service = Service::new();
    let asked = (0..16)
        .map(|_| service.scale(r#"{"delta": 1, "force": true}"#, &[("idempotency-key", "one")]));
    let answers = futures::future::join_all(asked).await;
    assert_eq!(service.target.sets(), [5]);
    for answer in answers {
        match answer.status {
            StatusCode::ACCEPTED => assert_eq!(answer.json()["to"], 5),
            _ => is(&answer, 409, "under-way"),
        }
    }
    let asked =
        (0..16).map(|_| service.scale(r#"{"delta": 1, "force": true}"#, &[("if-match", "2")]));
    let answers = futures::future::join_all(asked).await;
    let won = answers.iter().filter(|answer| answer.status == StatusCode::ACCEPTED).count();
    assert_eq!((won, service.target.sets()), (1, vec![5, 6]));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_finds_the_answer_under_its_key() {
    let service = Service::new();
    service.target.hang(true);
    let key = [("idempotency-key", "gone")];
    let gone =
        tokio::time::timeout(Duration::from_secs(1), service.scale(r#"{"delta": 1}"#, &key)).await;
    assert!(gone.is_err());
    is(&service.scale(r#"{"delta": 1}"#, &key).await, 409, "under-way");
    service.target.hang(false);
    sleep(Duration::from_secs(1)).await;
    let found = service.scale(r#"{"delta": 1}"#, &key).await;
    assert_eq!((found.status, found.header("idempotent-replayed")), (StatusCode::ACCEPTED, "true"));
    assert_eq!(service.target.sets(), [5]);
}

#[tokio::test(start_paused = true)]
async fn without_a_token_nothing_is_told_and_nothing_done() {
    let service = Service::new();
    for (token, detail) in [(None, "send the header"), (Some("not the secret of ada"), "not known")]
    {
        for (method, path) in [("GET", STATUS), ("POST", SCALE)] {
            let answer = service.ask(request(method, path, token, &[], r#"{"replicas": 5}"#)).await;
            is(&answer, 401, "unauthorized");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
            assert!(
                answer.text.contains(detail) && !answer.text.contains("workers"),
                "{}",
                answer.text
            );
        }
    }
    // Nowhere but in the header.
    for path in [format!("{STATUS}?token={TOKEN}"), format!("{STATUS}?access_token={TOKEN}")] {
        is(&service.get(&path.replace(' ', "%20"), None).await, 401, "unauthorized");
    }
    assert!(service.target.sets().is_empty());
    let open = resonant_sdk::http::Api::builder().without_tokens().build().unwrap().router();
    let answer = super::ask(&open, request("GET", STATUS, None, &[], "")).await;
    assert_eq!(answer.status, StatusCode::OK);
}

#[test]
fn an_api_without_a_token_is_refused_unless_told_to() {
    use resonant_sdk::http::{Api, ApiBuilder, ApiConfig};
    let refused = |builder: ApiBuilder| builder.build().map(drop).unwrap_err().message().to_owned();
    assert!(refused(Api::builder()).contains("without_tokens"));
    assert!(refused(Api::builder().token("ada", "short")).contains("16"));
    let both = Api::builder().token("ada", TOKEN).without_tokens();
    assert!(refused(both).contains("without_tokens"), "which would open all of it");
    assert!(refused(Api::builder().token("ada", " spaces around it  ")).contains("space"));
    assert!(!refused(Api::builder().token("ada", "sekrit")).contains("sekrit"));
    let zero = ApiConfig { writes_per_second: 0.0, ..ApiConfig::default() };
    assert!(refused(Api::builder().without_tokens().config(zero)).contains("writes_per_second"));
    let twice = Api::builder().without_tokens().scaler(scaler("x").0).scaler(scaler("x").0);
    assert!(refused(twice).contains("two scalers"));
    let debug = format!("{:?}", Api::builder().token("ada", TOKEN).build().unwrap());
    assert!(debug.contains("ada") && !debug.contains("secret"), "{debug}");
}
