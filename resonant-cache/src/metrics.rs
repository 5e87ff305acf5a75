//! The cache's rows of the metric table.

use resonant_common::telemetry::{Counter, Gauge, Histogram, names};

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

#[derive(Debug)]
pub(crate) struct Metrics {
    operations: [[Counter; RESULTS.len()]; OPS.len()],
    loads: [Histogram; OUTCOMES.len()],
    pub(crate) entries: Gauge,
    pub(crate) bytes: Gauge,
    pub(crate) evictions: Counter,
    pub(crate) coalesced: Counter,
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
        }
    }

    #[inline]
    pub(crate) fn count(&self, op: Op, how: How) {
        self.operations[op as usize][how as usize].increment(1);
    }

    pub(crate) fn load(&self, outcome: Outcome, took: std::time::Duration) {
        self.loads[outcome as usize].record_duration(took);
    }
}
