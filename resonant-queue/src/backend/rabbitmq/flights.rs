//! Carries what is published to the broker.
//!
//! What is published at once flies together: a flight takes all that waits, as far as it fits, writes it on a channel it has
//! for itself, and answers each who asked as soon as the broker has answered for theirs. Several are on their way at once, so
//! that the broker has work while it syncs what the others brought.
//!
//! No two flights share a channel. The driver numbers a message and writes it in two steps, so that of two who publish
//! on a channel at once each may get the confirm of the other; and it hands a message that came back to any of those that
//! were confirmed together. Within a flight neither matters: one task writes, and what came back is told by its queue.
//!
//! A queue that does not answer, as one that has lost its majority, holds up none of the others: a flight that waits for such
//! a one leaves its place to the next flight, and nothing more is sent to that queue before it has answered or the flight has
//! given up. Except one publish now and then, which goes over another channel and finds out whether it is the queue that
//! hangs, or only the channel.

use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{Channel, Confirmation, Connection, PublisherConfirm};
use tokio::time::{Instant, sleep, timeout_at};

use super::error::{Fault, Partly};
use super::heard::Heard;
use super::publisher::{Ask, FLIGHT, FLIGHT_WEIGHT, Parcel, Publisher};

/// How long a flight keeps its place while a queue does not answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Flies as long as somebody waits.
pub(super) async fn fly(publisher: Arc<Publisher>) {
    let mut landing = Landing { publisher: &publisher, landed: false };
    while let Some(asks) = landing.board() {
        publisher.flight(asks, &mut landing).await;
    }
}

impl Publisher {
    /// Waits for a broker that takes messages, and for a channel to it.
    async fn ready(&self, by: Instant) -> Result<(Channel, Arc<Connection>), Fault> {
        while self.link.blocked() {
            if Instant::now() >= by {
                return Err(Fault::Blocked);
            }
            sleep(Duration::from_millis(20)).await;
        }
        let (idle, gone) = {
            let mut state = self.state();
            // One of a connection that was given up is not used again, though the driver keeps it.
            let usable = |(channel, connection): &(Channel, Arc<Connection>)| {
                channel.status().connected() && self.link.is_current(connection)
            };
            let gone: Vec<_> = state.idle.extract_if(.., |idle| !usable(idle)).collect();
            (state.idle.pop(), gone)
        };
        drop(gone);
        if let Some(idle) = idle {
            return Ok(idle);
        }
        timeout_at(by, self.link.confirming()).await.unwrap_or(Err(Fault::Late("a channel")))
    }

    async fn flight(self: &Arc<Self>, mut asks: Vec<Ask>, landing: &mut Landing<'_>) {
        let Some(by) = asks.iter().map(|ask| ask.by).max() else { return };
        let (channel, connection) = match self.ready(by).await {
            Ok(ready) => ready,
            Err(fault) => {
                asks.into_iter().for_each(|ask| ask.answer(Err(Partly::nothing(fault.clone()))));
                return;
            }
        };
        asks.retain(Ask::begin);
        let began = Instant::now();
        let patience = (began + PATIENCE).min(by);
        let mut stray = None;
        let (mut heard, written) = {
            let parcels: Vec<&Parcel> = asks.iter().flat_map(Ask::parcels).collect();
            let heard = Heard::new(parcels.iter().map(|parcel| &parcel.queue));
            let mut writing = pin!(write(&channel, &parcels));
            let mut written = timeout_at(patience, &mut writing).await.ok();
            if written.is_none() {
                stray = Some(landing.stray(&heard));
                written = timeout_at(by, writing).await.ok();
            }
            (heard, written)
        };
        let in_time = written.is_some();
        let mut waiting = FuturesUnordered::new();
        for (index, confirm) in written.into_iter().flatten().enumerate() {
            match confirm {
                Ok(confirm) => waiting.push(confirm.map(move |confirmed| (index, confirmed))),
                Err(error) => heard.hear(index, Err(error)),
            }
        }
        let mut asks = numbered(asks);
        while !waiting.is_empty() {
            let limit = if stray.is_some() { by } else { patience };
            if timeout_at(limit, hear(&mut waiting, &mut heard)).await.is_ok() {
                self.state().heard = Instant::now();
                for (range, ask) in std::mem::take(&mut asks) {
                    match heard.outcome(range.clone()) {
                        Some(outcome) => ask.answer(outcome),
                        None => asks.push((range, ask)),
                    }
                }
                if let Some(stray) = &mut stray {
                    stray.keep(&heard);
                }
            } else if stray.is_none() {
                stray = Some(landing.stray(&heard));
            } else {
                break;
            }
        }
        for (range, ask) in asks {
            ask.answer(heard.last_word(range));
        }
        // A channel whose first publish found the queue's leader dead asks that one for ever, and refuses everything
        // meanwhile: another channel learns who leads now. And what came back must not be told to the next flight.
        if in_time && heard.is_good() {
            self.state().idle.push((channel, connection));
        } else if heard.is_silent() && self.state().heard < began && !self.link.blocked() {
            // Nobody hears of it. One that is blocked is kept: the driver holds it and what it has not written until the
            // broker reads again, and each new one would take in as much before it is blocked, too.
            self.link.forget(&connection);
            let given_up = {
                let mut state = self.state();
                let all = std::mem::take(&mut state.idle);
                let (kept, given_up): (Vec<_>, Vec<_>) =
                    all.into_iter().partition(|(_, of)| !Arc::ptr_eq(of, &connection));
                state.idle = kept;
                given_up
            };
            drop(given_up);
        }
    }
}

/// Each with the places of its messages in the flight.
fn numbered(asks: Vec<Ask>) -> Vec<(Range<usize>, Ask)> {
    let mut first = 0;
    let number = |ask: Ask| {
        let range = first..first + ask.range.len();
        first = range.end;
        (range, ask)
    };
    asks.into_iter().map(number).collect()
}

/// Ends a flight, also one whose task ends before its time.
struct Landing<'a> {
    publisher: &'a Arc<Publisher>,
    landed: bool,
}

impl<'a> Landing<'a> {
    /// What the flight takes: all that waits, as far as it fits. With nothing it has landed, so that whoever comes next
    /// begins another one.
    fn board(&mut self) -> Option<Vec<Ask>> {
        if self.landed {
            return None;
        }
        let mut state = self.publisher.state();
        let (mut asks, mut count, mut weight) = (Vec::new(), 0, 0);
        while let Some(ask) = state.waiting.pop_front() {
            // Who asked for a queue that does not answer waits without a place, see `Publisher::answering`.
            if ask.reply.is_closed() || state.turns_back(&ask) {
                continue;
            }
            let alone = ask.alone();
            count += ask.range.len();
            weight += ask.parcels().iter().map(Parcel::weight).sum::<usize>();
            if !asks.is_empty() && (alone || count > FLIGHT || weight > FLIGHT_WEIGHT) {
                state.waiting.push_front(ask);
                break;
            }
            asks.push(ask);
            if alone {
                break;
            }
        }
        if asks.is_empty() {
            state.flying -= 1;
            self.landed = true;
            return None;
        }
        Some(asks)
    }

    /// Leaves its place to the next flight.
    fn stray(&mut self, heard: &Heard) -> Stray<'a> {
        let (queues, waits) = {
            let mut state = self.publisher.state();
            let silent = heard.silent_queues().cloned();
            let queues = silent
                .map(|queue| {
                    let number = state.silence(&queue);
                    (queue, number)
                })
                .collect();
            if !self.landed {
                state.flying -= 1;
                self.landed = true;
            }
            (queues, !state.waiting.is_empty())
        };
        if waits {
            self.publisher.depart();
        }
        Stray { publisher: self.publisher, queues }
    }
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        if !self.landed {
            self.publisher.state().flying -= 1;
        }
    }
}

/// A flight that has left its place, and the queues it waits for.
struct Stray<'a> {
    publisher: &'a Publisher,
    /// With the numbers of their silences.
    queues: Vec<(ShortString, u64)>,
}

impl Stray<'_> {
    /// Waits only for those that have not answered.
    fn keep(&mut self, heard: &Heard) {
        let still: Vec<ShortString> = heard.silent_queues().cloned().collect();
        let answered: Vec<_> =
            self.queues.extract_if(.., |(queue, _)| !still.contains(queue)).collect();
        self.publisher.answered(&answered);
    }
}

impl Drop for Stray<'_> {
    fn drop(&mut self) {
        self.publisher.answered(&self.queues);
    }
}

/// Writes all in order.
async fn write(channel: &Channel, parcels: &[&Parcel]) -> Vec<lapin::Result<PublisherConfirm>> {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let mut writing = Vec::with_capacity(parcels.len());
    for parcel in parcels {
        let write = channel.basic_publish(
            ShortString::default(),
            parcel.queue.clone(),
            options,
            &parcel.body,
            parcel.properties.clone(),
        );
        let mut write = Box::pin(write.fuse());
        // This numbers it and hands it to the driver; it need not be on the wire before the next one is handed over.
        let done = (&mut write).now_or_never();
        writing.push((done, write));
    }
    let mut written = Vec::with_capacity(writing.len());
    for (done, write) in writing {
        written.push(match done {
            Some(done) => done,
            None => write.await,
        });
    }
    written
}

/// Waits until the broker has answered for some, and hears all that it has answered by then. The driver gives answers one
/// after the other, and wakes for each before it gives the next: where nothing is left that was woken, none was given before
/// those that were heard.
async fn hear(
    waiting: &mut FuturesUnordered<impl Future<Output = (usize, lapin::Result<Confirmation>)>>,
    heard: &mut Heard,
) {
    std::future::poll_fn(|context| {
        let before = waiting.len();
        while let Poll::Ready(Some((index, confirmed))) = waiting.poll_next_unpin(context) {
            heard.hear(index, confirmed);
        }
        if waiting.len() < before { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU8;

    use bytes::Bytes;
    use lapin::BasicProperties;
    use tokio::sync::{Semaphore, oneshot};
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::backend::rabbitmq::link::{Link, Purpose, Settings};

    fn publisher() -> Arc<Publisher> {
        let settings = Settings {
            addresses: Vec::new(),
            ca: None,
            credentials: None,
            heartbeat: 1,
            connect_timeout: PATIENCE,
            answer_timeout: PATIENCE,
            confirm_timeout: PATIENCE,
            create_queues: false,
            creation_wait: Duration::ZERO,
        };
        let link = Link::new(Arc::new(settings), Purpose::Publishing);
        Arc::new(Publisher::new(link, TaskTracker::new()))
    }

    /// Who finds out about a queue that does not answer may hang with it, and nobody else is to.
    #[test]
    fn who_finds_out_about_a_silent_queue_flies_alone() {
        let publisher = publisher();
        let mut answers = Vec::new();
        let asks = [("there", false), ("silent", true), ("there", false), ("there", false)];
        for (queue, probe) in asks {
            let parcel = Parcel {
                queue: queue.into(),
                properties: BasicProperties::default(),
                body: Bytes::new(),
            };
            let permit = || Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
            let (reply, answer) = oneshot::channel();
            answers.push(answer);
            let ask = Ask::new(
                (Arc::new(vec![parcel]), 0..1),
                Instant::now() + PATIENCE,
                (probe, false),
                (Arc::new(AtomicU8::new(0)), reply),
                (permit(), permit()),
            );
            publisher.state().waiting.push_back(ask);
        }
        publisher.state().silence(&"silent".into());
        publisher.state().flying = 1;
        let mut landing = Landing { publisher: &publisher, landed: false };
        let boarded: Vec<_> = std::iter::from_fn(|| landing.board())
            .map(|asks| {
                asks.iter().map(|ask| ask.parcels()[0].queue.to_string()).collect::<Vec<_>>()
            })
            .collect();
        let expected: [Vec<String>; 3] =
            [vec!["there".into()], vec!["silent".into()], vec!["there".into(), "there".into()]];
        assert_eq!(boarded, expected);
    }
}
