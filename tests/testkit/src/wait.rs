//! Waiting for a state: poll often, give up late. Shared machines are three to five times slower than quiet ones, so the
//! limits are generous and nothing here is a promise about speed.

use std::fmt::Display;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, ErrorKind, Result};

/// How long a server may take to start, or a cluster to reach the state it was asked for.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);

/// How long one question to a server may take.
pub(crate) const ANSWER: Duration = Duration::from_secs(30);

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// A loop's patience: `pause` sleeps a little, or fails once the limit has passed.
#[derive(Debug)]
pub(crate) struct Wait {
    what: String,
    started: Instant,
    limit: Duration,
    pause: Duration,
}

impl Wait {
    pub(crate) fn new(what: impl Into<String>, limit: Duration) -> Self {
        Self { what: what.into(), started: Instant::now(), limit, pause: FIRST_PAUSE }
    }

    /// Sleeps before the next look. `seen` is what the last look showed, for the message.
    ///
    /// # Errors
    /// `TimedOut` when the limit has passed.
    pub(crate) async fn pause(&mut self, seen: impl Display) -> Result<()> {
        if self.started.elapsed() > self.limit {
            let message =
                format!("{} did not happen within {:?}; last seen: {seen}", self.what, self.limit);
            return Err(Error::new(ErrorKind::TimedOut, message));
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 3 / 2).min(LONGEST_PAUSE);
        Ok(())
    }
}

/// Bounds one exchange with a server.
pub(crate) async fn within<T>(
    limit: Duration,
    what: impl Display,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => {
            Err(Error::new(ErrorKind::TimedOut, format!("{what}: no answer within {limit:?}")))
        }
    }
}
