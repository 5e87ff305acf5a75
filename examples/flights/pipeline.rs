//! From the file to the shards: publish, work in runs of one airport, store in batches of one shard.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use resonant_batch::BatchProcessor;
use resonant_queue::{HandlerError, PartitionedQueue, Run, Sqlite, Worker};
use tokio::sync::mpsc;
use tokio::time::{interval, sleep};

use crate::failure::{Failure, While};
use crate::flight::Flight;
use crate::input::{Line, Lines, Survey};
use crate::interrupt::Interrupt;
use crate::job::GRACE;
use crate::journal::Journal;
use crate::store::Store;

const PARTITIONS: u32 = 16;
/// Flights published in one transaction.
const CHUNK: usize = 1_000;
/// Flights of one airport a worker takes at once.
const RUN: usize = 256;
/// Flights stored in one transaction.
const BATCH: usize = 1_000;
/// Runs in work at the same time, of all workers together.
const CONCURRENCY: usize = 64;
/// The backlog the publisher waits at. It bounds the disk the queue takes.
const MAX_DEPTH: u64 = 50_000;

/// The queue and the batches behind it.
#[derive(Debug)]
pub(crate) struct Pipeline {
    queue: PartitionedQueue<Flight>,
    batches: BatchProcessor<Flight, (), String>,
    store: Arc<Store>,
    workers: usize,
    stored: Arc<AtomicU64>,
}

impl Pipeline {
    /// Opens or makes the queue in `folder`.
    pub(crate) async fn open(
        folder: &Path,
        store: &Arc<Store>,
        workers: u16,
    ) -> Result<Self, Failure> {
        let engine = Sqlite::builder(folder.join("queue.db"))
            .exclusive(true)
            .open()
            .await
            .doing("opening the queue")?;
        let queue = PartitionedQueue::builder("flights")
            .partitions(PARTITIONS)
            .key(|flight: &Flight| flight.origin.clone())
            .max_depth(MAX_DEPTH)
            .backend(engine)
            .build()
            .await
            .doing("opening the queue")?;
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
        let (store, workers) = (Arc::clone(store), usize::from(workers));
        Ok(Self { queue, batches, store, workers, stored: Arc::default() })
    }

    /// The queue, to be watched.
    pub(crate) fn queue(&self) -> &PartitionedQueue<Flight> {
        &self.queue
    }

    /// Publishes what has not been published yet and stores everything. Returns how many flights this run stored.
    pub(crate) async fn run(
        &self,
        input: &Path,
        survey: &Survey,
        journal: &Journal,
        interrupt: &Interrupt,
        progress: impl Fn(u64),
    ) -> Result<u64, Failure> {
        let published = journal.published().await?;
        let backlog =
            self.queue.depth().await.doing("asking the queue for its depth")?.unfinished();
        let done_before = published.saturating_sub(backlog);
        let mut workers = Vec::new();
        for _ in 0..self.workers {
            workers.push(self.start_worker().await?);
        }
        let told = async {
            let mut ticks = interval(Duration::from_millis(50));
            loop {
                ticks.tick().await;
                progress((done_before + self.stored.load(Ordering::Relaxed)).min(survey.flights));
            }
        };
        let work = async {
            self.publish(input, published, journal).await?;
            self.all_stored().await
        };
        let outcome = tokio::select! {
            outcome = interrupt.unless(work) => outcome,
            () = told => Ok(()),
        };
        for worker in workers {
            worker.drain().await.doing("draining a worker")?;
        }
        outcome?;
        progress(survey.flights);
        Ok(self.stored.load(Ordering::Relaxed))
    }

    /// Closes queue and batches; what is still queued stays on disk.
    pub(crate) async fn close(self) {
        self.batches.drain(GRACE).await;
        self.queue.close().await;
    }

    async fn start_worker(&self) -> Result<Worker, Failure> {
        let (store, batches, stored) =
            (Arc::clone(&self.store), self.batches.clone(), Arc::clone(&self.stored));
        self.queue
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
            .concurrency(CONCURRENCY.div_ceil(self.workers))
            .start()
            .await
            .doing("starting a worker")
    }

    /// Publishes the good lines after the first `published`. What is published twice, because the job was killed before
    /// the journal said so, is stored once.
    async fn publish(
        &self,
        input: &Path,
        mut published: u64,
        journal: &Journal,
    ) -> Result<(), Failure> {
        let mut chunks = read_chunks(input.to_owned(), published);
        while let Some(chunk) = chunks.recv().await {
            let chunk = chunk?;
            self.queue.publish_many(&chunk).await.doing("publishing")?;
            published += chunk.len() as u64;
            journal.note(published).await?;
        }
        Ok(())
    }

    async fn all_stored(&self) -> Result<(), Failure> {
        loop {
            let depth = self.queue.depth().await.doing("asking the queue for its depth")?;
            if depth.parked + depth.dead > 0 {
                let stuck = format!(
                    "{} flights could not be stored and are parked in the queue",
                    depth.parked + depth.dead
                );
                return Err(Failure::Proof(stuck));
            }
            if depth.unfinished() == 0 {
                return Ok(());
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Reads the good lines after the first `skip` on a thread of its own, a few chunks ahead.
fn read_chunks(input: PathBuf, skip: u64) -> mpsc::Receiver<Result<Vec<Flight>, Failure>> {
    let (sender, receiver) = mpsc::channel(2);
    tokio::task::spawn_blocking(move || {
        let outcome = each_chunk(&input, skip, |chunk| sender.blocking_send(Ok(chunk)).is_ok());
        if let Err(failure) = outcome {
            // Nobody listens any more when the job was interrupted.
            let _ = sender.blocking_send(Err(failure));
        }
    });
    receiver
}

fn each_chunk(
    input: &Path,
    skip: u64,
    mut take: impl FnMut(Vec<Flight>) -> bool,
) -> Result<(), Failure> {
    let mut lines = Lines::open(input)?;
    let mut chunk = Vec::with_capacity(CHUNK);
    let mut number = 0;
    while let Some(line) = lines.next()? {
        let Line::Good(fields) = line else { continue };
        if number >= skip {
            chunk.push(fields.to_flight(number));
            if chunk.len() == CHUNK
                && !take(std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK)))
            {
                return Ok(());
            }
        }
        number += 1;
    }
    if !chunk.is_empty() {
        take(chunk);
    }
    Ok(())
}
