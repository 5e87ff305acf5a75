//! `--cluster`: the same job on PostgreSQL shards, a Redis Cluster and a RabbitMQ cluster, with workers in processes of
//! their own.

mod addresses;
mod chaos;
pub(crate) mod hand;
pub(crate) mod processes;
mod servers;

use resonant_db::Database;
use tokio::sync::mpsc;

use self::addresses::Addresses;
use self::chaos::Chaos;
use self::processes::Processes;
use self::servers::Servers;
use crate::failure::{Failure, While};
use crate::home::Engines;
use crate::options::Options;
use crate::pace::Pace;

/// The clusters of a job.
#[derive(Debug)]
pub(crate) struct Cluster {
    addresses: Addresses,
    /// Those started for the job; they end with it.
    servers: Option<Servers>,
    chaos: bool,
}

impl Cluster {
    /// The clusters the options name, or some started for the job.
    pub(crate) async fn open(options: &Options) -> Result<Self, Failure> {
        if !options.shards.is_empty() {
            return Ok(Self { addresses: Addresses::given(options), servers: None, chaos: false });
        }
        let servers = Servers::start().await?;
        Ok(Self { addresses: servers.addresses(), servers: Some(servers), chaos: options.chaos })
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

    /// How far publishing goes before the first blow.
    pub(crate) fn first_limit(&self, flights: u64) -> u64 {
        if self.chaos { chaos::limit(0, flights) } else { u64::MAX }
    }

    /// Kills a worker and servers while so many flights are stored, if that was asked for.
    pub(crate) async fn chaos(
        &self,
        worker: mpsc::Sender<()>,
        pace: &Pace,
        flights: u64,
    ) -> Result<(), Failure> {
        match &self.servers {
            Some(servers) if self.chaos => Chaos { servers, worker }.reign(pace, flights).await,
            _ => Ok(()),
        }
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
