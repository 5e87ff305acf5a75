//! The document says what the handlers do, and the handlers do what it says.

use serde_json::Value;

use super::history::{EXPLAIN, HISTORY, PAUSE, RESUME};
use super::{Answer, SCALE, STATUS, Service, TOKEN, request};

fn document() -> Value {
    let path = crate::telemetry::repository().join("src/http/openapi.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// What is wrong with `value` by `schema`, as far as the document uses JSON Schema.
fn faults(
    document: &Value,
    schema: &Value,
    value: &Value,
    at: &str,
    faults_found: &mut Vec<String>,
) {
    if let Some(name) = schema["$ref"].as_str() {
        let schema =
            document.pointer(name.strip_prefix('#').unwrap()).unwrap_or_else(|| panic!("{name}"));
        return faults(document, schema, value, at, faults_found);
    }
    if let Some(allowed) = schema["enum"].as_array() {
        if !allowed.contains(value) {
            faults_found.push(format!("{at}: {value} is none of {allowed:?}"));
        }
        return;
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => panic!("{at}: {schema} has no type"),
    };
    let fits = kinds.contains(&kind) || (kind == "integer" && kinds.contains(&"number"));
    if !fits {
        faults_found.push(format!("{at}: {value} is no {kinds:?}"));
    }
    if let (Value::Object(members), Some(properties)) = (value, schema["properties"].as_object()) {
        for required in schema["required"].as_array().into_iter().flatten() {
            if !members.contains_key(required.as_str().unwrap()) {
                faults_found.push(format!("{at}: {required} is missing"));
            }
        }
        for (name, member) in members {
            match properties.get(name) {
                Some(schema) => {
                    faults(document, schema, member, &format!("{at}.{name}"), faults_found)
                }
                None => faults_found.push(format!("{at}: {name} is not described")),
            }
        }
    }
    if let Value::Array(items) = value {
        for (index, item) in items.iter().enumerate() {
            faults(document, &schema["items"], item, &format!("{at}[{index}]"), faults_found);
        }
    }
}

/// Holds an answer against what is said of its operation.
fn check(document: &Value, path: &str, method: &str, answer: &Answer) {
    let operation = &document["paths"][path][method];
    assert!(operation.is_object(), "{method} {path} is not described");
    let status = answer.status.as_str();
    let response = &operation["responses"][status];
    assert!(
        response.is_object(),
        "{method} {path} answers {status}, which is not described: {}",
        answer.text
    );
    for name in response["headers"].as_object().into_iter().flat_map(|headers| headers.keys()) {
        let optional = name == "ETag" || name == "Retry-After";
        assert!(optional || answer.headers.contains_key(name), "{path} has no {name}");
    }
    let Some(content) = response["content"].as_object() else { return };
    let kind = answer.header("content-type").split(';').next().unwrap();
    let media = content.get(kind).unwrap_or_else(|| panic!("{method} {path} {status} is {kind}"));
    if kind.ends_with("json") && path != "/api/v1/openapi.json" && !path.contains("health") {
        let mut found = Vec::new();
        faults(document, &media["schema"], &answer.json(), "answer", &mut found);
        assert!(found.is_empty(), "{method} {path} {status}: {found:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_answer_is_as_described() {
    let document = document();
    let service = Service::new();
    let check = |path: &str, method: &str, answer: &Answer| check(&document, path, method, answer);
    for token in [None, Some(TOKEN), Some("not the secret of ada")] {
        let paths = document["paths"].as_object().unwrap();
        for (path, _) in paths.iter().filter(|(_, item)| item["get"].is_object()) {
            let answer = service.get(&path.replace("{name}", "database"), token).await;
            check(path, "get", &answer);
            let answer = service
                .ask(request("DELETE", &path.replace("{name}", "database"), token, &[], ""))
                .await;
            assert_eq!(answer.status.as_u16(), 405, "{path}");
            check(path, "get", &answer);
        }
        for (path, _) in paths.iter().filter(|(_, item)| item["post"].is_object()) {
            let body = if path == SCALE { r#"{"replicas": 4}"# } else { "{}" };
            check(path, "post", &service.ask(request("POST", path, token, &[], body)).await);
            check(path, "post", &service.get(path, token).await);
        }
    }
    service.scaler.evaluate().await;
    check(STATUS, "get", &service.get(STATUS, Some(TOKEN)).await);
    for path in [HISTORY, EXPLAIN] {
        check(path, "get", &service.get(path, Some(TOKEN)).await);
        check(path, "get", &service.get(&format!("{path}?target=nobody"), Some(TOKEN)).await);
        check(path, "get", &service.get(&format!("{path}?nothing"), Some(TOKEN)).await);
    }
    for check_name in ["nobody", "%ff"] {
        let answer = service.get(&format!("/health/checks/{check_name}"), None).await;
        check("/health/checks/{name}", "get", &answer);
    }
    for (body, headers) in [
        ("{", &[][..]),
        ("[]", &[]),
        (r#"{"target": "nobody"}"#, &[]),
        ("{}", &[("if-match", "99")]),
        ("{}", &[("content-type", "text/plain")]),
        ("{}", &[("content-length", "99999999")]),
    ] {
        for path in [PAUSE, RESUME] {
            let answer = service.ask(request("POST", path, Some(TOKEN), headers, body)).await;
            check(path, "post", &answer);
        }
    }
    for query in ["?target=nobody", "?nothing"] {
        check(STATUS, "get", &service.get(&format!("{STATUS}{query}"), Some(TOKEN)).await);
    }
    let mut statuses = std::collections::BTreeSet::new();
    for (body, headers) in [
        (r#"{"replicas": 5, "dry_run": true}"#, &[][..]),
        (r#"{"replicas": 5}"#, &[]),
        (r#"{"replicas": 6}"#, &[]),
        (r#"{"replicas": 99}"#, &[]),
        (r#"{"replicas": 5}"#, &[("if-match", "99")]),
        (r#"{"replicas": 5, "target": "nobody"}"#, &[]),
        ("{", &[]),
        ("{}", &[("content-type", "text/plain")]),
        ("{}", &[("content-length", "99999999")]),
    ] {
        let answer = service.scale(body, headers).await;
        check(SCALE, "post", &answer);
        statuses.insert(answer.status.as_u16());
    }
    service.scaler.pause();
    let held = service.scale(r#"{"replicas": 6}"#, &[]).await;
    check(SCALE, "post", &held);
    statuses.insert(held.status.as_u16());
    service.target.fail_to_read(true);
    let gone = service.scale(r#"{"replicas": 6}"#, &[]).await;
    check(SCALE, "post", &gone);
    statuses.insert(gone.status.as_u16());
    assert_eq!(Vec::from_iter(statuses), [200, 202, 400, 404, 412, 413, 415, 422, 423, 429, 503]);
    service.scaler.evaluate().await;
    check(STATUS, "get", &service.get(STATUS, Some(TOKEN)).await);
    assert_eq!(service.get("/api/v1/openapi.json", None).await.json(), document);
}

#[test]
fn the_document_is_whole() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    let mut ids = std::collections::BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            assert!(operation["summary"].is_string(), "{method} {path}");
            assert!(
                ids.insert(operation["operationId"].as_str().unwrap().to_owned()),
                "{method} {path}"
            );
            assert!(operation["security"].is_array(), "{method} {path} says who may");
        }
    }
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
}

#[test]
fn an_answer_that_is_not_as_described_is_found() {
    let document = document();
    let schema = &document["components"]["schemas"]["Plan"];
    let mut found = Vec::new();
    faults(&document, schema, &serde_json::json!({"target": 7, "more": 1}), "answer", &mut found);
    assert_eq!(found.len(), 7 + 1 + 1, "{found:?}");
}
