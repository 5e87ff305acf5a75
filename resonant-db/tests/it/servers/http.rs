//! A session's token over HTTP: two servers that share nothing, replicas that are late.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};
use bytes::{Buf, BufMut};
use resonant_db::tower::{NAME, SessionLayer};
use resonant_db::{Database, PoolConfig, Session, params};
use resonant_testkit::PostgresCluster;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tower::{Layer, Service, ServiceExt, service_fn};

async fn write(Extension(session): Extension<Session>, n: String) -> Result<(), StatusCode> {
    let n: i64 = n.parse().map_err(|_| StatusCode::BAD_REQUEST)?;
    let update = session.write().execute("UPDATE t SET n = $1", params![n]).await;
    update.map(drop).map_err(|_| StatusCode::SERVICE_UNAVAILABLE)
}

async fn read(Extension(session): Extension<Session>) -> Result<String, StatusCode> {
    let n = session.read().query_one_as::<i64>("SELECT n FROM t", params![]).await;
    n.map(|n| n.to_string()).map_err(|_| StatusCode::SERVICE_UNAVAILABLE)
}

async fn handle(cluster: &PostgresCluster) -> Database {
    Database::builder()
        .primary(cluster.primary().url())
        .replicas([cluster.replica(0).url()])
        .pool(PoolConfig::default().min_size(1).max_size(4))
        .connect()
        .await
        .expect("connect")
}

/// A server with a database handle of its own.
async fn server(cluster: &PostgresCluster, by_cookie: bool) -> Router {
    let db = handle(cluster).await;
    let layer = match by_cookie {
        true => SessionLayer::by_cookie(db),
        false => SessionLayer::by_header(db),
    };
    Router::new().route("/", post(write).get(read)).route("/nothing", get(async || "")).layer(layer)
}

/// What a client keeps between its requests.
#[derive(Default)]
struct Client {
    headers: HeaderMap,
}

impl Client {
    async fn send(&mut self, server: &Router, method: &str, path: &str, body: String) -> Response {
        let mut request =
            Request::builder().method(method).uri(path).body(Body::from(body)).expect("a request");
        *request.headers_mut() = self.headers.clone();
        let answer = server.clone().oneshot(request).await.expect("an answer");
        if let Some(token) = answer.headers().get(NAME) {
            self.headers.insert(NAME, token.clone());
        }
        if let Some(cookie) = answer.headers().get(SET_COOKIE) {
            let cookie = cookie.to_str().expect("text").split(';').next().expect("a pair");
            self.headers.insert(COOKIE, HeaderValue::from_str(cookie).expect("a value"));
        }
        answer
    }

    async fn read(&mut self, server: &Router) -> String {
        let answer = self.send(server, "GET", "/", String::new()).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let body = axum::body::to_bytes(answer.into_body(), 100).await.expect("a body");
        String::from_utf8(body.to_vec()).expect("text")
    }
}

#[tokio::test]
async fn what_was_written_at_one_server_is_read_at_the_other() {
    let cluster = PostgresCluster::builder().replicas(1).start().await.expect("a cluster");
    cluster
        .primary()
        .sql("CREATE TABLE t (n bigint); INSERT INTO t VALUES (-1)")
        .await
        .expect("a table");
    cluster.caught_up().await.expect("caught up");
    cluster.replica(0).delay_replay(Duration::from_millis(50)).await.expect("late");
    for by_cookie in [true, false] {
        let servers = [server(&cluster, by_cookie).await, server(&cluster, by_cookie).await];
        let (mut client, mut stranger) = (Client::default(), Client::default());
        let mut missed = 0;
        for n in 0..150_usize {
            let (here, there) = (&servers[n % 2], &servers[(n + 1) % 2]);
            let answer = client.send(here, "POST", "/", n.to_string()).await;
            assert_eq!(answer.status(), StatusCode::OK);
            missed += usize::from(stranger.read(there).await != n.to_string());
            assert_eq!(client.read(there).await, n.to_string(), "by cookie: {by_cookie}");
        }
        assert!(missed > 30, "the replica was not late: {missed}");
        // Who has not written since takes nothing new along.
        let answer = client.send(&servers[0], "GET", "/", String::new()).await;
        assert_eq!((answer.headers().get(SET_COOKIE), answer.headers().get(NAME)), (None, None));
        let answer = stranger.send(&servers[0], "GET", "/nothing", String::new()).await;
        assert_eq!((answer.headers().get(SET_COOKIE), answer.headers().get(NAME)), (None, None));
        // What is no token, or another database's, costs its sender nothing and is cleared.
        for wrong in ["nonsense", "1:1:1"] {
            let mut client = Client::default();
            client.headers.insert(NAME, HeaderValue::from_static(wrong));
            let cookie = format!("{NAME}={wrong}");
            client.headers.insert(COOKIE, HeaderValue::from_str(&cookie).expect("a value"));
            let answer = client.send(&servers[1], "GET", "/", String::new()).await;
            assert_eq!(answer.status(), StatusCode::OK, "{wrong}");
            let cleared = answer
                .headers()
                .get(SET_COOKIE)
                .map(|value| value.to_str().expect("text").to_owned());
            assert_eq!(cleared.is_some(), by_cookie);
            assert!(cleared.is_none_or(|cookie| cookie.contains("Max-Age=0")));
        }
    }
}

/// What goes over gRPC here: plain text.
#[derive(Default)]
struct Plain;

impl Encoder for Plain {
    type Item = String;
    type Error = Status;

    fn encode(&mut self, text: String, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(text.as_bytes());
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = String;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<String>, Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        String::from_utf8(bytes.to_vec()).map(Some).map_err(|_| Status::internal("no text"))
    }
}

impl Codec for Plain {
    type Encode = String;
    type Decode = String;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

/// A method of a tonic service: a number is written, anything else reads.
async fn method(request: tonic::Request<String>) -> Result<tonic::Response<String>, Status> {
    let session = request.extensions().get::<Session>().expect("the layer's").clone();
    let failed = |error: resonant_db::Error| Status::unavailable(error.to_string());
    if let Ok(n) = request.get_ref().parse::<i64>() {
        session.write().execute("UPDATE t SET n = $1", params![n]).await.map_err(failed)?;
        return Ok(tonic::Response::new(String::new()));
    }
    let n = session.read().query_one_as::<i64>("SELECT n FROM t", params![]).await;
    Ok(tonic::Response::new(n.map_err(failed)?.to_string()))
}

/// Sends a call with the metadata that the client keeps; answers its text.
async fn call<S>(service: &mut S, token: &mut Option<HeaderValue>, text: &str) -> String
where
    S: Service<Request<Body>, Response = Response<tonic::body::Body>, Error = Infallible>,
{
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(text.len()).expect("short").to_be_bytes());
    frame.extend_from_slice(text.as_bytes());
    let mut request = Request::builder()
        .method("POST")
        .uri("/numbers.Numbers/Take")
        .header("content-type", "application/grpc")
        .body(Body::from(frame))
        .expect("a request");
    if let Some(token) = token {
        request.headers_mut().insert(NAME, token.clone());
    }
    let answer = service.ready().await.expect("ready").call(request).await.expect("an answer");
    if let Some(new) = answer.headers().get(NAME) {
        *token = Some(new.clone());
    }
    let (parts, body) = answer.into_parts();
    let body = axum::body::to_bytes(Body::new(body), 1000).await.expect("a body");
    assert!(body.len() >= 5, "{parts:?}");
    String::from_utf8(body[5..].to_vec()).expect("text")
}

#[tokio::test]
async fn over_grpc_the_token_travels_as_metadata() {
    let cluster = PostgresCluster::builder().replicas(1).start().await.expect("a cluster");
    cluster
        .primary()
        .sql("CREATE TABLE t (n bigint); INSERT INTO t VALUES (-1)")
        .await
        .expect("a table");
    cluster.caught_up().await.expect("caught up");
    cluster.replica(0).delay_replay(Duration::from_millis(50)).await.expect("late");
    let mut servers = Vec::new();
    for _ in 0..2 {
        let db = handle(&cluster).await;
        let numbers = service_fn(async |request: Request<Body>| {
            let mut grpc = tonic::server::Grpc::new(Plain);
            Ok::<_, Infallible>(grpc.unary(service_fn(method), request).await)
        });
        servers.push(SessionLayer::by_header(db).layer(numbers));
    }
    let mut token = None;
    let mut missed = 0;
    for n in 0..100_usize {
        call(&mut servers[n % 2], &mut token, &n.to_string()).await;
        let there = &mut servers[(n + 1) % 2];
        missed += usize::from(call(there, &mut None, "read").await != n.to_string());
        assert_eq!(call(there, &mut token, "read").await, n.to_string());
    }
    assert!(missed > 20, "the replica was not late: {missed}");
}
