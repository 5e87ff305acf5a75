//! Wall-clock time, in the one place that may ask for it.
//!
//! Messages carry the time they were published, and a file shared by processes needs a clock they share. Everything
//! else runs on tokio's clock, which tests can pause.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// The longest wait a clock is asked for: what is longer is as good as for ever.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The instant after a wait. A wait too long for the clock ends as late as makes no difference.
pub(crate) fn after(now: Instant, wait: Duration) -> Instant {
    now + wait.min(FOREVER)
}

/// Milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "stored times must mean the same to every process")]
pub(crate) fn now_millis() -> u64 {
    millis(SystemTime::now())
}

pub(crate) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn time(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis)
}

/// A duration in whole milliseconds, at least one unless it is nothing: a wait must never be cut to none.
pub(crate) fn as_millis(duration: Duration) -> u64 {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4);
    if millis == 0 && !duration.is_zero() { 1 } else { millis }
}
