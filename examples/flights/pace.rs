//! Holds the publisher back, so that what is to happen in the middle of the work does.

use tokio::sync::watch;

/// How far publishing may go and storing has come.
#[derive(Debug)]
pub(crate) struct Pace {
    limit: watch::Sender<u64>,
    stored: watch::Sender<u64>,
}

impl Pace {
    /// No holding back.
    pub(crate) fn free() -> Self {
        Self { limit: watch::Sender::new(u64::MAX), stored: watch::Sender::new(0) }
    }

    /// Says how many flights are stored.
    pub(crate) fn stored(&self, flights: u64) {
        self.stored.send_replace(flights);
    }

    /// Waits until so many flights may be published.
    pub(crate) async fn may_publish(&self, flights: u64) {
        // It cannot be closed: the sender is here.
        let _ = self.limit.subscribe().wait_for(|limit| flights <= *limit).await;
    }
}
