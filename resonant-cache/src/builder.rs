//! From settings to a cache.

use std::path::PathBuf;
use std::sync::Arc;

use crate::backend::{MemoryStore, Store};
use crate::cache::DistributedCache;
use resonant_common::error::BoxError;

use crate::config::{CacheConfig, NamespaceConfig, RedisDriver};
use crate::credentials::{Credentials, Provider};
use crate::error::{Error, ErrorKind, Result};

/// Describes a cache. Made by [`DistributedCache::builder`].
#[derive(Debug, Clone, Default)]
pub struct DistributedCacheBuilder {
    config: CacheConfig,
    store: Option<Arc<dyn Store>>,
    credentials: Option<Provider>,
}

impl DistributedCacheBuilder {
    /// Replaces all settings.
    #[must_use]
    pub fn config(mut self, config: CacheConfig) -> Self {
        self.config = config;
        self
    }

    /// Where the shared tier lives. See [`CacheConfig::nodes`].
    #[must_use]
    pub fn nodes<N: Into<String>>(mut self, nodes: impl IntoIterator<Item = N>) -> Self {
        self.config.nodes = nodes.into_iter().map(Into::into).collect();
        self
    }

    /// Whether the nodes form a cluster. See [`CacheConfig::cluster_mode`].
    #[must_use]
    pub fn cluster_mode(mut self, on: bool) -> Self {
        self.config.cluster_mode = on;
        self
    }

    /// Whether replicas may serve reads. See [`CacheConfig::read_from_replicas`].
    #[must_use]
    pub fn read_from_replicas(mut self, on: bool) -> Self {
        self.config.read_from_replicas = on;
        self
    }

    /// Which driver speaks to Redis. See [`CacheConfig::driver`].
    #[must_use]
    pub fn driver(mut self, driver: RedisDriver) -> Self {
        self.config.driver = driver;
        self
    }

    /// The authorities that `rediss://` nodes are checked against. See [`CacheConfig::tls_ca_file`].
    #[must_use]
    pub fn tls_ca_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.config.tls_ca_file = Some(file.into());
        self
    }

    /// The cache's name in metrics, logs and findings.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.config.name = name.into();
        self
    }

    /// The most bytes the in-process tier accounts for.
    #[must_use]
    pub fn max_bytes(mut self, max_bytes: u64) -> Self {
        self.config.max_bytes = max_bytes;
        self
    }

    /// What namespaces start from.
    #[must_use]
    pub fn defaults(mut self, defaults: NamespaceConfig) -> Self {
        self.config.defaults = defaults;
        self
    }

    /// The settings of one namespace.
    #[must_use]
    pub fn namespace(mut self, name: impl Into<String>, config: NamespaceConfig) -> Self {
        self.config.namespaces.insert(name.into(), config);
        self
    }

    /// Asks for what to log in with, instead of what the node URLs say: for passwords that are rotated, and tokens that
    /// expire.
    ///
    /// It is asked for each new connection to a Redis server, and once more if what it gave was refused, in case it has just
    /// changed; half of `command_timeout` counts for both. Connections that are open stay as they are. A provider that fails
    /// is taken for a server that cannot be reached. Keep a copy for as long as the source says it is valid.
    ///
    /// ```
    /// # use resonant_cache::{Credentials, DistributedCache};
    /// let builder = DistributedCache::builder()
    ///     .nodes(["redis://app@cache-1:6379"])
    ///     .credentials(async || std::fs::read_to_string("/run/secrets/redis").map(Credentials::password));
    /// ```
    #[must_use]
    pub fn credentials<F, Fut, E>(mut self, provide: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Credentials, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.credentials = Some(Provider::new(provide));
        self
    }

    /// Uses this store instead of what `nodes` names.
    #[must_use]
    pub fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// Builds the cache without asking the store anything, so that a store that is down never stops a start.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] names a broken rule; [`ErrorKind::Unsupported`] names the feature that `nodes` need.
    pub fn build(self) -> Result<DistributedCache> {
        self.config.validate()?;
        let store = match self.store {
            Some(_) if self.credentials.is_some() => return Err(no_use_for_credentials()),
            Some(store) => store,
            None => store_for(&self.config, self.credentials)?,
        };
        Ok(DistributedCache::assemble(self.config, store))
    }

    /// Builds the cache and asks the store whether it answers.
    ///
    /// # Errors
    ///
    /// As [`build`](DistributedCacheBuilder::build); [`ErrorKind::Unavailable`] or [`ErrorKind::TimedOut`] if the
    /// store does not answer.
    pub async fn connect(self) -> Result<DistributedCache> {
        let cache = self.build()?;
        cache.ping().await?;
        Ok(cache)
    }
}

fn no_use_for_credentials() -> Error {
    let message = "credentials are for Redis nodes; this cache has none";
    Error::new(ErrorKind::Config, "build", message)
}

fn store_for(config: &CacheConfig, credentials: Option<Provider>) -> Result<Arc<dyn Store>> {
    let (mut memory, mut redis) = (0, None);
    for node in &config.nodes {
        // Only the scheme is repeated: what follows may hold a password.
        match node.split_once(':').map(|(scheme, _)| scheme) {
            Some("memory") => memory += 1,
            Some(scheme @ ("redis" | "rediss" | "valkey" | "valkeys")) => redis = Some(scheme),
            Some(scheme @ ("redis-sentinel" | "rediss-sentinel" | "sentinel")) => {
                let message = format!(
                    "{scheme}:// (Redis Sentinel) is not supported; use a Redis Cluster, or name one server with \
                     cluster_mode(false)"
                );
                return Err(Error::new(ErrorKind::Unsupported, "build", message));
            }
            _ => {
                let message = "a node must be a URL such as redis://cache-1:6379, or memory:";
                return Err(Error::new(ErrorKind::Config, "build", message));
            }
        }
    }
    match redis {
        None if memory > 1 => {
            let message = "memory: stands for one store inside this process; name it once";
            Err(Error::new(ErrorKind::Config, "build", message))
        }
        None if credentials.is_some() => Err(no_use_for_credentials()),
        None => Ok(Arc::new(MemoryStore::new(config.store_max_bytes))),
        Some(_) if memory > 0 => {
            let message = "memory: is a store of its own; leave it out of the Redis nodes";
            Err(Error::new(ErrorKind::Config, "build", message))
        }
        Some(scheme) => redis_store(config, credentials, scheme),
    }
}

#[cfg(feature = "redis")]
fn redis_store(
    config: &CacheConfig,
    credentials: Option<Provider>,
    _: &str,
) -> Result<Arc<dyn Store>> {
    Ok(Arc::new(crate::backend::RedisStore::logged_in(config, credentials)?))
}

#[cfg(not(feature = "redis"))]
fn redis_store(_: &CacheConfig, _: Option<Provider>, scheme: &str) -> Result<Arc<dyn Store>> {
    Err(needs_feature(scheme, "redis"))
}

/// Of a scheme that this build cannot serve.
#[cfg(any(test, not(feature = "tls")))]
pub(crate) fn needs_feature(scheme: &str, feature: &str) -> Error {
    let message = format!(
        "{scheme}:// nodes need the feature `{feature}` of resonant-cache, which this build does not have; leave nodes \
         empty for the memory store, or pass a store of your own"
    );
    Error::new(ErrorKind::Unsupported, "build", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_feature_is_named() {
        for (scheme, feature) in [("redis", "redis"), ("rediss", "tls")] {
            let error = needs_feature(scheme, feature);
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(
                error
                    .message()
                    .contains(&format!("{scheme}:// nodes need the feature `{feature}`"))
            );
        }
    }
}
