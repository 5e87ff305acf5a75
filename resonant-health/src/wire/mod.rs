//! Probes over HTTP in `http` types: for axum, hyper, or anything else that speaks them.
//!
//! Bodies hold fixed words and codes and the names given in code, nothing an error or a client wrote; so they can be
//! shown to anybody. The formats are specified in `docs/formats/health.md`.

mod accept;
mod body;
mod health_json;
mod json;
mod query;

use http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, VARY};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};

use self::accept::Form;
pub(crate) use self::body::{Body, Scope};
use self::query::Query;
use crate::checker::HealthChecker;
use crate::report::Report;
use crate::verdict::Probe;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Endpoint<'a> {
    /// One check or watchdog by name; 404 if there is none.
    Check(&'a str),
    /// A probe: a tiny body, with `?verbose` the checks behind it.
    Probe(Probe),
    /// The whole: the state of the ready probe and of every check.
    Report,
}

/// How much the owner lets a client see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Details {
    /// The state alone, whatever is asked for. Single checks are not found.
    Hidden,
    /// Names, states, codes, times. The default; holds no text from errors.
    #[default]
    Named,
    /// And the text of errors, which **may hold anything their authors wrote**. Only behind a token or on a listener
    /// of your own.
    ErrorTexts,
}

impl HealthChecker {
    /// Answers a request from the snapshot, with the default [`Details`]. Runs no check and waits for nothing.
    ///
    /// 200 for pass and warn, 503 for fail and unknown, 404 for an unknown check, 405 for anything but GET and HEAD.
    pub fn answer<B>(&self, endpoint: Endpoint<'_>, request: &Request<B>) -> Response<String> {
        self.answer_with(endpoint, request, Details::default())
    }

    /// The same with other [`Details`].
    pub fn answer_with<B>(
        &self,
        endpoint: Endpoint<'_>,
        request: &Request<B>,
        details: Details,
    ) -> Response<String> {
        let head = match *request.method() {
            Method::GET => false,
            Method::HEAD => true,
            _ => return not_allowed(),
        };
        let query = Query::read(request.uri().query());
        let form = form_of(request.headers());
        let report = self.snapshot();
        self.core.mind_the_schedule(&report);
        let mut response = match body_of(&report, endpoint, &query, details) {
            Some(body) => respond(body.status().http_status(), form, body.write(form)),
            None => respond(StatusCode::NOT_FOUND, Form::Text, "no such check\n".into()),
        };
        if head {
            response.body_mut().clear();
        }
        response
    }
}

impl Report {
    /// This report as a response in plain JSON without error texts: 200 if traffic may come, else 503.
    pub fn to_response(&self) -> Response<String> {
        let body = Body::of_report(self, Scope::Everything);
        respond(body.status().http_status(), Form::Json, body.write(Form::Json))
    }
}

fn body_of<'a>(
    report: &'a Report,
    endpoint: Endpoint<'_>,
    query: &Query<'_>,
    details: Details,
) -> Option<Body<'a>> {
    let verbose = match details {
        Details::Hidden => Scope::Verdict,
        Details::Named => Scope::Everything,
        Details::ErrorTexts => Scope::ErrorTexts,
    };
    let asked = |brief: Scope| if query.verbose { verbose } else { brief.min(verbose) };
    Some(match endpoint {
        Endpoint::Probe(probe) => {
            Body::of_probe(report, probe, &query.excluded, asked(Scope::Verdict))
        }
        Endpoint::Report => {
            let scope = asked(Scope::States);
            let body = Body::of_probe(report, Probe::Ready, &query.excluded, scope);
            if details == Details::Hidden { body } else { body.whole(report) }
        }
        Endpoint::Check(_) if details == Details::Hidden => return None,
        Endpoint::Check(name) => Body::of_row(report.get(name)?, asked(Scope::States)),
    })
}

fn form_of(headers: &HeaderMap) -> Form {
    let lines: Vec<_> =
        headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    Form::choose(&lines)
}

fn respond(status: StatusCode, form: Form, body: String) -> Response<String> {
    let length = HeaderValue::from(body.len());
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(form.content_type()));
    // A HEAD answer names the length its GET would have.
    headers.insert(CONTENT_LENGTH, length);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(VARY, HeaderValue::from_static("accept"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

fn not_allowed() -> Response<String> {
    let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, Form::Text, String::new());
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}
