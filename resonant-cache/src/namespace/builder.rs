//! A namespace with settings of its own.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Namespace;
use crate::cache::Shell;
use crate::codec::{Codec, Json};
use crate::config::NamespaceConfig;
use crate::error::{Error, ErrorKind, Result};

/// Describes a namespace. Made by
/// [`DistributedCache::namespace_builder`](crate::DistributedCache::namespace_builder).
pub struct NamespaceBuilder<V> {
    shell: Arc<Shell>,
    name: String,
    config: NamespaceConfig,
    value: PhantomData<fn() -> V>,
}

impl<V: Send + Sync + 'static> NamespaceBuilder<V> {
    pub(crate) fn new(shell: Arc<Shell>, name: &str, config: NamespaceConfig) -> Self {
        Self { shell, name: name.to_owned(), config, value: PhantomData }
    }

    /// Replaces its settings.
    #[must_use]
    pub fn config(mut self, config: NamespaceConfig) -> Self {
        self.config = config;
        self
    }

    /// Changes its settings in place.
    #[must_use]
    pub fn configure(mut self, change: impl FnOnce(&mut NamespaceConfig)) -> Self {
        change(&mut self.config);
        self
    }

    /// Stores values as the codec encodes them, with nothing around them, so that programs without this crate can read and
    /// write them, under the name that `docs/formats/cache.md` specifies: `resonant:{user:7}` for the key `7` of the namespace
    /// `user`. Their writes are heard as those of this crate are.
    ///
    /// Such values do not say who wrote them, when, and what they belong to. So the following does not hold for them:
    ///
    /// - Tags, [`clear`](Namespace::clear) and [`compare_and_set`](Namespace::compare_and_set) are `Rejected`.
    /// - "There is no value" is not stored: a missing value is looked for by each process, within its limits.
    /// - Nothing stale is served, and nothing is compressed.
    /// - A value that was read is kept in the process until the server says that it changed or ran out, which servers may say
    ///   some seconds late, and for at most the namespace's `ttl`; so its life may end late by that.
    /// - A value of another type or codec is a miss if it does not decode, and taken for one of this type if it does.
    /// - What another program sets keeps out what a load under way would store; what another program removes does not.
    #[must_use]
    pub fn plain(mut self) -> Self {
        self.config.plain = true;
        self
    }

    /// The namespace with a codec of yours.
    ///
    /// # Errors
    ///
    /// As [`open`](NamespaceBuilder::open).
    pub fn open_with(self, codec: impl Codec<V>) -> Result<Namespace<V>> {
        self.finish(Arc::new(codec))
    }

    /// The namespace, encoded as JSON.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] names a broken rule, or says that the namespace is open with other settings.
    pub fn open(self) -> Result<Namespace<V>>
    where
        V: Serialize + DeserializeOwned,
    {
        self.finish(Arc::new(Json))
    }

    fn finish(self, codec: Arc<dyn Codec<V>>) -> Result<Namespace<V>> {
        self.config.validate()?;
        let ns = self.shell.namespace_core(&self.name, || self.config.clone());
        if ns.config != self.config {
            let message = format!(
                "namespace {:?} is already open with other settings; give them in one place",
                self.name
            );
            return Err(Error::new(ErrorKind::Config, "open", message));
        };
        Ok(Namespace::new(self.shell, ns, codec))
    }
}

impl<V> fmt::Debug for NamespaceBuilder<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamespaceBuilder")
            .field("name", &self.name)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
