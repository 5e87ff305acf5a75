//! Everything the page shows, in one answer.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::join_all;
use resonant_common::error::BoxError;
use resonant_common::wall;
use resonant_health::{HealthChecker, Status};
use resonant_scale::{Autoscaler, AutoscalerStatus, Decided, LastChange};
use serde::Serialize;
use serde_json::Value;
use tokio::time::{Instant, timeout};

use super::rows::Row;

/// How long a table may take to be read.
const PATIENCE: Duration = Duration::from_secs(2);
/// For how long what was read is shown again, so that many pages cost no more than one.
const FRESH: Duration = Duration::from_secs(1);
/// The most rows of a table that are shown.
const MOST: usize = 500;
/// The most changes, and decisions, of a scaler that are shown.
const CHANGES: usize = 20;

type Reading = Pin<Box<dyn Future<Output = Result<Vec<Value>, BoxError>> + Send>>;

/// A table by its closure.
pub(super) struct Table {
    pub(super) id: &'static str,
    title: &'static str,
    read: Box<dyn Fn() -> Reading + Send + Sync>,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Table").field(&self.id).finish()
    }
}

impl Table {
    pub(super) fn new<T, F, Fut, E>(read: F) -> Self
    where
        T: Row,
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<T>, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let read = move || {
            let rows = read();
            let reading = async move {
                let rows = rows.await.map_err(Into::into)?;
                Ok(rows.iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?)
            };
            Box::pin(reading) as Reading
        };
        Self { id: T::TABLE, title: T::TITLE, read: Box::new(read) }
    }

    async fn read(&self) -> Shown {
        // A table that panics costs itself, not the page. Its closure shares nothing with it.
        let reading = AssertUnwindSafe(async { (self.read)().await }).catch_unwind();
        // Not the text of the error: it may hold anything.
        let (mut rows, error) = match timeout(PATIENCE, reading).await {
            Ok(Ok(Ok(rows))) => (rows, None),
            Ok(_) => (Vec::new(), Some("could not be read")),
            Err(_) => (Vec::new(), Some("did not answer in time")),
        };
        let (count, states) = (rows.len(), States::of(&rows));
        if count > MOST {
            // What is left out must not be what matters.
            rows.sort_by_key(rank);
            rows.truncate(MOST);
        }
        Shown { id: self.id, title: self.title, count, states, rows, error }
    }
}

/// How many rows are in which state, those that are not shown included.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct States {
    fail: usize,
    warn: usize,
    ok: usize,
}

impl States {
    fn of(rows: &[Value]) -> Self {
        let mut states = Self::default();
        for row in rows {
            match rank(row) {
                0 => states.fail += 1,
                1 => states.warn += 1,
                2 => states.ok += 1,
                _ => {}
            }
        }
        states
    }
}

/// The worst first, what has no state last.
fn rank(row: &Value) -> u8 {
    match row["state"].as_str() {
        Some("fail") => 0,
        Some("warn") => 1,
        Some("ok") => 2,
        _ => 3,
    }
}

#[derive(Debug, Clone, Serialize)]
struct Shown {
    id: &'static str,
    title: &'static str,
    /// All there are; the rows may be fewer.
    count: usize,
    states: States,
    rows: Vec<Value>,
    error: Option<&'static str>,
}

/// What everybody sees: no name, no number but of things, no reason.
#[derive(Serialize)]
struct Brief {
    at: String,
    authorized: bool,
    status: Option<Status>,
    draining: bool,
    tables: Vec<Value>,
    checks: Option<usize>,
    scalers: usize,
}

#[derive(Serialize)]
struct Full {
    at: String,
    authorized: bool,
    service: String,
    status: Option<Status>,
    draining: bool,
    health: Option<Value>,
    tables: Vec<Shown>,
    scaling: Vec<Scaling>,
}

#[derive(Serialize)]
struct Scaling {
    #[serde(flatten)]
    status: AutoscalerStatus,
    history: Vec<LastChange>,
    decisions: Vec<Decided>,
}

/// The last few, the latest first.
fn latest<T>(mut all: Vec<T>) -> Vec<T> {
    all.reverse();
    all.truncate(CHANGES);
    all
}

/// Reads the tables, at most once a second for all who ask.
#[derive(Debug, Default)]
pub(super) struct Overview {
    pub(super) service: String,
    pub(super) tables: Vec<Table>,
    read: tokio::sync::Mutex<Option<(Instant, Vec<Shown>)>>,
}

impl Overview {
    pub(super) fn new(service: String, tables: Vec<Table>) -> Self {
        Self { service, tables, read: tokio::sync::Mutex::default() }
    }

    pub(super) async fn full(
        &self,
        health: Option<&HealthChecker>,
        scalers: &[Autoscaler],
    ) -> String {
        let report = health.map(HealthChecker::snapshot);
        let scaling = scalers.iter().map(|scaler| {
            let (history, decisions) = (latest(scaler.history()), latest(scaler.decisions()));
            Scaling { status: scaler.status(), history, decisions }
        });
        let full = Full {
            at: wall::rfc3339(wall::now()),
            authorized: true,
            service: self.service.clone(),
            status: report.as_ref().map(|report| report.status()),
            draining: report.as_ref().is_some_and(|report| report.is_draining()),
            health: report.as_ref().and_then(|report| serde_json::to_value(report).ok()),
            tables: self.tables().await,
            scaling: scaling.collect(),
        };
        serde_json::to_string(&full).unwrap_or_default()
    }

    pub(super) fn brief(&self, health: Option<&HealthChecker>, scalers: &[Autoscaler]) -> String {
        let report = health.map(HealthChecker::snapshot);
        let table = |table: &Table| serde_json::json!({ "id": table.id, "title": table.title });
        let brief = Brief {
            at: wall::rfc3339(wall::now()),
            authorized: false,
            status: report.as_ref().map(|report| report.status()),
            draining: report.as_ref().is_some_and(|report| report.is_draining()),
            tables: self.tables.iter().map(table).collect(),
            checks: report.as_ref().map(|report| report.checks().len()),
            scalers: scalers.len(),
        };
        serde_json::to_string(&brief).unwrap_or_default()
    }

    async fn tables(&self) -> Vec<Shown> {
        let mut read = self.read.lock().await;
        if let Some((at, shown)) = &*read
            && at.elapsed() < FRESH
        {
            return shown.clone();
        }
        let shown = join_all(self.tables.iter().map(Table::read)).await;
        *read = Some((Instant::now(), shown.clone()));
        shown
    }
}
