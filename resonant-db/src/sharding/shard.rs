//! One shard: its database behind a breaker, so that a dead one is refused at once and slows nobody.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use resonant_common::breaker::{Admit, Breaker, BreakerConfig};
use resonant_common::join::{Finding, Severity};
use tokio::time::Instant;

use super::inspect::Inspection;
use super::meters::ShardMeters;
use crate::{Database, Error, ErrorKind, Result};

/// A named database of a [`ShardedDatabase`](super::ShardedDatabase).
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) name: String,
    pub(super) database: Database,
    inspection: Inspection,
    meters: ShardMeters,
    gate: Gate,
}

impl Shard {
    pub(super) fn new(
        name: String,
        database: Database,
        inspection: Inspection,
        meters: ShardMeters,
    ) -> Self {
        Self { name, database, inspection, meters, gate: Gate::default() }
    }

    /// Awaits `work`, which talks to this shard's database, unless the shard is known to be down or is not what is declared.
    pub(super) async fn run<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.after(operation, self.inspection.check(&self.database), work).await
    }

    /// As [`run`](Shard::run) for work that may create or change the tables themselves: they are looked at again afterwards.
    pub(super) async fn change<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        // Also when this future is dropped half-way: the work may have been done.
        let _changed = Changed(&self.inspection);
        self.after(operation, self.inspection.known(&self.database), work).await
    }

    async fn after<T>(
        &self,
        operation: &'static str,
        look: impl Future<Output = Result<()>>,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        if let Err(error) = self.gate.admit(operation, &self.name) {
            self.meters.shed();
            return Err(error);
        }
        let begun = Instant::now();
        let result = match look.await {
            Ok(()) => work.await,
            Err(error) => Err(error),
        };
        self.meters.ended(&result, begun.elapsed());
        self.noted(result)
    }

    /// A sign of life, asked for even while the shard is thought to be down: an answer brings it back.
    pub(super) async fn ping(&self) -> Result<()> {
        self.noted(self.database.ping().await)
    }

    pub(super) fn findings(&self) -> impl Iterator<Item = Finding> {
        let down = self.gate.is_open();
        let down = down.then(|| Finding::new(self.name.clone(), Severity::Fail, "db.shard.down"));
        self.database.findings().into_iter().chain(down)
    }

    /// Takes note of how the shard did.
    pub(super) fn noted<T>(&self, result: Result<T>) -> Result<T> {
        match &result {
            Err(error) if blames_shard(error.kind()) => {
                if self.gate.failed(error) {
                    self.meters.down(true);
                    tracing::warn!(shard = %self.name, %error, "the shard keeps failing and is left alone for a while");
                }
            }
            // Any other error came from a shard that works.
            _ => {
                if self.gate.succeeded() {
                    self.meters.down(false);
                    tracing::info!(shard = %self.name, "the shard answers again");
                }
            }
        }
        result
    }
}

/// Has the tables looked at again once it is dropped.
struct Changed<'a>(&'a Inspection);

impl Drop for Changed<'_> {
    fn drop(&mut self) {
        self.0.changed();
    }
}

/// Whether an error speaks against the shard rather than against the statement or the load.
pub(super) fn blames_shard(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unavailable | ErrorKind::TimedOut)
}

/// A breaker behind a flag that costs a healthy shard one load.
struct Gate {
    /// Set from the first failure to the next success.
    troubled: AtomicBool,
    state: Mutex<(Breaker, Option<Error>)>,
}

impl Default for Gate {
    fn default() -> Self {
        let breaker = Breaker::new(BreakerConfig::default());
        Self { troubled: AtomicBool::new(false), state: Mutex::new((breaker, None)) }
    }
}

impl Gate {
    fn admit(&self, operation: &'static str, name: &str) -> Result<()> {
        if !self.troubled.load(Ordering::Acquire) {
            return Ok(());
        }
        let now = Instant::now();
        let (until, last) = self.with(|(breaker, last)| match breaker.admit(now) {
            Admit::Yes | Admit::Probe => (None, None),
            Admit::Not { until } => (Some(until), last.clone()),
        });
        let Some(until) = until else { return Ok(()) };
        let message = format!(
            "{name} keeps failing and is left alone for a while; its last error is the source"
        );
        let error = Error::new(ErrorKind::Unavailable, operation, message)
            .with_retry_after(until.saturating_duration_since(now));
        Err(match last {
            Some(last) => error.with_source(last),
            None => error,
        })
    }

    /// True when this opened the breaker.
    fn failed(&self, error: &Error) -> bool {
        let now = Instant::now();
        self.with(|(breaker, last)| {
            self.troubled.store(true, Ordering::Release);
            *last = Some(error.clone());
            breaker.failed(now)
        })
    }

    /// True when this closed the breaker.
    fn succeeded(&self) -> bool {
        if !self.troubled.load(Ordering::Acquire) {
            return false;
        }
        self.with(|(breaker, last)| {
            self.troubled.store(false, Ordering::Release);
            *last = None;
            breaker.succeeded()
        })
    }

    fn is_open(&self) -> bool {
        self.troubled.load(Ordering::Acquire) && self.with(|(breaker, _)| !breaker.is_closed())
    }

    fn with<T>(&self, change: impl FnOnce(&mut (Breaker, Option<Error>)) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("open", &self.is_open()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_shard_that_keeps_failing_is_refused_at_once_with_its_real_error() {
        let gate = Gate::default();
        let dead = Error::new(ErrorKind::Unavailable, "query", "connection refused");
        for _ in 0..4 {
            assert!(!gate.failed(&dead));
            assert!(gate.admit("query", "shard_1").is_ok());
        }
        assert!(gate.failed(&dead), "the fifth opens it");
        let error = gate.admit("query", "shard_1").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(error.retry_after(), Some(Duration::from_secs(1)));
        assert!(error.message().contains("shard_1"));
        let source = std::error::Error::source(&error).map(ToString::to_string);
        assert!(source.is_some_and(|source| source.contains("connection refused")));
        assert!(gate.is_open());

        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(gate.admit("query", "shard_1").is_ok(), "one probe");
        assert!(gate.admit("query", "shard_1").is_err(), "one at a time");
        assert!(gate.succeeded());
        assert!(gate.admit("query", "shard_1").is_ok());
        assert!(!gate.is_open());
    }
}
