//! The orderly end.

use std::pin::pin;
use std::time::Duration;

use tokio::time::timeout;

use crate::desk::Desk;
use crate::key::Key;

/// How a [drain](crate::BatchProcessor::drain) ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainReport {
    /// Items that were accepted and not processed, because the time was over. They failed as closed.
    pub not_processed: usize,
    /// Batches interrupted while they were processed. Their items failed as closed, and may have been applied.
    pub interrupted: usize,
}

impl DrainReport {
    /// Whether every accepted item was processed.
    pub fn is_clean(&self) -> bool {
        self.not_processed == 0 && self.interrupted == 0
    }
}

pub(crate) async fn drain<K, I, O>(desk: &Desk<K, I, O>, limit: Duration) -> DrainReport
where
    K: Key,
    I: Send + 'static,
    O: Send + 'static,
{
    desk.close();
    match timeout(limit, wait_until(desk, || desk.is_empty())).await {
        Ok(()) => DrainReport { not_processed: 0, interrupted: 0 },
        Err(_) => {
            let not_processed = desk.abandon();
            let interrupted = desk.level().running;
            desk.interrupt();
            DrainReport { not_processed, interrupted }
        }
    }
}

/// Waits until `holds`, looking whenever a batch has ended.
pub(crate) async fn wait_until<K, I, O>(desk: &Desk<K, I, O>, holds: impl Fn() -> bool)
where
    K: Key,
    I: Send + 'static,
    O: Send + 'static,
{
    loop {
        let mut ended = pin!(desk.ended.notified());
        ended.as_mut().enable();
        if holds() {
            return;
        }
        ended.await;
    }
}
