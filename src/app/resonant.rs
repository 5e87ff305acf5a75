//! The parts of a service, built from its settings.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use resonant_health::{Check, HealthChecker};

use super::error::{Error, ErrorKind, Result, part};
use super::life::Life;
use super::settings::Settings;

/// The parts a file names, opened, watched by one health checker and ended in order. Clones are the same.
///
/// See the [module](crate::app).
#[derive(Clone)]
pub struct Resonant {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) settings: Settings,
    pub(super) health: HealthChecker,
    #[cfg(feature = "db")]
    pub(super) database: Option<resonant_db::Database>,
    #[cfg(feature = "sharding")]
    pub(super) sharded: Option<resonant_db::ShardedDatabase>,
    #[cfg(feature = "cache")]
    pub(super) cache: Option<resonant_cache::DistributedCache>,
    #[cfg(feature = "ha")]
    pub(super) failover: Option<resonant_ha::FailoverManager>,
    #[cfg(feature = "queue")]
    pub(super) queues: super::queues::Queues,
    #[cfg(feature = "batch")]
    pub(super) batches: super::batches::Batches,
    #[cfg(feature = "prometheus")]
    prometheus: Option<crate::telemetry::prometheus::Prometheus>,
    pub(super) life: Life,
}

impl Resonant {
    /// Reads a file, puts the environment over it, and opens what it names. No server has to be there: one that is down makes
    /// the service not ready, and does not stop the start, though the start may wait for it as long as its settings allow.
    ///
    /// # Errors
    ///
    /// [`Config`](ErrorKind::Config) with all mistakes in the message; [`Part`](ErrorKind::Part) for a part that refused, as a
    /// SQLite file that cannot be opened.
    pub async fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        Self::open(Settings::file(path.as_ref()).read()?).await
    }

    /// Opens what the settings name.
    ///
    /// # Errors
    ///
    /// [`Part`](ErrorKind::Part).
    pub async fn open(settings: Settings) -> Result<Self> {
        let health = HealthChecker::with_config(settings.health.clone())
            .map_err(|error| part("open", "health", error))?;
        #[cfg(feature = "db")]
        let database = match &settings.database {
            Some(config) => Some(
                resonant_db::Database::from_config(config.clone())
                    .connect_lazy()
                    .map_err(|error| part("open", "database", error))?,
            ),
            None => None,
        };
        #[cfg(feature = "sharding")]
        let sharded = match &settings.sharded_database {
            Some(config) => {
                let mut builder = resonant_db::ShardedDatabase::from_config(config.clone());
                if let Some(pool) = &settings.shard_pool {
                    builder = builder.pool(pool.clone());
                }
                Some(builder.connect().await.map_err(|e| part("open", "sharded_database", e))?)
            }
            None => None,
        };
        #[cfg(feature = "cache")]
        let cache = match &settings.cache {
            Some(config) => Some(
                resonant_cache::DistributedCache::builder()
                    .config(config.clone())
                    .build()
                    .map_err(|error| part("open", "cache", error))?,
            ),
            None => None,
        };
        #[cfg(feature = "ha")]
        let failover = match &settings.failover {
            Some(regions) => Some(
                regions
                    .builder()
                    .and_then(resonant_ha::FailoverBuilder::build)
                    .map_err(|error| part("open", "failover", error))?,
            ),
            None => None,
        };
        #[cfg(all(feature = "db", feature = "ha"))]
        if let (Some(database), Some(failover)) = (&database, &failover) {
            database.follow(failover.subscribe());
        }
        #[cfg(feature = "queue")]
        let queues = {
            #[cfg(feature = "db")]
            let database = database.as_ref();
            #[cfg(not(feature = "db"))]
            let database = None;
            let named = !settings.queues.is_empty();
            super::queues::Queues::open(&settings.broker, named, database)
                .await
                .map_err(|error| part("open", "broker", error))?
        };
        // Last, for it cannot be taken back: whoever opens again after an error would find it there.
        #[cfg(feature = "prometheus")]
        let prometheus = match settings.service.metrics {
            true => Some(
                crate::telemetry::prometheus::Prometheus::builder()
                    .install()
                    .map_err(|error| part("open", "metrics", error))?,
            ),
            false => None,
        };
        let inner = Inner {
            settings,
            health,
            #[cfg(feature = "db")]
            database,
            #[cfg(feature = "sharding")]
            sharded,
            #[cfg(feature = "cache")]
            cache,
            #[cfg(feature = "ha")]
            failover,
            #[cfg(feature = "queue")]
            queues,
            #[cfg(feature = "batch")]
            batches: super::batches::Batches::default(),
            #[cfg(feature = "prometheus")]
            prometheus,
            life: Life::new(),
        };
        let app = Self { inner: Arc::new(inner) };
        app.watch();
        Ok(app)
    }

    /// Registers the checks of the parts that are there from the beginning.
    fn watch(&self) {
        #[cfg(feature = "db")]
        if let Some(database) = self.inner.database.clone() {
            self.add_check(Check::new("database", move || database.ping()));
        }
        #[cfg(feature = "sharding")]
        if let Some(sharded) = &self.inner.sharded {
            let limit = self.inner.health.config().timeout;
            super::shards::checks(sharded, limit).into_iter().for_each(|it| self.add_check(it));
        }
        #[cfg(feature = "cache")]
        if let Some(cache) = self.inner.cache.clone() {
            // Without it the service is slower, and works.
            self.add_check(Check::new("cache", move || cache.ping()).degrading());
        }
        #[cfg(feature = "ha")]
        if let Some(failover) = self.inner.failover.clone() {
            let findings = Check::findings("failover", move || failover.findings());
            self.add_check(findings.informational());
        }
    }

    /// Adds a check to the [health checker](Self::health).
    pub(super) fn add_check(&self, check: Check) {
        drop(self.inner.health.clone().with(check));
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// The health checker: all parts are registered, and checks of your own may be added.
    pub fn health(&self) -> &HealthChecker {
        &self.inner.health
    }

    /// The database of `[database]`.
    ///
    /// # Errors
    ///
    /// [`Missing`](ErrorKind::Missing) where there is no such section.
    #[cfg(feature = "db")]
    pub fn database(&self) -> Result<&resonant_db::Database> {
        self.named(self.inner.database.as_ref(), "database")
    }

    /// The database of `[sharded_database]`.
    ///
    /// # Errors
    ///
    /// [`Missing`](ErrorKind::Missing) where there is no such section.
    #[cfg(feature = "sharding")]
    pub fn sharded_database(&self) -> Result<&resonant_db::ShardedDatabase> {
        self.named(self.inner.sharded.as_ref(), "sharded_database")
    }

    /// The cache of `[cache]` as a whole.
    ///
    /// # Errors
    ///
    /// [`Missing`](ErrorKind::Missing) where there is no such section.
    #[cfg(feature = "cache")]
    pub fn distributed_cache(&self) -> Result<&resonant_cache::DistributedCache> {
        self.named(self.inner.cache.as_ref(), "cache")
    }

    /// A namespace of the cache, with the settings of `[cache.namespaces.<name>]` or the defaults.
    ///
    /// # Errors
    ///
    /// [`Missing`](ErrorKind::Missing) where there is no `[cache]`; [`Part`](ErrorKind::Part) where the namespace is refused.
    #[cfg(feature = "cache")]
    pub fn cache<T>(&self, name: &str) -> Result<resonant_cache::Namespace<T>>
    where
        T: serde::Serialize + serde::de::DeserializeOwned + Send + Sync + 'static,
    {
        let builder = self.distributed_cache()?.namespace_builder::<T>(name);
        builder.open().map_err(|error| part("cache", name, error))
    }

    /// The failover manager of `[regions]` and `[failover]`. The database of `[database]` follows it.
    ///
    /// # Errors
    ///
    /// [`Missing`](ErrorKind::Missing) where there are no such sections.
    #[cfg(feature = "ha")]
    pub fn failover(&self) -> Result<&resonant_ha::FailoverManager> {
        self.named(self.inner.failover.as_ref(), "regions")
    }

    /// What the recorder has counted, where `[service]` says `metrics = true`.
    #[cfg(feature = "prometheus")]
    pub fn prometheus(&self) -> Option<&crate::telemetry::prometheus::Prometheus> {
        self.inner.prometheus.as_ref()
    }

    fn named<'a, P>(&self, found: Option<&'a P>, section: &'static str) -> Result<&'a P> {
        found.ok_or_else(|| self.missing(section))
    }

    pub(super) fn missing(&self, section: &str) -> Error {
        let file = self.inner.settings.file.display();
        Error::new(ErrorKind::Missing, "get", format!("{file} has no [{section}]"))
    }
}

impl fmt::Debug for Resonant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resonant")
            .field("file", &self.inner.settings.file)
            .field("sections", &self.inner.settings.given)
            .finish_non_exhaustive()
    }
}
