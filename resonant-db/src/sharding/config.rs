//! Settings, with the scaling guide's names.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::function::{BucketMap, ShardFunction};
use super::key::KeyType;

/// Settings of a [`ShardedDatabase`](super::ShardedDatabase), as a file has them.
///
/// ```
/// let config: resonant_db::sharding::ShardedConfig = serde_json::from_str(r#"{
///     "shards": {
///         "shard_0": "sqlite:/var/lib/app/shard0.db",
///         "shard_1": "sqlite:/var/lib/app/shard1.db"
///     },
///     "shard_key": "org_id",
///     "shard_function": "hash_mod",
///     "tables": { "agents": "text", "jobs": { "key": "owner", "type": "text" } },
///     "references": ["countries"]
/// }"#)?;
/// assert_eq!(config.shards.len(), 2);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShardedConfig {
    /// The shards by name. Their order decides which is which, and not every file format keeps order, so they are taken
    /// in the natural order of their names: `shard_2` before `shard_10`. No default.
    pub shards: BTreeMap<String, ShardConfig>,
    /// The column that holds the key in tables that do not name another. No default.
    pub shard_key: String,
    /// The shard function. Default `hash_mod`.
    pub shard_function: FunctionName,
    /// The tables that carry the key, with its type, and its column where that is not `shard_key`.
    pub tables: BTreeMap<String, TableConfig>,
    /// The tables every shard holds all of.
    pub references: Vec<String>,
    /// Functions of your own that depend on their arguments alone.
    pub functions: Vec<String>,
    /// Keys that live on a named shard whatever the function says.
    pub pins: BTreeMap<String, String>,
    /// The owners of the buckets, for a database that has changed its shards. Default: dealt evenly.
    pub bucket_map: Option<BucketMap>,
    /// The bytes of compiled routes that are kept. Default 16 MiB.
    pub route_cache_bytes: Option<usize>,
    /// Whether each shard remembers its name and the shard function in a table of its own, and is refused when they do
    /// not fit. Default `false`: nothing is created in a database unless asked.
    pub guard: bool,
    /// Whether the shards themselves say which buckets have moved, so that they can be moved while the program runs. Default
    /// `false`: nothing is created in a database unless asked.
    pub live_map: bool,
    /// Whether the tables with the column `shard_key` are read from the catalogue. Default `false`.
    pub learn: bool,
    /// The most rows of an answer that is made of several shards. Default 1,000,000.
    pub merge_rows: Option<usize>,
}

/// A shard: its URL, or its URL with replicas.
#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum ShardConfig {
    /// The URL of its primary.
    Url(String),
    /// A primary with replicas.
    Nodes {
        /// The URL of the primary.
        primary: String,
        /// The URLs of the replicas.
        #[serde(default)]
        replicas: Vec<String>,
    },
}

/// A table that carries the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum TableConfig {
    /// The type of the column named by `shard_key`.
    Type(KeyType),
    /// A column of another name.
    Key {
        /// The column.
        key: String,
        /// Its type.
        #[serde(rename = "type")]
        key_type: KeyType,
    },
}

/// The shard functions that need no more than a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FunctionName {
    /// [`ShardFunction::HashMod`].
    #[default]
    HashMod,
    /// [`ShardFunction::HashModShardCount`].
    HashModShardCount,
    /// [`ShardFunction::PostgresHash`].
    PostgresHash,
}

impl From<FunctionName> for ShardFunction {
    fn from(name: FunctionName) -> Self {
        match name {
            FunctionName::HashMod => ShardFunction::HashMod,
            FunctionName::HashModShardCount => ShardFunction::HashModShardCount,
            FunctionName::PostgresHash => ShardFunction::PostgresHash,
        }
    }
}

impl ShardConfig {
    /// The URLs: primary, then replicas.
    pub(crate) fn urls(&self) -> (&str, &[String]) {
        match self {
            ShardConfig::Url(primary) => (primary, &[]),
            ShardConfig::Nodes { primary, replicas } => (primary, replicas),
        }
    }
}

impl ShardedConfig {
    /// The shards in the natural order of their names.
    pub(crate) fn ordered(&self) -> Vec<(&str, &ShardConfig)> {
        let mut shards: Vec<_> = self.shards.iter().map(|(name, shard)| (&**name, shard)).collect();
        shards.sort_by(|(a, _), (b, _)| natural(a).cmp(&natural(b)).then_with(|| a.cmp(b)));
        shards
    }
}

/// A name as text and numbers in turn, so that names compare as people read them.
fn natural(name: &str) -> Vec<(String, u128)> {
    let mut parts: Vec<(String, u128)> = vec![(String::new(), 0)];
    let mut in_number = false;
    for character in name.chars() {
        let digit = character.to_digit(10);
        if digit.is_none() && in_number {
            parts.push((String::new(), 0));
        }
        if let Some((text, number)) = parts.last_mut() {
            match digit {
                Some(digit) => *number = number.saturating_mul(10).saturating_add(digit.into()),
                None => text.push(character),
            }
        }
        in_number = digit.is_some();
    }
    parts
}

/// URLs may hold passwords.
impl fmt::Debug for ShardConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard with {} replicas", self.urls().1.len())
    }
}

impl fmt::Debug for ShardedConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardedConfig")
            .field("shards", &self.shards)
            .field("shard_key", &self.shard_key)
            .field("shard_function", &self.shard_function)
            .field("tables", &self.tables)
            .field("references", &self.references)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_come_in_natural_order() {
        let mut config = ShardedConfig::default();
        for name in ["shard_10", "shard_2", "shard_0", "b", "shard_2a"] {
            config.shards.insert(name.to_owned(), ShardConfig::Url("sqlite:".to_owned()));
        }
        let names: Vec<_> = config.ordered().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["b", "shard_0", "shard_2", "shard_2a", "shard_10"]);
    }

    #[test]
    fn debug_shows_no_url() {
        let config: ShardedConfig =
            serde_json::from_str(r#"{"shards":{"a":"postgresql://u:hunter2@h/db"}}"#).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        assert!(serde_json::from_str::<ShardedConfig>(r#"{"shard":{}}"#).is_err());
    }
}
