//! How long a node takes to answer: an average that jumps up with a slow answer and comes down slowly. Pure.
//!
//! The idea is Finagle's peak EWMA: it forgives late and takes fright at once, so that a node that stalls is avoided after
//! one answer, not after many.

use std::time::Duration;

use tokio::time::Instant;

/// After this long without a slow answer, about two thirds of a peak are forgotten.
const MEMORY: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct PeakEwma {
    seconds: f64,
    at: Option<Instant>,
}

impl PeakEwma {
    /// The node answered at `now`, after `took`.
    pub(super) fn observe(&mut self, took: Duration, now: Instant) {
        let took = took.as_secs_f64();
        let share = self.at.map_or(0.0, |at| decay(now.saturating_duration_since(at)));
        let before = self.seconds * share;
        self.seconds = if took > before { took } else { before + took * (1.0 - share) };
        self.at = Some(now);
    }

    /// What the next answer is expected to take; `None` before the first.
    pub(super) fn expected(&self, now: Instant) -> Option<Duration> {
        self.at.map(|_| Duration::from_secs_f64(self.decayed(now)))
    }

    /// When the node last answered.
    pub(super) fn last(&self) -> Option<Instant> {
        self.at
    }

    /// A node that is not asked becomes tempting again.
    fn decayed(&self, now: Instant) -> f64 {
        let at = self.at.unwrap_or(now);
        self.seconds * decay(now.saturating_duration_since(at))
    }
}

fn decay(elapsed: Duration) -> f64 {
    (-elapsed.as_secs_f64() / MEMORY.as_secs_f64()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[tokio::test]
    async fn jumps_to_a_peak_and_comes_down_slowly() {
        let t0 = Instant::now();
        let mut latency = PeakEwma::default();
        assert_eq!(latency.expected(t0), None);
        latency.observe(millis(2), t0);
        assert_eq!(latency.expected(t0), Some(millis(2)));
        latency.observe(millis(40), t0 + millis(10));
        assert_eq!(latency.expected(t0 + millis(10)), Some(millis(40)), "at once");
        latency.observe(millis(2), t0 + millis(1010));
        let soon = latency.expected(t0 + millis(1010)).expect("known");
        assert!(soon > millis(34) && soon < millis(40), "not yet forgotten: {soon:?}");
        let idle = latency.expected(t0 + millis(31_010)).expect("known");
        assert!(idle < millis(3), "tempting again: {idle:?}");
    }
}
