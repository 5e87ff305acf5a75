//! The routes for axum.

use ::axum::Router;
use ::axum::body::Body;
use ::axum::extract::{Path, Request};
use ::axum::response::{IntoResponse, Response};
use ::axum::routing::any;

use crate::checker::HealthChecker;
use crate::report::Report;
use crate::verdict::Probe;
use crate::wire::{Details, Endpoint};

impl HealthChecker {
    /// Routes that answer from the snapshot: `/health`, `/health/live`, `/health/ready`, `/health/startup` and
    /// `/health/checks/{name}`. Merge them, or nest them: `Router::new().nest("/api/v1", health.router())`.
    ///
    /// They hold a handle of the checker. [`start`](HealthChecker::start) it too, or they answer 503 for ever.
    pub fn router<S>(&self) -> Router<S>
    where
        S: Clone + Send + Sync + 'static,
    {
        self.router_with(Details::default())
    }

    /// The same with other [`Details`], such as error texts on a listener of the operators' own.
    pub fn router_with<S>(&self, details: Details) -> Router<S>
    where
        S: Clone + Send + Sync + 'static,
    {
        let at = |endpoint: Endpoint<'static>| {
            let health = self.clone();
            any(move |request: Request| {
                std::future::ready(health.answer_with(endpoint, &request, details).map(Body::from))
            })
        };
        let health = self.clone();
        let one = any(move |Path(name): Path<String>, request: Request| {
            let endpoint = Endpoint::Check(&name);
            std::future::ready(health.answer_with(endpoint, &request, details).map(Body::from))
        });
        Router::new()
            .route("/health", at(Endpoint::Report))
            .route("/health/live", at(Endpoint::Probe(Probe::Live)))
            .route("/health/ready", at(Endpoint::Probe(Probe::Ready)))
            .route("/health/startup", at(Endpoint::Probe(Probe::Startup)))
            .route("/health/checks/{name}", one)
    }
}

/// Plain JSON without error texts, with 200 or 503: `async fn health(…) -> Report { health.run_all().await }`.
impl IntoResponse for Report {
    fn into_response(self) -> Response {
        self.to_response().map(Body::from)
    }
}
