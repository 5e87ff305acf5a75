//! Which request goes where, and who may ask.

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, Method, Response, StatusCode};
use axum::middleware::map_response;
use axum::routing::{MethodRouter, any};
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
        .route("/api/v1/scaling/history", get(shared, scaling::history))
        .route("/api/v1/scaling/explain", get(shared, scaling::explain))
        .route("/api/v1/scaling/scale", post(shared, scaling::scale))
        .route("/api/v1/scaling/pause", post(shared, scaling::pause))
        .route("/api/v1/scaling/resume", post(shared, scaling::resume));
    if let Some(health) = &shared.health {
        // Of its routes only: a layer of the router would answer for everything that has no route, too.
        let routes = || health.router().route_layer(map_response(readable));
        router = router.merge(routes()).nest("/api/v1", routes());
    }
    router
}

/// What the health routes refuse, in the words of this API.
async fn readable(response: Response<Body>) -> Response<Body> {
    let problem = match response.status() {
        StatusCode::BAD_REQUEST => {
            let detail = "a part of it is no UTF-8 once its percent signs are decoded";
            Problem::bad("bad-path", "The path cannot be read", detail)
        }
        StatusCode::NOT_FOUND => {
            let detail = "there is no check of this name, or none that may be shown";
            Problem::new(StatusCode::NOT_FOUND, "no-check", "There is no such check", detail)
        }
        StatusCode::METHOD_NOT_ALLOWED => Problem::method("GET, HEAD"),
        _ => return response,
    };
    problem.respond()
}

/// A route that answers GET and, without the body, HEAD: axum leaves it out and tells its length.
fn get<S, F, Fut>(shared: &Arc<Shared>, handler: F) -> MethodRouter<S>
where
    S: Clone + Send + Sync + 'static,
    F: Fn(Arc<Shared>, Request) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Answer> + Send + 'static,
{
    taking(shared, |it| matches!(*it, Method::GET | Method::HEAD), "GET, HEAD", handler)
}

/// A route that answers POST.
fn post<S, F, Fut>(shared: &Arc<Shared>, handler: F) -> MethodRouter<S>
where
    S: Clone + Send + Sync + 'static,
    F: Fn(Arc<Shared>, Request) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Answer> + Send + 'static,
{
    taking(shared, |it| *it == Method::POST, "POST", handler)
}

fn taking<S, F, Fut>(
    shared: &Arc<Shared>,
    takes: fn(&Method) -> bool,
    named: &'static str,
    handler: F,
) -> MethodRouter<S>
where
    S: Clone + Send + Sync + 'static,
    F: Fn(Arc<Shared>, Request) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Answer> + Send + 'static,
{
    let shared = Arc::clone(shared);
    any(move |request: Request| {
        let (shared, handler) = (Arc::clone(&shared), handler.clone());
        async move {
            let answer = match takes(request.method()) {
                true => handler(shared, request).await,
                false => Err(Problem::method(named)),
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
