//! Which request goes where, and who may ask.

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, Method, Response, StatusCode};
use axum::routing::any;
use tokio::time::Instant;

use super::auth::presents;
use super::builder::{Shared, lock};
use super::openapi;
use super::problem::{Problem, respond};
use super::scaling;

/// The content type of Prometheus' text.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";

pub(super) type Answer = Result<Response<Body>, Problem>;

pub(super) fn router<S>(shared: &Arc<Shared>) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    let mut router = Router::new()
        .route("/", get(shared, async |shared: Arc<Shared>, _| Ok(shared.page.respond())))
        .route(
            "/api/v1/openapi.json",
            get(shared, async |_, _| Ok(respond(StatusCode::OK, JSON, openapi::DOCUMENT.into()))),
        )
        .route("/api/v1/overview", get(shared, overview))
        .route("/api/v1/metrics", get(shared, metrics))
        .route("/api/v1/scaling/status", get(shared, scaling::status))
        .route("/api/v1/scaling/scale", {
            let shared = Arc::clone(shared);
            any(move |request: Request| {
                let shared = Arc::clone(&shared);
                async move {
                    let answer = match *request.method() {
                        Method::POST => scaling::scale(shared, request).await,
                        _ => Err(Problem::method("POST")),
                    };
                    answer.unwrap_or_else(|problem| problem.respond())
                }
            })
        });
    if let Some(health) = &shared.health {
        router = router.merge(health.router()).nest("/api/v1", health.router());
    }
    router
}

/// A route that answers GET and, without the body, HEAD.
fn get<S, F, Fut>(shared: &Arc<Shared>, handler: F) -> axum::routing::MethodRouter<S>
where
    S: Clone + Send + Sync + 'static,
    F: Fn(Arc<Shared>, Request) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Answer> + Send + 'static,
{
    let shared = Arc::clone(shared);
    any(move |request: Request| {
        let (shared, handler) = (Arc::clone(&shared), handler.clone());
        async move {
            // The body of an answer to HEAD is left out by axum, which tells its length.
            let answer = match *request.method() {
                Method::GET | Method::HEAD => handler(shared, request).await,
                _ => Err(Problem::method("GET, HEAD")),
            };
            answer.unwrap_or_else(|problem| problem.respond())
        }
    })
}

async fn overview(shared: Arc<Shared>, request: Request) -> Answer {
    let (health, scalers) = (shared.health.as_ref(), &shared.scalers[..]);
    let body = match shared.reader(request.headers()) {
        Ok(_) => shared.overview.full(health, scalers).await,
        // Who presents a token wants to see more, and is told that it is not known.
        Err(problem)
            if presents(request.headers()) || problem.status != StatusCode::UNAUTHORIZED =>
        {
            return Err(problem);
        }
        Err(_) => shared.overview.brief(health, scalers),
    };
    Ok(respond(StatusCode::OK, JSON, body))
}

async fn metrics(shared: Arc<Shared>, request: Request) -> Answer {
    if shared.private_metrics {
        shared.reader(request.headers())?;
    }
    let Some(render) = &shared.metrics else {
        let detail = "this service was built without metrics";
        let title = "There are no metrics";
        return Err(Problem::new(StatusCode::NOT_FOUND, "no-metrics", title, detail));
    };
    Ok(respond(StatusCode::OK, METRICS, render()))
}

impl Shared {
    /// Who asks, if they may look closely and not too often.
    pub(super) fn reader(&self, headers: &HeaderMap) -> Result<&str, Problem> {
        let who = self.who(headers)?;
        lock(&self.limits).reads.take(Instant::now()).map_err(Problem::too_many)?;
        Ok(who)
    }

    /// The same for changes.
    pub(super) fn writer(&self, headers: &HeaderMap) -> Result<&str, Problem> {
        let who = self.who(headers)?;
        lock(&self.limits).writes.take(Instant::now()).map_err(Problem::too_many)?;
        Ok(who)
    }

    /// Those without a known token share a limit of their own, so that they cannot use up that of operators.
    fn who(&self, headers: &HeaderMap) -> Result<&str, Problem> {
        if self.open {
            return Ok("operator");
        }
        if let Some(name) = self.tokens.holder(headers) {
            return Ok(name);
        }
        lock(&self.limits).strangers.take(Instant::now()).map_err(Problem::too_many)?;
        Err(Problem::unauthorized(presents(headers)))
    }
}
