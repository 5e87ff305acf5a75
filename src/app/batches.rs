//! The batch processors of a file.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use resonant_batch::{BatchOutput, BatchProcessor, DrainReport, Key, Stats};
use resonant_health::Check;

use super::error::{Error, ErrorKind, Result, part};
use super::life::lock;
use super::resonant::Resonant;

/// A processor of whatever items.
pub(super) trait OpenBatch: Send + Sync {
    fn drain(&self, limit: Duration) -> BoxFuture<'static, DrainReport>;
    fn stats(&self) -> Stats;
}

impl<I, O, K> OpenBatch for BatchProcessor<I, O, K>
where
    K: Key + Sync,
    I: Send + 'static,
    O: Send + 'static,
{
    fn drain(&self, limit: Duration) -> BoxFuture<'static, DrainReport> {
        let batch = self.clone();
        Box::pin(async move { Self::drain(&batch, limit).await })
    }

    fn stats(&self) -> Stats {
        Self::stats(self)
    }
}

/// What a processor's health check is called.
pub(super) fn check_name(batch: &str) -> String {
    format!("batch.{batch}")
}

pub(super) type Batches = Mutex<BTreeMap<String, Arc<dyn OpenBatch>>>;

impl Resonant {
    /// The batch processor of `[batches.<name>]`, which hands what is submitted to `process`. It is drained at the end, after
    /// the workers and before what it writes to is closed.
    ///
    /// # Errors
    ///
    /// [`Missing`](ErrorKind::Missing) where there is no such section, or the processor was made already;
    /// [`Part`](ErrorKind::Part) where it is refused.
    pub fn batch<I, O, F, Fut>(&self, name: &str, process: F) -> Result<BatchProcessor<I, O>>
    where
        I: Send + 'static,
        O: Send + 'static,
        F: FnOnce(Vec<I>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output: BatchOutput<Item = O>> + Send + 'static,
    {
        let builder = BatchProcessor::builder(process).config(self.batch_config(name)?.clone());
        let batch = builder.name(name).build().map_err(|error| part("batch", name, error))?;
        self.keep_batch(name, batch)
    }

    /// The settings of `[batches.<name>]`, for a processor that is built by hand: keyed, weighed, single-flight. Give it to
    /// [`keep_batch`](Self::keep_batch).
    ///
    /// # Errors
    ///
    /// [`Missing`](ErrorKind::Missing) where there is no such section.
    pub fn batch_config(&self, name: &str) -> Result<&resonant_batch::BatchConfig> {
        let config = self.settings().batches.get(name);
        config.ok_or_else(|| self.missing(&format!("batches.{name}")))
    }

    /// Takes a processor that was built by hand into the life of the service, and gives it back: it is drained at the end, and
    /// its findings are among the health checks as `batch.<name>`.
    ///
    /// # Errors
    ///
    /// [`Missing`](ErrorKind::Missing) where there is one of this name already.
    pub fn keep_batch<I, O, K>(
        &self,
        name: &str,
        batch: BatchProcessor<I, O, K>,
    ) -> Result<BatchProcessor<I, O, K>>
    where
        K: Key + Sync,
        I: Send + 'static,
        O: Send + 'static,
    {
        {
            let mut batches = lock(&self.inner.batches);
            if batches.contains_key(name) {
                let message = format!("there is a batch processor {name:?} already");
                return Err(Error::new(ErrorKind::Missing, "batch", message));
            }
            batches.insert(name.to_owned(), Arc::new(batch.clone()));
        }
        let found = batch.clone();
        self.add_check(Check::findings(&check_name(name), move || found.findings()).degrading());
        Ok(batch)
    }
}
