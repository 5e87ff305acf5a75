//! Loaders that count, and gates to hold them at.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use resonant_cache::backend::{MemoryStore, Store};
use resonant_cache::{DistributedCache, Namespace, NamespaceConfig};
use tokio::sync::Semaphore;

pub(crate) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(crate) fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Settings whose times to live are exact.
pub(crate) fn exact() -> NamespaceConfig {
    NamespaceConfig { ttl_jitter: 0.0, ..NamespaceConfig::default() }
}

pub(crate) fn cache_with(config: NamespaceConfig) -> DistributedCache {
    let store = Arc::new(MemoryStore::new(64 << 20));
    cache_on(store, config)
}

/// A cache as another process would have it.
pub(crate) fn cache_on(store: Arc<dyn Store>, config: NamespaceConfig) -> DistributedCache {
    match DistributedCache::builder().defaults(config).store(store).build() {
        Ok(cache) => cache,
        Err(error) => panic!("{error}"),
    }
}

pub(crate) fn namespace(config: NamespaceConfig) -> Namespace<String> {
    cache_with(config).namespace("test")
}

/// Lets everything that can run do so. Under the paused clock the millisecond passes only when all tasks wait.
pub(crate) async fn settle() {
    tokio::time::sleep(ms(1)).await;
}

/// A source of values: counts how often it is asked, and can be held at a gate.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    asked: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
}

impl Source {
    pub(crate) fn open() -> Self {
        Self { asked: Arc::default(), gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)) }
    }

    /// Answers nobody until [`let_through`](Source::let_through).
    pub(crate) fn held() -> Self {
        Self { asked: Arc::default(), gate: Arc::new(Semaphore::new(0)) }
    }

    pub(crate) fn let_through(&self, count: usize) {
        self.gate.add_permits(count);
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// A loader that answers `value`.
    pub(crate) fn answers(
        &self,
        value: &str,
    ) -> impl FnOnce() -> std::pin::Pin<
        Box<dyn Future<Output = Result<String, std::io::Error>> + Send>,
    > + Send
    + use<> {
        let (source, value) = (self.clone(), value.to_owned());
        move || {
            Box::pin(async move {
                source.pass().await;
                Ok(value)
            })
        }
    }

    /// A loader that fails.
    pub(crate) fn fails(
        &self,
    ) -> impl FnOnce() -> std::pin::Pin<
        Box<dyn Future<Output = Result<String, std::io::Error>> + Send>,
    > + Send
    + use<> {
        let source = self.clone();
        move || {
            Box::pin(async move {
                source.pass().await;
                Err(std::io::Error::other("the source is down"))
            })
        }
    }

    pub(crate) async fn pass(&self) {
        self.asked.fetch_add(1, Ordering::SeqCst);
        match self.gate.acquire().await {
            Ok(permit) => permit.forget(),
            Err(error) => panic!("{error}"),
        }
    }
}
