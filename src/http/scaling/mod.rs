//! The routes of scaling.

mod asked;
mod pause;
mod tell;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::ETAG;
use axum::http::{HeaderValue, Response, StatusCode};
use resonant_scale::{Autoscaler, AutoscalerStatus, Error, ErrorKind, ScaleRequest};
use tokio::sync::oneshot;
use tokio::time::Instant;

use self::asked::{Wanted, generation, is_json, key, parse, read, target_of};
pub(super) use self::pause::{pause, resume};
pub(super) use self::tell::{explain, history};
use super::auth::digest;
use super::builder::{Shared, lock};
use super::problem::{Problem, respond};
use super::replay::{Seen, UnderWay};
use super::routes::Answer;

const JSON: &str = "application/json";

pub(super) async fn status(shared: Arc<Shared>, request: Request) -> Answer {
    let statuses: Vec<_> =
        named(&shared, &request)?.into_iter().map(|scaler| scaler.status()).collect();
    let body = serde_json::json!({ "targets": statuses }).to_string();
    let response = respond(StatusCode::OK, JSON, body);
    Ok(match &statuses[..] {
        [status] => tagged(response, status),
        _ => response,
    })
}

/// The scalers a question is about: the one its query names, or all of them.
fn named<'a>(shared: &'a Shared, request: &Request) -> Result<Vec<&'a Autoscaler>, Problem> {
    shared.reader(request.headers())?;
    match request.uri().query() {
        None | Some("") => Ok(shared.scalers.iter().collect()),
        Some(query) => Ok(vec![find(&shared.scalers, Some(&target_of(query)?))?]),
    }
}

/// With the generation that a change may name.
fn tagged(mut response: Response<Body>, status: &AutoscalerStatus) -> Response<Body> {
    if let Ok(tag) = format!("\"{}\"", status.generation).parse() {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

pub(super) async fn scale(shared: Arc<Shared>, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    let headers = &parts.headers;
    let who = shared.writer(headers)?.to_owned();
    let generation = generation(headers)?;
    let key = key(headers)?;
    is_json(headers)?;
    let body = read(&shared, headers, body).await?;
    let wanted: Wanted = parse(&body)?;
    let scaler = find(&shared.scalers, wanted.target.as_deref())?.clone();
    let mut asked = wanted.request()?.actor(who.clone());
    asked.generation = generation;
    let Some(key) = key else {
        return carry_out(&shared, scaler, asked, None).await;
    };
    // Two people's keys have nothing to do with each other, and a key belongs to one request as a whole.
    let key = digest(format!("{who}\n{key}").as_bytes());
    let whole = [&body[..], b"\n", format!("{generation:?}").as_bytes()].concat();
    let seen = lock(&shared.replays).begin(key, digest(&whole), Instant::now());
    match seen {
        Seen::New => {
            let under_way = UnderWay::new(&shared.replays, key);
            carry_out(&shared, scaler, asked, Some(under_way)).await
        }
        Seen::Answered(answer) => {
            let mut response =
                answer.map_or_else(|it| it.respond(), |(status, body)| respond(status, JSON, body));
            response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
            Ok(response)
        }
        Seen::UnderWay => Err(conflict(
            "under-way",
            "the request with this Idempotency-Key is being done; ask again in a moment",
        )),
        Seen::Other => Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "key-reused",
            "This key was used for another request",
            "an Idempotency-Key belongs to one request; use a new one for this",
        )),
        Seen::Full => Err(unavailable("more requests are under way than can be remembered")),
    }
}

/// Does it in a task of the API's own, so that a client that goes away leaves no change half told.
async fn carry_out(
    shared: &Arc<Shared>,
    scaler: Autoscaler,
    asked: ScaleRequest,
    under_way: Option<UnderWay>,
) -> Answer {
    let (tell, told) = oneshot::channel();
    {
        let mut work = lock(&shared.work);
        while work.try_join_next().is_some() {}
        work.spawn(async move {
            let answer = match scaler.scale(asked).await {
                Ok(plan) => {
                    let status = if plan.applied { StatusCode::ACCEPTED } else { StatusCode::OK };
                    serde_json::to_string(&plan)
                        .map(|body| (status, body))
                        .map_err(|_| Problem::lost())
                }
                Err(error) => Err(problem_of(&error)),
            };
            if let Some(under_way) = under_way {
                under_way.end(&answer);
            }
            let _ = tell.send(answer);
        });
    }
    let (status, body) = told.await.unwrap_or_else(|_| Err(Problem::lost()))?;
    Ok(respond(status, JSON, body))
}

fn find<'a>(scalers: &'a [Autoscaler], name: Option<&str>) -> Result<&'a Autoscaler, Problem> {
    match (name, scalers) {
        (None, [only]) => Ok(only),
        (None, []) => {
            let detail = "this service was built without a scaler";
            let title = "There is nothing to scale";
            Err(Problem::new(StatusCode::NOT_FOUND, "no-target", title, detail))
        }
        (None, _) => {
            Err(Problem::invalid("there are several targets; name one as target, see the status"))
        }
        (Some(name), scalers) => {
            scalers.iter().find(|scaler| scaler.name() == name).ok_or_else(|| {
                let title = "There is no such target";
                let detail = "the status names those there are";
                Problem::new(StatusCode::NOT_FOUND, "no-target", title, detail)
            })
        }
    }
}

fn problem_of(error: &Error) -> Problem {
    let detail = error.message().to_owned();
    let mut problem = match error.kind() {
        ErrorKind::OutOfBounds => Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "out-of-bounds",
            "The number is outside the bounds",
            detail,
        ),
        ErrorKind::Conflict => {
            Problem::new(StatusCode::PRECONDITION_FAILED, "stale", "Somebody was faster", detail)
        }
        ErrorKind::Held => Problem::new(StatusCode::LOCKED, "held", "Scaling is held", detail),
        ErrorKind::Limited => {
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "cooldown", "Too soon", detail)
        }
        ErrorKind::Busy => conflict("busy", detail),
        ErrorKind::Owned => conflict("owned", detail),
        ErrorKind::Config => Problem::invalid(detail),
        _ => unavailable(detail),
    };
    problem.may_have_applied = error.may_have_applied();
    problem.retry_after(error.retry_after())
}

fn conflict(code: &'static str, detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::CONFLICT, code, "Not now", detail)
}

fn unavailable(detail: impl Into<String>) -> Problem {
    let status = StatusCode::SERVICE_UNAVAILABLE;
    Problem::new(status, "unavailable", "The target does not answer", detail)
}
