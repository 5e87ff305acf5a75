//! The state of one check over time, as a pure machine: it takes `now` and what a run saw, and says what changed.
//!
//! ```text
//!              first result
//!   unknown ───────────────────▶ what it saw (at once, no dwell)
//!   any     ── `fall` worse results in a row, dwell over ──▶ the mildest of them
//!   any     ── `rise` better results in a row, dwell over ─▶ the worst of them
//!   any     ── no result for `stale_intervals` intervals ──▶ unknown
//! ```
//!
//! A streak ends with the first result that equals the state or lies on its other side. A streak that is long enough
//! while the state still dwells goes on counting, and takes effect with the first result after the dwell.

use std::time::Duration;

use rand::{Rng, RngExt};
use resonant_common::backoff::Backoff;
use resonant_common::duration::FOR_EVER;
use tokio::time::Instant;

use crate::report::Status;

/// When a check runs and how its results become a state.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Policy {
    pub(crate) interval: Duration,
    pub(crate) jitter: f64,
    pub(crate) recheck: Duration,
    pub(crate) rise: u32,
    pub(crate) fall: u32,
    pub(crate) dwell: Duration,
    pub(crate) stale_intervals: u32,
}

impl Policy {
    /// The first rule this breaks.
    pub(crate) fn broken_rule(&self, timeout: Duration) -> Option<&'static str> {
        let rules = [
            (self.interval.is_zero(), "interval must be longer than 0"),
            (timeout.is_zero(), "timeout must be longer than 0"),
            (timeout > self.interval, "timeout must be at most interval"),
            (
                self.recheck.is_zero() || self.recheck > self.interval,
                "recheck must be longer than 0 and at most interval",
            ),
            (self.rise == 0 || self.fall == 0, "rise and fall must be at least 1"),
        ];
        rules.iter().find(|(broken, _)| *broken).map(|(_, rule)| *rule)
    }

    pub(crate) fn stale_after(&self) -> Duration {
        self.interval.saturating_mul(self.stale_intervals)
    }
}

/// A change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shift {
    pub(crate) from: Status,
    pub(crate) to: Status,
}

/// The state of one check.
#[derive(Debug, Clone)]
pub(crate) struct Track {
    state: Status,
    streak: Option<Streak>,
    settled_at: Option<Instant>,
    last_run: Option<Instant>,
    failures: u32,
}

/// Results in a row on one side of the state.
#[derive(Debug, Clone, Copy)]
struct Streak {
    worse: bool,
    length: u32,
    /// What all of them agree on: the mildest of worse results, the worst of better ones.
    target: Status,
}

impl Track {
    pub(crate) fn new() -> Self {
        Self { state: Status::Unknown, streak: None, settled_at: None, last_run: None, failures: 0 }
    }

    pub(crate) fn state(&self) -> Status {
        self.state
    }

    /// Takes the result of a run.
    pub(crate) fn observe(&mut self, seen: Status, now: Instant, policy: &Policy) -> Option<Shift> {
        self.last_run = Some(now);
        self.failures = if seen == Status::Fail { self.failures.saturating_add(1) } else { 0 };
        if self.state == Status::Unknown {
            return self.shift(seen, None);
        }
        if seen == self.state {
            self.streak = None;
            return None;
        }
        let worse = seen > self.state;
        let streak = match self.streak {
            Some(streak) if streak.worse == worse => Streak {
                worse,
                length: streak.length.saturating_add(1),
                target: if worse { streak.target.min(seen) } else { streak.target.max(seen) },
            },
            _ => Streak { worse, length: 1, target: seen },
        };
        let needed = if worse { policy.fall } else { policy.rise };
        if streak.length >= needed && self.settled_at.is_none_or(|until| until <= now) {
            return self.shift(streak.target, now.checked_add(policy.dwell));
        }
        self.streak = Some(streak);
        None
    }

    /// Forgets a state nobody has confirmed for too long.
    pub(crate) fn expire(&mut self, now: Instant, policy: &Policy) -> Option<Shift> {
        let stale = self
            .last_run
            .is_some_and(|last| now.saturating_duration_since(last) > policy.stale_after());
        if !stale || self.state == Status::Unknown {
            return None;
        }
        self.shift(Status::Unknown, None)
    }

    /// How long to wait before the next run.
    pub(crate) fn delay(&self, policy: &Policy, chance: &mut impl Rng) -> Duration {
        let wait = if self.streak.is_some() {
            policy.recheck
        } else if self.state == Status::Fail {
            let down = Backoff { initial: policy.recheck, max: policy.interval, factor: 2.0 };
            down.ceiling(self.failures.saturating_sub(policy.fall))
        } else {
            policy.interval
        };
        wait.min(FOR_EVER).mul_f64(1.0 + policy.jitter * chance.random_range(-1.0..=1.0))
    }

    fn shift(&mut self, to: Status, settled_at: Option<Instant>) -> Option<Shift> {
        let from = std::mem::replace(&mut self.state, to);
        self.streak = None;
        self.settled_at = settled_at;
        (from != to).then_some(Shift { from, to })
    }
}

#[cfg(test)]
#[path = "track/test.rs"]
mod test;
