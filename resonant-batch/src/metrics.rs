//! What is counted, and the one warning when the processor starts to fail.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use resonant_common::telemetry::{Counter, Gauge, Histogram, names};

use crate::core::Trigger;
use crate::error::{Error, ErrorKind, Result};
use crate::output::Outcomes;

/// From this many failed batches in a row on, the processor counts as failing.
const FAILING: u32 = 3;

/// Why an item was refused at the door.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reject {
    Closed,
    Full,
    TooHeavy,
}

const REJECTS: [(Reject, &str); 3] =
    [(Reject::Closed, "closed"), (Reject::Full, "full"), (Reject::TooHeavy, "too_heavy")];

impl Trigger {
    const ALL: [Trigger; 6] = [
        Trigger::Full,
        Trigger::Weight,
        Trigger::Linger,
        Trigger::Idle,
        Trigger::Flush,
        Trigger::Drain,
    ];

    #[inline]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Trigger::Full => "full",
            Trigger::Weight => "weight",
            Trigger::Linger => "linger",
            Trigger::Idle => "idle",
            Trigger::Flush => "flush",
            Trigger::Drain => "drain",
        }
    }
}

/// How items or batches end.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    Ok,
    Error,
    Panic,
    Timeout,
    Cancelled,
    Closed,
}

const OUTCOMES: [(Outcome, &str); 6] = [
    (Outcome::Ok, "ok"),
    (Outcome::Error, "error"),
    (Outcome::Panic, "panic"),
    (Outcome::Timeout, "timeout"),
    (Outcome::Cancelled, "cancelled"),
    (Outcome::Closed, "closed"),
];

impl Outcome {
    fn of(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::Panicked => Outcome::Panic,
            ErrorKind::TimedOut => Outcome::Timeout,
            _ => Outcome::Error,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Metrics {
    name: String,
    items: [Counter; OUTCOMES.len()],
    batches: [Counter; Trigger::ALL.len()],
    process: [Histogram; OUTCOMES.len()],
    rejected: [Counter; REJECTS.len()],
    size: Histogram,
    wait: Histogram,
    in_flight: Gauge,
    deduplicated: Counter,
    isolation_runs: Counter,
    failures: AtomicU32,
}

impl Metrics {
    pub(crate) fn new(name: String) -> Self {
        let batch = &[("batch", name.as_str())];
        let with = |label, value| [("batch", name.as_str()), (label, value)];
        Self {
            items: OUTCOMES
                .map(|(_, value)| Counter::new(&names::BATCH_ITEMS, &with("outcome", value))),
            batches: Trigger::ALL
                .map(|it| Counter::new(&names::BATCH_BATCHES, &with("trigger", it.name()))),
            process: OUTCOMES
                .map(|(_, value)| Histogram::new(&names::BATCH_PROCESS, &with("outcome", value))),
            rejected: REJECTS
                .map(|(_, value)| Counter::new(&names::BATCH_REJECTED, &with("reason", value))),
            size: Histogram::new(&names::BATCH_SIZE, batch),
            wait: Histogram::new(&names::BATCH_WAIT, batch),
            in_flight: Gauge::new(&names::BATCH_IN_FLIGHT, batch),
            deduplicated: Counter::new(&names::BATCH_DEDUPLICATED, batch),
            isolation_runs: Counter::new(&names::BATCH_ISOLATION_RUNS, batch),
            failures: AtomicU32::new(0),
            name,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn rejected(&self, reason: Reject, items: usize) {
        self.rejected[reason as usize].increment(items as u64);
    }

    pub(crate) fn cancelled(&self, items: usize) {
        self.count(Outcome::Cancelled, items);
    }

    pub(crate) fn not_run(&self, items: usize) {
        self.count(Outcome::Closed, items);
    }

    pub(crate) fn interrupted(&self, items: usize) {
        self.count(Outcome::Closed, items);
    }

    #[inline]
    pub(crate) fn deduplicated(&self, items: u64) {
        if items > 0 {
            self.deduplicated.increment(items);
        }
    }

    #[inline]
    pub(crate) fn in_flight(&self, running: usize) {
        self.in_flight.set(running as f64);
    }

    #[inline]
    pub(crate) fn started(&self, trigger: Trigger, items: usize, waited: Duration) {
        self.batches[trigger as usize].increment(1);
        self.size.record(items as f64);
        self.wait.record_duration(waited);
    }

    #[inline]
    pub(crate) fn processed<O>(
        &self,
        outcomes: &Result<Outcomes<O>>,
        items: usize,
        took: Duration,
        reruns: u64,
    ) {
        let outcome = match outcomes {
            Ok(outcomes) => {
                let ok =
                    outcomes.as_slice().iter().flatten().filter(|outcome| outcome.is_ok()).count();
                self.count(Outcome::Ok, ok);
                self.count(Outcome::Error, items - ok);
                if ok > 0 || items == 0 { Outcome::Ok } else { Outcome::Error }
            }
            Err(error) => {
                self.count(Outcome::of(error), items);
                Outcome::of(error)
            }
        };
        self.process[outcome as usize].record_duration(took);
        if reruns > 0 {
            self.isolation_runs.increment(reruns);
        }
        self.watch(outcomes.as_ref().err());
    }

    /// Whether the last batches all failed.
    pub(crate) fn is_failing(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= FAILING
    }

    /// One line when the processor starts to fail as a whole, one when it works again.
    #[inline]
    fn watch(&self, error: Option<&Error>) {
        let batch = self.name.as_str();
        match error {
            None if self.failures.load(Ordering::Relaxed) == 0 => {}
            None => {
                if self.failures.swap(0, Ordering::Relaxed) >= FAILING {
                    tracing::info!(target: "resonant::batch", batch, "the processor works again");
                }
            }
            Some(error) => {
                let add = |count: u32| Some(count.saturating_add(1));
                let before = self
                    .failures
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
                    .unwrap_or_default();
                if before == FAILING - 1 {
                    let code = error.code();
                    tracing::warn!(target: "resonant::batch", batch, code, "{FAILING} batches in a row failed as a whole");
                }
            }
        }
    }

    #[inline]
    fn count(&self, outcome: Outcome, items: usize) {
        if items > 0 {
            self.items[outcome as usize].increment(items as u64);
        }
    }
}
