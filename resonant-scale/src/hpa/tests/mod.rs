//! Kubernetes' own cases, restated as numbers.

mod calculator;
mod grouping;
mod properties;
mod rates;
mod rounds;
mod windows;

use std::time::Duration;

use tokio::time::Instant;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Far enough from the clock's start to look back.
fn now() -> Instant {
    Instant::now() + secs(100_000)
}
