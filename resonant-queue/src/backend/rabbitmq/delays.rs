//! Delayed messages, without a plugin: they walk down a ladder of queues that hold them for a fixed time each.
//!
//! A queue with one time to live for all of its messages lets them go in order, so a long wait in it never holds up a
//! short one. Each step is at most what is left to wait; the last quarter second is waited out here, in memory, by
//! whichever process of the queue reads the queue of what falls due. It then publishes the message to its partition and
//! acknowledges it after that was confirmed.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::error::Fault;
use super::falling::{Fallen, Falling, Place, queue_for};
use super::names::{Kind, PREFETCH, delay_of};
use super::owner::Tools;
use super::publisher::Parcel;
use super::wire::{Content, DUE, Facts, PARTITION, number};
use crate::clock;
use crate::error::Result;

/// Delayed messages of this process that are remembered, so that one between two queues is still counted.
const REMEMBERED: usize = 100_000;

/// For how long one is counted that no queue counts.
const MISSED: Duration = Duration::from_millis(500);

/// For how long one is counted past its time although nobody here saw it fall due.
const GRACE: u64 = 1000;

/// The delayed messages of a queue, as this process knows them.
#[derive(Debug, Default)]
pub(super) struct Delays {
    mine: Mutex<HashMap<String, u64>>,
    /// How many wait here for their last moments.
    in_hand: AtomicU64,
    /// Counts those that fell due here.
    fallen: AtomicU64,
    seen: Mutex<Option<Seen>>,
}

/// An earlier count.
#[derive(Debug, Clone, Copy)]
struct Seen {
    count: u64,
    fallen: u64,
    at: Instant,
}

impl Delays {
    /// The parcel of a delayed message, for the queue it waits in first.
    pub(super) fn parcel(
        tools: &Tools,
        content: &Content,
        partition: u32,
        due: u64,
    ) -> Result<Parcel> {
        let facts = [(PARTITION, number(u64::from(partition))), (DUE, number(due))];
        let properties = content.properties("publish", &facts)?;
        let queue = queue_for(tools, due.saturating_sub(clock::now_millis()));
        Ok(Parcel { queue, properties, body: content.body.clone() })
    }

    /// Remembers one that is about to be stored.
    pub(super) fn remember(&self, properties: &BasicProperties, due: u64) {
        let mut mine = self.mine.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = properties.message_id()
            && mine.len() < REMEMBERED
        {
            mine.insert(id.as_str().to_owned(), due);
        }
    }

    /// Forgets one that fell due or was not stored.
    pub(super) fn forget(&self, properties: &BasicProperties) {
        if let Some(id) = properties.message_id() {
            self.mine.lock().unwrap_or_else(PoisonError::into_inner).remove(id.as_str());
        }
    }

    /// How many wait, of which the broker counts so many. It does not count one on its way from a queue to the next, so
    /// one that is missed is counted a little longer.
    pub(super) fn count(&self, in_broker: u64) -> u64 {
        let fallen = self.fallen.load(Ordering::Acquire);
        let count = in_broker + self.in_hand.load(Ordering::Acquire);
        let mine = {
            let mut mine = self.mine.lock().unwrap_or_else(PoisonError::into_inner);
            let now = clock::now_millis();
            mine.retain(|_, due| due.saturating_add(GRACE) > now);
            mine.len() as u64
        };
        let now = Instant::now();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let expected = seen
            .filter(|seen| now < seen.at + MISSED)
            .map_or(0, |seen| seen.count.saturating_sub(fallen.saturating_sub(seen.fallen)));
        if count >= expected {
            *seen = Some(Seen { count, fallen, at: now });
        }
        count.max(expected).max(mine)
    }

    /// Keeps the time until told to end. `published` is told where messages fell due.
    pub(super) async fn keep(
        self: Arc<Self>,
        tools: Tools,
        end: CancellationToken,
        published: impl Fn(&[u32], u64) + Send + Sync,
    ) {
        loop {
            tokio::select! {
                () = end.cancelled() => return,
                kept = self.turn(&tools, &published) => {
                    if let Err(fault) = kept {
                        tools.doubt_if_missing(&fault);
                        tracing::debug!(error = %fault, "the clock of delayed messages begins again");
                    }
                }
            }
            tokio::select! {
                () = end.cancelled() => return,
                () = sleep(Duration::from_millis(200)) => {}
            }
        }
    }

    async fn turn(
        &self,
        tools: &Tools,
        published: &(impl Fn(&[u32], u64) + Send + Sync),
    ) -> std::result::Result<(), Fault> {
        let channel = tools.link.consuming(PREFETCH).await?;
        let queue = tools.names.due();
        let asked = channel.basic_consume(
            queue,
            ShortString::default(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let mut consumer = tools.link.answer("keeping the time", asked).await?;
        let mut waiting: BTreeMap<(u64, u64), Delivery> = BTreeMap::new();
        let mut falling = Falling::default();
        loop {
            let in_hand = waiting.len() + falling.count;
            self.in_hand.store(in_hand as u64, Ordering::Release);
            let next = waiting.first_key_value().map(|((due, _), _)| *due);
            let wake = next.map(|due| {
                Instant::now() + Duration::from_millis(due.saturating_sub(clock::now_millis()))
            });
            tokio::select! {
                delivery = consumer.next() => {
                    let Some(delivery) = delivery else { return Err(Fault::Late("what falls due")) };
                    let delivery = delivery?;
                    let due = Facts(&delivery.properties).number(DUE).unwrap_or_default();
                    let left = due.saturating_sub(clock::now_millis());
                    match Place::of(tools, &delivery, left) {
                        place @ Place::Level(_) => {
                            falling.add(place, delivery);
                            falling.send(tools);
                        }
                        _ => drop(waiting.insert((due, delivery.delivery_tag), delivery)),
                    }
                }
                Some(fallen) = falling.sending.next(), if !falling.sending.is_empty() => {
                    self.fallen(tools, &channel, &mut falling, fallen, published).await?;
                }
                () = async { match wake { Some(at) => sleep_until(at).await, None => std::future::pending().await } } => {
                    let now = clock::now_millis();
                    let later = waiting.split_off(&(now + 1, 0));
                    for delivery in std::mem::replace(&mut waiting, later).into_values() {
                        falling.add(Place::of(tools, &delivery, 0), delivery);
                    }
                    falling.send(tools);
                }
            }
        }
    }

    /// Removes what is stored where it goes. What is not is sent again; nothing else waits for that.
    async fn fallen(
        &self,
        tools: &Tools,
        channel: &Channel,
        falling: &mut Falling,
        fallen: Fallen,
        published: &(impl Fn(&[u32], u64) + Send + Sync),
    ) -> std::result::Result<(), Fault> {
        let Fallen { place, deliveries, outcome } = fallen;
        match outcome {
            Ok(at) => {
                if let Place::Partition(partition) = place {
                    published(&vec![partition; deliveries.len()], at);
                }
                if place.is_last() {
                    self.fallen.fetch_add(deliveries.len() as u64, Ordering::AcqRel);
                    falling.count -= deliveries.len();
                    deliveries.iter().for_each(|delivery| self.forget(&delivery.properties));
                }
                for delivery in deliveries {
                    channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default()).await?;
                }
                falling.send_next(tools, place);
            }
            Err(fault) => {
                // Whoever looks next makes a queue that is gone, if it is to be made.
                tools.doubt_if_missing(&fault);
                tracing::debug!(error = %fault, ?place, "what left the queue of what falls due is sent again");
                falling.send_again(tools, place, deliveries, &fault);
            }
        }
        Ok(())
    }
}

/// What a delay queue is declared with.
pub(super) fn kind(tools: &Tools, level: u32) -> Kind {
    Kind::Delay { wait: delay_of(level), then: tools.names.due() }
}
