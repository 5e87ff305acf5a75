//! The handle users hold.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use resonant_common::join::{Finding, Severity};
use tokio::time::Instant;

use crate::builder::Builder;
use crate::config::BatchConfig;
use crate::desk::Desk;
use crate::drain::DrainReport;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::output::BatchOutput;
use crate::process::Keyed;
use crate::submit::Rejected;
use crate::submitted::Submitted;

/// Gathers items submitted one by one into batches, processes each batch with one call, and gives every submitter the
/// outcome of its own item.
///
/// A handle is cheap to clone; clones share the queue. `I` is an item, `O` what its submitter gets, `K` the key batches
/// never mix (`()` where there is none).
///
/// # Dropping
///
/// When the last handle is dropped the processor closes: batches that run are finished, nothing new starts (nobody can be
/// waiting any more, as submissions borrow the handle), and the workers end. Use [`drain`](Self::drain) for an orderly end
/// with a deadline.
pub struct BatchProcessor<I, O, K = ()>
where
    K: Key,
    I: Send + 'static,
    O: Send + 'static,
{
    owner: Arc<Owner<K, I, O>>,
}

struct Owner<K, I, O>
where
    K: Key,
    I: Send + 'static,
    O: Send + 'static,
{
    desk: Arc<Desk<K, I, O>>,
}

impl<I, O> BatchProcessor<I, O>
where
    I: Send + 'static,
    O: Send + 'static,
{
    /// Starts building a processor of one queue.
    ///
    /// Write the closure as `async move |items: Vec<Request>| { … }`: it may capture handles and pools, it is cloned for
    /// each batch, and it compiles within spawned tasks and handlers. What it may return: see [`BatchOutput`].
    pub fn builder<F, Fut>(process: F) -> Builder<I, O>
    where
        F: FnOnce(Vec<I>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output: BatchOutput<Item = O>> + Send + 'static,
    {
        let process = Keyed::new(move |(), items| process(items));
        Builder::new(process, Some(Box::new(|_| ())))
    }
}

impl<I, O, K> BatchProcessor<I, O, K>
where
    K: Key,
    I: Send + 'static,
    O: Send + 'static,
{
    /// Starts building a processor of many queues, one for each key in use: `async move |key, items| { … }`. One batch never
    /// mixes keys, and keys take turns.
    ///
    /// Keys come from [`Builder::key`], or are given with [`with_key`](Self::with_key).
    pub fn keyed<F, Fut>(process: F) -> Builder<I, O, K>
    where
        F: FnOnce(K, Vec<I>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output: BatchOutput<Item = O>> + Send + 'static,
    {
        Builder::new(Keyed::new(process), None)
    }

    pub(crate) fn new(desk: Arc<Desk<K, I, O>>) -> Self {
        Self { owner: Arc::new(Owner { desk }) }
    }

    /// Submits an item and waits for its outcome. While the queue is full it waits in line, first come first served.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ItemFailed`] and [`ErrorKind::BatchFailed`] with the processor's own error as source;
    /// [`ErrorKind::Panicked`], [`ErrorKind::WrongLength`], [`ErrorKind::TimedOut`] for what the processor did;
    /// [`ErrorKind::TooHeavy`], [`ErrorKind::Closed`] if it was not accepted; [`ErrorKind::Config`] if the processor is keyed
    /// and knows no key for the item.
    ///
    /// # Cancel safety
    ///
    /// Nothing happens before the first poll. Dropped before its batch is dispatched, the item is taken back; dropped later,
    /// it is processed and its outcome lost.
    pub async fn submit(&self, item: I) -> Result<O> {
        let key = self.key_of("submit", &item)?;
        self.submit_as(key, item).await
    }

    /// Submits an item unless the queue is full. The item is accepted when this returns; await the [`Submitted`] for its
    /// outcome.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Overloaded`], [`ErrorKind::Closed`], [`ErrorKind::TooHeavy`] or [`ErrorKind::Config`], with the item
    /// handed back.
    pub fn try_submit(&self, item: I) -> Result<Submitted<'_, I, O, K>, Rejected<I>> {
        match self.key_of("try_submit", &item) {
            Ok(key) => self.try_submit_as(key, item),
            Err(error) => Err(Rejected { item, error }),
        }
    }

    /// Submits items in order and waits for all outcomes, in the same order. They share batches, split at the caps; with one
    /// key and one batch in flight they are processed in order.
    ///
    /// Much cheaper than many calls of [`submit`](Self::submit): the queue is locked once, and the caller is woken at most
    /// once for each batch. When the queue is full the rest waits in line as one, and nobody comes in between.
    ///
    /// Errors are those of [`submit`](Self::submit), each for its own item.
    ///
    /// # Cancel safety
    ///
    /// As [`submit`](Self::submit), for each item.
    pub async fn submit_many(&self, items: impl IntoIterator<Item = I>) -> Vec<Result<O>> {
        let keyed =
            items.into_iter().map(|item| (self.key_of("submit_many", &item), item)).collect();
        self.submit_many_as(keyed).await
    }

    /// Submits an item and waits for its outcome, but no longer than `limit` in all.
    ///
    /// A deadline does not shed load: when more comes in than can be processed, items grow old in the queue and are processed
    /// for callers about to give up. For that, keep `max_queued` short and use [`try_submit`](Self::try_submit).
    ///
    /// # Errors
    ///
    /// Those of [`submit`](Self::submit), and [`ErrorKind::TimedOut`] at the deadline. If the item was still queued it is
    /// taken back then; if not, [`may_have_applied`](Error::may_have_applied) holds.
    ///
    /// # Cancel safety
    ///
    /// As [`submit`](Self::submit).
    pub async fn submit_timeout(&self, item: I, limit: Duration) -> Result<O> {
        self.submit_deadline(item, crate::submit::after(limit)).await
    }

    /// As [`submit_timeout`](Self::submit_timeout), with a point in time.
    ///
    /// # Errors
    ///
    /// Those of [`submit_timeout`](Self::submit_timeout).
    pub async fn submit_deadline(&self, item: I, deadline: Instant) -> Result<O> {
        let key = self.key_of("submit_deadline", &item)?;
        self.submit_deadline_as(key, item, deadline).await
    }

    /// The same processor for items of one key: for keys that are not in the item.
    pub fn with_key(&self, key: K) -> WithKey<'_, I, O, K> {
        WithKey { processor: self, key }
    }

    /// Dispatches everything accepted so far without waiting for company, and waits until exactly those items have their
    /// outcomes. Items submitted later do not delay it, nor do those still in line.
    ///
    /// # Cancel safety
    ///
    /// Dropping it only stops waiting.
    pub async fn flush(&self) {
        let Some(epoch) = self.desk().flush() else { return };
        crate::drain::wait_until(self.desk(), || self.desk().settled(epoch)).await;
    }

    /// Closes the processor to new items, processes what was accepted, and returns when everything has its outcome, at
    /// the latest after `limit`. Then what is still queued fails unprocessed, and batches that run are interrupted: their
    /// items fail as [`may_have_applied`](Error::may_have_applied). Every accepted item gets exactly one outcome.
    ///
    /// Those waiting in line are sent home at once. It may be called again, and by several callers.
    ///
    /// # Cancel safety
    ///
    /// Dropping it leaves the processor closed, and what was accepted is processed without a deadline.
    pub async fn drain(&self, limit: Duration) -> DrainReport {
        crate::drain::drain(self.desk(), limit).await
    }

    /// Closes the processor to new items. What was accepted is processed. Safe to call again.
    pub fn close(&self) {
        self.desk().close();
    }

    /// Whether it takes no more items.
    pub fn is_closed(&self) -> bool {
        self.desk().level().closed
    }

    /// How full it is now.
    pub fn stats(&self) -> Stats {
        let level = self.desk().level();
        Stats {
            queued: level.queued,
            waiting: level.waiting,
            in_flight: level.running,
            keys: level.keys,
        }
    }

    /// The settings it was built with.
    pub fn config(&self) -> &BatchConfig {
        &self.desk().settings.config
    }

    /// What it says of its own health, under its name:
    ///
    /// | code | severity | meaning |
    /// |---|---|---|
    /// | `batch.ok` | ok | as it should be |
    /// | `batch.saturated` | warn | the queue is full, callers wait in line or are refused |
    /// | `batch.failing` | fail | the last three batches or more failed as a whole |
    /// | `batch.closed` | fail | it takes no more items |
    pub fn findings(&self) -> Vec<Finding> {
        let (level, metrics) = (self.desk().level(), &self.desk().settings.metrics);
        let facts = [
            (level.closed, Severity::Fail, "batch.closed"),
            (metrics.is_failing(), Severity::Fail, "batch.failing"),
            (level.queued >= self.config().max_queued, Severity::Warn, "batch.saturated"),
        ];
        let finding = |severity, code| Finding::new(metrics.name().to_owned(), severity, code);
        let mut findings: Vec<_> = facts
            .into_iter()
            .filter(|fact| fact.0)
            .map(|(_, severity, code)| finding(severity, code))
            .collect();
        if findings.is_empty() {
            findings.push(finding(Severity::Ok, "batch.ok"));
        }
        findings
    }

    pub(crate) fn desk(&self) -> &Desk<K, I, O> {
        &self.owner.desk
    }

    fn key_of(&self, operation: &'static str, item: &I) -> Result<K> {
        match &self.desk().settings.key_of {
            Some(key_of) => Ok(key_of(item)),
            None => Err(Error::new(
                ErrorKind::Config,
                operation,
                "this processor does not know the key of an item: build it with Builder::key, or submit through with_key",
            )),
        }
    }
}

/// A [`BatchProcessor`] for items of one key; made by [`BatchProcessor::with_key`].
///
/// Its methods are those of the same name there.
pub struct WithKey<'a, I, O, K>
where
    K: Key,
    I: Send + 'static,
    O: Send + 'static,
{
    processor: &'a BatchProcessor<I, O, K>,
    key: K,
}

impl<'a, I, O, K> WithKey<'a, I, O, K>
where
    K: Key,
    I: Send + 'static,
    O: Send + 'static,
{
    /// As [`BatchProcessor::submit`].
    ///
    /// # Errors
    ///
    /// Those of [`BatchProcessor::submit`].
    pub async fn submit(self, item: I) -> Result<O> {
        self.processor.submit_as(self.key, item).await
    }

    /// As [`BatchProcessor::try_submit`].
    ///
    /// # Errors
    ///
    /// Those of [`BatchProcessor::try_submit`].
    pub fn try_submit(self, item: I) -> Result<Submitted<'a, I, O, K>, Rejected<I>> {
        self.processor.try_submit_as(self.key, item)
    }

    /// As [`BatchProcessor::submit_many`].
    pub async fn submit_many(self, items: impl IntoIterator<Item = I>) -> Vec<Result<O>> {
        let keyed = items.into_iter().map(|item| (Ok(self.key.clone()), item)).collect();
        self.processor.submit_many_as(keyed).await
    }

    /// As [`BatchProcessor::submit_timeout`].
    ///
    /// # Errors
    ///
    /// Those of [`BatchProcessor::submit_timeout`].
    pub async fn submit_timeout(self, item: I, limit: Duration) -> Result<O> {
        self.processor.submit_deadline_as(self.key, item, crate::submit::after(limit)).await
    }

    /// As [`BatchProcessor::submit_deadline`].
    ///
    /// # Errors
    ///
    /// Those of [`BatchProcessor::submit_deadline`].
    pub async fn submit_deadline(self, item: I, deadline: Instant) -> Result<O> {
        self.processor.submit_deadline_as(self.key, item, deadline).await
    }
}

/// How full a [`BatchProcessor`] is: an honest snapshot, old as soon as it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Items accepted and not dispatched.
    pub queued: usize,
    /// Submitters in line because the queue is full.
    pub waiting: usize,
    /// Batches being processed.
    pub in_flight: usize,
    /// Keys with items queued or batches being processed.
    pub keys: usize,
}

impl<I, O, K> Clone for BatchProcessor<I, O, K>
where
    K: Key,
    I: Send + 'static,
    O: Send + 'static,
{
    fn clone(&self) -> Self {
        Self { owner: self.owner.clone() }
    }
}

impl<K, I, O> Drop for Owner<K, I, O>
where
    K: Key,
    I: Send + 'static,
    O: Send + 'static,
{
    fn drop(&mut self) {
        self.desk.close();
    }
}

impl<I, O, K> fmt::Debug for BatchProcessor<I, O, K>
where
    K: Key,
    I: Send + 'static,
    O: Send + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchProcessor")
            .field("name", &self.desk().settings.metrics.name())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl<I, O, K> fmt::Debug for WithKey<'_, I, O, K>
where
    K: Key,
    I: Send + 'static,
    O: Send + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WithKey").field("processor", self.processor).finish_non_exhaustive()
    }
}
