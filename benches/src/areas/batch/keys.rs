//! What an item costs while many other keys have items queued.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use batch_aint_one::{Batcher, BatchingPolicy, Limits, OnFull};
use resonant_batch::{BatchProcessor, Policy};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::contenders::{Adder, AintOne, ROOM, SIZE};
use crate::Outcome;
use crate::harness::{Case, now, pause};
use crate::report::Report;

/// Twice the size of a batch, so that the hot key always has a full one.
const SUBMITTERS: u64 = 2 * SIZE as u64;
const KEYS: u64 = 10_000;
const ALONE: &str = "BatchProcessor, 1 key";
/// Longer than the bench: a batch goes when it is full.
const LONG: Duration = Duration::from_secs(3600);
const SLICE: Duration = Duration::from_millis(60);

pub(super) fn run(runtime: &Runtime, report: &mut Report) -> Outcome {
    let (alone, among_many) = (Ours::open(runtime, 0)?, Ours::open(runtime, KEYS)?);
    let peer = Peer::open(runtime, KEYS);
    Case::new("batch.keys.vs_best_peer", "one busy key among 10,000 with an item queued", "items")
        .goal(1.5)
        .run("BatchProcessor", || Ok(busy(runtime, &among_many)))
        .run("batch-aint-one", || Ok(busy(runtime, &peer)))
        .measure(report)?;
    Case::new("batch.keys.10000_vs_1", "the same against a busy key alone", "items")
        .goal_against(ALONE, 0.67)
        .run("BatchProcessor, 10,000 keys", || Ok(busy(runtime, &among_many)))
        .run(ALONE, || Ok(busy(runtime, &alone)))
        .measure(report)
}

trait AddsByKey: Clone + Send + Sync + 'static {
    fn add(&self, key: u64, item: u64) -> impl Future<Output = Option<u64>> + Send;
}

/// Items a second of the busy key. Submitters are aborted at the end, as their last batch never fills.
fn busy(runtime: &Runtime, batcher: &impl AddsByKey) -> f64 {
    let done = Arc::new(AtomicU64::new(0));
    let submit = |task: u64| {
        let (batcher, done) = (batcher.clone(), Arc::clone(&done));
        runtime.spawn(async move {
            let mut item = task << 32;
            loop {
                if batcher.add(0, item).await == Some(item + 1) {
                    done.fetch_add(1, Ordering::Relaxed);
                }
                item += 1;
            }
        })
    };
    let submitters: Vec<JoinHandle<()>> = (0..SUBMITTERS).map(submit).collect();
    pause(SLICE / 4);
    let (before, started) = (done.load(Ordering::Relaxed), now());
    pause(SLICE);
    let items = done.load(Ordering::Relaxed) - before;
    let rate = items as f64 / started.elapsed().as_secs_f64();
    submitters.iter().for_each(JoinHandle::abort);
    runtime.block_on(async {
        for submitter in submitters {
            let _ = submitter.await;
        }
    });
    rate
}

/// Queues an item for each of the other keys, for ever.
fn occupy(runtime: &Runtime, keys: u64, batcher: &impl AddsByKey) {
    for key in 1..=keys {
        let batcher = batcher.clone();
        runtime.spawn(async move { batcher.add(key, key).await });
    }
    // Long enough for all of them to be queued, before anything is measured.
    pause(Duration::from_millis(300));
}

#[derive(Debug, Clone)]
struct Ours(BatchProcessor<u64, u64, u64>);

impl Ours {
    fn open(runtime: &Runtime, keys: u64) -> Outcome<Self> {
        let process = async move |_: u64, items: Vec<u64>| {
            Ok::<_, std::io::Error>(items.into_iter().map(|item| item + 1).collect::<Vec<_>>())
        };
        let builder = BatchProcessor::keyed(process).max_batch_size(SIZE).max_queued(ROOM);
        let ours = Self(builder.policy(Policy::Fixed).max_wait_time(LONG).build()?);
        occupy(runtime, keys, &ours);
        Ok(ours)
    }
}

impl AddsByKey for Ours {
    async fn add(&self, key: u64, item: u64) -> Option<u64> {
        self.0.with_key(key).submit(item).await.ok()
    }
}

#[derive(Debug, Clone)]
struct Peer(AintOne);

impl Peer {
    fn open(runtime: &Runtime, keys: u64) -> Self {
        let limits = Limits::builder().max_batch_size(SIZE).max_key_queued_items(ROOM).build();
        let batcher = Batcher::builder().name("bench").processor(Adder { wait: false });
        let policy = BatchingPolicy::Duration(LONG, OnFull::Process);
        let peer = Self(batcher.limits(limits).batching_policy(policy).build());
        occupy(runtime, keys, &peer);
        peer
    }
}

impl AddsByKey for Peer {
    async fn add(&self, key: u64, item: u64) -> Option<u64> {
        Batcher::add(&self.0, key, item).await.ok()
    }
}
