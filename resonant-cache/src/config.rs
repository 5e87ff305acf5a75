//! Settings: plain data with documented defaults, checked before anything is built.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// Settings of a [`DistributedCache`](crate::DistributedCache). The first three names are the scaling guide's.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheConfig {
    /// Where the shared tier lives: URLs such as `redis://user:password@host:6379` (also `rediss`, `valkey`, `valkeys`), or nothing (or `memory:`) for a store inside the process.
    /// Default none. May hold credentials, so it is never logged.
    pub nodes: Vec<String>,
    /// Whether the nodes form a Redis Cluster; otherwise there is exactly one. Default `true`; of no effect on the memory
    /// store.
    pub cluster_mode: bool,
    /// Whether reads may be served by replicas. Default `false`; of no effect on the memory store.
    pub read_from_replicas: bool,
    /// Which driver speaks to Redis: `native` or `fred`, see [`RedisDriver`]. Default `native`; of no effect on the memory store.
    pub driver: RedisDriver,
    /// The file with the certificates of the authorities that `rediss://` nodes are checked against, in PEM. Default
    /// none: the system's.
    pub tls_ca_file: Option<PathBuf>,
    /// The cache's name in metrics, logs and findings. Default `"cache"`.
    pub name: String,
    /// The first part of every stored key: letters, digits, `.`, `_`, `-`; at most 64 bytes. Default `"resonant"`.
    pub key_prefix: String,
    /// The most bytes the in-process tier accounts for. Default 64 MiB.
    pub max_bytes: u64,
    /// The most bytes the memory store accounts for, where no `nodes` are given. Default 64 MiB.
    pub store_max_bytes: u64,
    /// The longest namespace and key together, in bytes. Default 1,024.
    pub max_key_bytes: usize,
    /// The most keys sent to the store, or given to a batch loader, in one call; longer batches go in chunks.
    /// Default 1,024.
    pub max_batch: usize,
    /// The most namespaces open at a time; a further one fails on use. Default 1,024.
    pub max_namespaces: usize,
    /// How long one call to the store may take. A Redis server that answers nothing for half of it is taken to hang.
    /// Default 1 s.
    #[serde(with = "resonant_common::duration")]
    pub command_timeout: Duration,
    /// How long a value is served from the process behind a change that the store did not announce: because it cannot,
    /// or because it fell silent. A Redis server is asked for a sign of life in a quarter of it. Default 1 s.
    #[serde(with = "resonant_common::duration")]
    pub unannounced_max_age: Duration,
    /// The most changes remembered that the store did not hear of; more clear their namespace as a whole instead. Where a
    /// clear cannot stand for them (removals at a position, and all removals of plain namespaces) the oldest are lost, which
    /// is logged and found as `cache.journal.lost`. One clear for each namespace is remembered in any case. Zero remembers none.
    /// Default 65,536.
    pub max_journal: usize,
    /// How long a value loaded while the store is down is kept in the process. Default 1 s.
    #[serde(with = "resonant_common::duration")]
    pub degraded_ttl: Duration,
    /// What namespaces start from. Default: [`NamespaceConfig::default`].
    pub defaults: NamespaceConfig,
    /// Settings of single namespaces, by name; each replaces `defaults` as a whole. Default none.
    pub namespaces: BTreeMap<String, NamespaceConfig>,
}

/// Without what `nodes` say, which may hold passwords.
impl fmt::Debug for CacheConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            nodes,
            cluster_mode,
            read_from_replicas,
            driver,
            tls_ca_file,
            name,
            key_prefix,
            max_bytes,
            store_max_bytes,
            max_key_bytes,
            max_batch,
            max_namespaces,
            command_timeout,
            unannounced_max_age,
            max_journal,
            degraded_ttl,
            defaults,
            namespaces,
        } = self;
        f.debug_struct("CacheConfig")
            .field("nodes", &nodes.len())
            .field("cluster_mode", cluster_mode)
            .field("read_from_replicas", read_from_replicas)
            .field("driver", driver)
            .field("tls_ca_file", tls_ca_file)
            .field("name", name)
            .field("key_prefix", key_prefix)
            .field("max_bytes", max_bytes)
            .field("store_max_bytes", store_max_bytes)
            .field("max_key_bytes", max_key_bytes)
            .field("max_batch", max_batch)
            .field("max_namespaces", max_namespaces)
            .field("command_timeout", command_timeout)
            .field("unannounced_max_age", unannounced_max_age)
            .field("max_journal", max_journal)
            .field("degraded_ttl", degraded_ttl)
            .field("defaults", defaults)
            .field("namespaces", namespaces)
            .finish()
    }
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            cluster_mode: true,
            read_from_replicas: false,
            driver: RedisDriver::Native,
            tls_ca_file: None,
            name: "cache".into(),
            key_prefix: "resonant".into(),
            max_bytes: 64 << 20,
            store_max_bytes: 64 << 20,
            max_key_bytes: 1024,
            max_batch: 1024,
            max_namespaces: 1024,
            command_timeout: Duration::from_secs(1),
            unannounced_max_age: Duration::from_secs(1),
            max_journal: 65_536,
            degraded_ttl: Duration::from_secs(1),
            defaults: NamespaceConfig::default(),
            namespaces: BTreeMap::new(),
        }
    }
}

impl CacheConfig {
    /// Checks every rule.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] with a message that names the first broken rule.
    pub fn validate(&self) -> Result<()> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        rule(!self.name.is_empty(), "name must not be empty")?;
        rule(
            !self.key_prefix.is_empty()
                && self.key_prefix.len() <= 64
                && self.key_prefix.chars().all(plain),
            "key_prefix must be 1 to 64 letters, digits, '.', '_' or '-'",
        )?;
        rule(self.max_bytes >= MIN_BYTES, "max_bytes must be at least 4096")?;
        rule(self.store_max_bytes >= MIN_BYTES, "store_max_bytes must be at least 4096")?;
        rule(self.max_key_bytes > 0, "max_key_bytes must be above 0")?;
        rule(self.max_batch > 0, "max_batch must be above 0")?;
        rule(self.max_namespaces > 0, "max_namespaces must be above 0")?;
        rule(!self.command_timeout.is_zero(), "command_timeout must be above 0")?;
        rule(!self.unannounced_max_age.is_zero(), "unannounced_max_age must be above 0")?;
        self.driver.validate(cfg!(feature = "fred"))?;
        self.defaults.validate()?;
        self.namespaces.values().try_for_each(NamespaceConfig::validate)
    }
}

const MIN_BYTES: u64 = 4096;

/// What carries commands to Redis. Everything the cache promises is made above it, and is the same with each; how a namespace's
/// values are stored as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum RedisDriver {
    /// Connections of our own.
    #[default]
    Native,
    /// The `fred` crate, as a client of one connection to each server; needs the feature `fred`. What it does worse is said
    /// in [`backend::redis`](crate::backend::redis#the-driver-fred).
    Fred,
}

impl RedisDriver {
    fn validate(self, has_fred: bool) -> Result<()> {
        if self == Self::Fred && !has_fred {
            let message = "driver fred needs the feature `fred` of resonant-cache, which this build does not have";
            return Err(Error::new(ErrorKind::Unsupported, "build", message));
        }
        Ok(())
    }
}

/// Settings of one namespace: how long values live and how they are loaded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NamespaceConfig {
    /// How long a value is fresh unless it says otherwise; `null` for no expiry. Default 5 minutes.
    #[serde(with = "resonant_common::duration::option")]
    pub ttl: Option<Duration>,
    /// The share of `ttl` (and `negative_ttl`) taken off at random, so that values written together do not expire
    /// together: 0.1 means a life between 90 % and 100 %. A time to live given with a value is taken as it is.
    /// Default 0.1; from 0 to 1.
    pub ttl_jitter: f64,
    /// How long "there is no such value" is remembered. Zero remembers nothing. Default 10 s.
    #[serde(with = "resonant_common::duration")]
    pub negative_ttl: Duration,
    /// For how long past its life a value is served at once while it is loaded anew behind it. Default 0: never.
    #[serde(with = "resonant_common::duration")]
    pub stale_while_revalidate: Duration,
    /// For how long past its life a value is served when loading it anew fails. Default 0: never.
    #[serde(with = "resonant_common::duration")]
    pub stale_if_error: Duration,
    /// How long a caller waits for a load while a stale value could be served; past it the stale value is served and
    /// the load goes on. `null` waits for the load's end. Default none.
    #[serde(with = "resonant_common::duration::option")]
    pub soft_load_timeout: Option<Duration>,
    /// How long a load may take before it is cancelled. Default 30 s.
    #[serde(with = "resonant_common::duration")]
    pub hard_load_timeout: Duration,
    /// After a failed load, for how long the stale value is served before loading is tried again. Default 1 s.
    #[serde(with = "resonant_common::duration")]
    pub load_retry_delay: Duration,
    /// The most loads that run at a time. Default 64.
    pub max_concurrent_loads: usize,
    /// The most loads that wait for their turn; a further one is refused. Default 10,000.
    pub max_waiting_loads: usize,
    /// How long a load waits for its turn. Default 10 s.
    #[serde(with = "resonant_common::duration")]
    pub load_queue_timeout: Duration,
    /// The most callers that wait for one load; a further one is refused. Default 100,000.
    pub max_waiters_per_load: usize,
    /// The largest encoded value, before compression; what would become larger when it is read is a miss. Default 8 MiB.
    pub max_value_bytes: usize,
    /// Values whose encoding is longer than this are compressed, if that saves a tenth or more. Needs the feature
    /// `compression`; programs without it take compressed values for misses. Default none: never.
    pub compress_above: Option<usize>,
    /// Whether values are stored as the codec encodes them, with nothing around them, so that programs without this crate can
    /// read and write them. See [`NamespaceBuilder::plain`](crate::NamespaceBuilder::plain) for what that costs. Default
    /// `false`.
    pub plain: bool,
    /// How long the position of an invalidation or a fill keeps older reads out. Longer than replicas may lag.
    /// Default 5 minutes.
    #[serde(with = "resonant_common::duration")]
    pub position_ttl: Duration,
    /// The most tags this process remembers per namespace; forgetting one costs extra misses, never stale values.
    /// Default 65,536.
    pub max_tags: usize,
    /// Names the layout of the values. Values written under another name are misses, so change it when the type
    /// changes in a way the codec would not notice. Default empty.
    pub schema: String,
}

impl Default for NamespaceConfig {
    fn default() -> Self {
        Self {
            ttl: Some(Duration::from_secs(300)),
            ttl_jitter: 0.1,
            negative_ttl: Duration::from_secs(10),
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            soft_load_timeout: None,
            hard_load_timeout: Duration::from_secs(30),
            load_retry_delay: Duration::from_secs(1),
            max_concurrent_loads: 64,
            max_waiting_loads: 10_000,
            load_queue_timeout: Duration::from_secs(10),
            max_waiters_per_load: 100_000,
            max_value_bytes: 8 << 20,
            compress_above: None,
            plain: false,
            position_ttl: Duration::from_secs(300),
            max_tags: 65_536,
            schema: String::new(),
        }
    }
}

impl NamespaceConfig {
    /// Checks every rule.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] with a message that names the first broken rule; [`ErrorKind::Unsupported`] names a missing
    /// feature.
    pub fn validate(&self) -> Result<()> {
        rule(self.ttl != Some(Duration::ZERO), "ttl must be above 0")?;
        rule((0.0..=1.0).contains(&self.ttl_jitter), "ttl_jitter must be from 0 to 1")?;
        rule(!self.hard_load_timeout.is_zero(), "hard_load_timeout must be above 0")?;
        rule(
            self.soft_load_timeout.is_none_or(|soft| soft <= self.hard_load_timeout),
            "soft_load_timeout must not exceed hard_load_timeout",
        )?;
        rule(self.max_concurrent_loads > 0, "max_concurrent_loads must be above 0")?;
        rule(
            self.max_concurrent_loads <= tokio::sync::Semaphore::MAX_PERMITS,
            "max_concurrent_loads is too large",
        )?;
        rule(self.max_waiters_per_load > 0, "max_waiters_per_load must be above 0")?;
        rule(self.max_value_bytes > 0, "max_value_bytes must be above 0")?;
        if self.compress_above.is_some() && !cfg!(feature = "compression") {
            let message = "compress_above needs the feature `compression` of resonant-cache, which this build does not have";
            return Err(Error::new(ErrorKind::Unsupported, "build", message));
        }
        rule(
            !self.plain || self.compress_above.is_none(),
            "compress_above must not be set where plain is: other programs could not read the values",
        )?;
        rule(
            !self.plain || (self.stale_while_revalidate.is_zero() && self.stale_if_error.is_zero()),
            "stale_while_revalidate and stale_if_error must be 0 where plain is set: plain values do not say how old they are",
        )?;
        rule(self.max_tags > 0, "max_tags must be above 0")
    }
}

fn rule(holds: bool, text: &str) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::new(ErrorKind::Config, "build", text)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guides_names_and_human_durations_are_read() -> Result<(), serde_json::Error> {
        let config: CacheConfig = serde_json::from_str(
            r#"{"nodes":["redis://cache-1:6379"],"cluster_mode":true,"read_from_replicas":true,
                "command_timeout":"250ms","defaults":{"ttl":60},"namespaces":{"user":{"ttl":null}}}"#,
        )?;
        assert!(config.cluster_mode && config.read_from_replicas);
        assert_eq!(config.command_timeout, Duration::from_millis(250));
        assert_eq!(config.defaults.ttl, Some(Duration::from_secs(60)));
        assert_eq!(config.namespaces["user"].ttl, None);
        let text = serde_json::to_string(&config)?;
        assert_eq!(serde_json::from_str::<CacheConfig>(&text)?, config);
        Ok(())
    }

    #[test]
    fn a_broken_rule_is_named() {
        let cases: [(CacheConfig, &str); 5] = [
            (CacheConfig { max_bytes: 1, ..CacheConfig::default() }, "max_bytes"),
            (CacheConfig { key_prefix: "a{b".into(), ..CacheConfig::default() }, "key_prefix"),
            (CacheConfig { max_batch: 0, ..CacheConfig::default() }, "max_batch"),
            (
                CacheConfig {
                    defaults: NamespaceConfig {
                        ttl_jitter: f64::NAN,
                        ..NamespaceConfig::default()
                    },
                    ..CacheConfig::default()
                },
                "ttl_jitter",
            ),
            (
                CacheConfig {
                    defaults: NamespaceConfig {
                        soft_load_timeout: Some(Duration::from_secs(60)),
                        ..NamespaceConfig::default()
                    },
                    ..CacheConfig::default()
                },
                "soft_load_timeout",
            ),
        ];
        for (config, name) in cases {
            let error = config.validate().err();
            assert!(
                error.as_ref().is_some_and(
                    |error| error.kind() == ErrorKind::Config && error.message().contains(name)
                ),
                "{name}: {error:?}"
            );
        }
        assert!(CacheConfig::default().validate().is_ok());
    }

    #[test]
    fn a_driver_is_a_word_and_one_that_is_not_there_names_its_feature() {
        for (word, driver) in [("native", RedisDriver::Native), ("fred", RedisDriver::Fred)] {
            let config = serde_json::json!({ "driver": word });
            let config = serde_json::from_value::<CacheConfig>(config).ok();
            assert_eq!(config.map(|config| config.driver), Some(driver));
        }
        assert_eq!(CacheConfig::default().driver, RedisDriver::Native);
        let missing = RedisDriver::Fred.validate(false).err();
        assert!(
            missing.as_ref().is_some_and(|error| error.kind() == ErrorKind::Unsupported
                && error.message().contains("feature `fred`")),
            "{missing:?}"
        );
        assert!(RedisDriver::Native.validate(false).is_ok());
        assert!(RedisDriver::Fred.validate(true).is_ok());
    }
}
