//! The wall clock, for the timestamps people and machines are told. No decision rests on it.

use std::time::{Duration, SystemTime};

/// The time by the wall clock.
#[expect(
    clippy::disallowed_methods,
    reason = "reports tell people and machines the date; decisions use Instant"
)]
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// RFC 3339 in UTC with milliseconds.
pub fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time.max(SystemTime::UNIX_EPOCH)).to_string()
}

/// Seconds of Unix time; 0 for what was before it.
pub fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64()
}
