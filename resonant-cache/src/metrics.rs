//! The cache's rows of the metric table.

use resonant_common::telemetry::{Counter, Gauge, Histogram, names};

use crate::backend::Event;

/// What was called.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Op {
    Get,
    GetOrLoad,
    Set,
    Delete,
    Invalidate,
    Count,
}

/// How it ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum How {
    HitLocal,
    HitShared,
    Stale,
    Negative,
    Miss,
    Loaded,
    Ok,
    Refused,
    Error,
}

impl How {
    pub(crate) fn label(self) -> &'static str {
        RESULTS[self as usize]
    }
}

const OPS: [&str; 6] = ["get", "get_or_load", "set", "delete", "invalidate", "count"];
const RESULTS: [&str; 9] =
    ["hit_local", "hit_shared", "stale", "negative", "miss", "loaded", "ok", "refused", "error"];
const OUTCOMES: [&str; 4] = ["ok", "error", "timeout", "panic"];

/// How a load ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outcome {
    Ok,
    Error,
    Timeout,
    Panic,
}

impl Outcome {
    pub(crate) fn label(self) -> &'static str {
        OUTCOMES[self as usize]
    }
}

#[derive(Debug)]
pub(crate) struct Metrics {
    operations: [[Counter; RESULTS.len()]; OPS.len()],
    loads: [Histogram; OUTCOMES.len()],
    pub(crate) entries: Gauge,
    pub(crate) bytes: Gauge,
    pub(crate) evictions: Counter,
    pub(crate) coalesced: Counter,
    pub(crate) lease_waits: Counter,
    pub(crate) journal: Gauge,
    pub(crate) announced: Gauge,
}

/// What the store announced, by kind.
#[derive(Debug)]
pub(crate) struct News([Counter; 4]);

impl News {
    #[inline]
    pub(crate) fn count(&self, event: &Event) {
        let kind = match event {
            Event::Changed(_) => 0,
            Event::TagsInvalidated { .. } => 1,
            Event::Cleared { .. } => 2,
            Event::Lost => 3,
        };
        self.0[kind].increment(1);
    }
}

/// What the store's calls took.
#[derive(Debug)]
pub(crate) struct StoreMetrics {
    durations: [Histogram; CALLS.len()],
    up: Gauge,
}

const CALLS: [&str; 9] =
    ["read", "write", "remove", "lease", "release", "add", "epochs", "bump", "ping"];

impl StoreMetrics {
    pub(crate) fn new(cache: &str) -> Self {
        let duration = |call| {
            Histogram::new(&names::CACHE_STORE_TIME, &[("cache", cache), ("operation", call)])
        };
        let up = Gauge::new(&names::CACHE_STORE_UP, &[("cache", cache)]);
        Self { durations: CALLS.map(duration), up }
    }

    pub(crate) fn record(&self, call: &'static str, took: std::time::Duration) {
        if let Some(at) = CALLS.iter().position(|known| *known == call) {
            self.durations[at].record_duration(took);
        }
    }

    pub(crate) fn up(&self, up: bool) {
        self.up.set(f64::from(u8::from(up)));
    }
}

impl Metrics {
    pub(crate) fn new(cache: &str) -> Self {
        let operation = |operation: &str, result: &str| {
            Counter::new(
                &names::CACHE_OPERATIONS,
                &[("cache", cache), ("operation", operation), ("result", result)],
            )
        };
        Self {
            operations: OPS.map(|op| RESULTS.map(|result| operation(op, result))),
            loads: OUTCOMES.map(|outcome| {
                Histogram::new(&names::CACHE_LOADS, &[("cache", cache), ("outcome", outcome)])
            }),
            entries: Gauge::new(&names::CACHE_ENTRIES, &[("cache", cache)]),
            bytes: Gauge::new(&names::CACHE_BYTES, &[("cache", cache)]),
            evictions: Counter::new(
                &names::CACHE_EVICTIONS,
                &[("cache", cache), ("reason", "size")],
            ),
            coalesced: Counter::new(&names::CACHE_COALESCED, &[("cache", cache)]),
            lease_waits: Counter::new(&names::CACHE_LEASE_WAITS, &[("cache", cache)]),
            journal: Gauge::new(&names::CACHE_JOURNAL, &[("cache", cache)]),
            announced: Gauge::new(&names::CACHE_STORE_ANNOUNCED, &[("cache", cache)]),
        }
    }

    pub(crate) fn news(cache: &str) -> News {
        let kinds = ["key", "tag", "clear", "lost"];
        News(kinds.map(|kind| {
            Counter::new(&names::CACHE_INVALIDATIONS, &[("cache", cache), ("kind", kind)])
        }))
    }

    #[inline]
    pub(crate) fn count(&self, op: Op, how: How) {
        self.operations[op as usize][how as usize].increment(1);
    }

    pub(crate) fn load(&self, outcome: Outcome, took: std::time::Duration) {
        self.loads[outcome as usize].record_duration(took);
    }
}
