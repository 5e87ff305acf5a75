//! Puts a queue together.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use resonant_common::error::BoxError;
use serde_json::Value;

use crate::backend::Backend;
use crate::config::{Poison, QueueConfig, RetryConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Key, KeySource};
use crate::queue::PartitionedQueue;
use crate::version::Versions;

/// Settings of a queue on their way to it. Every method has a field of [`QueueConfig`] behind it.
#[must_use = "a builder does nothing until it is built"]
pub struct QueueBuilder<T> {
    config: QueueConfig,
    key: Option<KeySource<T>>,
    backend: Option<Arc<dyn Backend>>,
    versions: Versions,
}

impl<T> fmt::Debug for QueueBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueBuilder")
            .field("config", &self.config)
            .field("key", &self.key)
            .field("backend", &self.backend)
            .field("versions", &self.versions)
            .finish()
    }
}

impl<T> QueueBuilder<T> {
    pub(crate) fn new(config: QueueConfig) -> Self {
        Self { config, key: None, backend: None, versions: Versions::default() }
    }

    /// Into how many partitions keys are spread. Default 16. Fixed once the queue exists.
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.config.partitions = partitions;
        self
    }

    /// The field of the serialised message that is its key: text, a number or a boolean.
    pub fn partition_key(mut self, field: impl Into<String>) -> Self {
        self.config.partition_key = Some(field.into());
        self
    }

    /// Takes the key from the message by a closure instead of a field.
    pub fn key<K: Into<Key>>(mut self, key: impl Fn(&T) -> K + Send + Sync + 'static) -> Self {
        self.key = Some(KeySource::Closure(Arc::new(move |message| key(message).into())));
        self
    }

    /// Where the queue lives: `Memory::new()`, `Sqlite::open(path).await?`, or your own.
    pub fn backend(mut self, backend: impl Backend) -> Self {
        self.backend = Some(Arc::new(backend));
        self
    }

    /// The version of what messages look like. Default 1. Higher ones travel in the header `schema-version`.
    ///
    /// A worker reads its own version and, by [`upcast`](Self::upcast), earlier ones. A message of a later version is one
    /// that cannot be read: its key is parked, and [`resume_key`](PartitionedQueue::resume_key) brings it back when the
    /// worker has caught up. So let all workers know a version before anybody publishes it.
    ///
    /// ```
    /// # async fn example() -> resonant_queue::Result<()> {
    /// use resonant_queue::{Memory, PartitionedQueue};
    /// use serde::{Deserialize, Serialize};
    /// use serde_json::{Value, json};
    ///
    /// // Version 1 had `name` alone.
    /// #[derive(Serialize, Deserialize)]
    /// struct Person {
    ///     first: String,
    ///     last: String,
    /// }
    ///
    /// let queue = PartitionedQueue::<Person>::builder("people")
    ///     .version(2)
    ///     .upcast(1, |old: Value| {
    ///         let name = old["name"].as_str().ok_or("there is no name")?;
    ///         let (first, last) = name.split_once(' ').unwrap_or((name, ""));
    ///         Ok(json!({ "first": first, "last": last }))
    ///     })
    ///     .backend(Memory::new())
    ///     .build()
    ///     .await?;
    /// # drop(queue); Ok(()) }
    /// ```
    pub fn version(mut self, version: u32) -> Self {
        self.versions.set(version);
        self
    }

    /// How a message of version `from` becomes one of the next version. Without it serde must read both. What it refuses
    /// cannot be read, as a body that is no message.
    pub fn upcast(
        mut self,
        from: u32,
        upcast: impl Fn(Value) -> Result<Value, BoxError> + Send + Sync + 'static,
    ) -> Self {
        self.versions.step(from, Arc::new(upcast));
        self
    }

    /// How failed deliveries are tried again.
    pub fn retry(mut self, retry: RetryConfig) -> Self {
        self.config.retry = retry;
        self
    }

    /// What happens to a message that failed for good. Default: its key is parked.
    pub fn poison(mut self, poison: Poison) -> Self {
        self.config.poison = poison;
        self
    }

    /// The most messages the queue stores. Default 10,000,000.
    pub fn max_depth(mut self, messages: u64) -> Self {
        self.config.max_depth = messages;
        self
    }

    /// The largest body in bytes. Default 1 MiB.
    pub fn max_payload(mut self, bytes: usize) -> Self {
        self.config.max_payload = bytes;
        self
    }

    /// How long a publish waits for room in a full queue. Default 30 s.
    pub fn publish_timeout(mut self, wait: Duration) -> Self {
        self.config.publish_timeout = wait;
        self
    }

    /// For how long a unique id is remembered. Default 5 min.
    pub fn dedup_window(mut self, window: Duration) -> Self {
        self.config.dedup_window = window;
        self
    }

    /// The most unique ids remembered. Default 1,000,000.
    pub fn dedup_limit(mut self, ids: u64) -> Self {
        self.config.dedup_limit = ids;
        self
    }

    /// For how long a worker leases a partition. Default 5 s.
    pub fn lease_ttl(mut self, ttl: Duration) -> Self {
        self.config.lease_ttl = ttl;
        self
    }

    /// How many messages of one partition a worker holds in memory. Default 2048.
    pub fn prefetch(mut self, messages: usize) -> Self {
        self.config.prefetch = messages;
        self
    }

    /// How many bytes of bodies of one partition a worker holds in memory. Default 16 MiB.
    pub fn prefetch_bytes(mut self, bytes: usize) -> Self {
        self.config.prefetch_bytes = bytes;
        self
    }

    /// How long a drain waits for running handlers. Default 30 s.
    pub fn drain_timeout(mut self, wait: Duration) -> Self {
        self.config.drain_timeout = wait;
        self
    }

    /// How old the oldest unfinished message may be before [`findings`](PartitionedQueue::findings) warn. Default 5 min.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.config.max_age = age;
        self
    }

    /// How many messages that wait or run ask for a worker. Default 10.
    pub fn messages_per_worker(mut self, messages: u64) -> Self {
        self.config.messages_per_worker = messages;
        self
    }

    /// Opens the queue, creating it in the engine if there is none.
    ///
    /// # Errors
    ///
    /// `Config` with the rule a setting breaks; `Incompatible` if the queue exists with another number of partitions;
    /// `Unavailable`.
    pub async fn build(self) -> Result<PartitionedQueue<T>> {
        let Some(backend) = self.backend else {
            let message =
                "a queue needs a backend: .backend(Memory::new()), or one that is durable";
            return Err(Error::new(ErrorKind::Config, "build", message));
        };
        let key = match (self.key, &self.config.partition_key) {
            (Some(_), Some(_)) => {
                let message =
                    "partition_key and key exclude each other: name a field or give a closure";
                return Err(Error::new(ErrorKind::Config, "build", message));
            }
            (Some(key), None) => key,
            (None, Some(field)) => KeySource::Field(field.clone()),
            (None, None) => KeySource::None,
        };
        self.versions.validate()?;
        PartitionedQueue::build(self.config, key, self.versions, &*backend).await
    }
}
