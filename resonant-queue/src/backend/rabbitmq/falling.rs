//! Delayed messages on their way to their partitions.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use lapin::message::Delivery;
use tokio::time::sleep;

use super::error::Fault;
use super::owner::Tools;
use super::publisher::Parcel;
use super::wire::{Facts, PARTITION, PUBLISHED, number};
use crate::clock;
use crate::error::Result;

/// The pause before what could not be sent is sent again.
const AGAIN: Duration = Duration::from_millis(200);

/// What fell due and is not stored yet. A partition whose queue does not answer holds up no other.
#[derive(Default)]
pub(super) struct Falling {
    /// What was added and not sent, by partition.
    fresh: BTreeMap<u32, Vec<Delivery>>,
    /// What waits behind what is on its way to the same partition; there is an entry as long as something is.
    behind: HashMap<u32, Vec<Delivery>>,
    pub(super) sending: FuturesUnordered<BoxFuture<'static, Fallen>>,
    /// All of it.
    pub(super) count: usize,
}

/// What became of messages that fell due.
pub(super) struct Fallen {
    pub(super) partition: u32,
    pub(super) deliveries: Vec<Delivery>,
    /// When they took their places.
    pub(super) outcome: std::result::Result<u64, Fault>,
}

impl Falling {
    pub(super) fn add(&mut self, delivery: Delivery) {
        let partition = Facts(&delivery.properties).number(PARTITION);
        let partition = partition.and_then(|number| u32::try_from(number).ok()).unwrap_or_default();
        self.count += 1;
        self.fresh.entry(partition).or_default().push(delivery);
    }

    /// Sends what was added, where nothing is on its way.
    pub(super) fn send(&mut self, tools: &Tools) {
        for (partition, deliveries) in std::mem::take(&mut self.fresh) {
            match self.behind.entry(partition) {
                Entry::Occupied(mut behind) => behind.get_mut().extend(deliveries),
                Entry::Vacant(free) => {
                    free.insert(Vec::new());
                    let sent = send(tools.clone(), partition, deliveries, Duration::ZERO);
                    self.sending.push(Box::pin(sent));
                }
            }
        }
    }

    /// The same messages, after a pause.
    pub(super) fn send_again(&mut self, tools: &Tools, partition: u32, deliveries: Vec<Delivery>) {
        self.sending.push(Box::pin(send(tools.clone(), partition, deliveries, AGAIN)));
    }

    /// Nothing is on its way to a partition any more.
    pub(super) fn send_next(&mut self, tools: &Tools, partition: u32) {
        if let Some(behind) = self.behind.remove(&partition).filter(|behind| !behind.is_empty()) {
            self.fresh.insert(partition, behind);
            self.send(tools);
        }
    }
}

async fn send(tools: Tools, partition: u32, deliveries: Vec<Delivery>, after: Duration) -> Fallen {
    if !after.is_zero() {
        sleep(after).await;
    }
    let now = clock::now_millis();
    let parcel = |delivery: &Delivery| {
        let content = Facts(&delivery.properties).content(Bytes::copy_from_slice(&delivery.data));
        let properties = content.properties("publish", &[(PUBLISHED, number(now))]);
        let queue = tools.names.partition(partition);
        properties.map(|properties| Parcel { queue, properties, body: content.body })
    };
    let outcome = match deliveries.iter().map(parcel).collect::<Result<Vec<_>>>() {
        Ok(parcels) => {
            let sent = tools.publisher.send_alone(&Arc::new(parcels)).await;
            sent.map(|()| now).map_err(|partly| partly.fault)
        }
        Err(_) => Err(Fault::Refused),
    };
    Fallen { partition, deliveries, outcome }
}
