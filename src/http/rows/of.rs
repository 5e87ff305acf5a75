//! What the family's primitives say of themselves, as rows.
//!
//! Plain values in, plain values out: nothing here asks a server, and nothing is kept.

use resonant_common::join::{Finding, Severity};

/// The worst of what a primitive says of its own health; all is well where it says nothing.
pub fn worst(findings: &[Finding]) -> Severity {
    findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Ok)
}

#[cfg(feature = "db")]
mod db {
    use std::time::Duration;

    use resonant_common::join::Severity;
    use resonant_db::pool::PoolStatus;
    use resonant_db::{DatabaseStatus, NodeStatus, Role};

    use crate::http::rows::{Node, Pool};

    impl Pool {
        /// A pool by what [`ConnectionPool::status`](resonant_db::ConnectionPool::status) says.
        pub fn of(name: impl Into<String>, status: &PoolStatus) -> Self {
            let state = match status {
                _ if status.is_closed || status.outage.is_some() => Severity::Fail,
                _ if status.waiting > 0 => Severity::Warn,
                _ => Severity::Ok,
            };
            Self {
                name: name.into(),
                state,
                in_use: Some(status.busy.into()),
                idle: Some(status.idle.into()),
                max: Some(status.max_size.into()),
                waiting: Some(status.waiting.into()),
            }
        }

        /// The pools of a database, one a node.
        pub fn of_database(status: &DatabaseStatus) -> Vec<Self> {
            let name = |node: &NodeStatus| format!("{} {}", status.name, node.name);
            status.nodes.iter().map(|node| Self::of(name(node), &node.pool)).collect()
        }
    }

    impl Node {
        /// The nodes of a database, with their roles and how far they are behind.
        pub fn of_database(status: &DatabaseStatus) -> Vec<Self> {
            let row = |node: &NodeStatus| {
                let state = match node.role {
                    Role::Primary if node.ejected => Severity::Fail,
                    // Without it the others answer.
                    Role::Replica if node.ejected || node.held => Severity::Warn,
                    _ => Severity::Ok,
                };
                let lag = node.staleness.filter(|_| node.role == Role::Replica);
                Self {
                    name: node.name.clone(),
                    state,
                    role: Some(node.role.as_str().to_owned()),
                    lag_seconds: lag.as_ref().map(Duration::as_secs_f64),
                    region: None,
                }
            };
            status.nodes.iter().map(row).collect()
        }
    }
}

#[cfg(feature = "sharding")]
mod sharding {
    use resonant_db::ShardedDatabase;

    use super::worst;
    use crate::http::rows::Shard;

    impl Shard {
        /// The shards of a database, each as bad as the worst it says of itself.
        pub fn of_database(database: &ShardedDatabase) -> Vec<Self> {
            let whole = database.findings();
            let row = |(name, shard): (&str, &resonant_db::Database)| {
                // What is said of a shard as such stands under its name.
                let own = whole.iter().filter(|finding| finding.name == name).cloned();
                let findings: Vec<_> = shard.findings().into_iter().chain(own).collect();
                Self { name: name.to_owned(), state: worst(&findings), ..Self::default() }
            };
            database.shards().map(row).collect()
        }
    }
}

#[cfg(feature = "cache")]
mod cache {
    use resonant_cache::DistributedCache;
    use resonant_common::join::Finding;

    use super::worst;
    use crate::http::rows::CacheTier;

    impl CacheTier {
        /// The tiers of a cache: what this process holds, and the store behind it.
        pub fn of_cache(name: &str, cache: &DistributedCache) -> Vec<Self> {
            let (usage, findings) = (cache.usage(), cache.findings());
            let (store, process): (Vec<Finding>, Vec<Finding>) =
                findings.into_iter().partition(|it| {
                    it.code.starts_with("cache.store.") || it.code.starts_with("cache.journal.")
                });
            let entries = u64::try_from(usage.entries).ok();
            vec![
                Self {
                    name: format!("{name}, in the process"),
                    state: worst(&process),
                    entries,
                    bytes: Some(usage.bytes),
                    hit_ratio: None,
                },
                Self {
                    name: format!("{name}, the store"),
                    state: worst(&store),
                    ..Self::default()
                },
            ]
        }
    }
}

#[cfg(feature = "queue")]
mod queue {
    use std::time::Duration;

    use resonant_common::join::Finding;
    use resonant_queue::Depth;

    use super::worst;
    use crate::http::rows::Queue;

    impl Queue {
        /// A queue by its depth and what it says of its own health.
        pub fn of(name: impl Into<String>, depth: &Depth, findings: &[Finding]) -> Self {
            Self {
                name: name.into(),
                state: worst(findings),
                partition: None,
                depth: Some(depth.unfinished()),
                in_flight: Some(depth.in_flight),
                oldest_seconds: depth.oldest_age.as_ref().map(Duration::as_secs_f64),
                parked_keys: Some(depth.parked_keys),
                dead: Some(depth.dead),
            }
        }
    }
}

#[cfg(feature = "batch")]
mod batch {
    use resonant_batch::Stats;
    use resonant_common::join::Finding;

    use super::worst;
    use crate::http::rows::Batch;

    impl Batch {
        /// A batch processor by how full it is and what it says of its own health.
        pub fn of(name: impl Into<String>, stats: &Stats, findings: &[Finding]) -> Self {
            Self {
                name: name.into(),
                state: worst(findings),
                queued: u64::try_from(stats.queued).ok(),
                in_flight: u64::try_from(stats.in_flight).ok(),
                ..Self::default()
            }
        }
    }
}

#[cfg(feature = "ha")]
mod ha {
    use resonant_common::join::Severity;
    use resonant_ha::Status;

    use crate::http::rows::Region;

    impl Region {
        /// The regions as a failover manager sees them, in order of preference.
        pub fn of_manager(status: &Status) -> Vec<Self> {
            let row = |region: &resonant_ha::RegionStatus| {
                let primary = status.primary.as_ref() == Some(&region.region);
                let state = match (region.well, primary) {
                    (true, _) => Severity::Ok,
                    (false, true) => Severity::Fail,
                    (false, false) => Severity::Warn,
                };
                Self {
                    name: region.region.to_string(),
                    state,
                    role: Some(if primary { "primary" } else { "secondary" }.to_owned()),
                    epoch: Some(status.epoch),
                }
            };
            status.regions.iter().map(row).collect()
        }
    }
}
