//! Keys placed one by one: the directory, and pins above any function.

use std::collections::HashMap;
use std::sync::Arc;

use super::{KeyType, ShardBy, ShardKey};
use crate::ToParam;
use crate::sharding::key::OwnedKey;

/// A table of keys and the names of their shards.
///
/// A key that is not in it is refused, unless there is a [`default_shard`](Directory::default_shard).
///
/// ```
/// use resonant_db::sharding::{Directory, KeyType, ShardFunction};
/// let directory = Directory::new(KeyType::Text)
///     .entry("org_eu", "shard_1")
///     .default_shard("shard_0");
/// let function = ShardFunction::Directory(directory);
/// ```
#[derive(Debug, Clone)]
pub struct Directory {
    key_type: KeyType,
    entries: HashMap<OwnedKey, String>,
    fallback: Option<String>,
    faults: usize,
}

impl Directory {
    /// An empty directory of keys of one type.
    pub fn new(key_type: KeyType) -> Self {
        Self { key_type, entries: HashMap::new(), fallback: None, faults: 0 }
    }

    /// Adds a key, or moves it. A key that is not of the directory's type makes the builder fail.
    #[must_use]
    pub fn entry(mut self, key: impl ToParam, shard: impl Into<String>) -> Self {
        match self.key_type.key(key.to_param()) {
            Ok(key) => {
                self.entries.insert(key.to_owned_key(), shard.into());
            }
            Err(_) => self.faults += 1,
        }
        self
    }

    /// The shard of every key that has no entry.
    #[must_use]
    pub fn default_shard(mut self, shard: impl Into<String>) -> Self {
        self.fallback = Some(shard.into());
        self
    }

    pub(super) fn bind(&self, shards: &[String]) -> Result<BoundDirectory, String> {
        if self.faults > 0 {
            return Err(format!(
                "{} entries of the directory are no keys of type {}",
                self.faults, self.key_type
            ));
        }
        let mut entries = HashMap::with_capacity(self.entries.len());
        for (key, shard) in &self.entries {
            entries.insert(key.clone(), index_of(shards, shard)?);
        }
        let fallback = match &self.fallback {
            Some(shard) => Some(index_of(shards, shard)?),
            None => None,
        };
        Ok(BoundDirectory { key_type: self.key_type, entries: Places::new(entries), fallback })
    }
}

/// A directory whose names are indices.
#[derive(Debug)]
pub(super) struct BoundDirectory {
    key_type: KeyType,
    entries: Places,
    fallback: Option<u32>,
}

impl ShardBy for BoundDirectory {
    fn shard(&self, key: &ShardKey<'_>) -> Option<u32> {
        self.entries.get(key).or(self.fallback)
    }

    fn name(&self) -> &str {
        "directory"
    }

    fn accepts(&self, key_type: KeyType) -> bool {
        key_type == self.key_type
    }
}

/// Pins of single keys above another function.
#[derive(Debug)]
pub(crate) struct Pinned {
    base: Arc<dyn ShardBy>,
    pins: Places,
}

impl Pinned {
    /// `pins` hold a key and the name of its shard; each key is converted to every type in `types` it converts to.
    pub(crate) fn over(
        base: Arc<dyn ShardBy>,
        pins: &[(OwnedKey, String)],
        types: &[KeyType],
        shards: &[String],
    ) -> Result<Arc<dyn ShardBy>, String> {
        if pins.is_empty() {
            return Ok(base);
        }
        let mut places = HashMap::with_capacity(pins.len());
        for (key, shard) in pins {
            let index = index_of(shards, shard)?;
            let mut fits = false;
            for key_type in types {
                if let Ok(key) = key_type.key(key.as_param()) {
                    places.insert(key.to_owned_key(), index);
                    fits = true;
                }
            }
            if !fits {
                return Err(format!("a key pinned to {shard} is of no declared key type"));
            }
        }
        Ok(Arc::new(Self { base, pins: Places::new(places) }))
    }
}

impl ShardBy for Pinned {
    fn shard(&self, key: &ShardKey<'_>) -> Option<u32> {
        self.pins.get(key).or_else(|| self.base.shard(key))
    }

    fn name(&self) -> &str {
        self.base.name()
    }

    fn accepts(&self, key_type: KeyType) -> bool {
        self.base.accepts(key_type)
    }
}

/// Looks keys up without making an owned one of a number or a UUID, and with one of text or bytes only to compare.
#[derive(Debug)]
struct Places {
    fixed: HashMap<OwnedKey, u32>,
    text: HashMap<Box<str>, u32>,
    bytes: HashMap<Box<[u8]>, u32>,
}

impl Places {
    fn new(entries: HashMap<OwnedKey, u32>) -> Self {
        let mut places =
            Self { fixed: HashMap::new(), text: HashMap::new(), bytes: HashMap::new() };
        for (key, shard) in entries {
            match key {
                OwnedKey::Text(text) => drop(places.text.insert(text, shard)),
                OwnedKey::Bytes(bytes) => drop(places.bytes.insert(bytes, shard)),
                fixed => drop(places.fixed.insert(fixed, shard)),
            }
        }
        places
    }

    fn get(&self, key: &ShardKey<'_>) -> Option<u32> {
        match key {
            ShardKey::Text(text) => self.text.get(*text).copied(),
            ShardKey::Bytes(bytes) => self.bytes.get(*bytes).copied(),
            ShardKey::Int(_) | ShardKey::Uuid(_) => self.fixed.get(&key.to_owned_key()).copied(),
        }
    }
}

fn index_of(shards: &[String], name: &str) -> Result<u32, String> {
    let index = shards.iter().position(|shard| shard == name);
    let index = index.and_then(|index| u32::try_from(index).ok());
    index.ok_or_else(|| format!("there is no shard {name}"))
}
