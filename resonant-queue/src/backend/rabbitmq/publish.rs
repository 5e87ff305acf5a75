//! Publishing: room, unique ids, delays, then the broker's confirm.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::control::Record;
use super::delays::Delays;
use super::error::{Fault, Partly};
use super::publisher::Parcel;
use super::topology::Shared;
use super::wire::{Content, PUBLISHED, number};
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Outgoing, Receipt};

/// How often somebody else's unfinished publish of the same id is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// What became of an id.
enum Claim {
    /// It is ours under this number.
    Ours(String),
    /// A message of this id is in the partition already.
    Taken(u32),
}

/// Gives back what was counted for a publish that stored nothing.
struct Reserved<'a> {
    shared: &'a Shared,
    count: u64,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.shared.give_room_back(self.count);
    }
}

impl Shared {
    pub(super) async fn publish(self: &Arc<Self>, batch: &[Outgoing]) -> Result<Vec<Receipt>> {
        self.prepare("publish").await?;
        let reserved = self.reserve(batch.len() as u64).await?;
        let mut claims = Vec::new();
        let (mut receipts, mut parcels, mut delayed) = (Vec::new(), Vec::new(), Vec::new());
        let now = clock::now_millis();
        let sorted = async {
            for message in batch {
                if let Some(id) = &message.unique_id {
                    match self.claim(id, message.partition).await? {
                        Claim::Ours(claim) => claims.push((id.clone(), claim)),
                        Claim::Taken(partition) => {
                            receipts.push(Receipt::new(partition, None).of_duplicate());
                            continue;
                        }
                    }
                }
                receipts.push(Receipt::new(message.partition, None));
                let content = Content {
                    key: message.key.clone(),
                    headers: message.headers.clone(),
                    body: message.body.clone(),
                };
                let parcel = match message.delay {
                    Some(delay) => {
                        let due = now.saturating_add(clock::as_millis(delay));
                        let parcel = Delays::parcel(&self.tools, &content, message.partition, due)?;
                        self.delays.remember(&parcel.properties, due);
                        delayed.push(parcel.properties.clone());
                        parcel
                    }
                    None => {
                        let properties =
                            content.properties("publish", &[(PUBLISHED, number(now))])?;
                        let queue = self.tools.names.partition(message.partition);
                        Parcel { queue, properties, body: content.body }
                    }
                };
                parcels.push(parcel);
            }
            Ok(())
        };
        let outcome = match sorted.await {
            Ok(()) => self.send(&Arc::new(parcels)).await.map_err(|p| p.into_error("publish")),
            Err(error) => Err(error),
        };
        let in_doubt = outcome.as_ref().is_err_and(Error::may_have_applied);
        for (id, claim) in claims {
            let record = match &outcome {
                Ok(()) => Record::Stored { id, claim },
                Err(_) if in_doubt => continue,
                Err(_) => Record::Released { id, claim },
            };
            // The message is stored, or not; a claim that says nothing about it ends by itself.
            if let Err(partly) = self.ids.append(&record).await {
                tracing::debug!(error = %partly.fault, "an id stays claimed for a minute");
            }
        }
        if let Err(error) = outcome {
            if !in_doubt {
                delayed.iter().for_each(|properties| self.delays.forget(properties));
            }
            return Err(error);
        }
        let direct = batch.iter().filter(|message| message.delay.is_none());
        let partitions: Vec<u32> = direct.map(|message| message.partition).collect();
        self.published(&partitions, now);
        std::mem::forget(reserved);
        Ok(receipts)
    }

    /// Sends, and once more if queues turned out to be gone.
    async fn send(self: &Arc<Self>, parcels: &Arc<Vec<Parcel>>) -> Result<(), Partly> {
        let sent = self.tools.publisher.send(parcels).await;
        if let Err(partly) = &sent {
            self.tools.doubt_if_missing(&partly.fault);
        }
        match sent {
            Err(Partly { fault: Fault::Unroutable(_), may_have_applied: false }) => {
                self.mend().await.map_err(Partly::nothing)?;
                self.tools.publisher.send(parcels).await
            }
            sent => sent,
        }
    }

    /// Counts a batch as stored, if there is room.
    async fn reserve(&self, count: u64) -> Result<Reserved<'_>> {
        for fresh in [false, true] {
            if fresh {
                self.count().await.map_err(|fault| fault.into_error("publish"))?;
            }
            if self.take_room(count) {
                return Ok(Reserved { shared: self, count });
            }
        }
        let text = format!(
            "the queue holds as many messages as max_depth allows, {}; slow down, or add workers",
            self.spec.max_depth
        );
        Err(Error::new(ErrorKind::Full, "publish", text))
    }

    async fn claim(&self, id: &str, partition: u32) -> Result<Claim> {
        let fail = |partly: Partly| partly.into_error("publish");
        if !self.follows_ids() {
            self.follow_ids().await.map_err(|fault| fault.into_error("publish"))?;
        }
        let until = Instant::now() + self.tools.link.settings().confirm_timeout;
        loop {
            let record = Record::Claim {
                id: id.to_owned(),
                partition,
                at: clock::now_millis(),
                window: clock::as_millis(self.spec.dedup_window),
                limit: self.spec.dedup_limit,
            };
            let number = match self.ids.append(&record).await {
                Ok(number) => number,
                // A claim alone stores no message.
                Err(partly) => return Err(fail(Partly::nothing(partly.fault))),
            };
            loop {
                let claimed = self.ids.look(|control| control.ids.get(id).cloned());
                match claimed {
                    Some(claimed) if claimed.claim == number => return Ok(Claim::Ours(number)),
                    Some(claimed) if claimed.stored => return Ok(Claim::Taken(claimed.partition)),
                    // Somebody else is about to store it: wait for what becomes of that.
                    Some(claimed) => {
                        if clock::now_millis() >= claimed.at + super::control::CLAIM {
                            break;
                        }
                    }
                    None => break,
                }
                if Instant::now() >= until {
                    let text = "another publish of the same unique id has not ended; try again";
                    return Err(Error::new(ErrorKind::Unavailable, "publish", text));
                }
                sleep(LOOK).await;
            }
        }
    }
}
