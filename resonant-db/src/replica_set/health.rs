//! Whether a node is in rotation, and with which share: a breaker behind a flag that costs a healthy node nothing.
//!
//! ```text
//!              failures in a row, or a probe without an answer
//!   In rotation ─────────────────────────────────────────────▶ Ejected
//!        ▲                                                        │ a probe is answered, or a call
//!        └──────── the slow start is over ──────── Ramping ◀──────┘
//! ```

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use resonant_common::breaker::{Admit, Breaker, BreakerConfig};
use tokio::time::Instant;

/// The share of its turns a node gets at least while it ramps up.
const LEAST_SHARE: f64 = 0.1;

/// The health of one node.
#[derive(Debug)]
pub(super) struct Health {
    /// Whether there is anything to look at: a failure since the last success, or a slow start.
    troubled: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    breaker: Breaker,
    /// A probe was not answered.
    down: bool,
    /// When it left.
    left: Option<Instant>,
    /// When it came back, and how long it was out.
    back: Option<(Instant, Duration)>,
    /// Somebody asks the node in the background: no call has to find out whether it is back.
    probed: bool,
}

impl State {
    fn ejected(&self) -> bool {
        self.down || !self.breaker.is_closed()
    }
}

impl Health {
    pub(super) fn new(probed: bool) -> Self {
        let breaker = Breaker::new(BreakerConfig::default());
        let state = State { breaker, down: false, left: None, back: None, probed };
        Self { troubled: AtomicBool::new(false), state: Mutex::new(state) }
    }

    /// Whether the node would be asked at `now`.
    pub(super) fn is_usable(&self, now: Instant) -> bool {
        if !self.is_troubled() {
            return true;
        }
        let state = self.state();
        match state.ejected() {
            false => true,
            true if state.probed || state.down => false,
            true => !matches!(state.breaker.clone().admit(now), Admit::Not { .. }),
        }
    }

    /// Which share of its turns the node gets at `now`: 1 unless it has just come back.
    pub(super) fn share(&self, now: Instant, slow_start: Duration) -> f64 {
        if !self.is_troubled() {
            return 1.0;
        }
        let mut state = self.state();
        let Some((back, out)) = state.back else { return 1.0 };
        let elapsed = now.saturating_duration_since(back);
        // Who was gone for a moment has not gone cold.
        let slow_start = slow_start.min(out);
        if elapsed >= slow_start {
            state.back = None;
            return 1.0;
        }
        (elapsed.as_secs_f64() / slow_start.as_secs_f64()).max(LEAST_SHARE)
    }

    /// Whether the node is out of rotation until it has proven itself.
    pub(super) fn is_ejected(&self) -> bool {
        self.is_troubled() && self.state().ejected()
    }

    /// The node is asked now; this makes the caller its probe if it is out of rotation.
    pub(super) fn asked(&self, now: Instant) {
        if self.is_troubled() {
            self.state().breaker.admit(now);
        }
    }

    /// The node answered. True when that brought it back into rotation.
    pub(super) fn succeeded(&self, now: Instant) -> bool {
        if !self.is_troubled() {
            return false;
        }
        let mut state = self.state();
        let was = state.ejected();
        state.down = false;
        state.breaker.succeeded();
        if was {
            let left = state.left.take().unwrap_or(now);
            state.back = Some((now, now.saturating_duration_since(left)));
        }
        self.troubled.store(state.back.is_some(), Ordering::Release);
        was
    }

    /// The node failed a call. True when that took it out of rotation.
    pub(super) fn failed(&self, now: Instant) -> bool {
        let mut state = self.state();
        self.troubled.store(true, Ordering::Release);
        let was = state.ejected();
        state.breaker.failed(now);
        if !was && state.ejected() {
            state.left = Some(now);
        }
        !was && state.ejected()
    }

    /// The node did not answer a probe. True when that took it out of rotation.
    pub(super) fn lost(&self, now: Instant) -> bool {
        let mut state = self.state();
        self.troubled.store(true, Ordering::Release);
        let was = state.ejected();
        state.down = true;
        if !was {
            state.left = Some(now);
        }
        !was
    }

    fn is_troubled(&self) -> bool {
        self.troubled.load(Ordering::Acquire)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Duration = Duration::from_secs(2);

    #[tokio::test(start_paused = true)]
    async fn five_failures_in_a_row_eject_and_one_good_probe_brings_back() {
        let (health, now) = (Health::new(false), Instant::now());
        for _ in 0..4 {
            assert!(!health.failed(now) && health.is_usable(now));
        }
        assert!(!health.succeeded(now), "it was not out");
        for _ in 0..4 {
            assert!(!health.failed(now));
        }
        assert!(health.failed(now), "the fifth ejects");
        assert!(health.is_ejected() && !health.is_usable(now));
        let later = now + Duration::from_secs(1);
        assert!(health.is_usable(later) && health.is_usable(later), "looking is not asking");
        health.asked(later);
        assert!(!health.is_usable(later), "one probe at a time");
        assert!(health.succeeded(later));
        assert!(health.is_usable(later) && !health.is_ejected());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_probe_ejects_at_once_and_no_call_has_to_try() {
        let (health, now) = (Health::new(true), Instant::now());
        assert!(health.lost(now) && !health.lost(now), "once");
        assert!(health.is_ejected());
        let long = now + Duration::from_secs(3600);
        assert!(!health.is_usable(long), "only an answer brings it back");
        assert!(health.succeeded(long) && health.is_usable(long));
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_back_starts_slowly() {
        let (health, now) = (Health::new(true), Instant::now());
        assert_eq!(health.share(now, SLOW), 1.0);
        health.lost(now - SLOW);
        health.succeeded(now);
        assert_eq!(health.share(now, SLOW), LEAST_SHARE);
        assert_eq!(health.share(now + SLOW / 2, SLOW), 0.5);
        assert_eq!(health.share(now + SLOW, SLOW), 1.0);
        health.succeeded(now + SLOW);
        assert!(!health.is_troubled(), "nothing is left to look at");
        assert_eq!(health.share(now, Duration::ZERO), 1.0);
        // Who was gone for a moment has its full share after a moment.
        health.lost(now);
        health.succeeded(now + SLOW / 10);
        assert_eq!(health.share(now + SLOW / 10, SLOW), LEAST_SHARE);
        assert_eq!(health.share(now + SLOW / 5, SLOW), 1.0);
    }
}
