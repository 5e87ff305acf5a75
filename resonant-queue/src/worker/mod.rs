//! Workers: who takes messages, and how they end.

mod handler;
mod pump;
mod report;
#[cfg(feature = "tower")]
mod service;
mod share;
mod supervisor;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinHandle;

pub(crate) use self::handler::Origin;
pub use self::report::DrainReport;
#[cfg(feature = "tower")]
pub use self::service::ServiceError;

use self::handler::{Handle, Runs, Single};
use self::report::Tally;
use self::supervisor::{Ended, Plan, Supervisor, Wish};
use crate::delivery::{Delivery, HandlerError, Run};
use crate::error::{Error, ErrorKind, Result, closed};
use crate::lanes::Rules;
use crate::queue::{Core, PartitionedQueue};

/// Settings of a worker, made by [`PartitionedQueue::worker`] and [`PartitionedQueue::worker_runs`].
#[must_use = "a worker does nothing until it is started"]
pub struct WorkerBuilder<T, F> {
    queue: PartitionedQueue<T>,
    handler: F,
    shape: Shape,
    concurrency: usize,
    timeout: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
enum Shape {
    Single,
    Runs(usize),
}

impl<T, F> fmt::Debug for WorkerBuilder<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerBuilder")
            .field("queue", &self.queue)
            .field("shape", &self.shape)
            .field("concurrency", &self.concurrency)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl<T> PartitionedQueue<T> {
    /// A worker that calls `handler` for each message. Start it with [`WorkerBuilder::start`].
    ///
    /// Messages of one key are handled one after another in order; keys run side by side, also within a partition.
    pub fn worker<F, Fut>(&self, handler: F) -> WorkerBuilder<T, F>
    where
        F: FnOnce(Delivery<T>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        WorkerBuilder::new(self.clone(), handler, Shape::Single)
    }

    /// A worker that calls `handler` for up to `max` consecutive messages of one key at a time.
    ///
    /// A hot key is not bound to one round trip per message. What a failing handler has finished it says by
    /// [`Run::done`].
    pub fn worker_runs<F, Fut>(&self, max: usize, handler: F) -> RunWorkerBuilder<T, F>
    where
        F: FnOnce(Run<T>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        RunWorkerBuilder(WorkerBuilder::new(self.clone(), handler, Shape::Runs(max)))
    }
}

impl<T, F> WorkerBuilder<T, F> {
    fn new(queue: PartitionedQueue<T>, handler: F, shape: Shape) -> Self {
        Self { queue, handler, shape, concurrency: 64, timeout: None }
    }

    /// How many handlers run at once. Default 64.
    pub fn concurrency(mut self, handlers: usize) -> Self {
        self.concurrency = handlers;
        self
    }

    /// Stops a handler that takes longer; its message has failed. Default: none, a handler may take long.
    pub fn handler_timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    async fn start_with(
        self,
        max_run: usize,
        handler: impl FnOnce(F, Option<Duration>) -> Arc<dyn Handle>,
    ) -> Result<Worker> {
        for (holds, rule) in [
            (self.concurrency >= 1, "concurrency must be at least 1"),
            (self.concurrency <= Semaphore::MAX_PERMITS, "concurrency is too large"),
            ((1..=65_536).contains(&max_run), "a run's maximum must be 1 to 65536"),
        ] {
            if !holds {
                return Err(Error::new(ErrorKind::Config, "start", rule));
            }
        }
        let core = self.queue.core();
        core.open("start")?;
        let handler = handler(self.handler, self.timeout);
        Worker::start(core, handler, max_run, self.concurrency).await
    }
}

impl<T, F, Fut> WorkerBuilder<T, F>
where
    T: DeserializeOwned + Send + 'static,
    F: FnOnce(Delivery<T>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
{
    /// Starts the worker. It has tried for its partitions when this returns, and goes on trying.
    ///
    /// # Errors
    ///
    /// `Config` with the rule a setting breaks; `Closed`.
    pub async fn start(self) -> Result<Worker> {
        let versions = Arc::clone(&self.queue.versions);
        let build = |handler, timeout| {
            Arc::new(Single::<T, F>::new(handler, timeout, versions)) as Arc<dyn Handle>
        };
        self.start_with(1, build).await
    }
}

/// Settings of a worker of runs, made by [`PartitionedQueue::worker_runs`].
#[must_use = "a worker does nothing until it is started"]
#[derive(Debug)]
pub struct RunWorkerBuilder<T, F>(WorkerBuilder<T, F>);

impl<T, F> RunWorkerBuilder<T, F> {
    /// How many handlers run at once. Default 64.
    pub fn concurrency(self, handlers: usize) -> Self {
        Self(self.0.concurrency(handlers))
    }

    /// Stops a handler that takes longer; what it did not report as done has failed. Default: none.
    pub fn handler_timeout(self, limit: Duration) -> Self {
        Self(self.0.handler_timeout(limit))
    }
}

impl<T, F, Fut> RunWorkerBuilder<T, F>
where
    T: DeserializeOwned + Send + 'static,
    F: FnOnce(Run<T>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
{
    /// Starts the worker. It has tried for its partitions when this returns, and goes on trying.
    ///
    /// # Errors
    ///
    /// `Config` with the rule a setting breaks; `Closed`.
    pub async fn start(self) -> Result<Worker> {
        let max = match self.0.shape {
            Shape::Runs(max) => max,
            Shape::Single => 1,
        };
        let versions = Arc::clone(&self.0.queue.versions);
        let build = |handler, timeout| {
            Arc::new(Runs::<T, F>::new(handler, timeout, versions)) as Arc<dyn Handle>
        };
        self.0.start_with(max, build).await
    }
}

/// A running worker.
///
/// It goes on when the handles of its queue are dropped. Dropping it stops its handlers at their next await and then
/// gives their partitions back, in the background; what was not finished is handed out again. A handler that does not
/// come to an await keeps its partition until the lease runs out. [`drain`](Worker::drain) is the orderly end.
#[must_use = "dropping a worker stops it"]
pub struct Worker {
    wish: watch::Sender<Wish>,
    supervisor: JoinHandle<Ended>,
    tally: Arc<Tally>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("so_far", &self.tally.report()).finish_non_exhaustive()
    }
}

static INCARNATIONS: AtomicU64 = AtomicU64::new(0);

impl Worker {
    async fn start(
        core: &Arc<Core>,
        handler: Arc<dyn Handle>,
        max_run: usize,
        concurrency: usize,
    ) -> Result<Self> {
        let config = &core.config;
        let tally = Arc::new(Tally::new(Arc::clone(&core.metrics)));
        let ttl = if core.capabilities.exclusive {
            // Nobody outside this process waits for our leases to run out.
            config.lease_ttl.max(Duration::from_secs(60))
        } else {
            config.lease_ttl
        };
        let plan = Plan {
            core: Arc::clone(core),
            owner: owner_name(),
            ttl,
            rules: Rules {
                prefetch: config.prefetch.max(8 * max_run),
                prefetch_bytes: config.prefetch_bytes,
                max_run,
                seek: core.capabilities.seek,
                max_attempts: config.retry.max_attempts,
                backoff: config.retry.backoff,
                poison: config.poison,
            },
            handler,
            permits: Arc::new(Semaphore::new(concurrency)),
            tally: Arc::clone(&tally),
        };
        let (wish, wishes) = watch::channel(Wish::Run);
        let (started, is_started) = oneshot::channel();
        // The queue's tracker owns the task, so that closing the queue waits for it.
        let supervisor = core.tasks.spawn(Supervisor::new(plan).run(wishes, started));
        let worker = Self { wish, supervisor, tally };
        is_started.await.map_err(|_| closed("start"))?;
        Ok(worker)
    }

    /// Stops taking messages, lets running handlers finish, settles, gives the partitions back.
    ///
    /// Nothing is delivered twice because of it, unless handlers take longer than `drain_timeout`: then they are stopped
    /// and the report says so.
    ///
    /// # Errors
    ///
    /// `Closed` if the worker ended because its queue was closed, and not because all was finished.
    ///
    /// # Cancel safety
    ///
    /// A dropped drain drops the worker: handlers stop, what was not finished is handed out again.
    pub async fn drain(mut self) -> Result<DrainReport> {
        self.wish.send_replace(Wish::Drain);
        match (&mut self.supervisor).await {
            Ok(Ended::AsAsked) => Ok(self.tally.report()),
            Ok(Ended::Closed) | Err(_) => Err(closed("drain")),
        }
    }

    /// What it has done so far.
    pub fn report(&self) -> DrainReport {
        self.tally.report()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.wish.send_replace(Wish::Stop);
    }
}

/// A name no other worker has or had, in this process or another.
fn owner_name() -> String {
    let number = INCARNATIONS.fetch_add(1, Ordering::Relaxed);
    let chance: u64 = rand::random();
    format!("{}-{chance:016x}-{number}", std::process::id())
}
