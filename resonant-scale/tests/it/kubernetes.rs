//! The scale subresource, against a server that keeps to the API's rules.

use std::sync::{Arc, Mutex, MutexGuard};

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use resonant_scale::testing::FakeMetric;
use resonant_scale::{Autoscaler, ErrorKind, Kubernetes, Reason, ScaleTarget};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::scaler::eager;

const BASE: &str = "/apis/apps/v1/namespaces/{namespace}/{plural}/{name}";

/// One Deployment, `production/worker`, and the autoscalers of its namespace.
#[derive(Debug, Default)]
struct Cluster {
    version: u64,
    replicas: i64,
    running: i64,
    ready: i64,
    autoscalers: Vec<Value>,
    /// Changed by somebody else right after the next read of its scale.
    raced: bool,
    forbidden: bool,
    writes: Vec<i64>,
}

type Shared = Arc<Mutex<Cluster>>;

fn open(cluster: &Shared) -> MutexGuard<'_, Cluster> {
    cluster.lock().unwrap()
}

/// The API's own form of an error.
fn refuse(code: u16, reason: &str, message: &str) -> Response {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": reason, "message": message, "code": code,
    });
    (StatusCode::from_u16(code).unwrap(), Json(status)).into_response()
}

impl Cluster {
    fn metadata(&self) -> Value {
        json!({ "name": "worker", "namespace": "production", "uid": "1", "resourceVersion": self.version.to_string() })
    }

    fn deployment(&self) -> Value {
        let mut status = json!({ "observedGeneration": 1 });
        // The API leaves zeros out.
        for (name, number) in [("replicas", self.running), ("readyReplicas", self.ready)] {
            if number > 0 {
                status[name] = number.into();
            }
        }
        json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": self.metadata(), "spec": { "replicas": self.replicas }, "status": status })
    }

    fn scale(&self) -> Value {
        let mut spec = json!({});
        if self.replicas > 0 {
            spec["replicas"] = self.replicas.into();
        }
        json!({
            "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": self.metadata(),
            "spec": spec, "status": { "replicas": self.running, "selector": "app=worker" },
        })
    }
}

async fn guard(
    State(cluster): State<Shared>,
    headers: HeaderMap,
    request: axum::extract::Request,
    next: Next,
) -> Response {
    if headers.get("authorization").is_none_or(|token| token != "Bearer sesame") {
        return refuse(401, "Unauthorized", "Unauthorized");
    }
    let forbidden =
        open(&cluster).forbidden && request.uri().path().contains("horizontalpodautoscalers");
    if forbidden {
        return refuse(403, "Forbidden", "horizontalpodautoscalers.autoscaling is forbidden");
    }
    next.run(request).await
}

fn known(path: &(String, String, String)) -> bool {
    (path.0.as_str(), path.1.as_str(), path.2.as_str()) == ("production", "deployments", "worker")
}

async fn serve(cluster: &Shared) -> String {
    let missing = || refuse(404, "NotFound", "deployments.apps \"nobody\" not found");
    let object = get(
        async move |State(cluster): State<Shared>, Path(path): Path<(String, String, String)>| {
            if !known(&path) {
                return missing();
            }
            Json(open(&cluster).deployment()).into_response()
        },
    );
    let scale = get(
        async move |State(cluster): State<Shared>, Path(path): Path<(String, String, String)>| {
            if !known(&path) {
                return missing();
            }
            let mut cluster = open(&cluster);
            let scale = cluster.scale();
            if std::mem::take(&mut cluster.raced) {
                cluster.version += 1;
                cluster.replicas += 1;
            }
            Json(scale).into_response()
        },
    )
    .put(async |State(cluster): State<Shared>, Json(scale): Json<Value>| {
        let mut cluster = open(&cluster);
        let version = scale["metadata"]["resourceVersion"].as_str().unwrap_or("");
        if !version.is_empty() && version != cluster.version.to_string() {
            return refuse(
                409,
                "Conflict",
                "the object has been modified; please apply your changes to the latest version",
            );
        }
        let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
        if replicas < 0 || scale["kind"] != "Scale" {
            return refuse(422, "Invalid", "spec.replicas: Invalid value");
        }
        cluster.version += 1;
        cluster.replicas = replicas;
        cluster.writes.push(replicas);
        Json(cluster.scale()).into_response()
    });
    let autoscalers = get(async |State(cluster): State<Shared>| {
        let items = open(&cluster).autoscalers.clone();
        Json(
            json!({ "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscalerList", "metadata": { "resourceVersion": "9" }, "items": items }),
        )
    });
    let app = Router::new()
        .route(BASE, object)
        .route(&format!("{BASE}/scale"), scale)
        .route("/apis/autoscaling/v2/namespaces/production/horizontalpodautoscalers", autoscalers)
        .layer(middleware::from_fn_with_state(Arc::clone(cluster), guard))
        .with_state(Arc::clone(cluster));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    url
}

fn cluster(replicas: i64) -> Shared {
    Arc::new(Mutex::new(Cluster {
        version: 100,
        replicas,
        running: replicas,
        ready: replicas,
        ..Cluster::default()
    }))
}

async fn worker(url: &str) -> Kubernetes {
    Kubernetes::deployment("production", "worker")
        .server(url)
        .token("sesame")
        .connect()
        .await
        .unwrap()
}

/// A Deployment of a cluster of its own.
pub(crate) async fn deployment(replicas: u32) -> Kubernetes {
    worker(&serve(&cluster(replicas.into())).await).await
}

fn autoscaler(kind: &str, name: &str, group: &str) -> Value {
    json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": { "name": "resonant-api-hpa", "namespace": "production" },
        "spec": { "maxReplicas": 20, "scaleTargetRef": { "apiVersion": group, "kind": kind, "name": name } },
    })
}

#[tokio::test]
async fn it_is_read_and_changed() {
    let shared = cluster(3);
    let target = worker(&serve(&shared).await).await;
    open(&shared).ready = 2;
    let scale = target.read().await.unwrap().scale;
    assert_eq!((scale.wanted, scale.existing, scale.ready), (3, 3, Some(2)));
    target.set(5).await.unwrap();
    target.set(5).await.unwrap();
    assert_eq!(open(&shared).writes, [5], "what is so already is not written");
    let scale = target.read().await.unwrap().scale;
    assert_eq!((scale.wanted, scale.existing), (5, 3), "they are on their way");
    target.set(0).await.unwrap();
    *open(&shared) = Cluster { version: 200, ..Cluster::default() };
    assert_eq!(target.read().await.unwrap().scale.ready, Some(0));
    target.set(1).await.unwrap();
    assert_eq!(open(&shared).writes, [1], "from nothing, too");
}

#[tokio::test]
async fn one_that_an_autoscaler_owns_is_refused() {
    let shared = cluster(3);
    let target = worker(&serve(&shared).await).await;
    for other in [
        ("Deployment", "other", "apps/v1"),
        ("StatefulSet", "worker", "apps/v1"),
        ("Deployment", "worker", "example.com/v1"),
    ] {
        open(&shared).autoscalers = vec![autoscaler(other.0, other.1, other.2)];
        let to = if open(&shared).replicas == 4 { 5 } else { 4 };
        target.set(to).await.unwrap();
    }
    let writes = open(&shared).writes.len();
    open(&shared).autoscalers.push(autoscaler("Deployment", "worker", "apps/v1"));
    let error = target.set(9).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Owned);
    assert!(
        error.message().contains("Deployment production/worker")
            && error.message().contains("resonant-api-hpa"),
        "{error}"
    );
    // Nor if it may not be looked for.
    open(&shared).forbidden = true;
    let error = target.set(9).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Unavailable && error.message().contains("rights"),
        "{error}"
    );
    assert_eq!(open(&shared).writes.len(), writes);
}

#[tokio::test]
async fn who_changed_it_in_between_wins() {
    let shared = cluster(3);
    let target = worker(&serve(&shared).await).await;
    open(&shared).raced = true;
    assert_eq!(target.set(8).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(open(&shared).replicas, 4);
    assert!(open(&shared).writes.is_empty());
    target.set(8).await.unwrap();
    assert_eq!(open(&shared).replicas, 8);
}

#[tokio::test]
async fn refusals_name_what_to_do_and_no_token() {
    let shared = cluster(3);
    let url = serve(&shared).await;
    let wrong = Kubernetes::deployment("production", "worker")
        .server(&url)
        .token("hunter2")
        .connect()
        .await
        .unwrap();
    let error = wrong.read().await.unwrap_err();
    assert!(
        error.message().contains("rights") && !format!("{error:?} {wrong:?}").contains("hunter2"),
        "{error:?}"
    );
    let nobody = Kubernetes::deployment("production", "nobody")
        .server(&url)
        .token("sesame")
        .connect()
        .await
        .unwrap();
    assert!(nobody.read().await.unwrap_err().message().contains("no Deployment production/nobody"));
    let set = Kubernetes::stateful_set("production", "worker")
        .server(&url)
        .token("sesame")
        .connect()
        .await
        .unwrap();
    assert!(set.read().await.unwrap_err().message().contains("StatefulSet"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = worker(&gone).await.read().await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && error.is_transient());
    let bad = Kubernetes::deployment("a", "b").server("http://[").connect().await;
    assert_eq!(bad.map(drop).unwrap_err().kind(), ErrorKind::Config);
}

#[tokio::test]
async fn a_scaler_scales_it() {
    let shared = cluster(2);
    let target = worker(&serve(&shared).await).await;
    let metric = FakeMetric::new(40.0);
    let builder = Autoscaler::builder("worker").policy(eager()).source("depth", metric.clone());
    let scaler = builder.target(target).build().unwrap();
    assert_eq!(scaler.evaluate().await.to, 4);
    // The pods are not there yet: forty for two is still too much, and four are asked for already.
    let decision = scaler.evaluate().await;
    assert_eq!((decision.to, open(&shared).writes.clone()), (4, vec![4]));
    open(&shared).autoscalers = vec![autoscaler("Deployment", "worker", "apps/v1")];
    metric.set(100.0);
    assert_eq!(scaler.evaluate().await.reason, Reason::FailedUpdateScale);
    assert_eq!(open(&shared).replicas, 4);
}
