//! A session's token over HTTP: two servers that share nothing, replicas that are late.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};
use resonant_db::tower::{NAME, SessionLayer};
use resonant_db::{Database, PoolConfig, Session, params};
use resonant_testkit::PostgresCluster;
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

/// A server with a database handle of its own.
async fn server(cluster: &PostgresCluster, by_cookie: bool) -> Router {
    let db = Database::builder()
        .primary(cluster.primary().url())
        .replicas([cluster.replica(0).url()])
        .pool(PoolConfig::default().min_size(1).max_size(4))
        .connect()
        .await
        .expect("connect");
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
        for n in 0..500_usize {
            let (here, there) = (&servers[n % 2], &servers[(n + 1) % 2]);
            let answer = client.send(here, "POST", "/", n.to_string()).await;
            assert_eq!(answer.status(), StatusCode::OK);
            missed += usize::from(stranger.read(there).await != n.to_string());
            assert_eq!(client.read(there).await, n.to_string(), "by cookie: {by_cookie}");
        }
        assert!(missed > 100, "the replica was not late: {missed}");
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

/// What tonic's server is to a layer: a service of its own body type that is cloned for each connection.
#[tokio::test]
async fn a_service_that_is_no_router_has_sessions_too() {
    let cluster = PostgresCluster::builder().replicas(1).start().await.expect("a cluster");
    cluster
        .primary()
        .sql("CREATE TABLE t (n bigint); INSERT INTO t VALUES (1)")
        .await
        .expect("a table");
    let db = Database::builder()
        .primary(cluster.primary().url())
        .replicas([cluster.replica(0).url()])
        .connect()
        .await
        .expect("connect");
    let inner = service_fn(async |request: Request<u64>| {
        let session = request.extensions().get::<Session>().expect("the layer's").clone();
        let n = i64::try_from(*request.body()).expect("small");
        session.write().execute("UPDATE t SET n = $1", params![n]).await.expect("a write");
        let n: i64 =
            session.read().query_one_as("SELECT n FROM t", params![]).await.expect("a read");
        Ok::<_, Infallible>(Response::new(n))
    });
    let mut service = SessionLayer::by_header(db.clone()).name("x-session").layer(inner);
    let answer =
        service.ready().await.expect("ready").call(Request::new(7)).await.expect("an answer");
    let token = answer.headers().get("x-session").expect("it has written").to_str().expect("text");
    let session = db.session_from(token).expect("a token");
    assert_eq!(*answer.body(), 7);
    let n: i64 = session.read().query_one_as("SELECT n FROM t", params![]).await.expect("a read");
    assert_eq!(n, 7);
}
