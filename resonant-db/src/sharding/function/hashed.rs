//! The hashing shard functions.

use resonant_common::hash::{key_hash, slot};

use super::buckets::{BUCKETS, BucketMap};
use super::postgres::postgres_hash;
use super::{KeyType, ShardBy, ShardKey};

/// A hash modulo the buckets, and a map from buckets to shards.
#[derive(Debug)]
pub(super) struct Bucketed {
    map: BucketMap,
    name: &'static str,
    bucket: fn(&ShardKey<'_>) -> u32,
}

impl Bucketed {
    pub(super) fn hash_mod(map: BucketMap) -> Self {
        let bucket = |key: &ShardKey<'_>| key.with_bytes(|bytes| slot(bytes, BUCKETS));
        Self { map, name: "hash_mod", bucket }
    }

    pub(super) fn postgres(map: BucketMap) -> Self {
        // The remainder is below 4096, so it fits.
        let bucket = |key: &ShardKey<'_>| (postgres_hash(key) % u64::from(BUCKETS)) as u32;
        Self { map, name: "postgres_hash", bucket }
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
