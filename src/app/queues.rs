//! The queues of a file, their workers, and what scales them.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
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

#[derive(Default)]
pub(super) struct Queues {
    /// None where the file names no queue.
    backend: Option<Arc<dyn Backend>>,
    /// One is opened at a time, so that two who ask for a queue get the same.
    turn: tokio::sync::Mutex<()>,
    open: Mutex<BTreeMap<String, Opened>>,
    crews: Mutex<BTreeMap<String, WorkerPool<Worker>>>,
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

    pub(super) fn crews(&self) -> Vec<WorkerPool<Worker>> {
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
        let check = format!("queue.{}", name.replace(':', "_"));
        self.add_check(Check::new(&check, move || pinged.ping()));
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
    /// [`Part`](ErrorKind::Part) where a worker does not start; [`Missing`](ErrorKind::Missing) where the queue has workers
    /// here already.
    pub async fn workers<S, Fut>(&self, queue: &str, start: S) -> Result<WorkerPool<Worker>>
    where
        S: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = resonant_queue::Result<Worker>> + Send + 'static,
    {
        let pool = WorkerPool::new(start, |worker: Worker| worker.drain());
        {
            let mut crews = lock(&self.inner.queues.crews);
            if crews.contains_key(queue) {
                let message = format!("the queue {queue:?} has workers in this process already");
                return Err(Error::new(ErrorKind::Missing, "workers", message));
            }
            crews.insert(queue.to_owned(), pool.clone());
        }
        let mut scalers = self.settings().scaling.values();
        let ours = |it: &&ScalingConfig| it.queue == queue && it.deployment.is_none();
        let fewest = scalers.find(ours).map_or(1, |it| it.policy.bounds().0);
        pool.set(fewest).await.map_err(|error| part("workers", queue, error))?;
        Ok(pool)
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
                (None, Some(crew)) => Ok(builder.target(crew)),
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
