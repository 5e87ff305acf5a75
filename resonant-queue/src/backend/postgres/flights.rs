//! What is published at once into the same place shares a transaction.

use std::sync::Arc;

use super::publish::store;
use super::sharing::{Ferry, Load};
use super::store::{Queue, Shared};
use crate::error::{Error, ErrorKind, Result, closed};
use crate::message::{Outgoing, Receipt};

/// A plain batch for a queue.
#[derive(Debug)]
struct Batch {
    queue: Queue,
    messages: Arc<Vec<Outgoing>>,
}

impl Load for Batch {
    type Answer = Vec<Receipt>;

    const OPERATION: &'static str = "publish";

    const MOST: (usize, usize) = (1000, 4 << 20);

    fn size(&self) -> (usize, usize) {
        let bytes = self.messages.iter().map(|message| message.body.len()).sum();
        (self.messages.len(), bytes)
    }

    async fn carry(shared: &Shared, loads: &[&Self]) -> Result<Vec<Vec<Receipt>>> {
        // A lane is that of one queue.
        let Some(first) = loads.first() else { return Ok(Vec::new()) };
        let batches: Vec<_> = loads.iter().map(|load| Arc::clone(&load.messages)).collect();
        let mut receipts = store(shared, &first.queue, &batches).await?.into_iter();
        Ok(loads.iter().map(|load| receipts.by_ref().take(load.messages.len()).collect()).collect())
    }

    fn is_about_one(error: &Error) -> bool {
        matches!(error.kind(), ErrorKind::Full | ErrorKind::Encoding | ErrorKind::Key)
    }
}

/// Lets plain batches of a queue share transactions: one at a time for each partition, and one for batches that touch
/// several.
#[derive(Debug)]
pub(super) struct Publisher {
    lanes: Vec<Ferry<Batch>>,
}

impl Publisher {
    pub(super) fn new(partitions: u32) -> Self {
        Self { lanes: (0..=partitions).map(|_| Ferry::new(1)).collect() }
    }

    pub(super) async fn publish(
        &self,
        shared: &Arc<Shared>,
        queue: &Queue,
        messages: Arc<Vec<Outgoing>>,
    ) -> Result<Vec<Receipt>> {
        let lane = self.lane_of(&messages).ok_or_else(|| closed("publish"))?;
        lane.carry(shared, Batch { queue: queue.clone(), messages }).await
    }

    fn lane_of(&self, batch: &[Outgoing]) -> Option<&Ferry<Batch>> {
        let first = batch.first()?.partition;
        if batch.iter().all(|message| message.partition == first) {
            self.lanes.get(first as usize)
        } else {
            self.lanes.last()
        }
    }
}
