//! What comes over an owner's channel, and what its consumers are.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, SelectAll, Stream};
use futures::{FutureExt, StreamExt};
use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, QueueDeleteOptions,
};
use lapin::types::{FieldTable, ShortString};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::TaskTracker;

use super::control::Record;
use super::error::Fault;
use super::link::Link;
use super::names::Kind;
use super::opening::{Arrival, Identity, Placed, Source};
use super::owner::{Owner, Tools};
use super::publisher::Parcel;
use super::wire::{Content, Facts, KEY, MARKER, fresh_id, text};
use crate::key::Key;

/// What came out of a consumer.
pub(super) enum Event {
    Delivery(Source, Box<Delivery>),
    Ended(Source),
}

/// The consumers of an owner's channel. The driver cancels one that is dropped, and for that the broker lets the next owner
/// begin, behind what this channel still holds: so the channel is closed before them, whatever ends it.
pub(super) struct Events {
    channel: Channel,
    /// Closing is one of these.
    tasks: TaskTracker,
    streams: SelectAll<Pin<Box<dyn Stream<Item = Event> + Send>>>,
}

impl Events {
    pub(super) fn new(channel: &Channel, tasks: &TaskTracker) -> Self {
        Self { channel: channel.clone(), tasks: tasks.clone(), streams: SelectAll::new() }
    }

    /// Begins to consume; the tag is the queue's name.
    pub(super) async fn consume(
        &mut self,
        link: &Link,
        queue: ShortString,
        source: Source,
    ) -> Result<(), Fault> {
        let (options, table) = (BasicConsumeOptions::default(), FieldTable::default());
        let asked = self.channel.basic_consume(queue.clone(), queue, options, table);
        let consumer = link.answer("beginning to consume", asked).await?;
        let (of, end) = (source.clone(), source);
        let deliveries = consumer.map(move |delivery| match delivery {
            Ok(delivery) => Event::Delivery(of.clone(), Box::new(delivery)),
            Err(_) => Event::Ended(of.clone()),
        });
        let ended = stream::once(async move { Event::Ended(end) });
        self.streams.push(Box::pin(deliveries.chain(ended)));
        Ok(())
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let (channel, streams) = (self.channel.clone(), std::mem::take(&mut self.streams));
        if !channel.status().connected() {
            return;
        }
        let closing = async move {
            let _ = timeout(Duration::from_secs(1), channel.close(200, "gone".into())).await;
            drop(streams);
        };
        // Without a runtime the connection ends, too.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            drop(self.tasks.spawn_on(closing, &runtime));
        }
    }
}

/// Why a channel is no longer used.
pub(super) enum Lost {
    Fault(Fault),
    Fenced(u64),
    Ended,
}

impl From<Fault> for Lost {
    fn from(fault: Fault) -> Self {
        Lost::Fault(fault)
    }
}

impl Owner {
    pub(super) async fn receive(
        &self,
        channel: &Channel,
        events: &mut Events,
        asked: &mut mpsc::Receiver<oneshot::Sender<u64>>,
    ) -> Lost {
        let received = async {
            let mut changes = self.tools.log.changes();
            loop {
                tokio::select! {
                    biased;
                    () = self.end.cancelled() => return Err(Lost::Ended),
                    event = events.streams.next() => match event {
                        Some(event) => self.event(channel, event).await?,
                        None => return Err(Fault::Late("a consumer").into()),
                    },
                    _ = changes.changed() => {
                        self.not_fenced()?;
                        let resuming = self.tools.log.look(|control| control.keys(self.partition, true));
                        for key in resuming {
                            let known = self.state().replays(&key);
                            if !known {
                                self.replay(channel, events, key).await?;
                            }
                        }
                    }
                    () = self.cycle.notified() => return Err(Fault::Late("a key parked again").into()),
                    () = self.tidy.notified() => self.tidy_up(channel).await?,
                    Some(ask) = asked.recv() => {
                        let ready = self.ready(channel, events).await?;
                        let _ = ask.send(ready);
                    }
                }
            }
        };
        match received.await {
            Ok(never) => never,
            Err(lost) => lost,
        }
    }

    async fn event(&self, channel: &Channel, event: Event) -> Result<(), Lost> {
        match event {
            Event::Ended(Source::Parked(key)) if !self.state().replays(&key) => Ok(()),
            Event::Ended(_) => Err(Fault::Late("a consumer that ended").into()),
            Event::Delivery(source, delivery) => {
                let tag = delivery.delivery_tag;
                let facts = Facts(&delivery.properties);
                let placed = if let Some(marker) = facts.text(MARKER) {
                    if let Source::Parked(key) = &source {
                        self.state().marked(key, &marker);
                        self.tidy.notify_one();
                    }
                    Placed::Acknowledge
                } else {
                    let arrival = arrival(source, *delivery);
                    self.state().arrived(arrival)
                };
                self.ring();
                if placed == Placed::Acknowledge {
                    let acked = channel.basic_ack(tag, BasicAckOptions::default()).await;
                    acked.map_err(Fault::from)?;
                }
                Ok(())
            }
        }
    }

    /// Takes what has arrived, without waiting.
    pub(super) async fn take_all(
        &self,
        channel: &Channel,
        events: &mut Events,
    ) -> Result<(), Lost> {
        while let Some(Some(event)) = events.streams.next().now_or_never() {
            self.event(channel, event).await?;
        }
        Ok(())
    }

    /// Begins to give what was put aside for a key.
    pub(super) async fn replay(
        &self,
        channel: &Channel,
        events: &mut Events,
        key: Key,
    ) -> Result<(), Lost> {
        let _moving = self.settling.lock().await;
        let Tools { names, link, publisher, .. } = &self.tools;
        let queue = names.parked(self.partition, &key);
        link.declare(channel, queue.clone(), &Kind::Messages).await?;
        let marker = fresh_id();
        let content = Content { key: None, headers: None, body: Bytes::new() };
        let facts = [(MARKER, text(&marker)), (KEY, text(&key))];
        let properties = content.properties("open", &facts).unwrap_or_default();
        let parcel = Parcel { queue: queue.clone(), properties, body: Bytes::new() };
        publisher.send_one(parcel).await.map_err(|partly| partly.fault)?;
        let parked = self.parked_keys().remove(&key);
        self.state().replay(&key, marker, parked);
        self.ring();
        events.consume(link, queue, Source::Parked(key)).await?;
        Ok(())
    }

    /// Removes the queues of keys whose put aside messages have all been handled.
    async fn tidy_up(&self, channel: &Channel) -> Result<(), Lost> {
        let _moving = self.settling.lock().await;
        let keys = self.state().drained();
        for key in keys {
            let Tools { names, link, log, .. } = &self.tools;
            let queue = names.parked(self.partition, &key);
            let drained = Record::Drained { partition: self.partition, key: key.to_string() };
            self.state().forget_replay(&key);
            let cancel = channel.basic_cancel(queue.clone(), BasicCancelOptions::default());
            link.answer("ending a consumer", cancel).await?;
            let delete = channel.queue_delete(queue, QueueDeleteOptions::default());
            link.answer("deleting a queue", delete).await?;
            log.append(&drained).await.map_err(|partly| partly.fault)?;
        }
        Ok(())
    }

    /// How many of its messages the broker has not delivered. What is on its way counts as here.
    async fn ready(&self, channel: &Channel, events: &mut Events) -> Result<u64, Lost> {
        let Tools { names, link, log, .. } = &self.tools;
        let mut ready = link.count(channel, names.partition(self.partition)).await?;
        let mut replaying = self.state().replaying();
        // Those that were resumed a moment ago count, too.
        replaying.extend(log.look(|control| control.keys(self.partition, true)));
        replaying.sort();
        replaying.dedup();
        for key in replaying {
            let queue = names.parked(self.partition, &key);
            ready += link.declare(channel, queue, &Kind::Messages).await?;
        }
        self.flush(channel).await?;
        self.take_all(channel, events).await?;
        Ok(ready)
    }
}

fn arrival(source: Source, delivery: Delivery) -> Arrival {
    let facts = Facts(&delivery.properties);
    let content = facts.content(Bytes::from(delivery.data));
    let identity = match delivery.properties.message_id() {
        Some(number) => Identity::Number(number.as_str().to_owned()),
        None => Identity::Content(content.key.clone(), content.body.clone()),
    };
    let published = facts.published();
    Arrival { source, identity, tag: delivery.delivery_tag, content, published }
}

/// Waits until a queue has applied the acknowledgements of a channel. The broker passes on some thirty of a channel at once, keeps
/// the others until it hears that those were applied, and forgets them when the channel is closed. A second consumer,
/// which has to wait, is asked of the queue itself, behind what was passed on: when it goes and comes again, nothing is
/// kept any more.
pub(super) async fn settled(
    link: &Link,
    channel: &Channel,
    queue: &ShortString,
) -> Result<(), Fault> {
    let tag = || ShortString::from("settled");
    for _ in 0..2 {
        let options = BasicConsumeOptions::default();
        let asked = channel.basic_consume(queue.clone(), tag(), options, FieldTable::default());
        let _consumer = link.answer("applying acknowledgements", asked).await?;
        let cancel = channel.basic_cancel(tag(), BasicCancelOptions::default());
        link.answer("applying acknowledgements", cancel).await?;
    }
    Ok(())
}

/// Waits for a while until a queue counts so many messages: what a closed channel held comes back a moment after it.
pub(super) async fn returned(
    link: &Link,
    queue: ShortString,
    count: u64,
    within: Duration,
) -> Result<(), Fault> {
    if count == 0 {
        return Ok(());
    }
    let channel = link.channel().await?;
    let until = Instant::now() + within;
    while link.count(&channel, queue.clone()).await? < count && Instant::now() < until {
        sleep(Duration::from_millis(5)).await;
    }
    let _ = timeout(Duration::from_secs(1), channel.close(200, "done".into())).await;
    Ok(())
}
