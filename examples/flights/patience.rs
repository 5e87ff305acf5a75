//! Trying again what may succeed later. Servers are replaced in seconds; the job does not give up before a minute.

use std::time::Duration;

use resonant_common::error::{Error, Kind};
use tokio::time::{Instant, sleep};

/// How long something may be away.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);

/// Tries until it succeeds, fails for good, or has failed for a minute. What is tried must be right to do twice.
pub(crate) async fn patiently<T, K: Kind>(
    attempt: impl AsyncFn() -> Result<T, Error<K>>,
) -> Result<T, Error<K>> {
    let until = Instant::now() + PATIENCE;
    loop {
        match attempt().await {
            Err(error) if error.is_transient() && Instant::now() < until => {
                sleep(error.retry_after().unwrap_or(PAUSE)).await;
            }
            done => return done,
        }
    }
}
