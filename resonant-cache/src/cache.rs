//! The cache itself: the handle users keep, and what its parts share.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use resonant_common::join::{Finding, Severity};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backend::{Announces, MemoryStore, Origin, Store};
use crate::builder::DistributedCacheBuilder;
use crate::codec::{Json, Raw};
use crate::config::{CacheConfig, NamespaceConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::gate::Gate;
use crate::journal::Journal;
use crate::local::Local;
use crate::metrics::Metrics;
use crate::namespace::{Namespace, NamespaceBuilder, NamespaceCore};
use crate::options::SetOptions;
use crate::switches::Switches;

/// A cache of two tiers: decoded values in this process, and encoded ones in a store that processes share.
///
/// Cheap to clone; clones share everything. When the last handle and the last [`Namespace`] are dropped, loads under
/// way are stopped.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> resonant_cache::Result<()> {
/// use std::time::Duration;
/// use resonant_cache::DistributedCache;
///
/// let cache = DistributedCache::memory(64 << 20);
/// cache.set("greeting", "hello", Some(Duration::from_secs(60))).await?;
/// assert_eq!(cache.get("greeting").await?.as_deref(), Some(b"hello".as_slice()));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct DistributedCache {
    shell: Arc<Shell>,
    raw: Namespace<Bytes>,
}

/// Owns the loads: dropping the last one stops them.
#[derive(Debug)]
pub(crate) struct Shell {
    pub(crate) core: Arc<Core>,
}

impl Drop for Shell {
    fn drop(&mut self) {
        self.core.stop.cancel();
    }
}

/// What the parts share. Loads hold it, so it knows nothing of the shell.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: CacheConfig,
    pub(crate) local: Arc<Local>,
    pub(crate) gate: Gate,
    pub(crate) metrics: Metrics,
    pub(crate) journal: Journal,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Core {
    /// Runs a load until its end or the cache's.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            stop.run_until_cancelled(work).await;
        });
    }

    pub(crate) fn admit(&self, operation: &'static str) -> Result<()> {
        if self.stop.is_cancelled() {
            let message = "the cache is closed; build a new one";
            return Err(Error::new(ErrorKind::Closed, operation, message));
        }
        Ok(())
    }

    /// Tells the metrics what is to be made up for.
    pub(crate) fn note_journal(&self) {
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
        self.metrics.journal.set(self.journal.len() as f64);
    }

    /// Tells the metrics what the process holds.
    pub(crate) fn note_size(&self) {
        let l1 = &self.local.l1;
        // Precise far beyond what a cache can hold.
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
        {
            self.metrics.bytes.set(l1.bytes() as f64);
            self.metrics.entries.set(l1.len() as f64);
        }
        let announces = self.gate.store().capabilities().announces != Announces::Never;
        self.metrics.announced.set(f64::from(u8::from(announces)));
        self.metrics.evictions.increment(l1.take_evictions());
        self.note_journal();
    }
}

impl DistributedCache {
    /// Starts to describe a cache.
    pub fn builder() -> DistributedCacheBuilder {
        DistributedCacheBuilder::default()
    }

    /// A cache inside this process, for which nothing needs to run: half of `max_bytes` holds decoded values, half
    /// encoded ones. At least 8 KiB.
    ///
    /// It behaves as one on a shared store does, down to the encoding, so switching later is one line.
    pub fn memory(max_bytes: u64) -> Self {
        let half = (max_bytes / 2).max(4096);
        let config =
            CacheConfig { max_bytes: half, store_max_bytes: half, ..CacheConfig::default() };
        Self::assemble(config, Arc::new(MemoryStore::new(half)))
    }

    pub(crate) fn assemble(config: CacheConfig, store: Arc<dyn Store>) -> Self {
        let local = Arc::new(Local::new(config.max_bytes, &config.name));
        let weak = Arc::downgrade(&local);
        let origin: Origin = store.attach(weak);
        let core = Arc::new(Core {
            gate: Gate::new(store, origin, config.command_timeout, config.name.clone()),
            metrics: Metrics::new(&config.name),
            journal: Journal::new(config.max_journal),
            local,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            config,
        });
        let shell = Arc::new(Shell { core });
        // Bytes live for ever unless they are told otherwise: there is no namespace to say it for them.
        let config =
            NamespaceConfig { ttl: None, ttl_jitter: 0.0, ..shell.core.config.defaults.clone() };
        let ns = shell.namespace_core("", || config);
        let raw = Namespace::new(Arc::clone(&shell), ns, Arc::new(Raw));
        Self { shell, raw }
    }

    /// A handle to the values of one type under one name, encoded as JSON. Its settings are those given for the name
    /// in [`CacheConfig::namespaces`], or the defaults.
    ///
    /// Handles of one name share loads and limits. Different types need different names.
    pub fn namespace<V>(&self, name: &str) -> Namespace<V>
    where
        V: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        let ns = self.shell.namespace_core(name, || self.namespace_config(name));
        Namespace::new(Arc::clone(&self.shell), ns, Arc::new(Json))
    }

    /// The same with settings or a codec of its own.
    pub fn namespace_builder<V: Send + Sync + 'static>(&self, name: &str) -> NamespaceBuilder<V> {
        NamespaceBuilder::new(Arc::clone(&self.shell), name, self.namespace_config(name))
    }

    fn namespace_config(&self, name: &str) -> NamespaceConfig {
        let config = &self.shell.core.config;
        config.namespaces.get(name).unwrap_or(&config.defaults).clone()
    }

    /// The bytes stored under `key`.
    ///
    /// # Errors
    ///
    /// `KeyTooLong`, `Closed`; `Unavailable` and `TimedOut` from the store.
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        Ok(self.raw.get(key).await?.map(|bytes| Bytes::clone(&bytes)))
    }

    /// Stores bytes under `key`, for `ttl` or until they are evicted for room.
    ///
    /// # Errors
    ///
    /// `KeyTooLong`, `ValueTooLarge`, `Closed`; `Rejected` for a time to live of zero; `Unavailable` and `TimedOut`
    /// from the store.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it was done or not done; no old bytes are served from this process either way.
    pub async fn set(
        &self,
        key: &str,
        value: impl Into<Bytes>,
        ttl: Option<Duration>,
    ) -> Result<()> {
        let options = match ttl {
            Some(ttl) => SetOptions::new().ttl(ttl),
            None => SetOptions::new().no_expiry(),
        };
        self.raw.set_with(key, &value.into(), options).await.map(|_| ())
    }

    /// Removes the bytes under `key`; answers whether there were any.
    ///
    /// # Errors
    ///
    /// As [`get`](DistributedCache::get).
    ///
    /// # Cancel safety
    ///
    /// As [`set`](DistributedCache::set).
    pub async fn delete(&self, key: &str) -> Result<bool> {
        self.raw.delete(key).await
    }

    /// Whether the store answers, within `command_timeout`. Fit for a health check: it borrows nothing.
    pub fn ping(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        let core = Arc::clone(&self.shell.core);
        async move {
            core.admit("ping")?;
            core.gate.ping().await
        }
    }

    /// What the cache says of its own health, without asking anybody: `cache.ok`, `cache.closed`,
    /// `cache.store.unreachable` (it still serves from this process and from loaders), `cache.store.unannounced` (changes
    /// by others are not announced, now or ever, so values stay in this process for `unannounced_max_age` at most),
    /// `cache.loads.saturated`, `cache.journal.pending` (the store has not heard of all changes yet), `cache.journal.lost`
    /// (it will never hear of some: what was deleted may be read again until its time to live is over), `cache.bypassed`,
    /// `cache.local.bypassed` and `cache.loads.capped` (by a [switch](DistributedCache::switch)).
    pub fn findings(&self) -> Vec<Finding> {
        let core = &self.shell.core;
        let finding = |severity, code| Finding::new(core.config.name.clone(), severity, code);
        let mut findings = Vec::new();
        if core.stop.is_cancelled() {
            findings.push(finding(Severity::Fail, "cache.closed"));
        }
        if !core.gate.is_reachable() {
            findings.push(finding(Severity::Warn, "cache.store.unreachable"));
        }
        let can = core.gate.store().capabilities();
        if can.shared && can.announces == Announces::Never {
            findings.push(finding(Severity::Warn, "cache.store.unannounced"));
        }
        let namespaces = core.local.namespaces.read().unwrap_or_else(PoisonError::into_inner);
        if namespaces.values().any(|namespace| namespace.is_saturated()) {
            findings.push(finding(Severity::Warn, "cache.loads.saturated"));
        }
        if core.journal.len() > 0 {
            findings.push(finding(Severity::Warn, "cache.journal.pending"));
        }
        if core.journal.lost() > 0 {
            findings.push(finding(Severity::Warn, "cache.journal.lost"));
        }
        let Switches { bypass_local, bypass, max_loads } = core.local.panel.get();
        for (on, code) in [
            (bypass, "cache.bypassed"),
            (bypass_local, "cache.local.bypassed"),
            (max_loads.is_some(), "cache.loads.capped"),
        ] {
            if on {
                findings.push(finding(Severity::Warn, code));
            }
        }
        if findings.is_empty() {
            findings.push(finding(Severity::Ok, "cache.ok"));
        }
        findings
    }

    /// Turns things off, or on again, while the service runs: for an incident. Takes effect for calls that begin after it
    /// returns, in this process and this cache, until it is called again.
    ///
    /// ```
    /// # use resonant_cache::{DistributedCache, Switches};
    /// # let cache = DistributedCache::memory(1 << 20);
    /// cache.switch(Switches::new().bypass_local(true).max_loads(8));
    /// assert!(cache.switches().bypass_local);
    /// cache.switch(Switches::new());
    /// ```
    pub fn switch(&self, switches: Switches) {
        let core = &self.shell.core;
        let before = core.local.panel.get();
        core.local.switch(switches);
        if before != switches {
            tracing::warn!(cache = %core.config.name, ?switches, "the cache's switches were changed");
        }
    }

    /// How the switches stand.
    pub fn switches(&self) -> Switches {
        self.shell.core.local.panel.get()
    }

    /// What this process holds now. Also brings the gauges up to date.
    pub fn usage(&self) -> Usage {
        let core = &self.shell.core;
        core.note_size();
        Usage {
            entries: core.local.l1.len(),
            bytes: core.local.l1.bytes(),
            max_bytes: core.config.max_bytes,
            journalled: core.journal.len(),
        }
    }

    /// The store behind this cache, for another cache on the same one.
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(self.shell.core.gate.store())
    }

    /// Stops loads and waits for their end; those who wait for one get `Closed`. Later calls that this process cannot
    /// answer alone fail with `Closed`. Calling it again does nothing.
    pub async fn close(&self) {
        let core = &self.shell.core;
        core.stop.cancel();
        core.tasks.close();
        core.tasks.wait().await;
    }
}

impl Shell {
    /// The shared part of a namespace, made on first use.
    pub(crate) fn namespace_core(
        &self,
        name: &str,
        config: impl FnOnce() -> NamespaceConfig,
    ) -> Arc<NamespaceCore> {
        let namespaces = &self.core.local.namespaces;
        let held = namespaces.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        if let Some(core) = held {
            return core;
        }
        let mut namespaces = namespaces.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(core) = namespaces.get(name) {
            return Arc::clone(core);
        }
        let name: Arc<str> = name.into();
        // The nameless one of the raw calls does not count.
        if namespaces.len() > self.core.config.max_namespaces {
            return Arc::new(NamespaceCore::new(u32::MAX, name, config(), true));
        }
        let id = u32::try_from(namespaces.len()).unwrap_or(u32::MAX);
        let core = Arc::new(NamespaceCore::new(id, Arc::clone(&name), config(), false));
        namespaces.insert(name, Arc::clone(&core));
        core
    }
}

/// What the in-process tier holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Usage {
    /// Entries, negative ones included.
    pub entries: usize,
    /// Bytes accounted for: keys, encoded sizes and a fixed cost per entry. Never above `max_bytes`.
    pub bytes: u64,
    /// The limit.
    pub max_bytes: u64,
    /// Changes that the store has not heard of yet.
    pub journalled: usize,
}
