//! The two routes of scaling.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use resonant_scale::{Autoscaler, Error, ErrorKind, ScaleRequest};
use serde::Deserialize;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::auth::digest;
use super::builder::{Shared, lock};
use super::problem::{Problem, respond};
use super::replay::{Seen, UnderWay};
use super::routes::Answer;

const JSON: &str = "application/json";
/// The longest key and the longest reason.
const LONGEST_KEY: usize = 255;
const LONGEST_REASON: usize = 500;
const EXAMPLE: &str = r#"such as {"replicas": 5, "reason": "a sale begins"}"#;

/// What is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    target: Option<String>,
    replicas: Option<i64>,
    delta: Option<i64>,
    reason: Option<String>,
    #[serde(default, with = "resonant_common::duration::option")]
    hold_for: Option<Duration>,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    force: bool,
}

pub(super) async fn status(shared: Arc<Shared>, request: Request) -> Answer {
    shared.reader(request.headers())?;
    let named = match request.uri().query() {
        None | Some("") => None,
        Some(query) => Some(target_of(query)?),
    };
    let scalers: Vec<&Autoscaler> = match &named {
        None => shared.scalers.iter().collect(),
        Some(name) => vec![find(&shared.scalers, Some(name))?],
    };
    let statuses: Vec<_> = scalers.iter().map(|scaler| scaler.status()).collect();
    let body = serde_json::json!({ "targets": statuses }).to_string();
    let mut response = respond(StatusCode::OK, JSON, body);
    if let [status] = &statuses[..]
        && let Ok(tag) = format!("\"{}\"", status.generation).parse()
    {
        response.headers_mut().insert(ETAG, tag);
    }
    Ok(response)
}

pub(super) async fn scale(shared: Arc<Shared>, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    let headers = &parts.headers;
    let who = shared.writer(headers)?.to_owned();
    let generation = generation(headers)?;
    let key = key(headers)?;
    let body = read(&shared, headers, body).await?;
    let wanted = wanted(&body)?;
    let scaler = find(&shared.scalers, wanted.target.as_deref())?.clone();
    let mut asked = request_of(&wanted)?.actor(who.clone());
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

async fn read(shared: &Shared, headers: &HeaderMap, body: Body) -> Result<Vec<u8>, Problem> {
    let most = shared.config.max_body;
    let too_large = || {
        let detail = format!("a body here has at most {most} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too large", detail)
    };
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
    let kind = kind.split(';').next().unwrap_or("").trim();
    if !kind.eq_ignore_ascii_case(JSON) {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "not-json",
            "The body must be JSON",
            "send it with the header Content-Type: application/json",
        ));
    }
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    if length.and_then(|length| length.parse::<u64>().ok()).is_some_and(|it| it > most as u64) {
        return Err(too_large());
    }
    match timeout(shared.config.body_timeout, to_bytes(body, most)).await {
        Ok(Ok(bytes)) => Ok(bytes.into()),
        Ok(Err(error))
            if std::error::Error::source(&error)
                .is_some_and(|it| it.to_string().contains("length limit")) =>
        {
            Err(too_large())
        }
        Ok(Err(_)) => Err(Problem::bad(
            "cut-off",
            "The body was cut off",
            "it ended before all of it had come",
        )),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "too-slow",
            "The body came too slowly",
            "it had not come in time",
        )),
    }
}

fn wanted(body: &[u8]) -> Result<Wanted, Problem> {
    let parsed: serde_json::Result<Wanted> = serde_json::from_slice(body);
    // A list of the members in their order would be taken for them.
    if parsed.is_ok() && body.trim_ascii_start().first() != Some(&b'{') {
        return Err(Problem::invalid(format!("this is no object; send an object {EXAMPLE}")));
    }
    parsed.map_err(|error| {
        let (line, column) = (error.line(), error.column());
        if error.is_data() {
            // The words name fields and kinds, and may repeat a field of the client's.
            let said: String = error.to_string().chars().take(200).collect();
            return Problem::invalid(format!("{said}; send an object {EXAMPLE}"));
        }
        let detail = format!("no JSON at line {line}, column {column}; send an object {EXAMPLE}");
        Problem::bad("bad-json", "The body is no JSON", detail)
    })
}

fn request_of(wanted: &Wanted) -> Result<ScaleRequest, Problem> {
    let mut request = match (wanted.replicas, wanted.delta) {
        (Some(replicas), None) => {
            let replicas = u32::try_from(replicas).map_err(|_| {
                Problem::invalid(format!("replicas must be a number of replicas, not {replicas}"))
            })?;
            ScaleRequest::to(replicas)
        }
        (None, Some(delta)) => ScaleRequest::by(delta),
        _ => return Err(Problem::invalid(format!("name either replicas or delta, {EXAMPLE}"))),
    };
    if let Some(reason) = &wanted.reason {
        if reason.chars().count() > LONGEST_REASON || reason.chars().any(char::is_control) {
            let detail = format!(
                "reason must have at most {LONGEST_REASON} characters, all of them printable"
            );
            return Err(Problem::invalid(detail));
        }
        request = request.reason(reason);
    }
    request.hold_for = wanted.hold_for;
    request.dry_run = wanted.dry_run;
    request.force = wanted.force;
    Ok(request)
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

/// The value of `target` in a query.
fn target_of(query: &str) -> Result<String, Problem> {
    let bad = |detail: &str| Problem::bad("bad-query", "The query cannot be read", detail);
    let Some(value) = query.strip_prefix("target=").filter(|value| !value.contains(['&', '=']))
    else {
        return Err(bad("the only parameter is target"));
    };
    let mut bytes = value.bytes();
    let mut name = Vec::new();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => name.push(b' '),
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (Some(high), Some(low)) = (digit(bytes.next()), digit(bytes.next())) else {
                    return Err(bad("two hexadecimal digits follow a %"));
                };
                name.push(u8::try_from(high * 16 + low).unwrap_or_default());
            }
            byte => name.push(byte),
        }
    }
    String::from_utf8(name).map_err(|_| bad("the target is no UTF-8"))
}

/// The generation of `If-Match`: a number, quoted or not, or `*` for any.
fn generation(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = single(headers, IF_MATCH.as_str())? else { return Ok(None) };
    if value == "*" {
        return Ok(None);
    }
    let number = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(&value);
    let detail = "it must be the generation of the status, such as \"7\"";
    let bad = || Problem::bad("bad-if-match", "If-Match cannot be read", detail);
    number.parse().map(Some).map_err(|_| bad())
}

fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = single(headers, "idempotency-key")? else { return Ok(None) };
    if value.is_empty() || value.len() > LONGEST_KEY {
        let detail = format!("it must have 1 to {LONGEST_KEY} characters, such as those of a UUID");
        return Err(Problem::bad("bad-key", "The Idempotency-Key cannot be used", detail));
    }
    Ok(Some(value))
}

/// A header that may stand once, in printable ASCII.
fn single(headers: &HeaderMap, name: &str) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let bad = |detail: String| Problem::bad("bad-header", "A header cannot be read", detail);
    if values.next().is_some() {
        return Err(bad(format!("{name} stands twice")));
    }
    let text = value.to_str().map_err(|_| bad(format!("{name} must be printable ASCII")))?;
    Ok(Some(text.trim().to_owned()))
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
