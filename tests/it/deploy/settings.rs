//! The settings files that are mounted: each section is what its crate takes.

use resonant_batch::BatchConfig;
use resonant_cache::CacheConfig;
use resonant_db::sharding::ShardedConfig;
use resonant_db::{DatabaseConfig, PoolConfig};
use resonant_health::HealthConfig;
use resonant_queue::QueueConfig;
use serde::de::DeserializeOwned;

use super::Files;

pub(super) const DEPLOYED: &str = "deploy/kubernetes/base/resonant.toml";
const LOCAL: &str = "deploy/kubernetes/overlays/local/resonant.toml";

pub(super) fn section<T: DeserializeOwned>(settings: &toml::Table, name: &str) -> T {
    let value = settings.get(name).unwrap_or_else(|| panic!("there is no [{name}]")).clone();
    value.try_into().unwrap_or_else(|error| panic!("[{name}]: {error}"))
}

#[test]
fn every_section_is_what_its_crate_takes() {
    let files = Files::load();
    for path in [DEPLOYED, LOCAL] {
        let mut settings = files.toml(path);
        let sharded = settings["sharded_database"].as_table_mut().unwrap();
        let pool: PoolConfig = sharded.remove("pool").unwrap().try_into().unwrap();
        pool.validate().unwrap();
        let sharded: ShardedConfig = section(&settings, "sharded_database");
        assert_eq!(sharded.shards.len(), 4, "{path}");
        let database: DatabaseConfig = section(&settings, "database");
        database.pool.unwrap().validate().unwrap();
        section::<HealthConfig>(&settings, "health").validate().unwrap();
        let cache: CacheConfig = section(&settings, "cache");
        assert!(!cache.nodes.is_empty(), "{path}");
        for (name, queue) in settings["queues"].as_table().unwrap() {
            let mut queue = queue.as_table().unwrap().clone();
            queue.insert("name".to_owned(), name.as_str().into());
            let queue: QueueConfig = toml::Value::Table(queue).try_into().unwrap();
            queue.validate().unwrap();
        }
        for batch in settings["batches"].as_table().unwrap().values() {
            let batch: BatchConfig = batch.clone().try_into().unwrap();
            batch.validate().unwrap();
        }
    }
}

/// What is mounted everywhere must hold nothing that is to be kept quiet.
#[test]
fn no_file_but_the_local_one_holds_a_password() {
    let files = Files::load();
    for path in files.paths().filter(|path| !path.contains("/local/")) {
        for (at, _) in files.text(path).match_indices("://") {
            let rest = &files.text(path)[at + 3..];
            let end = rest.find(|c: char| c.is_whitespace() || "\",;/>)`'".contains(c));
            let authority = &rest[..end.unwrap_or(rest.len())];
            if let Some((login, _)) = authority.split_once('@') {
                let password = login.split_once(':').map_or("", |it| it.1);
                let by_reference = password.is_empty() || password.starts_with(['$', '<', '…']);
                assert!(by_reference, "{path}: {authority}");
            }
        }
    }
}
