//! Building a [`BatchProcessor`].

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::config::{BatchConfig, Policy};
use crate::core::{ByIdentity, Core, Flights, Limits};
use crate::desk::{By, Desk, Lots, Settings};
use crate::error::{Error, ErrorKind, Result};
use crate::isolate::Isolate;
use crate::key::Key;
use crate::metrics::Metrics;
use crate::process::{Hire, Process};
use crate::processor::BatchProcessor;
use crate::tray::Copy;

/// Gathers the settings of a [`BatchProcessor`]; made by [`BatchProcessor::builder`] and [`BatchProcessor::keyed`].
#[must_use = "a builder does nothing until `build` is called"]
pub struct Builder<I, O, K = ()>
where
    K: Key,
    I: Send + 'static,
    O: Send + 'static,
{
    config: BatchConfig,
    name: String,
    process: Arc<dyn Hire<K, I, O>>,
    key_of: Option<By<I, K>>,
    weigh: Option<By<I, u64>>,
    flights: Option<Box<dyn Flights<K, I, Lots<O>>>>,
    copy: Option<Copy<O>>,
    isolate: Option<Isolate<I>>,
    runtime: Option<Handle>,
}

/// The most extra runs for one failed batch: enough to find four bad items among 256.
const MAX_RERUNS: u64 = 64;

impl<I, O, K> Builder<I, O, K>
where
    K: Key,
    I: Send + 'static,
    O: Send + 'static,
{
    pub(crate) fn new(process: impl Process<K, I, O>, key_of: Option<By<I, K>>) -> Self {
        Self {
            config: BatchConfig::default(),
            name: "batch".to_owned(),
            process: Arc::new(process),
            key_of,
            weigh: None,
            flights: None,
            copy: None,
            isolate: None,
            runtime: None,
        }
    }

    /// Takes all settings from a [`BatchConfig`], such as one read from a file.
    pub fn config(mut self, config: BatchConfig) -> Self {
        self.config = config;
        self
    }

    /// The name in metrics, spans and findings. Default `batch`. Take it from code, never from input.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The most items of a batch; a hard cap. Default 100.
    pub fn max_batch_size(mut self, items: usize) -> Self {
        self.config.max_batch_size = items;
        self
    }

    /// With [`Policy::Fixed`], the longest time the first item of a batch waits for others. Default 100 ms.
    pub fn max_wait_time(mut self, wait: Duration) -> Self {
        self.config.max_wait_time = wait;
        self
    }

    /// When a batch that is not full is dispatched. Default [`Policy::Idle`].
    pub fn policy(mut self, policy: Policy) -> Self {
        self.config.policy = policy;
        self
    }

    /// Weighs items (bytes, tokens, cost) and caps the weight of a batch at `max_batch_weight`, hard. An item above the cap
    /// fails alone with [`ErrorKind::TooHeavy`].
    ///
    /// The closure runs in the submitter, outside of all locks.
    pub fn weight(
        mut self,
        max_batch_weight: u64,
        weigh: impl Fn(&I) -> u64 + Send + Sync + 'static,
    ) -> Self {
        self.config.max_batch_weight = Some(max_batch_weight);
        self.weigh = Some(Box::new(weigh));
        self
    }

    /// The most items queued, not counting those being processed. Default 10,000.
    pub fn max_queued(mut self, items: usize) -> Self {
        self.config.max_queued = items;
        self
    }

    /// The most batches processed at the same time. Default 4.
    pub fn max_in_flight(mut self, batches: usize) -> Self {
        self.config.max_in_flight = batches;
        self
    }

    /// The most batches of one key processed at the same time; 1 keeps the order of items within a key. Default: none of its
    /// own.
    pub fn max_in_flight_per_key(mut self, batches: usize) -> Self {
        self.config.max_in_flight_per_key = Some(batches);
        self
    }

    /// The longest a processor may take for one batch; `None` waits for ever. Default 60 s.
    pub fn max_process_time(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.config.max_process_time = limit.into();
        self
    }

    /// Derives the key from the item, so that [`submit`](BatchProcessor::submit) needs none. One batch never mixes keys.
    ///
    /// The closure runs in the submitter, outside of all locks.
    pub fn key(mut self, key_of: impl Fn(&I) -> K + Send + Sync + 'static) -> Self {
        self.key_of = Some(Box::new(key_of));
        self
    }

    /// Lets equal items share one run: an item whose `identity` (and key) equals that of one queued or running is not
    /// processed again, its submitter gets a copy of the same outcome.
    ///
    /// For reads. Mind that a run may have begun before the submission it answers. The closure runs under the lock of the
    /// queue: keep it cheap, and never call the processor from it.
    pub fn single_flight<D>(mut self, identity: impl Fn(&I) -> D + Send + 'static) -> Self
    where
        D: Hash + Eq + Clone + Send + 'static,
        O: Clone,
    {
        self.flights = Some(Box::new(ByIdentity::new(identity)));
        self.copy = Some(O::clone);
        self
    }

    /// Finds the bad items of a batch that failed as a whole or panicked, by running halves of it again: only the bad ones
    /// fail. Only items for which `may_rerun` holds are run again; answer `true` only where running twice does no harm.
    ///
    /// With k bad items among n it takes at most 2·k·log2(n) + 1 calls, and never more than 64 extra ones for a batch: if a
    /// server is down and everything fails, the rest fails with [`retries_exhausted`](Error::retries_exhausted).
    pub fn isolate_failures(
        mut self,
        may_rerun: impl Fn(&I) -> bool + Send + Sync + 'static,
    ) -> Self
    where
        I: Clone,
    {
        self.isolate = Some(Isolate {
            copy: I::clone,
            may_rerun: Box::new(may_rerun),
            max_reruns: MAX_RERUNS,
        });
        self
    }

    /// The runtime whose threads process the batches. Default: the one `build` is called in.
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Builds the processor. Nothing is spawned before the first item.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] naming the rule a setting breaks, or if there is neither a Tokio runtime here nor one given
    /// with [`runtime`](Self::runtime).
    pub fn build(self) -> Result<BatchProcessor<I, O, K>> {
        let config = self.config;
        config.validate()?;
        let broken = |rule: &str| Error::new(ErrorKind::Config, "build", rule);
        if config.max_batch_weight.is_some() != self.weigh.is_some() {
            return Err(broken(
                "max_batch_weight needs a closure that weighs items; give both with Builder::weight",
            ));
        }
        let runtime = self.runtime.or_else(|| Handle::try_current().ok());
        let runtime = runtime.ok_or_else(|| {
            broken("build must be called within a Tokio runtime, or be given one with Builder::runtime")
        })?;
        let limits = Limits {
            items: config.max_batch_size,
            weight: config.max_batch_weight.unwrap_or(u64::MAX),
            queued: config.max_queued,
            in_flight: config.max_in_flight,
            in_flight_per_key: config.max_in_flight_per_key.unwrap_or(config.max_in_flight),
        };
        let linger = match config.policy {
            Policy::Idle => None,
            Policy::Fixed => Some(config.max_wait_time),
        };
        let settings = Settings {
            key_of: self.key_of,
            weigh: self.weigh,
            copy: self.copy,
            process: self.process,
            isolate: self.isolate,
            metrics: Metrics::new(self.name),
            runtime,
            config,
        };
        let core = Core::new(limits, linger, self.flights);
        Ok(BatchProcessor::new(Desk::new(core, settings)))
    }
}

impl<I, O, K> fmt::Debug for Builder<I, O, K>
where
    K: Key,
    I: Send + 'static,
    O: Send + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("name", &self.name)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
