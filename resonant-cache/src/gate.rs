//! The one way to the store: every call has a deadline, every answer is counted towards the store's health, and a
//! store that answers for too few keys is caught.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::backend::{
    Bump, Epochs, FenceAt, Key, LeaseAsk, LeaseToken, Leased, Origin, ReadFrom, Store, TagId,
    Write, WriteOutcome,
};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::StoreMetrics;

/// Failures in a row after which the store counts as unreachable, in findings and in the log.
const UNREACHABLE_AFTER: u32 = 3;

#[derive(Debug)]
pub(crate) struct Gate {
    store: Arc<dyn Store>,
    origin: Origin,
    timeout: Duration,
    failures: AtomicU32,
    cache: String,
    metrics: StoreMetrics,
}

impl Gate {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        origin: Origin,
        timeout: Duration,
        cache: String,
    ) -> Self {
        let metrics = StoreMetrics::new(&cache);
        Self { store, origin, timeout, failures: AtomicU32::new(0), cache, metrics }
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    pub(crate) fn clock(&self) -> u64 {
        self.store.clock()
    }

    pub(crate) fn is_reachable(&self) -> bool {
        self.failures.load(Ordering::Relaxed) < UNREACHABLE_AFTER
    }

    pub(crate) async fn read(&self, keys: &[Key], from: ReadFrom) -> Vec<Result<Option<Bytes>>> {
        self.batch("read", keys.len(), false, self.store.read(keys, from)).await
    }

    pub(crate) async fn write(&self, writes: Vec<Write>) -> Vec<Result<WriteOutcome>> {
        let count = writes.len();
        self.batch("write", count, true, self.store.write(self.origin, writes)).await
    }

    pub(crate) async fn remove(&self, keys: &[Key], fence: Option<FenceAt>) -> Vec<Result<bool>> {
        self.batch("remove", keys.len(), true, self.store.remove(self.origin, keys, fence)).await
    }

    pub(crate) async fn lease(&self, keys: &[Key], ask: LeaseAsk) -> Vec<Result<Leased>> {
        self.batch("lease", keys.len(), true, self.store.lease(keys, ask)).await
    }

    pub(crate) async fn release(&self, keys: &[Key], token: LeaseToken) -> Result<()> {
        self.single("release", true, self.store.release(keys, token)).await
    }

    pub(crate) async fn add(&self, key: &Key, by: i64, ttl: Option<Duration>) -> Result<i64> {
        self.single("add", true, self.store.add(key, by, ttl)).await
    }

    pub(crate) async fn epochs(&self, namespace: &str, tags: &[TagId]) -> Result<Epochs> {
        let epochs = self.single("epochs", false, self.store.epochs(namespace, tags)).await?;
        if epochs.tags.len() == tags.len() { Ok(epochs) } else { Err(short("epochs")) }
    }

    pub(crate) async fn bump(&self, namespace: &str, what: Bump) -> Result<u64> {
        self.single("bump", true, self.store.bump(self.origin, namespace, what)).await
    }

    pub(crate) async fn ping(&self) -> Result<()> {
        self.single("ping", false, self.store.ping()).await
    }

    async fn batch<T>(
        &self,
        operation: &'static str,
        count: usize,
        applies: bool,
        call: impl Future<Output = Vec<Result<T>>>,
    ) -> Vec<Result<T>> {
        let began = Instant::now();
        let answers = match tokio::time::timeout(self.timeout, call).await {
            Ok(answers) if answers.len() == count => answers,
            Ok(_) => failed(count, &short(operation)),
            Err(_) => failed(count, &self.late(operation, applies)),
        };
        self.metrics.record(operation, began.elapsed());
        self.judge(answers.iter().filter_map(|answer| answer.as_ref().err()).next());
        answers
    }

    async fn single<T>(
        &self,
        operation: &'static str,
        applies: bool,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let began = Instant::now();
        let answer = match tokio::time::timeout(self.timeout, call).await {
            Ok(answer) => answer,
            Err(_) => Err(self.late(operation, applies)),
        };
        self.metrics.record(operation, began.elapsed());
        self.judge(answer.as_ref().err());
        answer
    }

    /// One line per change of state, never one per call.
    fn judge(&self, error: Option<&Error>) {
        match error {
            None => {
                self.metrics.up(true);
                if self.failures.load(Ordering::Relaxed) != 0
                    && self.failures.swap(0, Ordering::Relaxed) >= UNREACHABLE_AFTER
                {
                    tracing::info!(cache = %self.cache, "the store answers again");
                }
            }
            Some(error) if error.is_transient() => {
                let before = self.failures.fetch_add(1, Ordering::Relaxed);
                if before == UNREACHABLE_AFTER - 1 {
                    self.metrics.up(false);
                    tracing::warn!(
                        cache = %self.cache, %error,
                        "the store does not answer; values come from this process and the loaders"
                    );
                } else if before == u32::MAX {
                    self.failures.store(UNREACHABLE_AFTER, Ordering::Relaxed);
                }
            }
            Some(_) => {}
        }
    }

    fn late(&self, operation: &'static str, applies: bool) -> Error {
        let message = format!("the store gave no answer within {:?}", self.timeout);
        let error = Error::new(ErrorKind::TimedOut, operation, message);
        if applies { error.with_may_have_applied() } else { error }
    }
}

fn failed<T>(count: usize, error: &Error) -> Vec<Result<T>> {
    (0..count).map(|_| Err(error.clone())).collect()
}

fn short(operation: &'static str) -> Error {
    let message = "the store broke its contract: it answered for another number of keys than asked";
    Error::new(ErrorKind::Unavailable, operation, message)
}
