//! Probes that do as told, a log that can be read, and a small JSON Schema validator.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use http::{Request, Response};
use resonant_health::{HealthChecker, HealthConfig};
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

pub(crate) type Failure = std::io::Error;

/// No jitter and no dwell, so that times in tests are round.
pub(crate) fn steady() -> HealthConfig {
    HealthConfig { jitter: 0.0, dwell: Duration::ZERO, ..HealthConfig::default() }
}

pub(crate) fn checker(config: HealthConfig) -> HealthChecker {
    HealthChecker::with_config(config).expect("valid settings")
}

/// A dependency a test switches between well, broken, hung and panicking, and that counts its probes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dependency(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    mode: AtomicU8,
    runs: AtomicUsize,
    alive: AtomicUsize,
    most_alive: AtomicUsize,
    dropped: AtomicUsize,
    free: tokio::sync::Notify,
}

impl Dependency {
    pub(crate) fn well() -> Self {
        Self::default()
    }

    pub(crate) fn broken() -> Self {
        let dependency = Self::default();
        dependency.breaks();
        dependency
    }

    pub(crate) fn hung() -> Self {
        let dependency = Self::default();
        dependency.hangs();
        dependency
    }

    pub(crate) fn heals(&self) {
        self.0.mode.store(0, Ordering::SeqCst);
        self.0.free.notify_waiters();
    }

    pub(crate) fn breaks(&self) {
        self.0.mode.store(1, Ordering::SeqCst);
    }

    pub(crate) fn hangs(&self) {
        self.0.mode.store(2, Ordering::SeqCst);
    }

    pub(crate) fn panics(&self) {
        self.0.mode.store(3, Ordering::SeqCst);
    }

    pub(crate) fn runs(&self) -> usize {
        self.0.runs.load(Ordering::SeqCst)
    }

    pub(crate) fn alive(&self) -> usize {
        self.0.alive.load(Ordering::SeqCst)
    }

    pub(crate) fn most_alive(&self) -> usize {
        self.0.most_alive.load(Ordering::SeqCst)
    }

    /// Futures dropped before they were done.
    pub(crate) fn dropped(&self) -> usize {
        self.0.dropped.load(Ordering::SeqCst)
    }

    /// As a primitive of the family offers it: the future borrows nothing.
    pub(crate) fn ping(&self) -> impl Future<Output = Result<(), Failure>> + Send + use<> {
        let inner = Arc::clone(&self.0);
        async move {
            let mut alive = Alive::of(&inner);
            inner.runs.fetch_add(1, Ordering::SeqCst);
            let result = match inner.mode.load(Ordering::SeqCst) {
                0 => Ok(()),
                1 => Err(Failure::other("connection refused")),
                2 => {
                    inner.free.notified().await;
                    Ok(())
                }
                _ => panic!("the driver panicked"),
            };
            alive.done = true;
            result
        }
    }

    /// A probe for `check`.
    pub(crate) fn probe(
        &self,
    ) -> impl Fn() -> std::pin::Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>
    + Send
    + Sync
    + use<> {
        let dependency = self.clone();
        move || Box::pin(dependency.ping())
    }
}

struct Alive<'a> {
    inner: &'a Inner,
    done: bool,
}

impl<'a> Alive<'a> {
    fn of(inner: &'a Inner) -> Self {
        let alive = inner.alive.fetch_add(1, Ordering::SeqCst) + 1;
        inner.most_alive.fetch_max(alive, Ordering::SeqCst);
        Self { inner, done: false }
    }
}

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        self.inner.alive.fetch_sub(1, Ordering::SeqCst);
        if !self.done {
            self.inner.dropped.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Lets tasks that are ready run without letting time pass.
pub(crate) async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

pub(crate) fn get(uri: &str) -> Request<()> {
    Request::get(uri).body(()).expect("a request")
}

pub(crate) fn get_as(uri: &str, accept: &str) -> Request<()> {
    Request::get(uri).header("accept", accept).body(()).expect("a request")
}

pub(crate) fn header<'a>(response: &'a Response<String>, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().expect("text"))
}

pub(crate) fn json(response: &Response<String>) -> Value {
    serde_json::from_str(response.body()).expect("JSON")
}

/// A subscriber that keeps every event and span as text.
#[derive(Debug, Clone)]
pub(crate) struct Log(Arc<Mutex<Vec<Line>>>);

#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) level: tracing::Level,
    pub(crate) is_span: bool,
    pub(crate) text: String,
}

impl Log {
    pub(crate) fn new() -> Self {
        // With a single dispatcher `tracing` asks the thread that meets a line first whether anybody listens, and
        // remembers its answer for all. Two that live for ever make it ask every dispatcher.
        static KEEP: OnceLock<[tracing::Dispatch; 2]> = OnceLock::new();
        KEEP.get_or_init(|| [(); 2].map(|()| tracing::Dispatch::new(Self(Arc::default()))));
        Self(Arc::default())
    }

    pub(crate) fn lines(&self) -> Vec<Line> {
        self.0.lock().expect("the log").clone()
    }

    pub(crate) fn warnings(&self) -> Vec<String> {
        let lines = self.lines().into_iter();
        lines.filter(|line| line.level == tracing::Level::WARN).map(|line| line.text).collect()
    }

    fn keep(&self, metadata: &Metadata<'_>, is_span: bool, record: impl FnOnce(&mut Text)) {
        if metadata.target() != "resonant::health" {
            return;
        }
        let mut text = Text(metadata.name().to_owned());
        record(&mut text);
        let line = Line { level: *metadata.level(), is_span, text: text.0 };
        self.0.lock().expect("the log").push(line);
    }
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push_str(&format!(" {}={value:?}", field.name()));
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.keep(span.metadata(), true, |text| span.record(text));
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, values: &Record<'_>) {
        let mut text = Text("recorded".to_owned());
        values.record(&mut text);
        let line = Line { level: tracing::Level::DEBUG, is_span: true, text: text.0 };
        self.0.lock().expect("the log").push(line);
    }
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        self.keep(event.metadata(), false, |text| event.record(text));
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Checks `value` against the part of JSON Schema our schemas use; an unknown keyword is a mistake in the schema.
pub(crate) fn validate(root: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let object = schema.as_object().ok_or("a schema is an object")?;
    let fail = |what: &str| Err(format!("{what}: {value}"));
    let strings = |list: &Value| -> Vec<String> {
        let list = list.as_array().expect("a list");
        list.iter().map(|name| name.as_str().expect("a name").to_owned()).collect()
    };
    let has = |name: &String| value.get(name).is_some();
    let is = |branch: &Value| validate(root, branch, value).is_ok();
    for (keyword, rule) in object {
        match keyword.as_str() {
            "$schema" | "title" | "$defs" | "then" | "else" | "additionalProperties" => {}
            "$ref" => {
                let path = rule.as_str().and_then(|path| path.strip_prefix('#')).expect("a path");
                validate(root, root.pointer(path).expect("a definition"), value)?;
            }
            "type" => {
                let fits = match rule.as_str().expect("a type") {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "number" => value.is_number(),
                    "integer" => value.is_u64(),
                    "boolean" => value.is_boolean(),
                    other => panic!("unknown type {other}"),
                };
                if !fits {
                    return fail(&format!("not of type {rule}"));
                }
            }
            "const" if rule != value => return fail(&format!("not {rule}")),
            "enum" if !rule.as_array().expect("a list").contains(value) => {
                return fail(&format!("none of {rule}"));
            }
            "const" | "enum" => {}
            "required" => {
                if let Some(missing) = strings(rule).iter().find(|name| !has(name)) {
                    return fail(&format!("without {missing}"));
                }
            }
            "dependentRequired" => {
                for (name, needs) in rule.as_object().expect("an object") {
                    if has(name) && !strings(needs).iter().all(has) {
                        return fail(&format!("{name} without {needs}"));
                    }
                }
            }
            "properties" => {
                for (name, inner) in rule.as_object().expect("an object") {
                    if let Some(value) = value.get(name) {
                        validate(root, inner, value)?;
                    }
                }
            }
            "items" => {
                for item in value.as_array().into_iter().flatten() {
                    validate(root, rule, item)?;
                }
            }
            "minItems" => {
                let least = rule.as_u64().expect("a number") as usize;
                if value.as_array().is_some_and(|items| items.len() < least) {
                    return fail("too short");
                }
            }
            "minLength" => {
                let least = rule.as_u64().expect("a number") as usize;
                if value.as_str().is_some_and(|text| text.len() < least) {
                    return fail("too short");
                }
            }
            "minimum" => {
                if value.as_f64() < rule.as_f64() {
                    return fail("too small");
                }
            }
            "not" if is(rule) => return fail(&format!("matches {rule}")),
            "not" => {}
            "if" => {
                if let Some(branch) = object.get(if is(rule) { "then" } else { "else" }) {
                    validate(root, branch, value)?;
                }
            }
            other => panic!("the validator does not know {other}"),
        }
    }
    if let Some(rule) = object.get("additionalProperties") {
        let known = object.get("properties").and_then(Value::as_object);
        for (name, value) in value.as_object().into_iter().flatten() {
            if known.is_some_and(|known| known.contains_key(name)) {
                continue;
            }
            match rule {
                Value::Bool(false) => return Err(format!("unknown field {name}")),
                rule => validate(root, rule, value)?,
            }
        }
    }
    Ok(())
}
