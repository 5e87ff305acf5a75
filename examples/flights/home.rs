//! Where the job runs: on engines embedded in this process, which keep their files in a folder, or on clusters.

use std::sync::Arc;

use resonant_cache::DistributedCache;
use resonant_db::Database;
use resonant_queue::PartitionedQueue;
use tokio::sync::mpsc;
use tokio::time::Instant;

#[cfg(feature = "cluster")]
use crate::cluster::Cluster;
use crate::crew::Crew;
use crate::failure::Failure;
use crate::flight::Flight;
use crate::folder::Folder;
use crate::options::Options;
use crate::pace::Pace;
use crate::store::Store;
use crate::{embedded, job::GRACE};

/// Where the job runs.
#[derive(Debug)]
pub(crate) enum Home {
    Folder(Folder),
    #[cfg(feature = "cluster")]
    Cluster(Box<Cluster>),
}

/// What the job runs on, the same types whatever is behind them.
#[derive(Debug)]
pub(crate) struct Engines {
    pub(crate) store: Arc<Store>,
    pub(crate) queue: PartitionedQueue<Flight>,
    pub(crate) cache: DistributedCache,
    /// Holds the journal.
    pub(crate) notes: Database,
}

impl Home {
    /// The folder or the clusters the options ask for. Starts servers if it has to.
    pub(crate) async fn open(options: &Options) -> Result<Self, Failure> {
        if !options.cluster {
            return Folder::open(options.data_dir.as_deref()).map(Self::Folder);
        }
        #[cfg(feature = "cluster")]
        return Cluster::open(options).await.map(Box::new).map(Self::Cluster);
        #[cfg(not(feature = "cluster"))]
        Err(Failure::Input(
            "--cluster takes the feature `cluster`: cargo run --release -p resonant-examples --features cluster \
             --example flights -- --cluster"
                .into(),
        ))
    }

    /// Opens the engines.
    pub(crate) async fn engines(&self) -> Result<Engines, Failure> {
        match self {
            Self::Folder(folder) => embedded::open(folder.path()).await,
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.engines().await,
        }
    }

    /// Who stores.
    pub(crate) async fn crew(&self, engines: &Engines, workers: u16) -> Result<Crew, Failure> {
        match self {
            Self::Folder(_) => Crew::here(engines, workers).await,
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.crew(workers).map(Crew::Apart),
        }
    }

    /// How far publishing goes before the first thing happens beside the work.
    #[cfg_attr(
        not(feature = "cluster"),
        expect(unused_variables, reason = "nothing happens beside the embedded form")
    )]
    pub(crate) fn first_limit(&self, flights: u64) -> u64 {
        match self {
            Self::Folder(_) => u64::MAX,
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.first_limit(flights),
        }
    }

    /// Kills servers and a worker while so many flights are stored, if the options ask for it.
    #[cfg_attr(
        not(feature = "cluster"),
        expect(unused_variables, reason = "nothing happens beside the embedded form")
    )]
    pub(crate) async fn chaos(
        &self,
        kill: Option<mpsc::Sender<()>>,
        pace: &Pace,
        flights: u64,
    ) -> Result<(), Failure> {
        match (self, kill) {
            #[cfg(feature = "cluster")]
            (Self::Cluster(cluster), Some(kill)) => cluster.chaos(kill, pace, flights).await,
            _ => Ok(()),
        }
    }

    /// Whether somebody looks at the board while it changes.
    pub(crate) fn has_visitors(&self) -> bool {
        !matches!(self, Self::Folder(_))
    }

    /// When something counts as stored, for the result.
    pub(crate) fn durability(&self) -> &'static str {
        match self {
            Self::Folder(_) => embedded::DURABILITY,
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.durability(),
        }
    }

    /// When the time begins that flights per second are of: servers that are started for the job are no part of it.
    pub(crate) fn opened(&self, started: Instant) -> Instant {
        match self {
            Self::Folder(_) => started,
            #[cfg(feature = "cluster")]
            Self::Cluster(_) => Instant::now(),
        }
    }

    /// What to do after an interruption.
    pub(crate) fn afterwards(&self) -> &'static str {
        match self {
            Self::Folder(folder) => folder.afterwards(),
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.afterwards(),
        }
    }
}

impl Engines {
    /// Closes them; what is still queued stays where it is.
    pub(crate) async fn close(self) {
        self.queue.close().await;
        self.cache.close().await;
        // Where it is one of the shards it is closed twice, which is allowed.
        let _ = self.notes.close(GRACE).await;
        self.store.close().await;
    }
}
