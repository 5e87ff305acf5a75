//! A Lease object as a voter, against a server that keeps to the API's rules.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use resonant_common::join::testing;
use resonant_ha::ErrorKind;
use resonant_ha::testing::VoterBench;
use resonant_ha::voter::{Ballot, KubernetesVoter, Quorum, Stored, Vote, Voter as _};
use serde_json::{Value, json};
use tokio::net::TcpListener;

const BASE: &str = "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases";
const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(800);

/// The Leases of the namespace `production`.
#[derive(Debug, Default)]
struct Cluster {
    version: u64,
    leases: BTreeMap<String, Value>,
    /// Somebody else changes the object before the next so many writes.
    raced: u32,
    down: bool,
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

/// What the API server finds wrong with a Lease.
fn invalid(lease: &Value) -> Option<&'static str> {
    let spec = &lease["spec"];
    let below = |field: &str, least: i64| {
        let number = spec.get(field).filter(|number| !number.is_null());
        number
            .is_some_and(|number| number.as_i64().is_none_or(|n| n < least || n > i32::MAX.into()))
    };
    let annotations = lease["metadata"]["annotations"].as_object();
    let size: usize = annotations
        .iter()
        .flat_map(|all| all.iter())
        .map(|(key, value)| key.len() + value.as_str().map_or(usize::MAX / 4, str::len))
        .sum();
    match () {
        () if lease["kind"] != "Lease" || lease["apiVersion"] != "coordination.k8s.io/v1" => {
            Some("kind")
        }
        () if below("leaseDurationSeconds", 1) => {
            Some("spec.leaseDurationSeconds: must be greater than 0")
        }
        () if below("leaseTransitions", 0) => {
            Some("spec.leaseTransitions: must be greater than or equal to 0")
        }
        () if spec["holderIdentity"] == "" => Some("spec.holderIdentity: must not be empty"),
        () if size > 256 << 10 => {
            Some("metadata.annotations: Too long: may not be more than 262144 bytes")
        }
        () => None,
    }
}

impl Cluster {
    fn store(&mut self, name: &str, mut lease: Value) -> Response {
        self.version += 1;
        lease["metadata"]["resourceVersion"] = self.version.to_string().into();
        lease["metadata"]["namespace"] = "production".into();
        self.leases.insert(name.to_owned(), lease.clone());
        Json(lease).into_response()
    }

    /// Somebody else writes first.
    fn race(&mut self) {
        if self.raced > 0 {
            self.raced -= 1;
            self.version += 1;
            let version = self.version.to_string();
            for lease in self.leases.values_mut() {
                lease["metadata"]["resourceVersion"] = version.clone().into();
            }
        }
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
    if open(&cluster).down {
        return refuse(503, "ServiceUnavailable", "the server is currently unable");
    }
    next.run(request).await
}

async fn serve(cluster: &Shared) -> String {
    let make = post(
        async |State(cluster): State<Shared>,
               Path(namespace): Path<String>,
               Json(lease): Json<Value>| {
            if namespace != "production" {
                return refuse(404, "NotFound", "namespaces \"nowhere\" not found");
            }
            let mut cluster = open(&cluster);
            let name = lease["metadata"]["name"].as_str().unwrap_or("").to_owned();
            if cluster.leases.contains_key(&name) {
                return refuse(409, "AlreadyExists", "leases.coordination.k8s.io already exists");
            }
            if lease["metadata"].get("resourceVersion").is_some() {
                return refuse(
                    500,
                    "InternalError",
                    "resourceVersion should not be set on objects to be created",
                );
            }
            match invalid(&lease) {
                Some(what) => refuse(422, "Invalid", what),
                None => cluster.store(&name, lease),
            }
        },
    );
    let one =
        get(async |State(cluster): State<Shared>, Path((_, name)): Path<(String, String)>| {
            match open(&cluster).leases.get(&name) {
                Some(lease) => Json(lease.clone()).into_response(),
                None => refuse(404, "NotFound", "leases.coordination.k8s.io not found"),
            }
        })
        .put(
            async |State(cluster): State<Shared>,
                   Path((_, name)): Path<(String, String)>,
                   Json(lease): Json<Value>| {
                let mut cluster = open(&cluster);
                cluster.race();
                let Some(known) = cluster.leases.get(&name) else {
                    return refuse(404, "NotFound", "leases.coordination.k8s.io not found");
                };
                let version = lease["metadata"]["resourceVersion"].as_str().unwrap_or("");
                if version.is_empty() {
                    return refuse(
                        422,
                        "Invalid",
                        "metadata.resourceVersion: must be specified for an update",
                    );
                }
                if known["metadata"]["resourceVersion"] != version {
                    return refuse(409, "Conflict", "the object has been modified");
                }
                match invalid(&lease) {
                    Some(what) => refuse(422, "Invalid", what),
                    None => cluster.store(&name, lease),
                }
            },
        );
    let app = Router::new()
        .route(BASE, make)
        .route(&format!("{BASE}/{{name}}"), one)
        .layer(middleware::from_fn_with_state(Arc::clone(cluster), guard))
        .with_state(Arc::clone(cluster));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    url
}

async fn voter(url: &str) -> KubernetesVoter {
    let voter = KubernetesVoter::in_namespace("production").server(url).token("sesame");
    voter.connect().await.unwrap()
}

async fn bench() -> VoterBench {
    let url = serve(&Shared::default()).await;
    let other = Arc::new(voter(&url).await);
    VoterBench::new(Arc::new(voter(&url).await)).beside(other).short(SHORT)
}

resonant_ha::voter_conformance!(kubernetes, super::bench());

fn grant(term: u64, owner: &str, ttl: Duration) -> Ballot {
    Ballot::Grant { term, owner: owner.to_owned(), ttl }
}

async fn cast(voter: &KubernetesVoter, ballot: Ballot) -> Vote {
    voter.cast("x", ballot).await.unwrap()
}

#[tokio::test]
async fn a_lease_object_keeps_the_contract_of_leases() {
    let url = serve(&Shared::default()).await;
    let store = Quorum::of(voter(&url).await);
    testing::suite(Arc::new(store), "one", SHORT).await;
}

#[tokio::test]
async fn a_write_that_somebody_was_before_is_looked_at_again() {
    let cluster = Shared::default();
    let voter = voter(&serve(&cluster).await).await;
    assert!(cast(&voter, grant(1, "a", LONG)).await.done);
    open(&cluster).raced = 3;
    let renew = || Ballot::Renew { term: 1, owner: "a".to_owned(), ttl: LONG };
    assert!(cast(&voter, renew()).await.done);
    // One that is changed all the time is given up.
    open(&cluster).raced = u32::MAX;
    let error = voter.cast("x", renew()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_process_that_has_only_begun_waits_for_the_whole_time() {
    let url = serve(&Shared::default()).await;
    let first = voter(&url).await;
    assert!(cast(&first, grant(1, "a", SHORT)).await.done);
    tokio::time::sleep(SHORT + SHORT / 4).await;
    // It ended, and who has just come cannot know.
    let second = voter(&url).await;
    assert!(!cast(&second, grant(2, "b", SHORT)).await.done);
    tokio::time::sleep(SHORT + SHORT / 4).await;
    assert!(cast(&second, grant(2, "b", SHORT)).await.done);
    let renew = Ballot::Renew { term: 1, owner: "a".to_owned(), ttl: SHORT };
    assert!(!cast(&first, renew).await.done, "it was replaced");
}

#[tokio::test]
async fn what_it_cannot_promise_is_refused() {
    let cluster = Shared::default();
    let url = serve(&cluster).await;
    let voter = voter(&url).await;
    let refused = async |name: &str, ballot: Ballot| voter.cast(name, ballot).await.unwrap_err();
    for name in ["", "Upper", "a_b", "-a", "a/../b", &"a".repeat(254)] {
        assert_eq!(refused(name, Ballot::Read).await.kind(), ErrorKind::Config, "{name:?}");
    }
    let high = refused("x", grant(1 << 31, "a", LONG)).await;
    assert!(high.kind() == ErrorKind::Unsupported && high.message().contains("2147483647"));
    assert!(cast(&voter, grant(1, "a", LONG)).await.done);
    let record = Stored { term: 1, version: 1, value: "x".repeat(300 << 10).into() };
    let long = refused("x", Ballot::Write { owner: "a".to_owned(), record }).await;
    assert_eq!(long.kind(), ErrorKind::Unsupported);
    // What other programs elect their leaders by is left alone.
    let theirs = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": "theirs" },
        "spec": { "holderIdentity": "controller-1", "leaseDurationSeconds": 15, "leaseTransitions": 3 },
    });
    open(&cluster).store("theirs", theirs.clone());
    let stranger = refused("theirs", grant(9, "a", LONG)).await;
    assert_eq!(stranger.kind(), ErrorKind::Config);
    assert!(stranger.message().contains("production/theirs"), "{stranger}");
    assert_eq!(open(&cluster).leases["theirs"]["spec"], theirs["spec"]);
}

#[tokio::test]
async fn a_term_that_was_deleted_is_not_granted_again_by_who_knew_it() {
    let cluster = Shared::default();
    let voter = voter(&serve(&cluster).await).await;
    assert!(cast(&voter, grant(7, "a", SHORT)).await.done);
    open(&cluster).leases.clear();
    let renew = Ballot::Renew { term: 7, owner: "a".to_owned(), ttl: LONG };
    assert!(!cast(&voter, renew).await.done, "its object is gone");
    assert!(!cast(&voter, grant(8, "b", LONG)).await.done, "its time is not over");
    tokio::time::sleep(SHORT + SHORT / 4).await;
    assert!(!cast(&voter, grant(7, "b", LONG)).await.done, "a term came back");
    let vote = cast(&voter, grant(8, "b", LONG)).await;
    assert!(vote.done && vote.term == 8, "{vote:?}");
}

#[tokio::test]
async fn refusals_name_what_to_do_and_no_token() {
    let cluster = Shared::default();
    let url = serve(&cluster).await;
    let wrong = KubernetesVoter::in_namespace("production").server(&url).token("hunter2");
    assert!(!format!("{wrong:?}").contains("hunter2"));
    let wrong = wrong.connect().await.unwrap();
    let error = wrong.cast("x", Ballot::Read).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("grant get, create and update"), "{error}");
    assert!(!format!("{error:?} {wrong:?}").contains("hunter2"), "{error:?}");
    let nowhere = KubernetesVoter::in_namespace("nowhere").server(&url).token("sesame");
    let nowhere = nowhere.connect().await.unwrap();
    let error = nowhere.cast("x", grant(1, "a", LONG)).await.unwrap_err();
    assert!(error.message().contains("nowhere/x"), "{error}");
    open(&cluster).down = true;
    let error = voter(&url).await.cast("x", Ballot::Read).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && error.is_transient(), "{error}");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = voter(&gone).await.cast("x", grant(1, "a", LONG)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let bad = KubernetesVoter::in_namespace("a").server("http://[").connect().await;
    assert_eq!(bad.map(drop).unwrap_err().kind(), ErrorKind::Config);
}
