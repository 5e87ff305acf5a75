//! The clocks: one that goes on while the machine sleeps, for leases, and the wall's, for budgets and history.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

use crate::core::Now;

/// Counts from when it was made. Suspended time counts; under a paused tokio clock that clock's time does.
#[derive(Debug)]
pub(crate) struct Clock {
    boot: Duration,
    tokio: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { boot: boot(), tokio: Instant::now() }
    }

    pub(crate) fn now(&self) -> Now {
        let mono = boot().saturating_sub(self.boot).max(self.tokio.elapsed());
        Now { mono, wall: wall() }
    }
}

fn boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[expect(
    clippy::disallowed_methods,
    reason = "history and budgets tell the date; no safety rests on it"
)]
pub(crate) fn wall() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}
