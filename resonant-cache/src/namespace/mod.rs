//! Typed handles to the values under one name.

mod batch;
mod builder;
mod core;
mod counters;
pub(crate) mod kit;
mod load;
mod read;
mod write;

use std::fmt;
use std::sync::Arc;

pub use self::builder::NamespaceBuilder;
pub(crate) use self::core::NamespaceCore;
use self::kit::Kit;
use crate::cache::Shell;
use crate::codec::{Codec, fingerprint};

/// The values of one type under one name. Made by [`DistributedCache::namespace`](crate::DistributedCache::namespace);
/// cheap to clone.
///
/// Reads come from this process where they can: a hit costs one lookup, no decoding and no allocation, and hands out
/// the same `Arc`. Otherwise they come from the store, and a missing value from the loader, once for all who ask.
pub struct Namespace<V> {
    shell: Arc<Shell>,
    kit: Arc<Kit<V>>,
}

impl<V: Send + Sync + 'static> Namespace<V> {
    pub(crate) fn new(shell: Arc<Shell>, ns: Arc<NamespaceCore>, codec: Arc<dyn Codec<V>>) -> Self {
        let fingerprint = fingerprint(codec.name(), &ns.config.schema);
        let kit = Arc::new(Kit { core: Arc::clone(&shell.core), ns, codec, fingerprint });
        Self { shell, kit }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.kit.ns.name()
    }
}

impl<V> Clone for Namespace<V> {
    fn clone(&self) -> Self {
        Self { shell: Arc::clone(&self.shell), kit: Arc::clone(&self.kit) }
    }
}

impl<V> fmt::Debug for Namespace<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Namespace")
            .field("name", self.kit.ns.name())
            .field("codec", &self.kit.codec)
            .finish_non_exhaustive()
    }
}
