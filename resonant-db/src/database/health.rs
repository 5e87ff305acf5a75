//! Whether a node is in rotation: a breaker behind a flag that costs a healthy node nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use resonant_common::breaker::{Admit, Breaker, BreakerConfig};
use tokio::time::Instant;

/// The health of one node.
#[derive(Debug)]
pub(super) struct Health {
    /// Set from the first failure to the next success.
    troubled: AtomicBool,
    breaker: Mutex<Breaker>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            troubled: AtomicBool::new(false),
            breaker: Mutex::new(Breaker::new(BreakerConfig::default())),
        }
    }
}

impl Health {
    /// Whether the node would be asked at `now`.
    pub(super) fn is_usable(&self, now: Instant) -> bool {
        !self.is_troubled() || !matches!(self.breaker().clone().admit(now), Admit::Not { .. })
    }

    /// Whether the node is out of rotation until it has proven itself.
    pub(super) fn is_ejected(&self) -> bool {
        self.is_troubled() && !self.breaker().is_closed()
    }

    /// The node is asked now; this makes the caller its probe if it is out of rotation.
    pub(super) fn asked(&self, now: Instant) {
        if self.is_troubled() {
            self.breaker().admit(now);
        }
    }

    /// The node answered. True when that brought it back into rotation.
    pub(super) fn succeeded(&self) -> bool {
        if !self.is_troubled() {
            return false;
        }
        let mut breaker = self.breaker();
        self.troubled.store(false, Ordering::Release);
        breaker.succeeded()
    }

    /// The node failed. True when that took it out of rotation.
    pub(super) fn failed(&self, now: Instant) -> bool {
        let mut breaker = self.breaker();
        self.troubled.store(true, Ordering::Release);
        breaker.failed(now)
    }

    fn is_troubled(&self) -> bool {
        self.troubled.load(Ordering::Acquire)
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn five_failures_in_a_row_eject_and_one_good_probe_brings_back() {
        let (health, now) = (Health::default(), Instant::now());
        for _ in 0..4 {
            assert!(!health.failed(now) && health.is_usable(now));
        }
        assert!(!health.succeeded(), "it was not out");
        for _ in 0..4 {
            assert!(!health.failed(now));
        }
        assert!(health.failed(now), "the fifth ejects");
        assert!(health.is_ejected() && !health.is_usable(now));
        let later = now + Duration::from_secs(1);
        assert!(health.is_usable(later) && health.is_usable(later), "looking is not asking");
        health.asked(later);
        assert!(!health.is_usable(later), "one probe at a time");
        assert!(health.succeeded());
        assert!(health.is_usable(later) && !health.is_ejected());
    }
}
