//! The queues of a file, their workers, and what scales them.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use resonant_health::Check;
use resonant_queue::backend::Backend;
use resonant_queue::{Depth, PartitionedQueue, Worker};
use resonant_scale::{Autoscaler, ScaleTarget as _, WorkerPool};

use super::broker::{BrokerConfig, Database};
use super::config::{QUEUE_DEPTH, ScalingConfig};
use super::error::{Error, ErrorKind, Result, part};
use super::life::lock;
use super::resonant::Resonant;

/// A queue of whatever messages.
pub(super) trait OpenQueue: Any + Send + Sync {
    fn depth(&self) -> BoxFuture<'static, resonant_queue::Result<Depth>>;
    fn close(&self) -> BoxFuture<'static, ()>;
}

impl<T: Send + Sync + 'static> OpenQueue for PartitionedQueue<T> {
    fn depth(&self) -> BoxFuture<'static, resonant_queue::Result<Depth>> {
        let queue = self.clone();
        Box::pin(async move { Self::depth(&queue).await })
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        let queue = self.clone();
        Box::pin(async move { Self::close(&queue).await })
    }
}

type Opened = Arc<dyn OpenQueue>;

/// What a queue's health check is called: check names have no colon.
pub(super) fn check_name(queue: &str) -> String {
    format!("queue.{}", queue.replace(':', "_"))
}

/// The workers of a queue.
#[derive(Clone)]
pub(super) struct Crew {
    pub(super) pool: WorkerPool<Worker>,
    /// The partitions whose handlers were stopped because they took too long to end.
    abandoned: Arc<AtomicU64>,
}

impl Crew {
    fn new<S, Fut>(start: S) -> Self
    where
        S: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = resonant_queue::Result<Worker>> + Send + 'static,
    {
        let abandoned = Arc::<AtomicU64>::default();
        let counter = Arc::clone(&abandoned);
        let end = move |worker: Worker| {
            let counter = Arc::clone(&counter);
            async move {
                let report = worker.drain().await?;
                counter.fetch_add(report.abandoned, Ordering::AcqRel);
                Ok::<_, resonant_queue::Error>(())
            }
        };
        Self { pool: WorkerPool::new(start, end), abandoned }
    }

    /// So far: partitions whose handlers were stopped, and workers that did not end well.
    pub(super) fn losses(&self) -> (u64, u64) {
        let failed = self.pool.failures() + self.pool.cut_off();
        (self.abandoned.load(Ordering::Acquire), failed)
    }
}

#[derive(Default)]
pub(super) struct Queues {
    /// None where the file names no queue.
    backend: Option<Arc<dyn Backend>>,
    /// One is opened at a time, so that two who ask for a queue get the same.
    turn: tokio::sync::Mutex<()>,
    open: Mutex<BTreeMap<String, Opened>>,
    /// One crew starts at a time, so that a queue has one.
    hiring: tokio::sync::Mutex<()>,
    crews: Mutex<BTreeMap<String, Crew>>,
}

impl Queues {
    pub(super) async fn open(
        broker: &BrokerConfig,
        named: bool,
        database: Option<&Database>,
    ) -> resonant_queue::Result<Self> {
        let backend = if named { Some(broker.open(database).await?) } else { None };
        Ok(Self { backend, ..Self::default() })
    }

    pub(super) fn all(&self) -> Vec<(String, Opened)> {
        lock(&self.open).iter().map(|(name, queue)| (name.clone(), Arc::clone(queue))).collect()
    }

    pub(super) fn crews(&self) -> Vec<Crew> {
        lock(&self.crews).values().cloned().collect()
    }
}

impl Resonant {
    /// The queue of `[queues.<name>]`, opened when it is first asked for and the same one from then on. From then on it is
    /// among the health checks, as `queue.<name>`, and on the status page.
    ///
    /// # Errors
    ///
    /// [`Missing`](ErrorKind::Missing) where there is no such section, or the queue is open with messages of another type;
    /// [`Part`](ErrorKind::Part) where the engine refuses it.
    pub async fn queue<T>(&self, name: &str) -> Result<PartitionedQueue<T>>
    where
        T: Send + Sync + 'static,
    {
        let queues = &self.inner.queues;
        let (Some(config), Some(backend)) =
            (self.settings().queues.get(name), queues.backend.clone())
        else {
            return Err(self.missing(&format!("queues.{name}")));
        };
        let _turn = queues.turn.lock().await;
        let known = lock(&queues.open).get(name).cloned();
        if let Some(known) = known {
            let known: &dyn Any = &*known;
            return known.downcast_ref::<PartitionedQueue<T>>().cloned().ok_or_else(|| {
                let message = format!("the queue {name:?} is open with messages of another type");
                Error::new(ErrorKind::Missing, "queue", message)
            });
        }
        let queue = PartitionedQueue::<T>::from_config(config.clone())
            .backend(backend)
            .build()
            .await
            .map_err(|error| part("queue", name, error))?;
        lock(&queues.open).insert(name.to_owned(), Arc::new(queue.clone()));
        let pinged = queue.clone();
        self.add_check(Check::new(&check_name(name), move || pinged.ping()));
        Ok(queue)
    }

    /// Workers of a queue: `start` makes one, as `move || tasks.worker(handler.clone()).start()`. They are drained at the end,
    /// before what they write to is closed.
    ///
    /// There is one, which runs as many handlers at once as its `concurrency` says; where a `[scaling.<name>]` names the queue
    /// and no Deployment, there are as many as the scaler wants, from its minimum on. Call it before
    /// [`serve`](Self::serve) then.
    ///
    /// # Errors
    ///
    /// [`Part`](ErrorKind::Part) where a worker does not start: those that did are ended, and it may be called again;
    /// [`Missing`](ErrorKind::Missing) where the queue has workers here already.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the workers that started are stopped; what they had not finished is handed out again.
    pub async fn workers<S, Fut>(&self, queue: &str, start: S) -> Result<WorkerPool<Worker>>
    where
        S: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = resonant_queue::Result<Worker>> + Send + 'static,
    {
        let queues = &self.inner.queues;
        let _turn = queues.hiring.lock().await;
        if lock(&queues.crews).contains_key(queue) {
            let message = format!("the queue {queue:?} has workers in this process already");
            return Err(Error::new(ErrorKind::Missing, "workers", message));
        }
        let crew = Crew::new(start);
        let mut scalers = self.settings().scaling.values();
        let ours = |it: &&ScalingConfig| it.queue == queue && it.deployment.is_none();
        let fewest = scalers.find(ours).map_or(1, |it| it.policy.bounds().0);
        if let Err(error) = crew.pool.set(fewest).await {
            crew.pool.close().await;
            return Err(part("workers", queue, error));
        }
        lock(&queues.crews).insert(queue.to_owned(), crew.clone());
        Ok(crew.pool)
    }

    /// The scalers this process can run: those whose queue was opened, and whose workers are here or in a Deployment.
    pub(super) async fn scalers(&self) -> Result<Vec<Autoscaler>> {
        let mut scalers = Vec::new();
        for (name, config) in &self.settings().scaling {
            let Some(queue) = lock(&self.inner.queues.open).get(&config.queue).cloned() else {
                continue;
            };
            let crew = lock(&self.inner.queues.crews).get(&config.queue).cloned();
            let builder = Autoscaler::builder(name)
                .config(config.autoscaler.clone())
                .policy(config.policy.clone())
                .measure(QUEUE_DEPTH, move || {
                    let depth = queue.depth();
                    async move { depth.await.map(|depth| depth.unfinished() as f64) }
                });
            let builder = match (&config.deployment, crew) {
                (Some(deployment), _) => deployed(builder, deployment).await,
                (None, Some(crew)) => Ok(builder.target(crew.pool)),
                (None, None) => continue,
            };
            let scaler = builder.and_then(resonant_scale::AutoscalerBuilder::build);
            scalers.push(scaler.map_err(|error| part("serve", format!("scaling.{name}"), error))?);
        }
        Ok(scalers)
    }
}

#[cfg(feature = "kubernetes")]
async fn deployed(
    builder: resonant_scale::AutoscalerBuilder,
    deployment: &str,
) -> resonant_scale::Result<resonant_scale::AutoscalerBuilder> {
    let (namespace, name) = deployment.split_once('/').unwrap_or(("default", deployment));
    Ok(builder.target(resonant_scale::Kubernetes::deployment(namespace, name).connect().await?))
}

/// The file was refused before it came to this.
#[cfg(not(feature = "kubernetes"))]
#[expect(clippy::unused_async, reason = "as the one that connects")]
async fn deployed(
    builder: resonant_scale::AutoscalerBuilder,
    _: &str,
) -> resonant_scale::Result<resonant_scale::AutoscalerBuilder> {
    Ok(builder)
}

impl fmt::Debug for Queues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queues").finish_non_exhaustive()
    }
}
