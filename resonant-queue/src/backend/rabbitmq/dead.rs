//! Dead letters: a queue of its own, of which a window is taken and given back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Consumer};
use tokio::time::{Instant, timeout, timeout_at};

use super::error::{Fault, Partly};
use super::link::Link;
use super::names::PREFETCH;
use super::owner::Tools;
use super::publisher::Parcel;
use super::receiving::{returned, settled};
use super::wire::{Content, DIED, ERROR, FAILURES, Facts, PARTITION, PUBLISHED, SEQUENCE, number};
use crate::clock;
use crate::depth::DeadLetter;

/// How long another who holds the dead letters is waited for.
const TURN: Duration = Duration::from_secs(10);

/// How long what is left is waited for, once it was given back. Somebody else may have removed it.
const BACK: Duration = Duration::from_secs(5);

/// The first dead letters, held until it is closed.
struct Window<'a> {
    link: &'a Link,
    queue: ShortString,
    channel: Channel,
    letters: Vec<Delivery>,
    /// How many there are, those that did not fit included.
    total: u64,
    /// Kept until the channel is closed: dropped before, it would let the next one begin behind these.
    consumer: Option<Consumer>,
}

impl<'a> Window<'a> {
    /// Takes up to [`PREFETCH`] dead letters. Always as many as there are, so that what is given back keeps its order.
    async fn take(tools: &'a Tools) -> Result<Self, Fault> {
        let (link, queue) = (&*tools.link, tools.names.dead());
        let channel = link.consuming(PREFETCH).await?;
        let count = link.count(&channel, queue.clone()).await?;
        let expected = count.min(u64::from(PREFETCH));
        let (letters, consumer, total) = (Vec::new(), None, count);
        let mut window = Self { link, queue, channel, letters, total, consumer };
        if expected == 0 {
            return Ok(window);
        }
        let asked = window.channel.basic_consume(
            window.queue.clone(),
            ShortString::default(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let consumer = link.answer("looking at dead letters", asked).await?;
        let consumer = window.consumer.insert(consumer);
        let by = Instant::now() + TURN;
        while (window.letters.len() as u64) < expected {
            match timeout_at(by, consumer.next()).await {
                Ok(Some(letter)) => window.letters.push(letter?),
                Ok(None) => return Err(Fault::Late("the dead letters")),
                // Somebody else holds them, or has removed some.
                Err(_) => {
                    window.total = window.letters.len() as u64;
                    break;
                }
            }
        }
        Ok(window)
    }

    /// Removes the first so many for good, and gives the others back.
    async fn close(self, removed: usize) -> Result<(), Fault> {
        let removed = removed.min(self.letters.len());
        self.close_without((0..removed).collect()).await
    }

    /// Removes those at these places for good, and gives the others back. What was acknowledged does not come again, as
    /// the queue has applied it before the channel is closed.
    async fn close_without(self, mut removed: Vec<usize>) -> Result<(), Fault> {
        removed.sort_unstable();
        // Once some are removed others are delivered, and they come back with the channel, too.
        let left = self.total.saturating_sub(removed.len() as u64);
        let prefix = removed.iter().enumerate().take_while(|(at, place)| at == *place).count();
        let tag = |place: usize| self.letters.get(place).map(|letter| letter.delivery_tag);
        if let Some(tag) = prefix.checked_sub(1).and_then(tag) {
            self.channel.basic_ack(tag, BasicAckOptions { multiple: true }).await?;
        }
        for tag in removed[prefix..].iter().copied().filter_map(tag) {
            self.channel.basic_ack(tag, BasicAckOptions::default()).await?;
        }
        if !removed.is_empty() {
            settled(self.link, &self.channel, &self.queue).await?;
        }
        let asked = self.channel.close(200, "done".into());
        let closed = timeout(Duration::from_secs(2), asked).await;
        closed.map_err(|_| Fault::Late("closing a channel"))??;
        returned(self.link, self.queue, left, BACK).await
    }
}

/// Something after some of it was done already.
fn after(moved: usize) -> impl Fn(Fault) -> Partly {
    move |fault| Partly { fault, may_have_applied: moved > 0 }
}

impl Tools {
    /// The oldest dead letters.
    pub(super) async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, Fault> {
        let window = Window::take(self).await?;
        let letters = window.letters.iter().take(limit).map(letter).collect();
        window.close(0).await?;
        Ok(letters)
    }

    /// Publishes up to `limit` of them anew. `published` is told of each batch. A partition whose queue does not answer
    /// keeps its dead letters and fails the call; those of the others are moved all the same.
    pub(super) async fn redrive(
        &self,
        limit: usize,
        mut published: impl FnMut(&[u32], u64),
    ) -> Result<u64, Partly> {
        let mut moved = 0;
        while moved < limit {
            let window = Window::take(self).await.map_err(after(moved))?;
            let count = window.letters.len().min(limit - moved);
            let now = clock::now_millis();
            let mut groups: BTreeMap<u32, (Vec<usize>, Vec<Parcel>)> = BTreeMap::new();
            for (place, letter) in window.letters[..count].iter().enumerate() {
                let facts = Facts(&letter.properties);
                let content = facts.content(Bytes::copy_from_slice(&letter.data));
                let partition = self.partition_for(&facts, &content);
                let properties = content
                    .properties("redrive", &[(PUBLISHED, number(now))])
                    .map_err(|_| after(moved)(Fault::Refused))?;
                let queue = self.names.partition(partition);
                let (places, parcels) = groups.entry(partition).or_default();
                places.push(place);
                parcels.push(Parcel { queue, properties, body: content.body });
            }
            let sent = join_all(groups.into_iter().map(async |(partition, (places, parcels))| {
                (partition, places, self.publisher.send_alone(&Arc::new(parcels)).await)
            }));
            let (mut gone, mut failed) = (Vec::new(), None);
            for (partition, places, outcome) in sent.await {
                match outcome {
                    Ok(()) => {
                        published(&vec![partition; places.len()], now);
                        gone.extend(places);
                    }
                    Err(partly) => drop(failed.get_or_insert(partly)),
                }
            }
            moved += gone.len();
            window.close_without(gone).await.map_err(after(moved))?;
            if let Some(mut partly) = failed {
                partly.may_have_applied |= moved > 0;
                return Err(partly);
            }
            if count == 0 {
                break;
            }
        }
        Ok(moved as u64)
    }

    /// Removes up to `limit` of them.
    pub(super) async fn purge(&self, limit: usize) -> Result<u64, Partly> {
        let mut removed = 0;
        while removed < limit {
            let window = Window::take(self).await.map_err(after(removed))?;
            let count = window.letters.len().min(limit - removed);
            removed += count;
            window.close(count).await.map_err(after(removed))?;
            if count == 0 {
                break;
            }
        }
        Ok(removed as u64)
    }

    /// Where a dead letter goes: to the partition it was of, or to that of its key if it was of none.
    fn partition_for(&self, facts: &Facts<'_>, content: &Content) -> u32 {
        let told = facts.number(PARTITION).and_then(|number| u32::try_from(number).ok());
        let of_key = || content.key.as_ref().map(|key| key.partition(self.partitions));
        told.filter(|told| *told < self.partitions).or_else(of_key).unwrap_or_default()
    }
}

fn partition_of(facts: &Facts<'_>) -> u32 {
    facts.number(PARTITION).and_then(|number| u32::try_from(number).ok()).unwrap_or_default()
}

fn letter(letter: &Delivery) -> DeadLetter {
    let facts = Facts(&letter.properties);
    let content = facts.content(Bytes::copy_from_slice(&letter.data));
    let failures = facts.number(FAILURES).and_then(|number| u32::try_from(number).ok());
    DeadLetter {
        key: content.key,
        partition: partition_of(&facts),
        sequence: facts.number(SEQUENCE).unwrap_or_default(),
        failures: failures.unwrap_or_default(),
        published_at: clock::time(facts.published()),
        died_at: clock::time(facts.number(DIED).unwrap_or_default()),
        error: facts.text(ERROR).unwrap_or_default(),
        body: content.body,
    }
}
