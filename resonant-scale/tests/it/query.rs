//! A Prometheus server asked over HTTP.

use std::time::Duration;

use resonant_scale::source::PrometheusQuery;
use resonant_scale::{ErrorKind, MetricSource, Reading};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Answers one question with `answer` and says what was asked.
async fn server(answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            let mut part = [0; 1024];
            let read = stream.read(&mut part).await.unwrap();
            asked.extend_from_slice(&part[..read]);
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(asked).unwrap()
    });
    (url, task)
}

const FINE: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n\
    {\"status\":\"success\",\"data\":{\"resultType\":\"vector\",\"result\":[{\"metric\":{},\"value\":[1,\"42.5\"]}]}}";

#[tokio::test]
async fn the_sum_of_an_instant_query() {
    let (url, asked) = server(FINE).await;
    let query = PrometheusQuery::new(&url, r#"sum(queue_depth{queue="tasks"})"#).unwrap();
    let query = query.bearer("hush").unwrap();
    assert_eq!(query.read().await.unwrap(), Reading::Total(42.5));
    let asked = asked.await.unwrap();
    assert!(
        asked.starts_with(
            "GET /api/v1/query?query=sum%28queue_depth%7Bqueue%3D%22tasks%22%7D%29 HTTP/1.1\r\n"
        ),
        "{asked}"
    );
    assert!(asked.contains("authorization: Bearer hush\r\n"), "{asked}");
}

#[tokio::test]
async fn a_server_that_refuses_or_hangs_is_an_error_in_time() {
    let (url, _asked) =
        server("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
    let error = PrometheusQuery::new(&url, "up").unwrap().read().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("503"));

    let (url, _asked) = server("").await;
    assert!(
        PrometheusQuery::new(&url, "up").unwrap().read().await.is_err(),
        "closed without an answer"
    );

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let query = PrometheusQuery::new(&url, "up").unwrap().timeout(Duration::from_millis(100));
    assert!(query.read().await.unwrap_err().message().contains("in time"));
    drop(listener);
    assert!(query.read().await.is_err(), "nobody listens");
}
