//! Any bytes as requests to the HTTP API, and what must hold of every answer.
//!
//! An input is read as requests are written down: a line of method and target, lines of headers, an empty line, the body; and,
//! after a line of `---`, the next request to the same service. What cannot be said over HTTP is left out, as a server would
//! refuse it before the API saw it. Everything else is: so an input is also a story, of a key that is used twice or of a pause
//! between two changes.

use std::cell::RefCell;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use resonant_health::HealthChecker;
use resonant_scale::testing::{FakeMetric, FakeTarget};
use resonant_scale::{Autoscaler, Behavior, HpaConfig, MetricSpec, ScalingRules};
use resonant_sdk::http::{Api, ApiConfig, rows};
use tower::ServiceExt as _;

/// Who presents it may do everything.
pub(crate) const TOKEN: &str = "a long secret of ada's";
/// What only those with a token may read: it stands in every name of the service.
const SECRET: &str = "zebra";
/// The fewest and the most workers.
const BOUNDS: (u32, u32) = (1, 20);
/// The most requests of an input.
const MOST: usize = 8;

/// What was asked.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// What was answered, and what became of the workers.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// The numbers that the target was asked for meanwhile.
    pub(crate) sets: Vec<u32>,
    /// Whether it was paused before and after.
    pub(crate) paused: (bool, bool),
}

/// Asks everything of a service of its own, and answers the statuses.
///
/// # Panics
///
/// If an answer is not what it must be. The message holds what was asked and answered.
pub(crate) fn run(data: &[u8]) -> Vec<u16> {
    thread_local! {
        // Time stands still but for those who wait for it, so that nothing here takes any.
        static RUNTIME: RefCell<tokio::runtime::Runtime> = RefCell::new(
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime"),
        );
    }
    RUNTIME.with_borrow(|runtime| runtime.block_on(tell(requests(data))))
}

/// The requests an input stands for.
pub(crate) fn requests(data: &[u8]) -> Vec<Asked> {
    let mut rest = Some(data);
    let mut asked = Vec::new();
    while let Some(part) = rest.take()
        && asked.len() < MOST
    {
        let (one, next) = cut(part, b"\n---\n");
        asked.extend(request(one));
        rest = next;
    }
    asked
}

fn cut<'a>(bytes: &'a [u8], at: &[u8]) -> (&'a [u8], Option<&'a [u8]>) {
    match bytes.windows(at.len()).position(|window| window == at) {
        Some(place) => (&bytes[..place], Some(&bytes[place + at.len()..])),
        None => (bytes, None),
    }
}

fn request(text: &[u8]) -> Option<Asked> {
    let (head, body) = cut(text, b"\n\n");
    let mut lines = head.split(|byte| *byte == b'\n');
    let (method, target) = cut(lines.next()?, b" ");
    let mut headers = HeaderMap::new();
    for line in lines.take(64) {
        let (name, value) = cut(line, b":");
        let name = HeaderName::from_bytes(name.trim_ascii());
        let value = HeaderValue::from_bytes(value.unwrap_or_default().trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    Some(Asked {
        method: Method::from_bytes(method).ok()?,
        uri: Uri::try_from(target?.trim_ascii()).ok()?,
        headers,
        body: body.unwrap_or_default().to_vec(),
    })
}

/// A service of 4 workers, whose every name holds the word that strangers must not read.
struct Service {
    app: Router,
    scaler: Autoscaler,
    target: FakeTarget,
}

impl Service {
    fn new() -> Self {
        let target = FakeTarget::new(4);
        let at_once = ScalingRules {
            stabilization_window: Some(std::time::Duration::ZERO),
            ..ScalingRules::down()
        };
        let policy = HpaConfig::new(BOUNDS.0, BOUNDS.1)
            .metric(MetricSpec::external_average("queue_depth", 10.0))
            .behavior(Behavior { scale_down: at_once, ..Behavior::default() });
        let scaler = Autoscaler::builder("zebra-workers")
            .policy(policy)
            .source("queue_depth", FakeMetric::new(40.0))
            .target(target.clone())
            .build()
            .expect("the settings fit");
        let health = HealthChecker::new().check("database", async || Ok::<_, std::io::Error>(()));
        // Limits no input comes near to: they have tests of their own.
        let config = ApiConfig {
            writes_per_second: 1e9,
            reads_per_second: 1e9,
            strangers_per_second: 1e9,
            ..ApiConfig::default()
        };
        let app = Api::builder()
            .config(config)
            .service("zebra-service")
            .token("ada", TOKEN)
            .health(health)
            .scaler(scaler.clone())
            .metrics(|| "queue_depth 7\n".into())
            .show(async || {
                let row = rows::Queue { name: "zebra-tasks".into(), ..Default::default() };
                Ok::<_, std::io::Error>(vec![row])
            })
            .build()
            .expect("the settings fit")
            .router();
        Self { app, scaler, target }
    }

    async fn ask(&self, asked: &Asked) -> Told {
        let (sets, paused) = (self.target.sets().len(), self.scaler.status().paused);
        let mut request = Request::new(Body::from(asked.body.clone()));
        *request.method_mut() = asked.method.clone();
        *request.uri_mut() = asked.uri.clone();
        *request.headers_mut() = asked.headers.clone();
        let Ok(response) = self.app.clone().oneshot(request).await;
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 1 << 22).await.expect("the answer is whole").to_vec();
        Told {
            status: parts.status,
            headers: parts.headers,
            body,
            sets: self.target.sets().split_off(sets),
            paused: (paused, self.scaler.status().paused),
        }
    }
}

async fn tell(requests: Vec<Asked>) -> Vec<u16> {
    let service = Service::new();
    service.scaler.evaluate().await;
    let mut statuses = Vec::new();
    for asked in &requests {
        let told = service.ask(asked).await;
        let found = faults(asked, &told);
        assert!(
            found.is_empty(),
            "{found:?}\n{asked:?}\n{}\n{told:?}\n{}",
            String::from_utf8_lossy(&asked.body),
            String::from_utf8_lossy(&told.body),
        );
        statuses.push(told.status.as_u16());
    }
    // Whatever it was: the service still works.
    let after = Asked {
        method: Method::GET,
        uri: Uri::from_static("/api/v1/scaling/status"),
        headers: [(
            "authorization".parse().expect("a name"),
            format!("Bearer {TOKEN}").parse().expect("a value"),
        )]
        .into_iter()
        .collect(),
        body: Vec::new(),
    };
    assert_eq!(service.ask(&after).await.status, StatusCode::OK);
    statuses
}

/// What is wrong with an answer.
pub(crate) fn faults(asked: &Asked, told: &Told) -> Vec<String> {
    let mut found = Vec::new();
    let mut must = |holds: bool, what: &str| {
        if !holds {
            found.push(what.to_owned());
        }
    };
    let header =
        |name: &str| told.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let (status, path) = (told.status.as_u16(), asked.uri.path());
    let text = std::str::from_utf8(&told.body);
    must(text.is_ok(), "the answer is no text");
    let text = text.unwrap_or_default();
    must(status != 500 && (200..600).contains(&status), "a fault of the service's own");
    must(asked.method != Method::HEAD || text.is_empty(), "an answer to HEAD has a body");

    // A route that nobody has is answered by axum, with nothing.
    let unknown = status == 404 && header("content-type").is_empty();
    must(!unknown || text.is_empty(), "an unknown route is answered by words");
    let says_health = header("content-type") == "application/health+json";
    if status >= 400 && !unknown && !(says_health && status == 503) {
        must(header("content-type") == "application/problem+json", "a refusal is no problem+json");
        must(text.len() < 2000, "a refusal is long");
        if asked.method != Method::HEAD {
            let json: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
            must(json["status"] == status, "a refusal does not tell its status");
            must(
                json["detail"].as_str().is_some_and(|it| it.len() >= 10),
                "a refusal says nothing",
            );
            must(json["title"].as_str().is_some_and(|it| it.len() >= 6), "a refusal has no title");
        }
    }
    if status == 405 {
        must(!header("allow").is_empty(), "a method is refused and none is named");
    }

    // Who has no token reads no name and changes nothing, and nobody is told what the token is.
    let known = authorized(&asked.headers);
    let said = [&asked.body[..], asked.uri.to_string().as_bytes()].concat();
    let said = String::from_utf8_lossy(&said).to_lowercase();
    must(said.contains("secret of ada") || !text.contains("secret of ada"), "the token is told");
    must(known || said.contains(SECRET) || !text.contains(SECRET), "a stranger reads a name");
    if !known && path.starts_with("/api/v1/scaling/") && !unknown {
        must([401, 405].contains(&status), "a stranger is let in");
    }

    // A change is what was answered with 202, at most one, and within the bounds.
    must(told.sets.is_empty() || known, "a stranger changes something");
    must(told.sets.len() < 2, "two changes of one request");
    let again = header("idempotent-replayed") == "true";
    must(!again || told.sets.is_empty(), "a change is made again under its key");
    must(
        again || (status == 202) == (told.sets.len() == 1),
        "the answer does not say what was done",
    );
    let within = told.sets.iter().all(|it| (BOUNDS.0..=BOUNDS.1).contains(it));
    must(within, "a change beyond the bounds");
    if told.paused.0 != told.paused.1 {
        let verb = if told.paused.1 { "/api/v1/scaling/pause" } else { "/api/v1/scaling/resume" };
        must(known && status == 200 && path == verb, "it was paused or resumed by something else");
    }
    found
}

/// Whether the headers hold the token, once and whole.
fn authorized(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all("authorization").iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let value = value.as_bytes();
    value.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer "))
        && value[7..].trim_ascii() == TOKEN.as_bytes()
}
