//! The metrics of a checker, from the family's table.

use resonant_common::telemetry::names::{
    HEALTH_CHECK_LAST_SUCCESS, HEALTH_CHECK_RUNS, HEALTH_CHECK_STATUS, HEALTH_CHECK_TIME,
    HEALTH_STATUS, HEALTH_TRANSITIONS,
};
use resonant_common::telemetry::{Counter, Gauge, Histogram, Metric};

use crate::report::{Outcome, Status};
use crate::verdict::Probe;
use crate::work::Seen;

/// One gauge per state; the one that holds is 1.
#[derive(Debug)]
pub(crate) struct StateGauges([Gauge; 4]);

impl StateGauges {
    fn new(metric: &'static Metric, label: &'static str, name: &str) -> Self {
        Self(
            Status::ALL
                .map(|state| Gauge::new(metric, &[(label, name), ("state", state.as_str())])),
        )
    }

    pub(crate) fn of_probe(probe: Probe) -> Self {
        Self::new(&HEALTH_STATUS, "probe", probe.as_str())
    }

    pub(crate) fn of_check(name: &str) -> Self {
        Self::new(&HEALTH_CHECK_STATUS, "check", name)
    }

    pub(crate) fn set(&self, holds: Status) {
        for (gauge, state) in self.0.iter().zip(Status::ALL) {
            gauge.set(if state == holds { 1.0 } else { 0.0 });
        }
    }
}

/// The metrics of one check.
#[derive(Debug)]
pub(crate) struct CheckMeter {
    state: StateGauges,
    time: Histogram,
    last_success: Gauge,
    runs: [Counter; 6],
    transitions: [Counter; 4],
}

impl CheckMeter {
    pub(crate) fn new(check: &str) -> Self {
        Self {
            state: StateGauges::of_check(check),
            time: Histogram::new(&HEALTH_CHECK_TIME, &[("check", check)]),
            last_success: Gauge::new(&HEALTH_CHECK_LAST_SUCCESS, &[("check", check)]),
            runs: Outcome::ALL.map(|outcome| {
                let labels = [("check", check), ("outcome", outcome.as_str())];
                Counter::new(&HEALTH_CHECK_RUNS, &labels)
            }),
            transitions: Status::ALL.map(|to| {
                let labels = [("check", check), ("to", to.as_str())];
                Counter::new(&HEALTH_TRANSITIONS, &labels)
            }),
        }
    }

    /// Counts a run. Every outcome is touched, so that all series exist from the first run after a recorder does.
    pub(crate) fn ran(&self, seen: &Seen) {
        for (counter, outcome) in self.runs.iter().zip(Outcome::ALL) {
            counter.increment(u64::from(outcome == seen.outcome));
        }
        for counter in &self.transitions {
            counter.increment(0);
        }
        self.time.record_duration(seen.took);
        if seen.outcome == Outcome::Ok {
            self.last_success.set(resonant_common::wall::unix_seconds(seen.at));
        }
    }

    pub(crate) fn is(&self, state: Status) {
        self.state.set(state);
    }

    pub(crate) fn changed(&self, to: Status) {
        for (counter, state) in self.transitions.iter().zip(Status::ALL) {
            counter.increment(u64::from(state == to));
        }
    }
}
