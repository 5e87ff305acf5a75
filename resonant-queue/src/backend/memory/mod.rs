//! Queues inside the process: for tests, and for work that may be lost with the process.

mod partition;
mod ring;
mod store;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use self::store::MemoryStore;
use super::{Backend, Capabilities, QueueSpec, QueueStore};
use crate::error::{Error, ErrorKind, Result};

/// Queues inside the process, on tokio's clock. Clones share their queues.
///
/// Everything is gone when the last handle is dropped. Apart from that it keeps every promise the durable engines
/// keep, so a test on it is a test of your handlers.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    queues: Arc<Mutex<HashMap<String, Arc<MemoryStore>>>>,
}

impl Memory {
    /// A place without queues.
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl Backend for Memory {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new("memory")
    }

    async fn declare(&self, spec: &QueueSpec) -> Result<Arc<dyn QueueStore>> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let store = queues
            .entry(spec.name.clone())
            .or_insert_with(|| Arc::new(MemoryStore::new(spec.clone())));
        if store.partitions() != spec.partitions {
            let message = format!(
                "the queue {:?} exists with {} partitions, not {}; the number is fixed once it exists: build it with that one, or under another name",
                spec.name,
                store.partitions(),
                spec.partitions
            );
            return Err(Error::new(ErrorKind::Incompatible, "build", message));
        }
        Ok(store.handle(spec))
    }
}
