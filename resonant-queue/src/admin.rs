//! What a person does to a queue: pause it, look at what failed, bring it back.

use crate::depth::{DeadLetter, ParkedKey};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::queue::PartitionedQueue;

impl<T> PartitionedQueue<T> {
    /// Pauses the queue for all workers of all processes: they take nothing new, handlers that run finish. Publishing
    /// goes on. Kept by a durable engine. Effective at once in this process, within a second in others.
    ///
    /// # Errors
    ///
    /// `Closed`, `Unavailable`.
    pub async fn pause(&self) -> Result<()> {
        self.set_paused("pause", true).await
    }

    /// Ends a pause.
    ///
    /// # Errors
    ///
    /// `Closed`, `Unavailable`.
    pub async fn resume(&self) -> Result<()> {
        self.set_paused("resume", false).await
    }

    /// Whether the queue is paused, as this process knows it.
    pub fn is_paused(&self) -> bool {
        *self.core().pause.borrow()
    }

    async fn set_paused(&self, operation: &'static str, paused: bool) -> Result<()> {
        self.core().open(operation)?;
        self.core().set_paused(paused).await
    }

    /// The parked keys, oldest first, at most `limit`.
    ///
    /// # Errors
    ///
    /// `Closed`, `Unavailable`.
    pub async fn parked(&self, limit: usize) -> Result<Vec<ParkedKey>> {
        self.core().open("parked")?;
        self.core().store.parked(limit).await
    }

    /// Ends the parking of a key: its messages are handed out again in order, the one that failed first, as a new
    /// series of attempts. Returns how many had been put aside.
    ///
    /// # Errors
    ///
    /// `NotFound` if the key is not parked, `Closed`, `Unavailable`.
    pub async fn resume_key(&self, key: impl Into<Key>) -> Result<u64> {
        let core = self.core();
        core.open("resume_key")?;
        let key = key.into();
        let partition = key.partition(core.config.partitions);
        core.store.resume_key(partition, &key).await?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "resume_key", "the key is not parked; see parked()")
        })
    }

    /// The dead letters, oldest first, at most `limit`.
    ///
    /// # Errors
    ///
    /// `Closed`, `Unavailable`.
    pub async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>> {
        self.core().open("dead_letters")?;
        self.core().store.dead_letters(limit).await
    }

    /// Publishes up to `limit` dead letters anew, oldest first, with their old bodies, keys and headers, as of now. Their
    /// order per key is kept; they come behind what already waits. Each moves at once or not at all, so a crash loses
    /// none.
    /// Returns how many were moved.
    ///
    /// # Errors
    ///
    /// `Closed`, `Unavailable`.
    pub async fn redrive(&self, limit: usize) -> Result<u64> {
        self.core().open("redrive")?;
        self.core().store.redrive(limit).await
    }

    /// Removes up to `limit` dead letters for good, oldest first. Returns how many.
    ///
    /// # Errors
    ///
    /// `Closed`, `Unavailable`.
    pub async fn purge_dead_letters(&self, limit: usize) -> Result<u64> {
        self.core().open("purge_dead_letters")?;
        self.core().store.purge_dead(limit).await
    }
}
