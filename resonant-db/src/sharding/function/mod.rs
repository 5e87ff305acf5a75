//! Shard functions: which shard a key belongs to.
//!
//! | function | a key's shard | growing from four shards to five moves |
//! |---|---|---|
//! | [`ShardFunction::HashMod`] | XXH64 modulo 4096 buckets, buckets dealt over the shards | a fifth of the buckets |
//! | [`ShardFunction::PostgresHash`] | PostgreSQL's `PARTITION BY HASH` modulo 4096, buckets as above | a fifth of the buckets |
//! | [`ShardFunction::HashModShardCount`] | XXH64 modulo the number of shards | four fifths of the keys |
//! | [`ShardFunction::Directory`] | looked up | what you move |
//! | [`ShardFunction::Custom`] | yours, see [`ShardBy`] | yours |
//!
//! A pinned key ([`ShardedDatabaseBuilder::pin`](super::ShardedDatabaseBuilder::pin)) goes where it is pinned, whatever
//! the function says: that is how one large tenant gets a shard of its own.

mod buckets;
mod directory;
mod hashed;
mod live;
mod postgres;

use std::fmt;
use std::sync::Arc;

pub use self::buckets::{BUCKETS, BucketMap, BucketMove, BucketPlan};
pub use self::directory::Directory;
pub(crate) use self::directory::Pinned;
use self::hashed::ByShardCount;
pub(crate) use self::hashed::{Bucketed, Leaving, Numbered};
pub(crate) use self::live::{Said, Whereabouts};
pub use self::postgres::postgres_hash;
pub(crate) use self::postgres::postgres_value_hash;
use super::key::{KeyType, ShardKey};

/// Decides the shard of a key.
///
/// # Contract
///
/// - **Pure and stable**: the same key gives the same shard in every process and for as long as the rows stay where
///   they are. No clock, no chance, no hasher whose output may change between versions.
/// - **In range**: the answer is below the number of shards; one that is not is refused when it appears.
/// - **Cheap**: it runs once for each key value of each statement, so it must not block.
/// - `None` means "this key has no shard"; the statement is refused and says so.
pub trait ShardBy: fmt::Debug + Send + Sync + 'static {
    /// The index of the key's shard, in the order the shards were declared.
    fn shard(&self, key: &ShardKey<'_>) -> Option<u32>;

    /// A short stable name, such as `hash_mod`. It is what the guard of a shard remembers.
    fn name(&self) -> &str;

    /// Whether keys of a type can be placed. Default: all.
    fn accepts(&self, key_type: KeyType) -> bool {
        let _ = key_type;
        true
    }
}

/// Which shard function a [`ShardedDatabase`](super::ShardedDatabase) uses. The default is [`ShardFunction::HashMod`].
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum ShardFunction {
    /// XXH64 of the key modulo 4096 buckets; bucket `b` of a fresh map belongs to shard `b % shards`.
    #[default]
    HashMod,
    /// XXH64 of the key modulo the number of shards, without buckets. Changing the number of shards moves nearly every
    /// row: for data that is already laid out like this, or never grows.
    HashModShardCount,
    /// The hash of PostgreSQL's `PARTITION BY HASH` on one column, modulo 4096 buckets.
    PostgresHash,
    /// A table of keys.
    Directory(Directory),
    /// A function of your own.
    Custom(Arc<dyn ShardBy>),
}

impl ShardFunction {
    /// The two bucketed functions, over named shards. `map` replaces the fresh bucket map.
    pub(crate) fn buckets(
        &self,
        shards: &[String],
        map: Option<&BucketMap>,
    ) -> Result<Option<Arc<Bucketed>>, String> {
        let bucketed = match self {
            ShardFunction::HashMod => Bucketed::hash_mod,
            ShardFunction::PostgresHash => Bucketed::postgres,
            _ if map.is_some() => {
                return Err(
                    "a bucket map needs the shard function hash_mod or postgres_hash".to_owned()
                );
            }
            _ => return Ok(None),
        };
        let count = counted(shards)?;
        let map = match map {
            Some(map) if map.highest_shard() >= count => {
                return Err(format!(
                    "the bucket map names shard {} but only {count} shards are declared",
                    map.highest_shard()
                ));
            }
            Some(map) => map.clone(),
            None => BucketMap::dealt(count)?,
        };
        Ok(Some(Arc::new(bucketed(map))))
    }

    /// Binds the function to named shards. `map` replaces the fresh bucket map of the two bucketed functions.
    pub(crate) fn bind(
        &self,
        shards: &[String],
        map: Option<&BucketMap>,
    ) -> Result<Arc<dyn ShardBy>, String> {
        if let Some(buckets) = self.buckets(shards, map)? {
            return Ok(buckets);
        }
        Ok(match self {
            ShardFunction::Directory(directory) => Arc::new(directory.bind(shards)?),
            ShardFunction::Custom(function) => Arc::clone(function),
            _ => Arc::new(ByShardCount::new(counted(shards)?)),
        })
    }
}

fn counted(shards: &[String]) -> Result<u32, String> {
    u32::try_from(shards.len()).map_err(|_| "too many shards".to_owned())
}
