//! The same processor under each batcher.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_graphql::dataloader::{DataLoader, Loader as GraphqlLoader};
use batch_aint_one::{Batcher, BatchingPolicy, Limits, Processor};
use dataloader::BatchFn;
use dataloader::non_cached::Loader;
use resonant_batch::BatchProcessor;
use ultra_batch::{BatchExecutor, Executor};

use crate::Outcome;

/// The most items of a batch.
pub(super) const SIZE: usize = 100;
/// More than are ever queued.
pub(super) const ROOM: usize = 100_000;

/// Somebody who adds one.
pub(super) trait Adds: Clone + Send + Sync + 'static {
    fn add(&self, item: u64) -> impl Future<Output = Option<u64>> + Send;
}

pub(super) type Ours = BatchProcessor<u64, u64>;

pub(super) fn ours(wait: bool) -> Outcome<Ours> {
    let process = async move |items: Vec<u64>| {
        rest(wait).await;
        Ok::<_, std::io::Error>(items.into_iter().map(|item| item + 1).collect::<Vec<_>>())
    };
    Ok(BatchProcessor::builder(process).max_batch_size(SIZE).max_queued(ROOM).build()?)
}

impl Adds for Ours {
    async fn add(&self, item: u64) -> Option<u64> {
        self.submit(item).await.ok()
    }
}

pub(super) type AintOne = Batcher<Adder>;

pub(super) fn aint_one(wait: bool, balanced: bool) -> AintOne {
    let limits = Limits::builder().max_batch_size(SIZE).max_key_queued_items(ROOM);
    let limits = limits.max_key_concurrency(if wait { 4 } else { 10 }).build();
    let policy = if balanced {
        BatchingPolicy::Balanced { min_size_hint: SIZE / 2 }
    } else {
        BatchingPolicy::Immediate
    };
    let batcher = Batcher::builder().name("bench").processor(Adder { wait }).limits(limits);
    batcher.batching_policy(policy).build()
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Adder {
    pub(super) wait: bool,
}

impl Processor for Adder {
    type Key = u64;
    type Input = u64;
    type Output = u64;
    type Error = String;
    type Resources = ();

    async fn acquire_resources(&self, _: u64) -> Result<(), String> {
        Ok(())
    }

    async fn process(
        &self,
        _: u64,
        inputs: impl Iterator<Item = u64> + Send,
        (): (),
    ) -> Result<Vec<u64>, String> {
        rest(self.wait).await;
        Ok(inputs.map(|item| item + 1).collect())
    }
}

impl Adds for AintOne {
    async fn add(&self, item: u64) -> Option<u64> {
        Batcher::add(self, 0, item).await.ok()
    }
}

pub(super) type Load = Loader<u64, u64, Adder>;

pub(super) fn loader(wait: bool) -> Load {
    Loader::new(Adder { wait }).with_max_batch_size(SIZE)
}

impl BatchFn<u64, u64> for Adder {
    async fn load(&mut self, keys: &[u64]) -> HashMap<u64, u64> {
        rest(self.wait).await;
        keys.iter().map(|key| (*key, key + 1)).collect()
    }
}

impl Adds for Load {
    async fn add(&self, item: u64) -> Option<u64> {
        self.try_load(item).await.ok()
    }
}

pub(super) type Ultra = BatchExecutor<Adder>;

/// Without the delay it has by default, 10 ms.
pub(super) fn ultra(wait: bool) -> Ultra {
    let builder = BatchExecutor::build(Adder { wait }).delay_duration(Duration::ZERO);
    builder.eager_batch_size(Some(SIZE)).finish()
}

impl Executor for Adder {
    type Value = u64;
    type Result = u64;
    type Error = String;

    async fn execute(&self, values: Vec<u64>) -> Result<Vec<u64>, String> {
        rest(self.wait).await;
        Ok(values.into_iter().map(|value| value + 1).collect())
    }
}

impl Adds for Ultra {
    async fn add(&self, item: u64) -> Option<u64> {
        self.execute(item).await.ok().flatten()
    }
}

pub(super) type Graphql = Arc<DataLoader<Adder>>;

/// Without the delay it has by default, 1 ms.
pub(super) fn graphql(wait: bool) -> Graphql {
    let loader = DataLoader::new(Adder { wait }, tokio::spawn);
    Arc::new(loader.max_batch_size(SIZE).delay(Duration::ZERO))
}

impl GraphqlLoader<u64> for Adder {
    type Value = u64;
    type Error = String;

    async fn load(&self, keys: &[u64]) -> Result<HashMap<u64, u64>, String> {
        rest(self.wait).await;
        Ok(keys.iter().map(|key| (*key, key + 1)).collect())
    }
}

impl Adds for Graphql {
    async fn add(&self, item: u64) -> Option<u64> {
        self.load_one(item).await.ok().flatten()
    }
}

async fn rest(wait: bool) {
    if wait {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
