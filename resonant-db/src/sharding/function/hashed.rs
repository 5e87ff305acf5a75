//! The hashing shard functions.

use std::sync::Arc;

use resonant_common::hash::{key_hash, slot};

use super::buckets::{BUCKETS, BucketMap};
use super::live::LiveMap;
use super::postgres::postgres_hash;
use super::{KeyType, ShardBy, ShardKey};

/// A hash modulo the buckets, and a map from buckets to shards.
#[derive(Debug)]
pub(crate) struct Bucketed {
    map: LiveMap,
    name: &'static str,
    bucket: fn(&ShardKey<'_>) -> u32,
}

impl Bucketed {
    pub(super) fn hash_mod(map: BucketMap) -> Self {
        let bucket = |key: &ShardKey<'_>| key.with_bytes(|bytes| slot(bytes, BUCKETS));
        Self { map: LiveMap::new(&map), name: "hash_mod", bucket }
    }

    pub(super) fn postgres(map: BucketMap) -> Self {
        // The remainder is below 4096, so it fits.
        let bucket = |key: &ShardKey<'_>| (postgres_hash(key) % u64::from(BUCKETS)) as u32;
        Self { map: LiveMap::new(&map), name: "postgres_hash", bucket }
    }

    pub(crate) fn map(&self) -> &LiveMap {
        &self.map
    }

    pub(crate) fn bucket(&self, key: &ShardKey<'_>) -> u32 {
        (self.bucket)(key)
    }
}

/// Answers 1 for a key whose bucket is about to change its owner, 0 for any other.
#[derive(Debug)]
pub(crate) struct Leaving(pub(crate) Arc<Bucketed>);

impl ShardBy for Leaving {
    fn shard(&self, key: &ShardKey<'_>) -> Option<u32> {
        Some(u32::from(self.0.map.is_leaving(self.0.bucket(key))))
    }

    fn name(&self) -> &str {
        self.0.name()
    }
}

/// Answers the bucket of a key.
#[derive(Debug)]
pub(crate) struct Numbered(pub(crate) Arc<Bucketed>);

impl ShardBy for Numbered {
    fn shard(&self, key: &ShardKey<'_>) -> Option<u32> {
        Some(self.0.bucket(key))
    }

    fn name(&self) -> &str {
        self.0.name()
    }
}

impl ShardBy for Bucketed {
    fn shard(&self, key: &ShardKey<'_>) -> Option<u32> {
        self.map.shard((self.bucket)(key))
    }

    fn name(&self) -> &str {
        self.name
    }
}

/// A hash modulo the number of shards.
#[derive(Debug)]
pub(super) struct ByShardCount {
    shards: u32,
}

impl ByShardCount {
    pub(super) fn new(shards: u32) -> Self {
        Self { shards }
    }
}

impl ShardBy for ByShardCount {
    fn shard(&self, key: &ShardKey<'_>) -> Option<u32> {
        let hash = key.with_bytes(key_hash);
        u32::try_from(hash.checked_rem(u64::from(self.shards))?).ok()
    }

    fn name(&self) -> &str {
        "hash_mod_shard_count"
    }

    fn accepts(&self, _: KeyType) -> bool {
        true
    }
}
