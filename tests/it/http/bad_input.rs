//! Bad input of every kind has its status, and a body a person understands.

use axum::body::{Body, Bytes};
use axum::http::{Method, Request};
use futures::stream;

use super::{SCALE, STATUS, Service, TOKEN, request};

#[tokio::test(start_paused = true)]
async fn bodies() {
    let service = Service::new();
    let long = format!(r#"{{"replicas": 5, "reason": "{}"}}"#, "x".repeat(501));
    let huge = format!(r#"{{"replicas": 5, "reason": "{}"}}"#, "x".repeat(20_000));
    let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
    let field = format!(r#"{{"{}": 1}}"#, "y".repeat(5000));
    for (body, status, code, words) in [
        ("", 400, "bad-json", "line 1, column 0"),
        ("{", 400, "bad-json", "such as"),
        ("replicas=5", 400, "bad-json", "such as"),
        (r#"{"replicas": 5}x"#, 400, "bad-json", "column 16"),
        (r#"{"replicas": 5,}"#, 400, "bad-json", "column"),
        (r#"{'replicas': 5}"#, 400, "bad-json", "column"),
        (r#"{"replicas": NaN}"#, 400, "bad-json", "column"),
        (r#"{"replicas": 05}"#, 400, "bad-json", "column"),
        (&deep, 422, "invalid", "expected"),
        ("null", 422, "invalid", "expected"),
        ("5", 422, "invalid", "expected"),
        ("[5]", 422, "invalid", "such as"),
        ("{}", 422, "invalid", "either replicas or delta"),
        (r#"{"replicas": 5, "delta": 1}"#, 422, "invalid", "either replicas or delta"),
        (r#"{"replicas": null, "delta": null}"#, 422, "invalid", "either replicas or delta"),
        (r#"{"replicas": -1}"#, 422, "invalid", "not -1"),
        (r#"{"replicas": 4294967296}"#, 422, "invalid", "4294967296"),
        (r#"{"replicas": 99999999999999999999}"#, 422, "invalid", "replicas"),
        (r#"{"replicas": 5.5}"#, 422, "invalid", "5.5"),
        (r#"{"replicas": "5"}"#, 422, "invalid", "string"),
        (r#"{"replicas": [5]}"#, 422, "invalid", "sequence"),
        (r#"{"replicas": 5, "replicas": 6}"#, 422, "invalid", "duplicate"),
        (r#"{"replica": 5}"#, 422, "invalid", "unknown field `replica`"),
        (r#"{"<script>alert(1)</script>": 5}"#, 422, "invalid", "unknown field"),
        (&field, 422, "invalid", "unknown field"),
        (r#"{"replicas": 5, "hold_for": "soon"}"#, 422, "invalid", "seconds (300)"),
        (r#"{"replicas": 5, "hold_for": -1}"#, 422, "invalid", "seconds (300)"),
        (r#"[null, 5, null, null, null, false, false]"#, 422, "invalid", "an object"),
        (r#"{"replicas": 5, "dry_run": "yes"}"#, 422, "invalid", "boolean"),
        (r#"{"replicas": 5, "force": 1}"#, 422, "invalid", "boolean"),
        (r#"{"replicas": 5, "reason": "line\nbreak"}"#, 422, "invalid", "printable"),
        (r#"{"replicas": 5, "target": 7}"#, 422, "invalid", "string"),
        (r#"{"replicas": 5, "target": ""}"#, 404, "no-target", "status names"),
        (r#"{"replicas": 0}"#, 422, "out-of-bounds", "1 to 20"),
        (r#"{"delta": 9223372036854775807}"#, 422, "out-of-bounds", "1 to 20"),
        (r#"{"delta": -9223372036854775808}"#, 422, "out-of-bounds", "1 to 20"),
        (&long, 422, "invalid", "500"),
        (&huge, 413, "too-large", "16384"),
    ] {
        let answer = service.scale(body, &[]).await;
        let shown: String = body.chars().take(60).collect();
        assert_eq!(answer.problem(), (status, code.to_owned()), "{shown}: {}", answer.text);
        assert!(answer.text.contains(words), "{shown}: {}", answer.text);
        assert!(answer.text.len() < 1000, "{shown}: {}", answer.text);
    }
    assert!(service.target.sets().is_empty());
}

#[tokio::test(start_paused = true)]
async fn headers() {
    let service = Service::new();
    let key = "k".repeat(256);
    for (headers, status, code) in [
        (&[("content-type", "text/plain")][..], 415, "not-json"),
        (&[("content-type", "application/x-www-form-urlencoded")], 415, "not-json"),
        (&[("content-type", "")], 415, "not-json"),
        (&[("if-match", "seven")], 400, "bad-if-match"),
        (&[("if-match", "\"-1\"")], 400, "bad-if-match"),
        (&[("if-match", "99999999999999999999")], 400, "bad-if-match"),
        (&[("if-match", "")], 400, "bad-if-match"),
        (&[("if-match", "\"1\""), ("if-match", "\"2\"")], 400, "bad-header"),
        (&[("idempotency-key", "")], 400, "bad-key"),
        (&[("idempotency-key", &key)], 400, "bad-key"),
        (&[("idempotency-key", "a"), ("idempotency-key", "b")], 400, "bad-header"),
        (&[("idempotency-key", "ümläut")], 400, "bad-header"),
        (&[("content-length", "99999999999")], 413, "too-large"),
    ] {
        let answer = service.scale(r#"{"replicas": 5}"#, headers).await;
        assert_eq!(answer.problem(), (status, code.to_owned()), "{headers:?}: {}", answer.text);
    }
    assert!(service.target.sets().is_empty());
    // And those that are fine, if unusual.
    for headers in [
        &[("content-type", "Application/JSON; charset=utf-8")][..],
        &[("if-match", "*")],
        &[("if-match", "1")],
    ] {
        let answer = service.scale(r#"{"replicas": 5, "dry_run": true}"#, headers).await;
        assert_eq!(answer.status.as_u16(), 200, "{headers:?}: {}", answer.text);
    }
}

#[tokio::test(start_paused = true)]
async fn methods_and_queries() {
    let service = Service::new();
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "QUERY"] {
        let answer = service.ask(request(method, SCALE, Some(TOKEN), &[], "")).await;
        assert_eq!(
            (answer.problem(), answer.header("allow")),
            ((405, "method-not-allowed".into()), "POST"),
            "{method}"
        );
    }
    for path in [STATUS, "/api/v1/overview", "/api/v1/metrics", "/api/v1/openapi.json", "/"] {
        for method in ["POST", "PUT", "DELETE", "TRACE"] {
            let answer = service.ask(request(method, path, Some(TOKEN), &[], "")).await;
            assert_eq!(
                (answer.status.as_u16(), answer.header("allow")),
                (405, "GET, HEAD"),
                "{path}"
            );
        }
        let head = service.ask(request("HEAD", path, Some(TOKEN), &[], "")).await;
        assert_eq!((head.status.as_u16(), head.text.as_str()), (200, ""), "{path}");
    }
    for (query, status, code) in [
        ("?target=nobody", 404, "no-target"),
        ("?target=", 404, "no-target"),
        ("?target=%", 400, "bad-query"),
        ("?target=%zz", 400, "bad-query"),
        ("?target=%ff", 400, "bad-query"),
        ("?target=a&target=b", 400, "bad-query"),
        ("?other=1", 400, "bad-query"),
        ("?target", 400, "bad-query"),
    ] {
        let answer = service.get(&format!("{STATUS}{query}"), Some(TOKEN)).await;
        assert_eq!(answer.problem(), (status, code.to_owned()), "{query}");
    }
    assert_eq!(service.get(&format!("{STATUS}?"), Some(TOKEN)).await.status.as_u16(), 200);
}

#[tokio::test(start_paused = true)]
async fn bodies_that_do_not_come_or_break_off() {
    let service = Service::new();
    let post = |body: Body| {
        Request::builder()
            .method(Method::POST)
            .uri(SCALE)
            .header("authorization", format!("Bearer {TOKEN}"))
            .header("content-type", "application/json")
            .body(body)
            .unwrap()
    };
    let never = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
    assert_eq!(service.ask(post(never)).await.problem(), (408, "too-slow".into()));
    let broken =
        stream::iter([Ok(Bytes::from_static(b"{\"repl")), Err(std::io::Error::other("reset"))]);
    assert_eq!(
        service.ask(post(Body::from_stream(broken))).await.problem(),
        (400, "cut-off".into())
    );
    // More than it may be, without saying so before.
    let part = || Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 1000]));
    let long = stream::iter((0..100).map(move |_| part()));
    assert_eq!(
        service.ask(post(Body::from_stream(long))).await.problem(),
        (413, "too-large".into())
    );
}
