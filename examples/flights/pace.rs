//! Holds the publisher back, so that what is to happen in the middle of the work does.

use tokio::sync::watch;

/// How far publishing may go and storing has come.
#[derive(Debug)]
pub(crate) struct Pace {
    limit: watch::Sender<u64>,
    stored: watch::Sender<u64>,
}

impl Pace {
    /// Publishing begins where fewer than `limit` flights have been published.
    pub(crate) fn up_to(limit: u64) -> Self {
        Self { limit: watch::Sender::new(limit), stored: watch::Sender::new(0) }
    }

    /// Lets publishing go on to a higher limit.
    #[cfg(feature = "cluster")]
    pub(crate) fn allow(&self, limit: u64) {
        self.limit.send_if_modified(|now| std::mem::replace(now, limit.max(*now)) < limit);
    }

    /// Says how many flights are stored.
    pub(crate) fn stored(&self, flights: u64) {
        self.stored.send_replace(flights);
    }

    /// Waits until so many flights are stored.
    #[cfg(feature = "cluster")]
    pub(crate) async fn until_stored(&self, flights: u64) {
        // It cannot be closed: the sender is here.
        let _ = self.stored.subscribe().wait_for(|stored| *stored >= flights).await;
    }

    /// Waits until more may be published than these.
    pub(crate) async fn may_go_on_from(&self, flights: u64) {
        let _ = self.limit.subscribe().wait_for(|limit| flights < *limit).await;
    }
}
