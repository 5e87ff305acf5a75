//! `--cluster`: the same job on PostgreSQL shards, a Redis Cluster and a RabbitMQ cluster, with workers in processes of
//! their own.

mod addresses;
pub(crate) mod hand;
pub(crate) mod processes;
mod servers;

use resonant_db::Database;

use self::addresses::Addresses;
use self::processes::Processes;
use self::servers::Servers;
use crate::failure::{Failure, While};
use crate::home::Engines;
use crate::options::Options;

/// The clusters of a job.
#[derive(Debug)]
pub(crate) struct Cluster {
    addresses: Addresses,
    /// Those started for the job; they end with it.
    servers: Option<Servers>,
}

impl Cluster {
    /// The clusters the options name, or some started for the job.
    pub(crate) async fn open(options: &Options) -> Result<Self, Failure> {
        if !options.shards.is_empty() {
            return Ok(Self { addresses: Addresses::given(options), servers: None });
        }
        let servers = Servers::start().await?;
        Ok(Self { addresses: servers.addresses(), servers: Some(servers) })
    }

    /// Connects to them and makes what is missing.
    pub(crate) async fn engines(&self) -> Result<Engines, Failure> {
        let store = self.addresses.store(addresses::Tables::Make).await?;
        let notes: Option<Database> = store.shards().shards().map(|(_, db)| db.clone()).last();
        let notes = notes.ok_or_else(|| Failure::Input("no shard was given".into()))?;
        let queue = self.addresses.queue(&store).await?;
        let cache = self.addresses.cache().await.doing("opening the cache")?;
        Ok(Engines { store, queue, cache, notes })
    }

    /// Starts worker processes.
    pub(crate) fn crew(&self, workers: u16) -> Result<Processes, Failure> {
        Processes::start(&self.addresses, usize::from(workers))
    }

    /// When something counts as stored.
    pub(crate) fn durability(&self) -> &'static str {
        match self.servers {
            Some(_) => {
                "shards are PostgreSQL with fsync, commits of the first wait for a replica; the queue is RabbitMQ's quorum \
                 queues on three nodes; nothing is acknowledged before it is stored"
            }
            None => {
                "as your servers are set up; nothing is acknowledged before they say it is stored"
            }
        }
    }

    /// What to do after an interruption.
    pub(crate) fn afterwards(&self) -> &'static str {
        match self.servers {
            Some(_) => "nothing is kept, because the servers were started for the job",
            None => "run again with the same servers to go on",
        }
    }
}
