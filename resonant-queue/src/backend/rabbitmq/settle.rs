//! Tells the broker what became of messages.
//!
//! What is moved (parked, dead) is stored elsewhere and confirmed before it is acknowledged where it was. A question on
//! the channel follows the acknowledgements, as they have no answer of their own: if it fails the channel is gone, and a
//! new one is made only after the log has shown that no newer owner is there.

use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use lapin::options::BasicAckOptions;
use tokio::time::Instant;

use super::control::Record;
use super::error::Fault;
use super::names::Kind;
use super::opening::{Known, Source};
use super::owner::{Owner, Stage, Tools};
use super::publisher::Parcel;
use super::wire::{Content, DIED, ERROR, FAILURES, PARTITION, PUBLISHED, SEQUENCE, number, text};
use crate::backend::Settlement;
use crate::clock;
use crate::error::Result;
use crate::key::Key;

/// How long a lost channel is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is to be done.
#[derive(Default)]
struct Moves {
    parcels: Vec<Parcel>,
    finished: Vec<u64>,
}

impl Owner {
    /// Applies settlements.
    pub(super) async fn settle(&self, batch: &[Settlement]) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        let (channel, channel_number, moving) = loop {
            let left = until.saturating_duration_since(Instant::now());
            self.connected("settle", left).await?;
            let moving = self.settling.lock().await;
            // It may have been lost while the lock was waited for.
            if let Ok((channel, number)) = self.connected("settle", Duration::ZERO).await {
                break (channel, number, moving);
            }
        };
        let mut moves = Moves::default();
        for settlement in batch {
            let known = self.state().known(settlement.sequence());
            if let Some(known) = known {
                self.one(settlement, known, &mut moves).await?;
            }
        }
        if !moves.parcels.is_empty() {
            let sent = self.tools.publisher.send_apart(&Arc::new(moves.parcels)).await;
            sent.map_err(|partly| {
                self.tools.doubt_if_missing(&partly.fault);
                partly.into_error("settle")
            })?;
        }
        if moves.finished.is_empty() {
            return Ok(());
        }
        let (tags, floor, in_order) = {
            let mut state = self.state();
            let tags: Vec<u64> =
                moves.finished.iter().filter_map(|sequence| state.settle(*sequence)).collect();
            (tags, state.lowest_tag(), state.in_order())
        };
        let acknowledged = async {
            let below = |tag: &u64| in_order && floor.is_none_or(|floor| *tag < floor);
            let together = tags.iter().copied().filter(below).max();
            let alone = tags.iter().filter(|tag| together.is_none_or(|t| **tag > t));
            let one = |tag, multiple| channel.basic_ack(tag, BasicAckOptions { multiple });
            try_join_all(alone.map(|tag| one(*tag, false))).await.map_err(Fault::from)?;
            if let Some(tag) = together {
                one(tag, true).await.map_err(Fault::from)?;
            }
            self.flush(&channel).await
        };
        let acknowledged = acknowledged.await;
        drop(moving);
        self.tidy.notify_one();
        if acknowledged.is_err() {
            // Lost acknowledgements are made up for when the messages come again, if they come to us.
            self.cycle.notify_one();
            let mut stage = self.stage.subscribe();
            let same = |stage: &Stage| matches!(stage, Stage::Connected(_, number) if *number == channel_number);
            let gone = stage.wait_for(|stage| !same(stage));
            let _ = tokio::time::timeout(PATIENCE, gone).await;
            self.connected("settle", PATIENCE).await?;
        }
        Ok(())
    }

    async fn one(&self, settlement: &Settlement, known: Known, moves: &mut Moves) -> Result<()> {
        let sequence = settlement.sequence();
        match settlement {
            Settlement::Done { .. } => moves.finished.push(sequence),
            Settlement::Retry { .. } => {}
            Settlement::Dead { failures, error, .. } => {
                let facts = [
                    (PARTITION, number(u64::from(self.partition))),
                    (PUBLISHED, number(known.message.published)),
                    (SEQUENCE, number(sequence)),
                    (FAILURES, number(u64::from(*failures))),
                    (ERROR, text(error)),
                    (DIED, number(clock::now_millis())),
                ];
                let properties = Content::of(&known.message).properties("settle", &facts)?;
                let (queue, body) = (self.tools.names.dead(), known.message.body);
                moves.parcels.push(Parcel { queue, properties, body });
                moves.finished.push(sequence);
            }
            Settlement::Park { error, .. } => {
                let Some(key) = known.message.key.clone() else { return Ok(()) };
                self.park(&key, sequence, error).await?;
                let again = self.state().replays(&key) || known.source != Source::Partition;
                if again {
                    let returns = self.state().park_again(&key);
                    if returns {
                        self.cycle.notify_one();
                    }
                    self.ring();
                }
                // One that was put aside before is back in its place by itself.
                if known.source == Source::Partition {
                    self.put_aside(&key, known, sequence, moves)?;
                }
            }
            Settlement::ParkBehind { .. } => {
                let Some(key) = known.message.key.clone() else { return Ok(()) };
                let replayed = self.state().replays(&key);
                if replayed {
                    self.state().give_back(&key, sequence);
                    self.ring();
                } else if known.source == Source::Partition {
                    self.put_aside(&key, known, sequence, moves)?;
                }
            }
        }
        Ok(())
    }

    /// Notes that a key is parked, before anything of it is moved: should we end here, the next owner puts all of it
    /// aside in order.
    async fn park(&self, key: &Key, sequence: u64, error: &str) -> Result<()> {
        let Tools { names, link, log, .. } = &self.tools;
        let fail = |fault: Fault| fault.into_error("settle");
        let channel = link.channel().await.map_err(fail)?;
        let queue = names.parked(self.partition, key);
        link.declare(&channel, queue, &Kind::Messages).await.map_err(fail)?;
        let _ =
            tokio::time::timeout(Duration::from_secs(1), channel.close(200, "done".into())).await;
        let record = Record::Park {
            partition: self.partition,
            key: key.to_string(),
            sequence,
            since: clock::now_millis(),
            error: error.to_owned(),
        };
        self.parked_keys().insert(key.clone());
        log.append(&record).await.map_err(|partly| partly.into_error("settle"))?;
        Ok(())
    }

    fn put_aside(&self, key: &Key, known: Known, sequence: u64, moves: &mut Moves) -> Result<()> {
        let facts = [(PUBLISHED, number(known.message.published)), (SEQUENCE, number(sequence))];
        let properties = Content::of(&known.message).properties("settle", &facts)?;
        let queue = self.tools.names.parked(self.partition, key);
        moves.parcels.push(Parcel { queue, properties, body: known.message.body });
        moves.finished.push(sequence);
        Ok(())
    }
}
