//! What is wrong, in words and for machines: RFC 9457.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Response, StatusCode};
use serde::Serialize;

/// Where each problem is explained.
const PAGE: &str = "https://github.com/resonant-rs/resonant/blob/main/docs/formats/http.md#";

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    /// Stable, and the anchor of its explanation.
    pub(super) code: &'static str,
    pub(super) title: &'static str,
    pub(super) detail: String,
    pub(super) retry_after: Option<Duration>,
    pub(super) may_have_applied: bool,
    allow: Option<&'static str>,
}

#[derive(Serialize)]
struct Wire<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    code: &'a str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    may_have_applied: bool,
}

impl Problem {
    pub(super) fn new(
        status: StatusCode,
        code: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        let detail = detail.into();
        Self {
            status,
            code,
            title,
            detail,
            retry_after: None,
            may_have_applied: false,
            allow: None,
        }
    }

    pub(super) fn retry_after(mut self, after: Option<Duration>) -> Self {
        self.retry_after = after;
        self
    }

    pub(super) fn unauthorized(presented: bool) -> Self {
        let detail = match presented {
            true => "the token is not known here",
            false => "send the header Authorization: Bearer and your token",
        };
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "A token is needed", detail)
    }

    pub(super) fn too_many(after: Duration) -> Self {
        let detail =
            "requests come faster than they are answered here; wait as long as Retry-After says";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", "Too many requests", detail)
            .retry_after(Some(after))
    }

    pub(super) fn method(allow: &'static str) -> Self {
        let detail = format!("this takes {allow}");
        let mut problem = Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "This method is not taken here",
            detail,
        );
        problem.allow = Some(allow);
        problem
    }

    pub(super) fn bad(code: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, title, detail)
    }

    pub(super) fn invalid(detail: impl Into<String>) -> Self {
        let title = "The request cannot be done as it is";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", title, detail)
    }

    /// Nothing that should happen: what was done is not known.
    pub(super) fn lost() -> Self {
        let detail = "the answer was lost; read the status to see what was done";
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        let mut problem = Self::new(status, "lost", "The answer was lost", detail);
        problem.may_have_applied = true;
        problem
    }

    fn body(&self) -> String {
        let wire = Wire {
            r#type: format!("{PAGE}{}", self.code),
            title: self.title,
            status: self.status.as_u16(),
            code: self.code,
            detail: &self.detail,
            retry_after: self.retry_after.map(whole_seconds),
            may_have_applied: self.may_have_applied,
        };
        serde_json::to_string(&wire).unwrap_or_default()
    }

    pub(super) fn respond(&self) -> Response<Body> {
        let mut response = respond(self.status, "application/problem+json", self.body());
        let headers = response.headers_mut();
        if let Some(after) = self.retry_after {
            headers.insert(RETRY_AFTER, whole_seconds(after).into());
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Rounded up: who waits as long as this has waited long enough.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// An answer that no cache keeps and no browser guesses about.
pub(super) fn respond(status: StatusCode, kind: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}
