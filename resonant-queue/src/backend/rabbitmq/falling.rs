//! Delayed messages on their way out of the queue of what falls due: to their partitions, or down the ladder.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use lapin::message::Delivery;
use lapin::types::ShortString;
use tokio::time::sleep;

use super::error::Fault;
use super::names::level_for;
use super::owner::Tools;
use super::publisher::Parcel;
use super::wire::{DIED, DUE, ERROR, FAILURES, Facts, PARTITION, PUBLISHED, number, text};
use crate::clock;
use crate::error::Result;

/// The pause before what could not be sent is sent again.
const AGAIN: Duration = Duration::from_millis(200);

/// The same, if its queue is gone: somebody must make it first.
const GONE: Duration = Duration::from_secs(1);

/// Where a message goes from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Place {
    /// It has fallen due.
    Partition(u32),
    /// It has fallen due, and names no partition of the queue.
    Dead,
    /// It must wait longer, in the delay queue of this level.
    Level(u32),
}

impl Place {
    /// Where a message goes, that must wait so long.
    pub(super) fn of(tools: &Tools, delivery: &Delivery, left: u64) -> Self {
        if let Some(level) = level_for(left) {
            return Place::Level(level);
        }
        let partition = Facts(&delivery.properties).number(PARTITION);
        let partition = partition.and_then(|number| u32::try_from(number).ok());
        match partition.filter(|number| *number < tools.partitions) {
            Some(partition) => Place::Partition(partition),
            None => Place::Dead,
        }
    }

    /// Whether it is no delayed message any more once it is there.
    pub(super) fn is_last(self) -> bool {
        !matches!(self, Place::Level(_))
    }
}

/// What is not stored yet where it goes. A place that does not answer, or is not there, holds up no other.
#[derive(Default)]
pub(super) struct Falling {
    /// What was added and not sent, by place.
    fresh: BTreeMap<Place, Vec<Delivery>>,
    /// What waits behind what is on its way to the same place; there is an entry as long as something is.
    behind: HashMap<Place, Vec<Delivery>>,
    pub(super) sending: FuturesUnordered<BoxFuture<'static, Fallen>>,
    /// All that falls due.
    pub(super) count: usize,
}

/// What became of messages.
pub(super) struct Fallen {
    pub(super) place: Place,
    pub(super) deliveries: Vec<Delivery>,
    /// When they took their places.
    pub(super) outcome: std::result::Result<u64, Fault>,
}

impl Falling {
    pub(super) fn add(&mut self, place: Place, delivery: Delivery) {
        self.count += usize::from(place.is_last());
        self.fresh.entry(place).or_default().push(delivery);
    }

    /// Sends what was added, where nothing is on its way.
    pub(super) fn send(&mut self, tools: &Tools) {
        for (place, deliveries) in std::mem::take(&mut self.fresh) {
            match self.behind.entry(place) {
                Entry::Occupied(mut behind) => behind.get_mut().extend(deliveries),
                Entry::Vacant(free) => {
                    free.insert(Vec::new());
                    let sent = send(tools.clone(), place, deliveries, Duration::ZERO);
                    self.sending.push(Box::pin(sent));
                }
            }
        }
    }

    /// The same messages, after a pause.
    pub(super) fn send_again(
        &mut self,
        tools: &Tools,
        place: Place,
        deliveries: Vec<Delivery>,
        why: &Fault,
    ) {
        let pause = if matches!(why, Fault::Unroutable(_)) { GONE } else { AGAIN };
        self.sending.push(Box::pin(send(tools.clone(), place, deliveries, pause)));
    }

    /// Nothing is on its way to a place any more.
    pub(super) fn send_next(&mut self, tools: &Tools, place: Place) {
        if let Some(behind) = self.behind.remove(&place).filter(|behind| !behind.is_empty()) {
            self.fresh.insert(place, behind);
            self.send(tools);
        }
    }
}

async fn send(tools: Tools, place: Place, deliveries: Vec<Delivery>, after: Duration) -> Fallen {
    if !after.is_zero() {
        sleep(after).await;
    }
    let now = clock::now_millis();
    let parcels = deliveries.iter().map(|delivery| parcel(&tools, place, delivery, now));
    let outcome = match parcels.collect::<Result<Vec<_>>>() {
        Ok(parcels) => {
            let sent = tools.publisher.send_alone(&Arc::new(parcels)).await;
            sent.map(|()| now).map_err(|partly| partly.fault)
        }
        Err(_) => Err(Fault::Refused),
    };
    Fallen { place, deliveries, outcome }
}

fn parcel(tools: &Tools, place: Place, delivery: &Delivery, now: u64) -> Result<Parcel> {
    let facts = Facts(&delivery.properties);
    let body = Bytes::copy_from_slice(&delivery.data);
    let (queue, properties) = match place {
        Place::Level(_) => {
            // It may have waited here for others before it.
            let due = facts.number(DUE).unwrap_or_default();
            let queue = queue_for(tools, due.saturating_sub(now));
            return Ok(Parcel { queue, properties: delivery.properties.clone(), body });
        }
        Place::Partition(partition) => {
            let properties =
                facts.content(body.clone()).properties("publish", &[(PUBLISHED, number(now))]);
            (tools.names.partition(partition), properties)
        }
        Place::Dead => {
            let told = facts.number(PARTITION);
            let why = match told {
                Some(told) => {
                    format!("there is no partition {told}; there are {}", tools.partitions)
                }
                None => format!("the header {PARTITION} is missing or no number"),
            };
            let mut about = vec![
                (PUBLISHED, number(facts.published())),
                (FAILURES, number(0)),
                (ERROR, text(&why)),
                (DIED, number(now)),
            ];
            about.extend(told.map(|told| (PARTITION, number(told))));
            tracing::debug!(queue = %tools.names.due(), %why, "a delayed message becomes a dead letter");
            (tools.names.dead(), facts.content(body.clone()).properties("publish", &about))
        }
    };
    Ok(Parcel { queue, properties: properties?, body })
}

/// The queue a message waits in next, that must wait so long.
pub(super) fn queue_for(tools: &Tools, left: u64) -> ShortString {
    level_for(left).map_or_else(|| tools.names.due(), |level| tools.names.delay(level))
}
