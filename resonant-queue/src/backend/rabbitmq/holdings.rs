//! What owners hold, told to the other processes of the queue.
//!
//! The broker tells how many messages it has not handed out, and of those it has only their owner knows. So that every process
//! counts all of them, owners say twice a second how many they hold, on a short stream that is read from its end. What was
//! not said again for [`FRESH`] counts no more, nor what an owner says that was followed by another one: then the broker has
//! given those messages to that one, or has them again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use lapin::BasicProperties;
use lapin::options::{BasicAckOptions, BasicConsumeOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::error::Fault;
use super::names::Kind;
use super::owner::Tools;
use super::publisher::Parcel;
use super::wire::fresh_id;

/// How often owners say what they hold.
const EVERY: Duration = Duration::from_millis(500);

/// For how long it counts.
const FRESH: Duration = Duration::from_secs(3);

/// The most bytes of the stream.
const MOST: u64 = 16 << 20;

/// Records on their way to this reader.
const WINDOW: u16 = 100;

/// The wait before a lost stream is read again, and before one is looked for that somebody else is to make.
const AGAIN: Duration = Duration::from_secs(1);
const MISSING: Duration = Duration::from_secs(30);

/// What an owner holds of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Holding {
    pub(super) partition: u32,
    pub(super) epoch: u64,
    pub(super) messages: u64,
    /// When the oldest was published.
    #[serde(default)]
    pub(super) oldest: Option<u64>,
}

/// A record: all that a process holds.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    by: String,
    held: Vec<Holding>,
}

/// What the other processes hold, as they said last.
#[derive(Debug)]
pub(super) struct Holdings {
    me: String,
    told: Mutex<HashMap<String, (Instant, Vec<Holding>)>>,
}

impl Default for Holdings {
    fn default() -> Self {
        Self { me: fresh_id(), told: Mutex::default() }
    }
}

impl Holdings {
    fn told(&self) -> MutexGuard<'_, HashMap<String, (Instant, Vec<Holding>)>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many messages of a partition its owner of this epoch holds, if that is another process, and since when the
    /// oldest is in the queue.
    pub(super) fn elsewhere(&self, partition: u32, epoch: u64, now: Instant) -> (u64, Option<u64>) {
        let told = self.told();
        let fresh = told.values().filter(|(at, _)| now.saturating_duration_since(*at) < FRESH);
        let of = fresh.flat_map(|(_, held)| held).filter(|held| held.partition == partition);
        let held = of.filter(|held| held.epoch == epoch).max_by_key(|held| held.messages);
        held.map_or((0, None), |held| (held.messages, held.oldest))
    }

    fn take(&self, body: &[u8], now: Instant) {
        // What a later version wrote is none of our business.
        let Ok(Record { by, held }) = serde_json::from_slice(body) else { return };
        if by == self.me {
            return;
        }
        let mut told = self.told();
        told.retain(|_, (at, _)| now.saturating_duration_since(*at) < FRESH);
        told.insert(by, (now, held));
    }

    /// Tells and is told until the end. `mine` says what this process holds.
    pub(super) async fn keep(
        self: Arc<Self>,
        tools: Tools,
        end: CancellationToken,
        mine: impl Fn() -> Vec<Holding> + Send + Sync,
    ) {
        loop {
            let fault = tokio::select! {
                () = end.cancelled() => return,
                fault = self.turn(&tools, &mine) => fault,
            };
            tracing::debug!(error = %fault, "what other processes hold is not known for now");
            let wait = if matches!(fault, Fault::Missing(_)) { MISSING } else { AGAIN };
            tokio::select! {
                () = end.cancelled() => return,
                () = sleep(wait) => {}
            }
        }
    }

    async fn turn(&self, tools: &Tools, mine: &(impl Fn() -> Vec<Holding> + Send + Sync)) -> Fault {
        match self.try_turn(tools, mine).await {
            Ok(()) => Fault::Late("following what is held"),
            Err(fault) => fault,
        }
    }

    async fn try_turn(
        &self,
        tools: &Tools,
        mine: &(impl Fn() -> Vec<Holding> + Send + Sync),
    ) -> Result<(), Fault> {
        let (link, stream) = (&tools.link, tools.names.held());
        find(tools, &stream).await?;
        let channel = link.consuming(WINDOW).await?;
        let mut from = FieldTable::default();
        from.insert("x-stream-offset".into(), AMQPValue::LongString("next".into()));
        let options = BasicConsumeOptions::default();
        let asked = channel.basic_consume(stream.clone(), ShortString::default(), options, from);
        let mut consumer = link.answer("following what is held", asked).await?;
        let mut every = interval(EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut unread, mut said) = (0, false);
        loop {
            tokio::select! {
                delivery = consumer.next() => {
                    let Some(delivery) = delivery else { return Ok(()) };
                    let delivery = delivery?;
                    self.take(&delivery.data, Instant::now());
                    unread += 1;
                    // Credit in bulk, but never later than the window allows.
                    if unread >= WINDOW / 4 {
                        unread = 0;
                        let options = BasicAckOptions { multiple: true };
                        channel.basic_ack(delivery.delivery_tag, options).await?;
                    }
                }
                _ = every.tick() => {
                    let held = mine();
                    // Nothing is said once, and then no more.
                    if said || !held.is_empty() {
                        said = !held.is_empty();
                        let record = Record { by: self.me.clone(), held };
                        let parcel = record.parcel(stream.clone());
                        tools.publisher.send_one(parcel).await.map_err(|partly| partly.fault)?;
                    }
                }
            }
        }
    }
}

/// Makes the stream if it is missing and may be made.
async fn find(tools: &Tools, stream: &ShortString) -> Result<(), Fault> {
    let link = &tools.link;
    let channel = link.channel().await?;
    let found = link.count(&channel, stream.clone()).await;
    match found {
        Ok(_) => {}
        Err(fault) if fault.is_missing() => {
            if !link.settings().create_queues {
                return Err(Fault::Missing(stream.to_string()));
            }
            let channel = link.channel().await?;
            link.declare(&channel, stream.clone(), &Kind::Log { most: Some(MOST) }).await?;
            let _ = channel.close(200, "done".into()).await;
            // See what is said of new queues in the format.
            sleep(link.settings().creation_wait).await;
            return Ok(());
        }
        Err(fault) => return Err(fault),
    }
    let _ = channel.close(200, "done".into()).await;
    Ok(())
}

impl Record {
    fn parcel(&self, queue: ShortString) -> Parcel {
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type("application/json".into())
            .with_message_id(fresh_id().as_str().into());
        let body = Bytes::from(serde_json::to_vec(self).unwrap_or_default());
        Parcel { queue, properties, body }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(holdings: &Holdings, by: &str, held: &[(u32, u64, u64)], now: Instant) {
        let held = held.iter().map(|&(partition, epoch, messages)| {
            serde_json::json!({ "partition": partition, "epoch": epoch, "messages": messages })
        });
        let record = serde_json::json!({ "by": by, "held": held.collect::<Vec<_>>() });
        holdings.take(record.to_string().as_bytes(), now);
    }

    #[test]
    fn what_counts_is_what_the_owner_of_now_said_a_moment_ago() {
        let (holdings, start) = (Holdings::default(), Instant::now());
        let count = |partition, epoch, now| holdings.elsewhere(partition, epoch, now).0;
        say(&holdings, "a", &[(0, 3, 512), (1, 3, 7)], start);
        say(&holdings, &holdings.me.clone(), &[(2, 1, 99)], start);
        assert_eq!((count(0, 3, start), count(1, 3, start), count(2, 1, start)), (512, 7, 0));
        // Another owner came: the broker has given what that one held to it.
        assert_eq!(count(0, 4, start), 0);
        say(&holdings, "b", &[(0, 4, 500)], start);
        assert_eq!((count(0, 4, start), count(1, 3, start)), (500, 7));
        // What is not said again is gone.
        let later = start + FRESH / 2;
        say(&holdings, "a", &[(1, 3, 8)], later);
        assert_eq!((count(0, 3, later), count(1, 3, later)), (0, 8));
        let end = later + FRESH;
        assert_eq!((count(0, 4, end), count(1, 3, end)), (0, 0));
        say(&holdings, "c", &[], end);
        assert_eq!(holdings.told().len(), 1, "who says nothing any more is forgotten");
    }
}
