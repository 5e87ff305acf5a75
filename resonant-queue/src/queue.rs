//! The queue's handle and what it shares with its workers.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use resonant_common::join::{Finding, Severity};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backend::{Backend, Capabilities, QueueSpec, QueueStore};
use crate::builder::QueueBuilder;
use crate::config::QueueConfig;
use crate::depth::Depth;
use crate::error::{Result, closed};
use crate::key::KeySource;
use crate::metrics::{InFlight, Metrics};
use crate::version::Versions;

/// How often depth and pause are looked at.
const SAMPLE: Duration = Duration::from_millis(500);

/// A queue of `T`, spread over partitions by a key, in strict order per key.
///
/// A cheap handle: clone it into every task. It has no parameter for the engine.
pub struct PartitionedQueue<T> {
    core: Arc<Core>,
    pub(crate) key: Arc<KeySource<T>>,
    pub(crate) versions: Arc<Versions>,
}

impl<T> Clone for PartitionedQueue<T> {
    fn clone(&self) -> Self {
        let (key, versions) = (Arc::clone(&self.key), Arc::clone(&self.versions));
        Self { core: Arc::clone(&self.core), key, versions }
    }
}

impl<T> fmt::Debug for PartitionedQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartitionedQueue")
            .field("name", &self.core.config.name)
            .field("partitions", &self.core.config.partitions)
            .field("key", &self.key)
            .field("engine", &self.core.capabilities.engine)
            .finish_non_exhaustive()
    }
}

/// What the handles and the workers of one queue share.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: QueueConfig,
    pub(crate) spec: QueueSpec,
    pub(crate) capabilities: Capabilities,
    pub(crate) store: Arc<dyn QueueStore>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) in_flight: Arc<InFlight>,
    /// How large the last body was.
    pub(crate) body_size: AtomicUsize,
    pub(crate) pause: watch::Sender<bool>,
    pub(crate) tasks: TaskTracker,
    /// The next partition of a message without a key.
    pub(crate) round: AtomicU32,
    pub(crate) closing: CancellationToken,
    /// Counts what was done about the pause here, so that a look that began before does not undo it.
    pauses: AtomicU64,
    /// What the last look at the engine saw.
    seen: Mutex<Option<Result<Depth>>>,
}

impl Drop for Core {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

impl Core {
    pub(crate) fn open(&self, operation: &'static str) -> Result<()> {
        if self.closing.is_cancelled() { Err(closed(operation)) } else { Ok(()) }
    }

    async fn look(&self) -> Result<Depth> {
        let depth = self.store.stored().await.map(|stored| Depth::of(stored, self.in_flight.get()));
        if let Ok(depth) = &depth {
            self.metrics.sample(depth, &self.config);
        }
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(depth.clone());
        depth
    }

    async fn look_at_pause(&self) {
        let before = self.pauses.load(Ordering::Acquire);
        if let Ok(paused) = self.store.paused().await {
            self.pause.send_if_modified(|known| {
                self.pauses.load(Ordering::Acquire) == before
                    && std::mem::replace(known, paused) != paused
            });
        }
    }

    pub(crate) async fn set_paused(&self, paused: bool) -> Result<()> {
        self.pauses.fetch_add(1, Ordering::AcqRel);
        self.store.set_paused(paused).await?;
        self.pause.send_modify(|known| {
            self.pauses.fetch_add(1, Ordering::AcqRel);
            *known = paused;
        });
        Ok(())
    }
}

/// Samples the queue until it is closed or nobody holds it any more.
async fn watch_over(core: Weak<Core>, closing: CancellationToken) {
    let mut every = tokio::time::interval(SAMPLE);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = closing.cancelled() => return,
            _ = every.tick() => {}
        }
        let Some(core) = core.upgrade() else { return };
        let looks = async {
            core.look_at_pause().await;
            let _ = core.look().await;
        };
        tokio::select! {
            () = closing.cancelled() => return,
            () = looks => {}
        }
    }
}

impl<T> PartitionedQueue<T> {
    /// Begins a queue of this name.
    pub fn builder(name: impl Into<String>) -> QueueBuilder<T> {
        QueueBuilder::new(QueueConfig::new(name))
    }

    /// Begins a queue with settings that were read from somewhere.
    pub fn from_config(config: QueueConfig) -> QueueBuilder<T> {
        QueueBuilder::new(config)
    }

    pub(crate) async fn build(
        config: QueueConfig,
        key: KeySource<T>,
        versions: Versions,
        backend: &dyn Backend,
    ) -> Result<Self> {
        config.validate()?;
        let spec = QueueSpec {
            name: config.name.clone(),
            partitions: config.partitions,
            max_depth: config.max_depth,
            dedup_window: config.dedup_window,
            dedup_limit: config.dedup_limit,
        };
        let store = backend.declare(&spec).await?;
        let closing = CancellationToken::new();
        let core = Arc::new(Core {
            spec,
            capabilities: backend.capabilities(),
            store,
            metrics: Arc::new(Metrics::new(&config.name)),
            in_flight: Arc::default(),
            body_size: AtomicUsize::new(128),
            pause: watch::Sender::new(false),
            tasks: TaskTracker::new(),
            round: AtomicU32::new(0),
            closing: closing.clone(),
            pauses: AtomicU64::new(0),
            seen: Mutex::new(None),
            config,
        });
        core.look_at_pause().await;
        core.tasks.spawn(watch_over(Arc::downgrade(&core), closing));
        Ok(Self { core, key: Arc::new(key), versions: Arc::new(versions) })
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// The queue's name.
    pub fn name(&self) -> &str {
        &self.core.config.name
    }

    /// The settings it was built with.
    pub fn config(&self) -> &QueueConfig {
        &self.core.config
    }

    /// What the engine can do.
    pub fn capabilities(&self) -> Capabilities {
        self.core.capabilities
    }

    /// What the queue holds now.
    ///
    /// # Errors
    ///
    /// `Closed`, `Unavailable`.
    pub async fn depth(&self) -> Result<Depth> {
        self.core.open("depth")?;
        self.core.look().await
    }

    /// Proves that the engine answers. Give it to a health check as `.check("queue", move || queue.ping())`.
    ///
    /// # Errors
    ///
    /// `Closed`, `Unavailable`.
    pub fn ping(&self) -> impl Future<Output = Result<()>> + Send + use<T> {
        let core = Arc::clone(&self.core);
        async move {
            core.open("ping")?;
            core.store.ping().await
        }
    }

    /// What the queue says of its own health, by its last look at itself (at most a second old). Does no I/O.
    ///
    /// | code | severity | means |
    /// |---|---|---|
    /// | `queue.ok` | ok | all is well |
    /// | `queue.closed` | fail | it was closed |
    /// | `queue.unavailable` | fail | the engine does not answer |
    /// | `queue.full` | fail | `max_depth` is reached, publishes wait |
    /// | `queue.filling` | warn | nine tenths of `max_depth` are reached |
    /// | `queue.old` | warn | the oldest message is older than `max_age` |
    /// | `queue.paused` | warn | somebody paused it |
    /// | `queue.parked` | warn | keys wait for somebody to look at them |
    /// | `queue.dead_letters` | warn | there are dead letters |
    pub fn findings(&self) -> Vec<Finding> {
        let core = &self.core;
        let finding = |severity, code| Finding::new(core.config.name.clone(), severity, code);
        if core.closing.is_cancelled() {
            return vec![finding(Severity::Fail, "queue.closed")];
        }
        let seen = core.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut findings = Vec::new();
        match seen {
            None => {}
            Some(Err(_)) => findings.push(finding(Severity::Fail, "queue.unavailable")),
            Some(Ok(depth)) => {
                let (stored, most) = (depth.unfinished() + depth.dead, core.config.max_depth);
                if stored >= most {
                    findings.push(finding(Severity::Fail, "queue.full"));
                } else if stored >= most - most / 10 {
                    findings.push(finding(Severity::Warn, "queue.filling"));
                }
                if depth.oldest_age.is_some_and(|age| age > core.config.max_age) {
                    findings.push(finding(Severity::Warn, "queue.old"));
                }
                if depth.parked_keys > 0 {
                    findings.push(finding(Severity::Warn, "queue.parked"));
                }
                if depth.dead > 0 {
                    findings.push(finding(Severity::Warn, "queue.dead_letters"));
                }
            }
        }
        if *core.pause.borrow() {
            findings.push(finding(Severity::Warn, "queue.paused"));
        }
        if findings.is_empty() {
            findings.push(finding(Severity::Ok, "queue.ok"));
        }
        findings
    }

    /// Closes the queue for all its handles: workers stop, later calls fail with `Closed`. What is not finished stays
    /// in the engine. Drain workers first if their handlers should finish.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the queue is closed also if the future is dropped; only the wait for its end is lost.
    pub async fn close(&self) {
        self.core.closing.cancel();
        self.core.store.close().await;
        self.core.tasks.close();
        self.core.tasks.wait().await;
    }

    /// The next partition for a message without a key.
    pub(crate) fn next_partition(&self) -> u32 {
        self.core.round.fetch_add(1, Ordering::Relaxed) % self.core.config.partitions
    }
}
