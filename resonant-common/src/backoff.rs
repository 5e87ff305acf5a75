//! How long to wait before the next attempt: exponential, capped, with full jitter.
//!
//! Full jitter (a uniform wait between nothing and the capped exponential) is the variant that spreads contending
//! clients best; see "Exponential Backoff And Jitter", AWS Architecture Blog, 2015. Pure: chance is passed in.

use std::time::Duration;

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// Settings of a backoff.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Backoff {
    /// The ceiling of the first wait. Default 100 ms.
    #[serde(with = "crate::duration")]
    pub initial: Duration,
    /// The ceiling no wait exceeds. Default 30 s.
    #[serde(with = "crate::duration")]
    pub max: Duration,
    /// By what the ceiling grows with each attempt. Default 2. Below 1 counts as 1.
    pub factor: f64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { initial: Duration::from_millis(100), max: Duration::from_secs(30), factor: 2.0 }
    }
}

impl Backoff {
    /// The ceiling before retry number `retry` (the first retry is 0), without jitter.
    pub fn ceiling(&self, retry: u32) -> Duration {
        let exponent = i32::try_from(retry).unwrap_or(i32::MAX);
        if self.initial.is_zero() {
            return Duration::ZERO; // nothing times infinity would be no number
        }
        let seconds = self.initial.as_secs_f64() * self.factor.max(1.0).powi(exponent);
        Duration::try_from_secs_f64(seconds).map_or(self.max, |ceiling| ceiling.min(self.max))
    }

    /// A wait before retry number `retry`, uniform between nothing and its [`ceiling`](Backoff::ceiling).
    pub fn wait(&self, retry: u32, chance: &mut impl Rng) -> Duration {
        let ceiling = self.ceiling(retry);
        let seconds = ceiling.as_secs_f64() * chance.random_range(0.0..=1.0);
        Duration::try_from_secs_f64(seconds).map_or(ceiling, |wait| wait.min(ceiling))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn grows_to_the_cap_and_never_overflows() {
        let backoff = Backoff::default();
        assert_eq!(backoff.ceiling(0), Duration::from_millis(100));
        assert_eq!(backoff.ceiling(3), Duration::from_millis(800));
        assert_eq!(backoff.ceiling(20), Duration::from_secs(30));
        assert_eq!(backoff.ceiling(u32::MAX), Duration::from_secs(30));
    }

    #[test]
    fn no_settings_make_it_panic() {
        let mut chance = StdRng::seed_from_u64(7);
        let waits = [Duration::ZERO, Duration::from_nanos(1), Duration::MAX];
        for (initial, max) in waits.iter().flat_map(|i| waits.iter().map(move |m| (*i, *m))) {
            for factor in [f64::NAN, f64::NEG_INFINITY, 0.0, 2.0, f64::MAX, f64::INFINITY] {
                let backoff = Backoff { initial, max, factor };
                for retry in [0, 1, 1024, u32::MAX] {
                    assert!(backoff.ceiling(retry) <= max, "{backoff:?}");
                    assert!(backoff.wait(retry, &mut chance) <= max, "{backoff:?}");
                }
            }
        }
        let at_once = Backoff { initial: Duration::ZERO, ..Backoff::default() };
        assert_eq!(at_once.ceiling(5000), Duration::ZERO);
    }

    #[test]
    fn jitter_covers_the_whole_range() {
        let backoff = Backoff::default();
        let mut chance = StdRng::seed_from_u64(7);
        let waits: Vec<_> = (0..1000).map(|_| backoff.wait(3, &mut chance)).collect();
        assert!(waits.iter().all(|wait| *wait <= Duration::from_millis(800)));
        assert!(waits.iter().any(|wait| *wait < Duration::from_millis(80)));
        assert!(waits.iter().any(|wait| *wait > Duration::from_millis(720)));
    }

    #[test]
    fn settings_read_human_text() -> Result<(), serde_json::Error> {
        let backoff: Backoff = serde_json::from_str(r#"{"initial":"50ms","max":5}"#)?;
        assert_eq!(backoff.initial, Duration::from_millis(50));
        assert_eq!(backoff.max, Duration::from_secs(5));
        Ok(())
    }
}
