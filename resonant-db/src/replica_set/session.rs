//! Sessions over handles of a user's own.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use resonant_common::join::Position;
use tokio::time::{Instant, timeout};

use crate::{Error, ErrorKind, Result};

use super::pick::{Pick, Tried, Wish, choose};
use super::shared::Shared;
use super::tour::Tour;
use super::written::Written;

/// Reads that see what was written through it, over any handle; made by [`ReplicaSet::session`](crate::ReplicaSet::session).
///
/// After a write, [`wrote`](PickSession::wrote) asks the primary how far it is. From then on
/// [`read`](PickSession::read) picks only replicas that a probe has seen as far, else the primary. As nobody asks at the
/// moment of the read, a replica that has caught up counts from its next probe on: fresh always, but for up to a probe
/// interval after a write the primary answers. Clones are the same session.
pub struct PickSession<P> {
    shared: Arc<Shared<P>>,
    written: Arc<Mutex<Written>>,
}

impl<P: Clone + Send + Sync + 'static> PickSession<P> {
    pub(super) fn new(shared: &Arc<Shared<P>>, written: Written) -> Self {
        Self { shared: Arc::clone(shared), written: Arc::new(Mutex::new(written)) }
    }

    /// A node that shows everything the session has written.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`] when nobody is known to, and there is no primary.
    pub fn read(&self) -> Result<Pick<P>> {
        choose(&self.shared, &self.wish(), &Tried::default()).ok_or_else(|| {
            let message = "no node is known to have come as far as the session's last write";
            Error::new(ErrorKind::Unavailable, "read", message)
        })
    }

    /// The same, to go on to another node where one fails.
    pub fn tour(&self) -> Tour<P> {
        self.shared.budget.deposit();
        Tour::new(&self.shared, self.wish())
    }

    /// Remembers a write that `pick`, the primary, has acknowledged. Where it cannot say how far it is, the session reads from
    /// the primary from then on.
    ///
    /// # Cancel safety
    ///
    /// A dropped future leaves the session reading from the primary.
    pub async fn wrote(&self, pick: &Pick<P>) {
        // Until it is known better.
        let before = std::mem::replace(&mut self.written().pinned, true);
        let Some(probe) = &self.shared.probe else { return };
        let asked = timeout(self.shared.config.probe_timeout, probe(pick.handle().clone()));
        if let Ok(Ok(said)) = asked.await
            && let Some(position) = said.position
        {
            let mut written = self.written();
            written.reached(position, Instant::now());
            written.pinned = before;
        }
        // The replicas are asked again soon, so that the primary is relieved.
        self.shared.kick();
    }

    /// How far the session's writes have come, as text that fits into a cookie or a header; `None` before the first.
    pub fn token(&self) -> Option<String> {
        self.written().token()
    }

    /// How far the session's writes have come, as far as that is known.
    pub fn position(&self) -> Option<Position> {
        self.written().position
    }

    fn wish(&self) -> Wish {
        let Written { position, pinned, .. } = *self.written();
        Wish { only_primary: pinned, reached: position, own_writes: true, ..Wish::default() }
    }
}

impl<P> PickSession<P> {
    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P> Clone for PickSession<P> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), written: Arc::clone(&self.written) }
    }
}

impl<P> fmt::Debug for PickSession<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let position = self.written().position;
        f.debug_struct("PickSession").field("position", &position).finish_non_exhaustive()
    }
}
