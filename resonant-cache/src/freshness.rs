//! Whether a value may be served: a pure function of its life, the namespace's windows and now.
//!
//! ```text
//!  written        fresh_until     + stale_while_revalidate      + stale_if_error
//!  ├── Fresh ─────────┼── Revalidate ──────────┼── IfError ───────────┼── Expired
//! ```
//!
//! The windows both start where the life ends; the longer one decides when the value is gone. A negative entry has no
//! windows: once its life is over nothing is known.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::NamespaceConfig;

/// What to do with a value found at `now`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// Serve it.
    Fresh,
    /// Serve it, and load it anew behind it.
    Revalidate,
    /// Load it anew; serve it if that fails or takes too long.
    IfError,
    /// It is gone.
    Expired,
}

/// For how long past its life a value is of use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Windows {
    pub(crate) revalidate: Duration,
    pub(crate) if_error: Duration,
}

impl Windows {
    pub(crate) fn of(config: &NamespaceConfig) -> Self {
        Self { revalidate: config.stale_while_revalidate, if_error: config.stale_if_error }
    }

    /// How long past its life a value must be kept.
    pub(crate) fn longest(&self) -> Duration {
        self.revalidate.max(self.if_error)
    }
}

/// Judges a value that is fresh until `fresh_until` (`None`: for ever). At the very instant its life ends it is over.
pub(crate) fn judge(
    fresh_until: Option<Instant>,
    negative: bool,
    windows: Windows,
    now: Instant,
) -> Freshness {
    let Some(end) = fresh_until else { return Freshness::Fresh };
    if now < end {
        return Freshness::Fresh;
    }
    if negative {
        return Freshness::Expired;
    }
    let past = now.duration_since(end);
    if past < windows.revalidate {
        Freshness::Revalidate
    } else if past < windows.if_error {
        Freshness::IfError
    } else {
        Freshness::Expired
    }
}

/// `life` shortened by up to `share` of it; `chance` is uniform in `0..1`.
pub(crate) fn jittered(life: Duration, share: f64, chance: f64) -> Duration {
    life.saturating_sub(life.mul_f64((share * chance).clamp(0.0, 1.0)))
        .max(Duration::from_millis(1).min(life))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOWS: Windows =
        Windows { revalidate: Duration::from_secs(10), if_error: Duration::from_secs(60) };

    #[test]
    fn a_life_ends_at_its_instant_and_the_windows_follow() {
        let end = Instant::now() + Duration::from_secs(5);
        let at = |offset: f64| {
            let now = if offset < 0.0 {
                end - Duration::from_secs_f64(-offset)
            } else {
                end + Duration::from_secs_f64(offset)
            };
            judge(Some(end), false, WINDOWS, now)
        };
        assert_eq!(at(-0.000_001), Freshness::Fresh);
        assert_eq!(at(0.0), Freshness::Revalidate);
        assert_eq!(at(9.999), Freshness::Revalidate);
        assert_eq!(at(10.0), Freshness::IfError);
        assert_eq!(at(59.999), Freshness::IfError);
        assert_eq!(at(60.0), Freshness::Expired);
    }

    #[test]
    fn what_never_ends_is_fresh_and_a_negative_has_no_windows() {
        let now = Instant::now();
        assert_eq!(judge(None, false, WINDOWS, now), Freshness::Fresh);
        assert_eq!(judge(Some(now), true, WINDOWS, now), Freshness::Expired);
        assert_eq!(
            judge(Some(now + Duration::from_millis(1)), true, WINDOWS, now),
            Freshness::Fresh
        );
    }

    #[test]
    fn jitter_covers_its_share_evenly() {
        let life = Duration::from_secs(100);
        let mut buckets = [0u32; 10];
        for n in 0..10_000u32 {
            let taken = life - jittered(life, 0.2, f64::from(n) / 10_000.0);
            assert!(taken <= Duration::from_secs(20), "{taken:?}");
            buckets[(taken.as_millis() / 2_000).min(9) as usize] += 1;
        }
        assert!(buckets.iter().all(|count| (990..=1010).contains(count)), "{buckets:?}");
    }

    proptest! {
        #[test]
        fn jitter_only_ever_shortens(ms in 1u64..10_000_000, share in 0.0f64..=1.0, chance in 0.0f64..1.0) {
            let life = Duration::from_millis(ms);
            let jittered = jittered(life, share, chance);
            prop_assert!(jittered <= life && !jittered.is_zero());
        }
    }
}
