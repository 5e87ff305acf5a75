//! Where the servers are, and the engines over them.

use std::sync::Arc;

use resonant_cache::DistributedCache;
use resonant_db::Database;
use resonant_queue::{PartitionedQueue, Postgres, RabbitMq};
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, While};
use crate::flight::Flight;
use crate::options::Options;
use crate::pipeline;
use crate::store::Store;
use crate::table::Table;

/// URLs of all servers. No `Debug`: they may hold passwords.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Addresses {
    /// Of each shard its primary, then its replicas.
    pub(super) shards: Vec<Vec<String>>,
    pub(super) cache: Vec<String>,
    pub(super) broker: Vec<String>,
}

impl std::fmt::Debug for Addresses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Addresses").finish_non_exhaustive()
    }
}

/// Whether tables are made where they are missing.
#[derive(Debug, Clone, Copy)]
pub(super) enum Tables {
    Make,
    AreThere,
}

impl Addresses {
    /// Those of the command line.
    pub(super) fn given(options: &Options) -> Self {
        let nodes = |shard: &String| shard.split(',').map(|url| url.trim().to_owned()).collect();
        Self {
            shards: options.shards.iter().map(nodes).collect(),
            cache: options.cache.clone(),
            broker: options.broker.clone(),
        }
    }

    /// The shards.
    pub(super) async fn store(&self, tables: Tables) -> Result<Arc<Store>, Failure> {
        let store = match tables {
            Tables::Make => Store::make(&self.shards, Table::Postgres).await?,
            Tables::AreThere => Store::open(&self.shards, Table::Postgres).await?,
        };
        Ok(Arc::new(store))
    }

    /// The queue. Its partitions are leased in the last shard.
    pub(super) async fn queue(&self, store: &Store) -> Result<PartitionedQueue<Flight>, Failure> {
        let last: Option<Database> = store.shards().shards().map(|(_, db)| db.clone()).last();
        let last = last.ok_or_else(|| Failure::Input("no shard was given".into()))?;
        let leases = Postgres::over(last).create_tables(true).await.doing("opening the leases")?;
        let broker = RabbitMq::connect(&self.broker).leases(leases.leases()).await;
        pipeline::queue(broker.doing("opening the queue")?).await
    }

    /// The cache.
    pub(super) async fn cache(&self) -> resonant_cache::Result<DistributedCache> {
        let builder = DistributedCache::builder().nodes(&self.cache).cluster_mode(true);
        builder.name("flights").connect().await
    }
}
