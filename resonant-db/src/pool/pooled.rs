//! A connection lent to a caller.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use tokio::time::Instant;

use super::manager::{Manager, Verdict};
use super::shared::{Lent, Shared};

/// A connection lent by a [`ConnectionPool`](crate::pool::ConnectionPool); dropping it gives it back.
///
/// Giving it back asks [`Manager::verdict`] and waits for nothing: what needs cleaning or closing is seen to in the
/// background.
pub struct Pooled<M: Manager> {
    shared: Arc<Shared<M>>,
    /// There until the connection has been given back.
    grant: Option<Lent<M>>,
    taken: Instant,
}

impl<M: Manager> Pooled<M> {
    #[inline]
    pub(super) fn new(shared: Arc<Shared<M>>, grant: Lent<M>, taken: Instant) -> Self {
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
    pub fn discard(mut self) {
        let Some(grant) = self.grant.take() else { unreachable!("{GONE}") };
        self.shared.discard(grant);
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
        if let Some(grant) = self.grant.take() {
            let judged = Judged::new(&self.shared, grant);
            let now = Instant::now();
            self.shared.meters.use_time.record_duration(now - self.taken);
            judged.done(now);
        }
    }
}

/// A connection that has been looked at. Dropping it does what the verdict says; if looking panicked, it is closed.
pub(super) struct Judged<'a, M: Manager> {
    shared: &'a Arc<Shared<M>>,
    grant: Option<Lent<M>>,
    verdict: Verdict,
}

impl<'a, M: Manager> Judged<'a, M> {
    #[inline]
    pub(super) fn new(shared: &'a Arc<Shared<M>>, grant: Lent<M>) -> Self {
        let mut judged = Self { shared, grant: Some(grant), verdict: Verdict::Discard };
        if let Some(grant) = &mut judged.grant {
            judged.verdict = shared.manager.verdict(&mut grant.connection);
        }
        judged
    }

    /// Does what the verdict says, as of `now`.
    #[inline]
    fn done(mut self, now: Instant) {
        if let Some(grant) = self.grant.take() {
            self.shared.release(grant, self.verdict, now);
        }
    }

    /// The connection, if it is fit for use as it is.
    #[inline]
    pub(super) fn fit(mut self) -> Option<Lent<M>> {
        if self.verdict == Verdict::Reuse { self.grant.take() } else { None }
    }
}

impl<M: Manager> Drop for Judged<'_, M> {
    #[inline]
    fn drop(&mut self) {
        if let Some(grant) = self.grant.take() {
            self.shared.release(grant, self.verdict, Instant::now());
        }
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
