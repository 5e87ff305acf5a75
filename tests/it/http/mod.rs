//! The HTTP API and the status page, as clients see them.

mod bad_input;
mod fuzz;
mod history;
mod limits;
mod openapi;
mod page;
mod scaling;
mod sections;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use resonant_health::HealthChecker;
use resonant_scale::testing::{FakeMetric, FakeTarget};
use resonant_scale::{Autoscaler, Behavior, HpaConfig, MetricSpec, ScalingRules};
use resonant_sdk::http::{Api, ApiBuilder, ApiConfig};
use serde_json::Value;
use tokio::sync::watch;
use tower::ServiceExt;

pub(crate) const TOKEN: &str = "a long secret of ada's";

/// A service with one scaler of 4 workers, between 1 and 20.
pub(crate) struct Service {
    pub(crate) app: Router,
    pub(crate) scaler: Autoscaler,
    pub(crate) target: FakeTarget,
    pub(crate) failover: watch::Sender<bool>,
}

/// Limits no test comes near to.
pub(crate) fn generous() -> ApiConfig {
    ApiConfig {
        writes_per_second: 1e9,
        reads_per_second: 1e9,
        strangers_per_second: 1e9,
        ..ApiConfig::default()
    }
}

pub(crate) fn scaler(name: &str) -> (Autoscaler, FakeTarget, watch::Sender<bool>) {
    let target = FakeTarget::new(4);
    let (failover, signal) = watch::channel(false);
    let down = ScalingRules {
        stabilization_window: Some(std::time::Duration::ZERO),
        ..ScalingRules::down()
    };
    let policy = HpaConfig::new(1, 20)
        .metric(MetricSpec::external_average("queue_depth", 10.0))
        .behavior(Behavior { scale_down: down, ..Behavior::default() });
    let scaler = Autoscaler::builder(name)
        .policy(policy)
        .source("queue_depth", FakeMetric::new(40.0))
        .forbid_scale_in_on(signal)
        .target(target.clone())
        .build()
        .unwrap();
    (scaler, target, failover)
}

impl Service {
    pub(crate) fn new() -> Self {
        Self::with(|builder| builder)
    }

    pub(crate) fn with(more: impl FnOnce(ApiBuilder) -> ApiBuilder) -> Self {
        let (scaler, target, failover) = scaler("workers");
        let health = HealthChecker::new().check("database", async || Ok::<_, std::io::Error>(()));
        let builder = Api::builder()
            .config(generous())
            .token("ada", TOKEN)
            .health(health)
            .metrics(|| "queue_depth 7\n".into())
            .scaler(scaler.clone());
        let app = more(builder).build().unwrap().router();
        Self { app, scaler, target, failover }
    }

    pub(crate) async fn ask(&self, request: Request<Body>) -> Answer {
        ask(&self.app, request).await
    }

    pub(crate) async fn get(&self, path: &str, token: Option<&str>) -> Answer {
        self.ask(request("GET", path, token, &[], "")).await
    }

    /// POST to scale, by ada.
    pub(crate) async fn scale(&self, body: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask(request("POST", SCALE, Some(TOKEN), headers, body)).await
    }
}

pub(crate) const SCALE: &str = "/api/v1/scaling/scale";
pub(crate) const STATUS: &str = "/api/v1/scaling/status";

pub(crate) fn request(
    method: &str,
    path: &str,
    token: Option<&str>,
    headers: &[(&str, &str)],
    body: &str,
) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    if method == "POST" && !headers.iter().any(|(name, _)| *name == "content-type") {
        request = request.header("content-type", "application/json");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::from(body.to_owned())).unwrap()
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The status and the code of a problem, which must be whole and readable.
    pub(crate) fn problem(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let json = self.json();
        assert_eq!(json["status"], self.status.as_u16());
        for (member, least) in [("type", 20), ("title", 6), ("detail", 10)] {
            assert!(
                json[member].as_str().is_some_and(|text| text.len() >= least),
                "{member}: {self:?}"
            );
        }
        let code = json["code"].as_str().unwrap().to_owned();
        assert!(json["type"].as_str().unwrap().ends_with(&format!("docs/formats/http.md#{code}")));
        let page = crate::telemetry::repository().join("docs/formats/http.md");
        let page = std::fs::read_to_string(page).unwrap();
        assert!(
            page.contains(&format!("\n### {code}\n")),
            "docs/formats/http.md has nothing on {code}"
        );
        (self.status.as_u16(), code)
    }
}

pub(crate) async fn ask(app: &Router, request: Request<Body>) -> Answer {
    let response = app.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, 1 << 22).await.unwrap();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    Answer { status: parts.status, headers: parts.headers, text }
}
