//! What is published at once into the same place shares a transaction.

use std::sync::Arc;

use super::error::is_lock;
use super::publish::store;
use super::sharing::{Ferry, Load, Wait};
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

    const REPEATABLE: bool = false;

    const MOST: (usize, usize) = (1000, 4 << 20);

    fn size(&self) -> (usize, usize) {
        let bytes = self.messages.iter().map(|message| message.body.len()).sum();
        (self.messages.len(), bytes)
    }

    fn is_about_one(error: &Error, same: bool) -> bool {
        matches!(error.kind(), ErrorKind::Full | ErrorKind::Encoding | ErrorKind::Key)
            || (!same && is_lock(error))
    }

    fn partition(&self) -> Option<i32> {
        let first = self.messages.first()?.partition;
        let same = self.messages.iter().all(|message| message.partition == first);
        same.then(|| self.queue.id_of(first))
    }

    async fn carry(shared: &Shared, loads: &[&Self], wait: Wait) -> Result<Vec<Vec<Receipt>>> {
        // A lane is that of one queue.
        let Some(first) = loads.first() else { return Ok(Vec::new()) };
        let batches: Vec<_> = loads.iter().map(|load| Arc::clone(&load.messages)).collect();
        let mut receipts = store(shared, &first.queue, &batches, wait).await?.into_iter();
        Ok(loads.iter().map(|load| receipts.by_ref().take(load.messages.len()).collect()).collect())
    }
}

/// Lets plain batches of a queue share transactions: one at a time for each partition, and two for batches that touch
/// several, so that one that waits does not hold up all.
#[derive(Debug)]
pub(super) struct Publisher {
    lanes: Vec<Ferry<Batch>>,
}

impl Publisher {
    pub(super) fn new(partitions: u32) -> Self {
        let boats = |lane| if lane < partitions { 1 } else { 2 };
        Self { lanes: (0..=partitions).map(|lane| Ferry::new(boats(lane))).collect() }
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
