//! The orderly end.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
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

/// Told whenever a batch has ended: flushes and drains look. Costs one load while nobody watches.
#[derive(Debug)]
pub(crate) struct Ended {
    notify: Notify,
    watchers: AtomicUsize,
}

impl Ended {
    pub(crate) fn new() -> Self {
        Self { notify: Notify::new(), watchers: AtomicUsize::new(0) }
    }

    /// Call it once the lock is free. Whoever watches counted itself in before it looked, under the same lock: either it
    /// is seen here, or it has seen what happened.
    #[inline]
    pub(crate) fn tell(&self) {
        if self.watchers.load(Ordering::Relaxed) > 0 {
            self.notify.notify_waiters();
        }
    }

    fn watch(&self) -> Watching<'_> {
        self.watchers.fetch_add(1, Ordering::Relaxed);
        Watching(self)
    }
}

struct Watching<'a>(&'a Ended);

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        self.0.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Waits until `holds`, which looks under the lock, looking whenever a batch has ended.
pub(crate) async fn wait_until<K, I, O>(desk: &Desk<K, I, O>, holds: impl Fn() -> bool)
where
    K: Key,
    I: Send + 'static,
    O: Send + 'static,
{
    let watching = desk.ended.watch();
    loop {
        let mut ended = pin!(watching.0.notify.notified());
        ended.as_mut().enable();
        if holds() {
            return;
        }
        ended.await;
    }
}
