//! What a request asks for, read with care: each fault of it has its own words.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, IF_MATCH};
use axum::http::{HeaderMap, StatusCode};
use resonant_scale::{PauseRequest, ScaleRequest};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::JSON;
use crate::http::builder::Shared;
use crate::http::problem::Problem;

/// The longest key and the longest reason.
const LONGEST_KEY: usize = 255;
const LONGEST_REASON: usize = 500;

/// What is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    pub(super) target: Option<String>,
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

/// What is asked of a pause.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pausing {
    pub(super) target: Option<String>,
    reason: Option<String>,
}

/// A body that can be asked for, with an example to show to who asks for something else.
pub(super) trait Example: DeserializeOwned {
    const EXAMPLE: &'static str;
}

impl Example for Wanted {
    const EXAMPLE: &'static str = r#"such as {"replicas": 5, "reason": "a sale begins"}"#;
}

impl Example for Pausing {
    const EXAMPLE: &'static str = r#"such as {"reason": "an incident"}, or {}"#;
}

/// Refuses a body that does not say that it is JSON.
pub(super) fn is_json(headers: &HeaderMap) -> Result<(), Problem> {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
    let kind = kind.split(';').next().unwrap_or("").trim();
    if kind.eq_ignore_ascii_case(JSON) {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "not-json",
        "The body must be JSON",
        "send it with the header Content-Type: application/json",
    ))
}

/// The whole body, within its size and time.
pub(super) async fn read(
    shared: &Shared,
    headers: &HeaderMap,
    body: Body,
) -> Result<Vec<u8>, Problem> {
    let most = shared.config.max_body;
    let too_large = || {
        let detail = format!("a body here has at most {most} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too large", detail)
    };
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

pub(super) fn parse<T: Example>(body: &[u8]) -> Result<T, Problem> {
    let parsed: serde_json::Result<T> = serde_json::from_slice(body);
    // A list of the members in their order would be taken for them.
    if parsed.is_ok() && body.trim_ascii_start().first() != Some(&b'{') {
        return Err(Problem::invalid(format!("this is no object; send an object {}", T::EXAMPLE)));
    }
    parsed.map_err(|error| {
        let (line, column) = (error.line(), error.column());
        if error.is_data() {
            // The words name fields and kinds, and may repeat a field of the client's.
            let said: String = error.to_string().chars().take(200).collect();
            return Problem::invalid(format!("{said}; send an object {}", T::EXAMPLE));
        }
        let detail =
            format!("no JSON at line {line}, column {column}; send an object {}", T::EXAMPLE);
        Problem::bad("bad-json", "The body is no JSON", detail)
    })
}

impl Wanted {
    pub(super) fn request(&self) -> Result<ScaleRequest, Problem> {
        let mut request = match (self.replicas, self.delta) {
            (Some(replicas), None) => {
                let replicas = u32::try_from(replicas).map_err(|_| {
                    Problem::invalid(format!(
                        "replicas must be a number of replicas, not {replicas}"
                    ))
                })?;
                ScaleRequest::to(replicas)
            }
            (None, Some(delta)) => ScaleRequest::by(delta),
            _ => {
                let detail = format!("name either replicas or delta, {}", Self::EXAMPLE);
                return Err(Problem::invalid(detail));
            }
        };
        if let Some(reason) = readable(self.reason.as_deref())? {
            request = request.reason(reason);
        }
        request.hold_for = self.hold_for;
        request.dry_run = self.dry_run;
        request.force = self.force;
        Ok(request)
    }
}

impl Pausing {
    /// The same for the one and the other.
    pub(super) fn request(&self, mut request: PauseRequest) -> Result<PauseRequest, Problem> {
        if let Some(reason) = readable(self.reason.as_deref())? {
            request = request.reason(reason);
        }
        Ok(request)
    }
}

/// A reason that can be shown.
fn readable(reason: Option<&str>) -> Result<Option<&str>, Problem> {
    let long = |reason: &str| reason.chars().count() > LONGEST_REASON;
    if reason.is_some_and(|reason| long(reason) || reason.chars().any(char::is_control)) {
        return Err(Problem::invalid(format!(
            "reason must have at most {LONGEST_REASON} characters, all of them printable"
        )));
    }
    Ok(reason)
}

/// The value of `target` in a query.
pub(super) fn target_of(query: &str) -> Result<String, Problem> {
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
pub(super) fn generation(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = single(headers, IF_MATCH.as_str())? else { return Ok(None) };
    if value == "*" {
        return Ok(None);
    }
    let number = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(&value);
    let detail = "it must be the generation of the status, such as \"7\"";
    let bad = || Problem::bad("bad-if-match", "If-Match cannot be read", detail);
    number.parse().map(Some).map_err(|_| bad())
}

pub(super) fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
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
