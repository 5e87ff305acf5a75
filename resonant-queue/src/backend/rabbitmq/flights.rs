//! Carries what is published to the broker.
//!
//! What is published at once flies together: a flight takes all that waits, writes it on a channel it has for itself, and
//! lands when the broker has answered for each message. Several are on their way at once, so that the broker has work while
//! it syncs what the others brought.
//!
//! No two flights share a channel. The driver numbers a message and writes it in two steps, so that of two who publish
//! on a channel at once each may get the confirm of the other; and it hands a message that came back to any of those that
//! were confirmed together. Within a flight neither matters: one task writes, and what came back is told by its queue.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{Channel, Confirmation};
use tokio::time::{Instant, sleep, timeout_at};

use super::error::{Fault, Partly};
use super::publisher::{Ask, Parcel, Publisher, WINDOW};

/// The wait before messages the broker refused are sent again.
const REFUSED: Duration = Duration::from_millis(100);

/// Flies as long as somebody waits.
pub(super) async fn fly(publisher: Arc<Publisher>) {
    let mut landing = Landing { publisher: &publisher, landed: false };
    while let Some(asks) = landing.board() {
        publisher.flight(asks).await;
    }
}

impl Publisher {
    /// Waits for a broker that takes messages, and for a channel to it.
    async fn ready(&self, by: Instant) -> Result<Channel, Fault> {
        while self.link.blocked().await {
            if Instant::now() >= by {
                return Err(Fault::Blocked);
            }
            sleep(Duration::from_millis(20)).await;
        }
        let idle = || self.state().idle.pop();
        while let Some(channel) = idle() {
            if channel.status().connected() {
                return Ok(channel);
            }
        }
        timeout_at(by, self.link.confirming()).await.unwrap_or(Err(Fault::Late("a channel")))
    }

    async fn flight(&self, mut asks: Vec<Ask>) {
        loop {
            let Some(by) = asks.iter().map(|ask| ask.by).max() else { return };
            let channel = match self.ready(by).await {
                Ok(channel) => channel,
                Err(fault) => {
                    asks.into_iter()
                        .for_each(|ask| ask.answer(Err(Partly::nothing(fault.clone()))));
                    return;
                }
            };
            asks.retain(Ask::begin);
            let parcels: Vec<&Parcel> = asks.iter().flat_map(Ask::parcels).collect();
            let Ok(heard) = timeout_at(by, publish(&channel, &parcels)).await else {
                // One that is blocked is kept: the driver holds it and what it has not written until the broker reads again,
                // and each new one would take in as much before it is blocked, too.
                if !self.link.blocked().await {
                    self.link.reset().await;
                }
                let late = || Partly { fault: Fault::Late("a publish"), may_have_applied: true };
                asks.into_iter().for_each(|ask| ask.answer(Err(late())));
                return;
            };
            // A channel whose first publish found the queue's leader dead asks that one for ever, and refuses everything
            // meanwhile: another channel learns who leads now. And what came back must not be told to the next flight.
            if heard.is_good() {
                self.state().idle.push(channel);
            }
            let (mut again, mut first) = (Vec::new(), 0);
            for ask in asks {
                let range = first..first + ask.range.len();
                first = range.end;
                match heard.outcome(ask.parcels(), &heard.fates[range]) {
                    Err(Partly { fault: Fault::Refused, may_have_applied: false })
                        if Instant::now() + REFUSED < ask.by =>
                    {
                        again.push(ask);
                    }
                    outcome => ask.answer(outcome),
                }
            }
            if again.is_empty() {
                return;
            }
            asks = again;
            sleep(REFUSED).await;
        }
    }
}

/// Ends a flight, also one whose task ends before its time.
struct Landing<'a> {
    publisher: &'a Publisher,
    landed: bool,
}

impl Landing<'_> {
    /// What the flight takes: all that waits, as far as it fits. With nothing it has landed, so that whoever comes next
    /// begins another one.
    fn board(&mut self) -> Option<Vec<Ask>> {
        let mut state = self.publisher.state();
        let (mut asks, mut count) = (Vec::new(), 0);
        while let Some(ask) = state.waiting.pop_front() {
            if ask.reply.is_closed() {
                continue;
            }
            count += ask.range.len();
            if !asks.is_empty() && count > WINDOW / 4 {
                state.waiting.push_front(ask);
                break;
            }
            asks.push(ask);
        }
        if asks.is_empty() {
            state.flying -= 1;
            self.landed = true;
            return None;
        }
        Some(asks)
    }
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        if !self.landed {
            self.publisher.state().flying -= 1;
        }
    }
}

/// What became of a message.
#[derive(Debug)]
enum Fate {
    Stored,
    /// The queue refused it, and has not stored it.
    Refused,
    /// Nobody knows.
    Unknown(Fault),
}

/// What the broker said of a flight.
#[derive(Debug)]
struct Heard {
    fates: Vec<Fate>,
    /// Queues that are gone: what was confirmed for them came back.
    gone: HashSet<ShortString>,
}

impl Heard {
    /// Whether all is stored.
    fn is_good(&self) -> bool {
        self.gone.is_empty() && self.fates.iter().all(|fate| matches!(fate, Fate::Stored))
    }

    /// What became of some of its parcels.
    fn outcome(&self, parcels: &[Parcel], fates: &[Fate]) -> Result<(), Partly> {
        let (mut failed, mut may_have_applied) = (None, false);
        for (parcel, fate) in parcels.iter().zip(fates) {
            let fault = match fate {
                Fate::Stored | Fate::Refused if self.gone.contains(&parcel.queue) => {
                    Fault::Unroutable(parcel.queue.to_string())
                }
                Fate::Stored => {
                    may_have_applied = true;
                    continue;
                }
                Fate::Refused => Fault::Refused,
                Fate::Unknown(fault) => {
                    may_have_applied = true;
                    fault.clone()
                }
            };
            failed.get_or_insert(fault);
        }
        failed.map_or(Ok(()), |fault| Err(Partly { fault, may_have_applied }))
    }
}

/// Writes all in order, then waits for all.
async fn publish(channel: &Channel, parcels: &[&Parcel]) -> Heard {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let (mut written, mut writing) = (Vec::with_capacity(parcels.len()), Vec::new());
    for parcel in parcels {
        let mut write = Box::pin(channel.basic_publish(
            ShortString::default(),
            parcel.queue.clone(),
            options,
            &parcel.body,
            parcel.properties.clone(),
        ));
        // This numbers it and hands it to the driver; it need not be on the wire before the next one is handed over.
        match (&mut write).now_or_never() {
            Some(done) => written.push(Some(done)),
            None => {
                writing.push((written.len(), write));
                written.push(None);
            }
        }
    }
    for (index, write) in writing {
        written[index] = Some(write.await);
    }
    let mut heard = Heard { fates: Vec::with_capacity(parcels.len()), gone: HashSet::new() };
    for confirm in written {
        let fate = match confirm {
            None => Fate::Unknown(Fault::Late("a publish")),
            Some(Err(error)) => Fate::Unknown(error.into()),
            Some(Ok(confirm)) => match confirm.await {
                Ok(Confirmation::Ack(returned)) => {
                    heard.gone.extend(returned.map(|it| it.delivery.routing_key));
                    Fate::Stored
                }
                Ok(Confirmation::Nack(returned)) => {
                    heard.gone.extend(returned.map(|it| it.delivery.routing_key));
                    Fate::Refused
                }
                Ok(Confirmation::NotRequested) => Fate::Unknown(Fault::Refused),
                Err(error) => Fate::Unknown(error.into()),
            },
        };
        heard.fates.push(fate);
    }
    heard
}
