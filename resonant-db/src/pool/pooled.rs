//! A connection lent to a caller.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use tokio::time::Instant;

use super::core::Grant;
use super::manager::{Manager, Verdict};
use super::shared::Shared;

/// A connection lent by a [`ConnectionPool`](crate::pool::ConnectionPool); dropping it gives it back.
///
/// Giving it back asks [`Manager::verdict`] and waits for nothing: what needs cleaning or closing is seen to in the
/// background.
pub struct Pooled<M: Manager> {
    shared: Arc<Shared<M>>,
    /// There until the connection has been given back.
    grant: Option<Grant<M::Connection>>,
    taken: Instant,
}

impl<M: Manager> Pooled<M> {
    #[inline]
    pub(super) fn new(shared: Arc<Shared<M>>, grant: Grant<M::Connection>, taken: Instant) -> Self {
        Self { shared, grant: Some(grant), taken }
    }

    /// Takes the connection out of the pool for good. The pool opens another if it needs one; this one no longer counts
    /// against `max_size`.
    pub fn detach(mut self) -> M::Connection {
        let Some(grant) = self.grant.take() else { unreachable!("{GONE}") };
        self.shared.forget(grant.slot);
        grant.connection
    }

    /// Gives the connection back to be closed.
    pub fn discard(self) {
        self.give_back(Verdict::Discard);
    }

    pub(super) fn give_back(mut self, verdict: Verdict) {
        if let Some(grant) = self.grant.take() {
            self.shared.release(grant, verdict, Instant::now());
        }
    }
}

const GONE: &str = "a lent connection is there until it is given back";

impl<M: Manager> Deref for Pooled<M> {
    type Target = M::Connection;

    #[inline]
    fn deref(&self) -> &M::Connection {
        match &self.grant {
            Some(grant) => &grant.connection,
            None => unreachable!("{GONE}"),
        }
    }
}

impl<M: Manager> DerefMut for Pooled<M> {
    #[inline]
    fn deref_mut(&mut self) -> &mut M::Connection {
        match &mut self.grant {
            Some(grant) => &mut grant.connection,
            None => unreachable!("{GONE}"),
        }
    }
}

impl<M: Manager> Drop for Pooled<M> {
    #[inline]
    fn drop(&mut self) {
        let Some(grant) = self.grant.take() else { return };
        let mut returning =
            Returning { pooled: self, grant: Some(grant), verdict: Verdict::Discard };
        returning.judge();
    }
}

/// Gives a connection back even if looking at it panics; then to be closed.
struct Returning<'a, M: Manager> {
    pooled: &'a Pooled<M>,
    grant: Option<Grant<M::Connection>>,
    verdict: Verdict,
}

impl<M: Manager> Returning<'_, M> {
    #[inline]
    fn judge(&mut self) {
        if let Some(grant) = &mut self.grant {
            self.verdict = self.pooled.shared.manager.verdict(&mut grant.connection);
        }
    }
}

impl<M: Manager> Drop for Returning<'_, M> {
    #[inline]
    fn drop(&mut self) {
        let Some(grant) = self.grant.take() else { return };
        let (shared, now) = (&self.pooled.shared, Instant::now());
        shared.meters.use_time.record_duration(now - self.pooled.taken);
        shared.release(grant, self.verdict, now);
    }
}

impl<M: Manager> fmt::Debug for Pooled<M>
where
    M::Connection: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pooled").field(&**self).finish()
    }
}
