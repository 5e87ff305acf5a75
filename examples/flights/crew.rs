//! Who stores: workers of this process, or processes of their own.

use resonant_queue::Worker;
use tokio::sync::mpsc;

#[cfg(feature = "cluster")]
use crate::cluster::processes::Processes;
use crate::failure::{Failure, While};
use crate::home::Engines;
use crate::worker::{CONCURRENCY, Hands};

/// All workers of the job.
#[derive(Debug)]
pub(crate) enum Crew {
    Here {
        hands: Hands,
        workers: Vec<Worker>,
    },
    #[cfg(feature = "cluster")]
    Apart(Processes),
}

impl Crew {
    /// Starts workers in this process.
    pub(crate) async fn here(engines: &Engines, workers: u16) -> Result<Self, Failure> {
        let hands = Hands::new(&engines.store)?;
        let share = CONCURRENCY.div_ceil(usize::from(workers));
        let mut started = Vec::new();
        for _ in 0..workers {
            started.push(hands.start(&engines.queue, share).await?);
        }
        Ok(Self::Here { hands, workers: started })
    }

    /// How many flights the workers of this process have stored; `None` if they are elsewhere.
    pub(crate) fn stored_here(&self) -> Option<u64> {
        match self {
            Self::Here { hands, .. } => Some(hands.stored()),
            #[cfg(feature = "cluster")]
            Self::Apart(_) => None,
        }
    }

    /// What kills a worker, where that is a process.
    pub(crate) fn kill(&self) -> Option<mpsc::Sender<()>> {
        match self {
            Self::Here { .. } => None,
            #[cfg(feature = "cluster")]
            Self::Apart(processes) => processes.kill(),
        }
    }

    /// Returns when a worker cannot go on, with the reason.
    pub(crate) async fn failed(&self) -> Failure {
        match self {
            Self::Here { .. } => std::future::pending().await,
            #[cfg(feature = "cluster")]
            Self::Apart(processes) => processes.failed().await,
        }
    }

    /// Lets them finish what they have in hand.
    pub(crate) async fn drain(self) -> Result<(), Failure> {
        match self {
            Self::Here { hands, workers } => {
                for worker in workers {
                    worker.drain().await.doing("draining a worker")?;
                }
                hands.close().await;
            }
            #[cfg(feature = "cluster")]
            Self::Apart(processes) => processes.drain().await,
        }
        Ok(())
    }
}
