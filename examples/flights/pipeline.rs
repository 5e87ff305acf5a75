//! From the file to the shards: published in order, worked on in runs of one airport, stored in batches of one shard.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use resonant_queue::backend::Backend;
use resonant_queue::{Backoff, PartitionedQueue, RetryConfig};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::crew::Crew;
use crate::failure::{Failure, While};
use crate::flight::Flight;
use crate::home::Engines;
use crate::input::{Line, Lines, Survey};
use crate::interrupt::Interrupt;
use crate::journal::Journal;
use crate::pace::Pace;
use crate::patience::patiently;
use crate::store::Store;

const PARTITIONS: u32 = 16;
/// Flights published in one transaction.
const CHUNK: usize = 1_000;
/// The backlog the publisher waits at. It bounds the disk the queue takes.
const MAX_DEPTH: u64 = 50_000;
/// A shard may be away for so many attempts, of a second each.
const ATTEMPTS: u32 = 100;

/// The queue of flights, on whatever engine.
pub(crate) async fn queue(engine: impl Backend) -> Result<PartitionedQueue<Flight>, Failure> {
    let backoff = Backoff { max: Duration::from_secs(1), ..Backoff::default() };
    PartitionedQueue::builder("flights")
        .partitions(PARTITIONS)
        .key(|flight: &Flight| flight.origin.clone())
        .max_depth(MAX_DEPTH)
        .retry(RetryConfig { max_attempts: ATTEMPTS, backoff })
        .backend(engine)
        .build()
        .await
        .doing("opening the queue")
}

/// The way of the flights.
#[derive(Debug)]
pub(crate) struct Pipeline {
    queue: PartitionedQueue<Flight>,
    store: Arc<Store>,
    crew: Crew,
    /// What was stored before this run.
    before: u64,
    /// What had been published before it.
    published: u64,
}

impl Pipeline {
    /// A pipeline that goes on where the journal says.
    pub(crate) async fn new(
        engines: &Engines,
        crew: Crew,
        journal: &Journal,
    ) -> Result<Self, Failure> {
        let (queue, store) = (engines.queue.clone(), Arc::clone(&engines.store));
        let published = journal.published().await?;
        let before = store.count().await.doing("counting the stored flights")?;
        Ok(Self { queue, store, crew, before, published })
    }

    /// Publishes what has not been published yet and stores everything. Returns how many flights this run stored.
    pub(crate) async fn run(
        self,
        input: &Path,
        survey: &Survey,
        journal: &Journal,
        interrupt: &Interrupt,
        pace: &Pace,
        progress: impl Fn(u64),
    ) -> Result<u64, Failure> {
        let told = async {
            loop {
                match self.stored().await {
                    Ok(stored) => {
                        let stored = stored.min(survey.flights);
                        pace.stored(stored);
                        progress(stored);
                    }
                    Err(failure) => return failure,
                }
            }
        };
        let work = async {
            self.publish(input, journal, pace).await?;
            self.all_stored(survey.flights).await
        };
        let outcome = tokio::select! {
            outcome = interrupt.unless(work) => outcome,
            failure = told => Err(failure),
            failure = self.crew.failed() => Err(failure),
        };
        self.crew.drain().await?;
        outcome?;
        pace.stored(survey.flights);
        progress(survey.flights);
        Ok(survey.flights - self.before.min(survey.flights))
    }

    /// How many flights are stored, after a while.
    async fn stored(&self) -> Result<u64, Failure> {
        if let Some(here) = self.crew.stored_here() {
            sleep(Duration::from_millis(50)).await;
            return Ok(self.before + here);
        }
        let began = Instant::now();
        let stored = patiently(async || self.store.count().await).await;
        // So that counting takes a small part of the shards' time, however much they hold.
        sleep(Duration::from_millis(50).max(began.elapsed() * 5)).await;
        stored.doing("counting the stored flights")
    }

    /// Publishes the good lines after the first that were. What is published twice, because the job was killed before
    /// the journal said so or the broker's answer was lost, is stored once.
    async fn publish(&self, input: &Path, journal: &Journal, pace: &Pace) -> Result<(), Failure> {
        let mut published = self.published;
        let mut chunks = read_chunks(input.to_owned(), published);
        while let Some(chunk) = chunks.recv().await {
            let chunk = chunk?;
            pace.may_go_on_from(published).await;
            published += chunk.len() as u64;
            patiently(async || self.queue.publish_many(&chunk).await).await.doing("publishing")?;
            journal.note(published).await?;
        }
        Ok(())
    }

    async fn all_stored(&self, flights: u64) -> Result<(), Failure> {
        loop {
            let depth = patiently(async || self.queue.depth().await).await;
            let depth = depth.doing("asking the queue for its depth")?;
            if depth.parked + depth.dead > 0 {
                let stuck = format!(
                    "{} flights could not be stored and are parked in the queue",
                    depth.parked + depth.dead
                );
                return Err(Failure::Proof(stuck));
            }
            // A queue does not count what the workers of other processes hold; the shards tell then.
            let here = self.crew.stored_here().is_some();
            if depth.unfinished() == 0 && (here || self.stored().await? >= flights) {
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
