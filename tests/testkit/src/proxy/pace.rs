//! A limit of bytes per second, kept on average although timers fire late.

use std::time::Duration;

use tokio::time::Instant;

/// How finely the limit is dealt out at least.
const SLICES_PER_SECOND: u64 = 50;

/// What a late wake-up may catch up on: more would be a burst.
const CATCH_UP: Duration = Duration::from_millis(1000 / SLICES_PER_SECOND);

/// When the next bytes of one direction of one connection may go.
#[derive(Debug)]
pub(super) struct Pace {
    free_at: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { free_at: now }
    }

    /// When the next slice may go.
    pub(super) fn due(&self) -> Instant {
        self.free_at
    }

    /// How many bytes a slice has at this limit.
    pub(super) fn slice(rate: u64) -> u64 {
        (rate / SLICES_PER_SECOND).max(1)
    }

    /// Notes that so many bytes go now.
    pub(super) fn take(&mut self, now: Instant, bytes: u64, rate: u64) {
        let from = self.free_at.max(now.checked_sub(CATCH_UP).unwrap_or(now));
        self.free_at = from + Duration::from_secs_f64(bytes as f64 / rate as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many bytes pass in a second at this limit when every wake-up comes this late.
    fn passed_in_a_second(rate: u64, late: Duration) -> u64 {
        let start = Instant::now();
        let (mut now, mut passed, mut pace) = (start, 0, Pace::new(start));
        while now < start + Duration::from_secs(1) {
            if pace.due() > now {
                now = pace.due() + late;
            }
            let bytes = Pace::slice(rate).min(16 * 1024);
            pace.take(now, bytes, rate);
            passed += bytes;
        }
        passed
    }

    #[test]
    fn late_timers_do_not_slow_it_down() {
        for rate in [1_000, 100_000, 10_000_000, 200_000_000] {
            let passed = passed_in_a_second(rate, Duration::from_millis(2));
            let share = passed as f64 / rate as f64;
            assert!((0.95..1.05).contains(&share), "{share} of {rate} bytes passed");
        }
    }

    #[test]
    fn a_long_pause_is_not_followed_by_a_burst() {
        let start = Instant::now();
        let (mut pace, rate) = (Pace::new(start), 100_000);
        let after_a_minute = start + Duration::from_secs(60);
        let mut burst = 0;
        while pace.due() <= after_a_minute {
            pace.take(after_a_minute, Pace::slice(rate), rate);
            burst += Pace::slice(rate);
        }
        assert!(burst <= 2 * Pace::slice(rate), "{burst} bytes at once");
    }
}
