//! What goes with a value in, and what comes with it out.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use resonant_common::join::Position;

use crate::config::NamespaceConfig;
use crate::envelope::{MAX_TAGS, TagId, Version};
use crate::error::{Error, ErrorKind, Result};
use crate::freshness::jittered;

/// How a value is kept: what `set` and a loader may say about it.
#[derive(Debug, Clone, Default)]
struct Terms {
    life: Life,
    tags: Vec<Cow<'static, str>>,
    position: Option<Position>,
}

#[derive(Debug, Clone, Copy, Default)]
enum Life {
    /// The namespace's, with its jitter.
    #[default]
    Namespace,
    Exactly(Duration),
    ForEver,
}

/// Options of [`Namespace::set_with`](crate::Namespace::set_with).
#[derive(Debug, Clone, Default)]
pub struct SetOptions {
    terms: Terms,
}

/// What a loader found: a value or its absence, and how to keep it.
#[derive(Debug, Clone)]
pub struct Loaded<V> {
    value: Option<V>,
    terms: Terms,
}

macro_rules! terms {
    () => {
        /// Keeps it for exactly this long, instead of the namespace's `ttl` (or `negative_ttl`) with its jitter.
        #[must_use]
        pub fn ttl(mut self, ttl: Duration) -> Self {
            self.terms.life = Life::Exactly(ttl);
            self
        }

        /// Keeps it until it is replaced, removed, or evicted for room.
        #[must_use]
        pub fn no_expiry(mut self) -> Self {
            self.terms.life = Life::ForEver;
            self
        }

        /// Adds a tag, by which it can be invalidated together with others. At most 16.
        #[must_use]
        pub fn tag(mut self, tag: impl Into<Cow<'static, str>>) -> Self {
            self.terms.tags.push(tag.into());
            self
        }

        /// Says at which place of the database's history it was read. It is not stored where something newer is known:
        /// an invalidation or a value at a later position.
        #[must_use]
        pub fn at(mut self, position: Position) -> Self {
            self.terms.position = Some(position);
            self
        }
    };
}

impl SetOptions {
    /// The namespace's own settings.
    pub fn new() -> Self {
        Self::default()
    }

    terms!();

    pub(crate) fn resolve(
        &self,
        config: &NamespaceConfig,
        operation: &'static str,
    ) -> Result<Kept> {
        self.terms.resolve(config, false, operation)
    }
}

impl<V> Loaded<V> {
    /// A value.
    pub fn new(value: V) -> Self {
        Self { value: Some(value), terms: Terms::default() }
    }

    /// The knowledge that there is no value. Remembered for the namespace's `negative_ttl`.
    pub fn missing() -> Self {
        Self { value: None, terms: Terms::default() }
    }

    terms!();

    pub(crate) fn resolve(
        &self,
        config: &NamespaceConfig,
        operation: &'static str,
    ) -> Result<Kept> {
        self.terms.resolve(config, self.value.is_none(), operation)
    }

    pub(crate) fn into_value(self) -> Option<V> {
        self.value
    }
}

impl<V> From<V> for Loaded<V> {
    fn from(value: V) -> Self {
        Self::new(value)
    }
}

impl<V> From<Option<V>> for Loaded<V> {
    fn from(value: Option<V>) -> Self {
        Self { value, terms: Terms::default() }
    }
}

/// The same with the namespace's settings put in and chance taken.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    /// For how long it is fresh; `None` for ever. Zero for a negative entry that is not to be remembered.
    pub(crate) life: Option<Duration>,
    pub(crate) tags: Vec<TagId>,
    pub(crate) position: Option<Position>,
}

impl Terms {
    fn resolve(
        &self,
        config: &NamespaceConfig,
        negative: bool,
        operation: &'static str,
    ) -> Result<Kept> {
        if self.tags.len() > MAX_TAGS {
            let message =
                format!("a value carries at most {MAX_TAGS} tags, not {}", self.tags.len());
            return Err(Error::new(ErrorKind::Rejected, operation, message));
        }
        let default = if negative { Some(config.negative_ttl) } else { config.ttl };
        let life = match self.life {
            Life::Exactly(Duration::ZERO) => {
                let message = "a time to live must be above 0; use delete to remove a value";
                return Err(Error::new(ErrorKind::Rejected, operation, message));
            }
            Life::Exactly(life) => Some(life),
            Life::ForEver => None,
            Life::Namespace => {
                default.map(|life| jittered(life, config.ttl_jitter, rand::random::<f64>()))
            }
        };
        let tags = self.tags.iter().map(|tag| TagId::of(tag)).collect();
        Ok(Kept { life, tags, position: self.position })
    }
}

/// A value as it was served, and how.
#[derive(Debug)]
#[non_exhaustive]
pub struct Served<V> {
    /// The value; `None` where it is known that there is none.
    pub value: Option<Arc<V>>,
    /// Whether its life is over.
    pub stale: bool,
    /// Where it came from.
    pub tier: Tier,
}

impl<V> Clone for Served<V> {
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), stale: self.stale, tier: self.tier }
    }
}

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Tier {
    /// The memory of this process.
    Local,
    /// The store.
    Shared,
    /// The loader.
    Loaded,
}

/// A value with the version a [`compare_and_set`](crate::Namespace::compare_and_set) takes.
#[derive(Debug)]
pub struct Versioned<V> {
    /// The value; `None` if there is none that is fresh.
    pub value: Option<Arc<V>>,
    /// What to pass as `expected`. `None` if nothing is stored.
    pub version: Option<Version>,
}

impl<V> Clone for Versioned<V> {
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), version: self.version }
    }
}

/// What became of a [`compare_and_set`](crate::Namespace::compare_and_set).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swap {
    /// The value is stored, with this version.
    Stored(Version),
    /// Somebody else wrote in between: read again.
    Conflict,
}

/// What became of a [`set_with`](crate::Namespace::set_with).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// The value is stored.
    Stored,
    /// Something at a later position is known; nothing was changed.
    Outdated,
}
