//! Requests of an axum application, counted.

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use resonant_common::telemetry::Requests;
use tokio::time::Instant;

/// What the label says where no route matched: never the path, which clients choose.
const UNMATCHED: &str = "unmatched";

/// A middleware that counts every answer as `requests_total` and `request_duration_seconds`, by the template of its route.
///
/// ```
/// use axum::{Router, middleware, routing::get};
/// use resonant_sdk::telemetry::{Requests, count_requests};
///
/// let app: Router = Router::new()
///     .route("/users/{id}", get(async || "Ada"))
///     .layer(middleware::from_fn_with_state(Requests::new(), count_requests));
/// # drop(app);
/// ```
///
/// The time is that until the head of the answer. A request whose client went away before is not counted.
pub async fn count_requests(
    State(requests): State<Requests>,
    request: Request,
    next: Next,
) -> Response {
    let (started, method) = (Instant::now(), request.method().clone());
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let endpoint = matched.as_ref().map_or(UNMATCHED, MatchedPath::as_str);
    requests.answered(method.as_str(), endpoint, response.status().as_u16(), started.elapsed());
    response
}
