//! The metrics of a scaler, from the family's table.

use resonant_common::telemetry::names::{
    SCALING_BLOCKED, SCALING_DECISIONS, SCALING_FAILING, SCALING_FAILURES, SCALING_LAST_CHANGE,
    SCALING_REPLICAS,
};
use resonant_common::telemetry::{Counter, Gauge};
use resonant_common::wall;

use super::evaluate::DIRECTIONS;
use super::state::State;
use crate::decision::{Decision, Reason};

const KINDS: [&str; 5] = ["wanted", "existing", "ready", "min", "max"];
const OPERATIONS: [&str; 3] = ["measure", "read", "set"];
/// What can hold a decision back.
const BLOCKS: [Reason; 12] = [
    Reason::AfterFailover,
    Reason::Cooldown,
    Reason::FailedGetMetric,
    Reason::HeldByPerson,
    Reason::Paused,
    Reason::ScaleDownLimit,
    Reason::ScaleDownStabilized,
    Reason::ScaleInForbidden,
    Reason::ScaleUpLimit,
    Reason::ScaleUpStabilized,
    Reason::TooFewReplicas,
    Reason::TooManyReplicas,
];

pub(super) struct Meter {
    replicas: [Gauge; 5],
    decisions: [Counter; 3],
    blocked: [Counter; 12],
    failures: [Counter; 3],
    failing: [Gauge; 3],
    last_change: Gauge,
}

impl Meter {
    pub(super) fn new(target: &str) -> Self {
        Self {
            replicas: KINDS
                .map(|kind| Gauge::new(&SCALING_REPLICAS, &[("target", target), ("kind", kind)])),
            decisions: DIRECTIONS.map(|it| {
                let labels = [("target", target), ("direction", it.as_str())];
                Counter::new(&SCALING_DECISIONS, &labels)
            }),
            blocked: BLOCKS.map(|it| {
                Counter::new(&SCALING_BLOCKED, &[("target", target), ("reason", it.as_str())])
            }),
            failures: OPERATIONS.map(|it| {
                Counter::new(&SCALING_FAILURES, &[("target", target), ("operation", it)])
            }),
            failing: OPERATIONS
                .map(|it| Gauge::new(&SCALING_FAILING, &[("target", target), ("operation", it)])),
            last_change: Gauge::new(&SCALING_LAST_CHANGE, &[("target", target)]),
        }
    }

    /// Every series is touched, so that all exist from the first round after a recorder does.
    pub(super) fn decided(&self, decision: &Decision, state: &State, bounds: (u32, u32)) {
        if let Some(seen) = &state.seen {
            let scale = seen.scale;
            let ready = scale.ready.unwrap_or(scale.existing);
            let values = [scale.wanted, scale.existing, ready, bounds.0, bounds.1];
            for (gauge, value) in self.replicas.iter().zip(values) {
                gauge.set(f64::from(value));
            }
        }
        for (counter, direction) in self.decisions.iter().zip(DIRECTIONS) {
            counter.increment(u64::from(direction == decision.direction()));
        }
        for (counter, reason) in self.blocked.iter().zip(BLOCKS) {
            counter.increment(u64::from(reason == decision.reason));
        }
        for counter in &self.failures {
            counter.increment(0);
        }
        for (gauge, known) in self.failing.iter().zip(OPERATIONS) {
            let fails = state.failing.iter().any(|(operation, _)| *operation == known);
            gauge.set(f64::from(u8::from(fails)));
        }
    }

    pub(super) fn changed(&self) {
        self.last_change.set(wall::unix_seconds(wall::now()));
    }

    pub(super) fn failed(&self, operation: &str) {
        for (counter, known) in self.failures.iter().zip(OPERATIONS) {
            counter.increment(u64::from(known == operation));
        }
    }
}
