//! Counters, which live beside the values.

use std::time::Duration;

use tracing::Instrument as _;

use super::Namespace;
use crate::error::Result;
use crate::metrics::Op;

impl<V: Send + Sync + 'static> Namespace<V> {
    /// Adds to the counter under `key` and answers its new value. Counters start at zero, live apart from values, and
    /// share their fate where the store evicts for room.
    ///
    /// # Errors
    ///
    /// `Rejected` if it would overflow 64 bits; `KeyTooLong`, `Overloaded` (too many namespaces), `Closed`;
    /// `Unavailable` and `TimedOut` from the store.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it was done or not done.
    pub async fn incr(&self, key: &str, by: i64) -> Result<i64> {
        self.count(key, by, None).await
    }

    /// The same; if it creates the counter, the counter lives for `ttl`.
    ///
    /// # Errors
    ///
    /// As [`incr`](Namespace::incr).
    ///
    /// # Cancel safety
    ///
    /// As [`incr`](Namespace::incr).
    pub async fn incr_for(&self, key: &str, by: i64, ttl: Duration) -> Result<i64> {
        self.count(key, by, Some(ttl)).await
    }

    /// The counter under `key`; zero if there is none.
    ///
    /// # Errors
    ///
    /// As [`incr`](Namespace::incr).
    pub async fn counter(&self, key: &str) -> Result<i64> {
        self.count(key, 0, None).await
    }

    async fn count(&self, key: &str, by: i64, ttl: Option<Duration>) -> Result<i64> {
        let key = self.kit.admit(key, "incr")?;
        let call = self.kit.call(if by == 0 { "counter" } else { "incr" }, 1);
        let name = self.kit.ns.stored_key(&key);
        let count = self.kit.core.gate.add(&name, by, ttl).instrument(call.span()).await;
        self.kit.count(Op::Count, count.as_ref().map(|_| true), Some(&call));
        count
    }
}
