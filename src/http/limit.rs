//! How often something may be done. Pure: the time is an argument.

use std::time::Duration;

use resonant_common::duration::FOR_EVER;
use tokio::time::Instant;

/// Fills by `rate` a second up to `burst`; each request takes one.
#[derive(Debug)]
pub(super) struct Bucket {
    rate: f64,
    burst: f64,
    level: f64,
    at: Option<Instant>,
}

impl Bucket {
    /// The burst is at least what a second brings.
    pub(super) fn new(rate: f64, burst: f64) -> Self {
        let burst = burst.max(rate);
        Self { rate, burst, level: burst, at: None }
    }

    /// Takes one, or says how long to wait.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let passed = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.at = Some(now);
        self.level = (self.level + passed.as_secs_f64() * self.rate).min(self.burst);
        if self.level >= 1.0 {
            self.level -= 1.0;
            return Ok(());
        }
        let wait = Duration::try_from_secs_f64((1.0 - self.level) / self.rate);
        Err(wait.map_or(FOR_EVER, |wait| wait.min(FOR_EVER)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_of_next_to_nothing_is_a_long_wait_and_no_panic() {
        let now = Instant::now();
        for rate in [f64::MIN_POSITIVE, 1e-300, 1e-12] {
            let mut bucket = Bucket::new(rate, 1.0);
            assert_eq!(bucket.take(now), Ok(()));
            assert_eq!(bucket.take(now), Err(FOR_EVER));
        }
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut bucket = Bucket::new(2.0, 3.0);
        assert!((0..3).all(|_| bucket.take(at(0)).is_ok()));
        assert_eq!(bucket.take(at(0)), Err(Duration::from_millis(500)));
        assert_eq!(bucket.take(at(250)), Err(Duration::from_millis(250)));
        assert_eq!(bucket.take(at(500)), Ok(()));
        assert!(bucket.take(at(500)).is_err());
        assert_eq!((0..9).filter(|_| bucket.take(at(3_600_000)).is_ok()).count(), 3);
    }
}
