//! A circuit breaker as a pure state machine: it takes `now` and says whether to try.
//!
//! ```text
//!            threshold consecutive failures
//!   Closed ─────────────────────────────────▶ Open ──cool-down over──▶ HalfOpen (one probe)
//!     ▲                                        ▲                           │
//!     └────────────── probe succeeded ─────────┼───────────────────────────┤
//!                                              └────── probe failed, or was never reported
//! ```
//!
//! The cool-down grows with each failed probe up to a cap. A probe whose outcome is never reported (its future was
//! dropped) does not jam the breaker: after another cool-down the next caller becomes the probe.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::duration::after;

/// Settings of a breaker.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerConfig {
    /// Consecutive failures that open it. Default 5. Zero counts as one.
    pub threshold: u32,
    /// How long it stays open before one probe is let through; grows with each failed probe. Default 1 s to 30 s.
    pub cool_down: Backoff,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        let cool_down = Backoff { initial: Duration::from_secs(1), ..Backoff::default() };
        Self { threshold: 5, cool_down }
    }
}

/// The answer to "may I try?".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admit {
    /// Go ahead.
    Yes,
    /// Go ahead as the one probe; report its outcome.
    Probe,
    /// Do not try before the instant.
    Not {
        /// The earliest time a probe will be let through.
        until: Instant,
    },
}

/// A breaker for one node or one dependency.
#[derive(Debug, Clone)]
pub struct Breaker {
    config: BreakerConfig,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant, trips: u32 },
    HalfOpen { probe_lapses: Instant, trips: u32 },
}

impl Breaker {
    /// A closed breaker.
    pub fn new(config: BreakerConfig) -> Self {
        Self { config, state: State::Closed { failures: 0 } }
    }

    /// Whether a call may be tried at `now`.
    pub fn admit(&mut self, now: Instant) -> Admit {
        match self.state {
            State::Closed { .. } => Admit::Yes,
            State::Open { until, .. } if now < until => Admit::Not { until },
            State::HalfOpen { probe_lapses, .. } if now < probe_lapses => {
                Admit::Not { until: probe_lapses }
            }
            State::Open { trips, .. } | State::HalfOpen { trips, .. } => {
                self.state = State::HalfOpen {
                    probe_lapses: after(now, self.config.cool_down.ceiling(trips)),
                    trips,
                };
                Admit::Probe
            }
        }
    }

    /// Reports a success: closes the breaker. Returns whether the state changed, so that one line is logged.
    pub fn succeeded(&mut self) -> bool {
        let was_open = !self.is_closed();
        self.state = State::Closed { failures: 0 };
        was_open
    }

    /// Reports a failure at `now`. Returns whether this opened the breaker, so that one line is logged.
    pub fn failed(&mut self, now: Instant) -> bool {
        match self.state {
            State::Closed { failures } if failures + 1 < self.config.threshold.max(1) => {
                self.state = State::Closed { failures: failures + 1 };
                false
            }
            State::Closed { .. } => {
                self.state =
                    State::Open { until: after(now, self.config.cool_down.ceiling(0)), trips: 0 };
                true
            }
            State::HalfOpen { trips, .. } => {
                let trips = trips.saturating_add(1);
                self.state =
                    State::Open { until: after(now, self.config.cool_down.ceiling(trips)), trips };
                false
            }
            // A straggler that was admitted before the breaker opened says nothing new.
            State::Open { .. } => false,
        }
    }

    /// Whether calls flow freely.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn tripped(t0: Instant) -> Breaker {
        let mut breaker = Breaker::new(BreakerConfig { threshold: 2, ..BreakerConfig::default() });
        assert!(!breaker.failed(t0));
        assert!(breaker.failed(t0));
        breaker
    }

    #[tokio::test]
    async fn probes_once_after_the_cool_down() {
        let t0 = Instant::now();
        let mut breaker = tripped(t0);
        assert_eq!(breaker.admit(t0), Admit::Not { until: t0 + secs(1) });
        assert_eq!(breaker.admit(t0 + secs(1)), Admit::Probe);
        assert_eq!(breaker.admit(t0 + secs(1)), Admit::Not { until: t0 + secs(2) });
        assert!(breaker.succeeded());
        assert_eq!(breaker.admit(t0 + secs(1)), Admit::Yes);
    }

    #[tokio::test]
    async fn a_failed_probe_waits_longer() {
        let t0 = Instant::now();
        let mut breaker = tripped(t0);
        assert_eq!(breaker.admit(t0 + secs(1)), Admit::Probe);
        assert!(!breaker.failed(t0 + secs(1)));
        assert_eq!(breaker.admit(t0 + secs(2)), Admit::Not { until: t0 + secs(3) });
    }

    #[tokio::test]
    async fn a_lost_probe_does_not_jam_it() {
        let t0 = Instant::now();
        let mut breaker = tripped(t0);
        assert_eq!(breaker.admit(t0 + secs(1)), Admit::Probe);
        assert_eq!(breaker.admit(t0 + secs(2)), Admit::Probe);
    }

    #[tokio::test]
    async fn one_that_opens_for_ever_does_not_panic() {
        let t0 = Instant::now();
        let cool_down = Backoff { initial: Duration::MAX, max: Duration::MAX, factor: 2.0 };
        let mut breaker = Breaker::new(BreakerConfig { threshold: 1, cool_down });
        assert!(breaker.failed(t0));
        assert!(matches!(breaker.admit(t0 + secs(1_000_000)), Admit::Not { .. }));
    }

    #[tokio::test]
    async fn a_success_in_between_starts_the_count_again() {
        let t0 = Instant::now();
        let mut breaker = Breaker::new(BreakerConfig { threshold: 2, ..BreakerConfig::default() });
        assert!(!breaker.failed(t0));
        assert!(!breaker.succeeded());
        assert!(!breaker.failed(t0));
        assert_eq!(breaker.admit(t0), Admit::Yes);
    }
}
