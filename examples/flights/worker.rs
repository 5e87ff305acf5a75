//! What a worker does: takes runs of one airport from the queue and stores them in batches of one shard.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use resonant_batch::BatchProcessor;
use resonant_queue::{HandlerError, PartitionedQueue, Run, Worker};

use crate::failure::{Failure, While};
use crate::flight::Flight;
use crate::job::GRACE;
use crate::store::Store;

/// Flights of one airport a worker takes at once.
const RUN: usize = 256;
/// Flights stored in one transaction.
const BATCH: usize = 1_000;
/// Runs in work at the same time, of all workers together.
pub(crate) const CONCURRENCY: usize = 64;

/// The batches the workers of a process share.
#[derive(Debug)]
pub(crate) struct Hands {
    store: Arc<Store>,
    batches: BatchProcessor<Flight, (), String>,
    stored: Arc<AtomicU64>,
}

impl Hands {
    /// Hands that store.
    pub(crate) fn new(store: &Arc<Store>) -> Result<Self, Failure> {
        let batches = BatchProcessor::keyed({
            let store = Arc::clone(store);
            async move |_shard: String, flights: Vec<Flight>| store.insert(flights).await
        })
        .name("store")
        .max_batch_size(BATCH)
        .max_in_flight_per_key(1)
        .max_queued(CONCURRENCY * RUN)
        .build()
        .doing("making the batch processor")?;
        Ok(Self { store: Arc::clone(store), batches, stored: Arc::default() })
    }

    /// Starts a worker that has so many runs in work at the same time.
    pub(crate) async fn start(
        &self,
        queue: &PartitionedQueue<Flight>,
        concurrency: usize,
    ) -> Result<Worker, Failure> {
        let (store, batches, stored) =
            (Arc::clone(&self.store), self.batches.clone(), Arc::clone(&self.stored));
        queue
            .worker_runs(RUN, async move |run: Run<Flight>| {
                let shard = store.shard_for(run.key().unwrap_or_default())?;
                let flights = run.into_iter().map(resonant_queue::Delivery::into_message);
                let results = batches.with_key(shard).submit_many(flights).await;
                stored.fetch_add(
                    results.iter().filter(|result| result.is_ok()).count() as u64,
                    Ordering::Relaxed,
                );
                results.into_iter().collect::<Result<(), _>>()?;
                Ok::<(), HandlerError>(())
            })
            .concurrency(concurrency)
            .start()
            .await
            .doing("starting a worker")
    }

    /// How many flights have been stored.
    pub(crate) fn stored(&self) -> u64 {
        self.stored.load(Ordering::Relaxed)
    }

    /// Closes the batches.
    pub(crate) async fn close(&self) {
        self.batches.drain(GRACE).await;
    }
}
