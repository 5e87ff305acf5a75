//! Publishes and waits for the broker's confirms, in bounded memory.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, PublisherConfirm};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, sleep, timeout_at};

use super::error::{Fault, Partly};
use super::link::Link;

/// Messages on their way at once.
const WINDOW: usize = 4096;

/// What their bodies may weigh together, in units of [`UNIT`].
const WEIGHT: usize = 32 << 10;

/// The wait before messages the broker refused are sent again.
const REFUSED: Duration = Duration::from_millis(100);

/// Bytes per permit of weight.
const UNIT: usize = 1024;

/// A message for a queue.
#[derive(Debug, Clone)]
pub(super) struct Parcel {
    pub(super) queue: ShortString,
    pub(super) properties: BasicProperties,
    pub(super) body: Bytes,
}

impl Parcel {
    fn weight(&self) -> usize {
        (self.body.len() / UNIT + 1).min(WEIGHT)
    }
}

/// Sends parcels over one channel of one connection.
#[derive(Debug)]
pub(super) struct Publisher {
    link: Link,
    channel: Mutex<Option<Channel>>,
    window: Semaphore,
    weight: Semaphore,
}

impl Publisher {
    pub(super) fn new(link: Link) -> Self {
        Self {
            link,
            channel: Mutex::new(None),
            window: Semaphore::new(WINDOW),
            weight: Semaphore::new(WEIGHT),
        }
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    /// Stores all parcels in order. Returns when the broker has confirmed each of them.
    pub(super) async fn send(&self, parcels: &[Parcel]) -> Result<(), Partly> {
        let deadline = Instant::now() + self.link.settings().confirm_timeout;
        let mut sent = 0;
        while sent < parcels.len() {
            let (mut count, mut weight) = (0, 0);
            for parcel in parcels[sent..].iter().take(WINDOW / 4) {
                if count > 0 && weight + parcel.weight() > WEIGHT / 4 {
                    break;
                }
                count += 1;
                weight += parcel.weight();
            }
            let chunk = &parcels[sent..sent + count];
            let outcome = self.chunk(chunk, weight, deadline).await;
            outcome.map_err(|mut partly| {
                partly.may_have_applied |= sent > 0;
                partly
            })?;
            sent += count;
        }
        Ok(())
    }

    async fn chunk(&self, chunk: &[Parcel], weight: usize, by: Instant) -> Result<(), Partly> {
        let count = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
        let weight = u32::try_from(weight).unwrap_or(u32::MAX);
        let permits = async {
            let window = self.window.acquire_many(count).await;
            (window, self.weight.acquire_many(weight).await)
        };
        let late = || Partly::nothing(Fault::Late("a place among the messages on their way"));
        let _permits = timeout_at(by, permits).await.map_err(|_| late())?;
        loop {
            self.unblocked(by).await?;
            let channel = timeout_at(by, self.channel())
                .await
                .map_err(|_| Partly::nothing(Fault::Late("a channel")))?
                .map_err(Partly::nothing)?;
            let Ok(confirmed) = timeout_at(by, publish(&channel, chunk)).await else {
                self.drop_channel(&channel).await;
                // One that is blocked is kept: the driver holds it and what it has not written until the broker reads again,
                // and each new one would take in as much before it is blocked, too.
                if !self.link.blocked().await {
                    self.link.reset().await;
                }
                return Err(Partly { fault: Fault::Late("a publish"), may_have_applied: true });
            };
            let Err(partly) = confirmed else { return Ok(()) };
            // A channel whose first publish found the queue's leader dead asks that one for ever, and refuses everything
            // meanwhile: another channel learns who leads now.
            if !matches!(partly.fault, Fault::Unroutable(_)) {
                self.drop_channel(&channel).await;
            }
            let again = matches!(partly.fault, Fault::Refused) && !partly.may_have_applied;
            if !again || Instant::now() + REFUSED >= by {
                return Err(partly);
            }
            sleep(REFUSED).await;
        }
    }

    /// Waits while the broker takes no messages.
    async fn unblocked(&self, by: Instant) -> Result<(), Partly> {
        while self.link.blocked().await {
            if Instant::now() >= by {
                return Err(Partly::nothing(Fault::Blocked));
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    async fn channel(&self) -> Result<Channel, Fault> {
        let mut slot = self.channel.lock().await;
        if let Some(channel) = &*slot
            && channel.status().connected()
        {
            return Ok(channel.clone());
        }
        *slot = None;
        let channel = self.link.confirming().await?;
        *slot = Some(channel.clone());
        Ok(channel)
    }

    async fn drop_channel(&self, channel: &Channel) {
        let mut slot = self.channel.lock().await;
        if slot.as_ref().is_some_and(|current| current.id() == channel.id()) {
            *slot = None;
        }
    }
}

/// Writes all, then waits for all.
async fn publish(channel: &Channel, parcels: &[Parcel]) -> Result<(), Partly> {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let mut confirms: Vec<PublisherConfirm> = Vec::with_capacity(parcels.len());
    let mut failed = None;
    for parcel in parcels {
        let sent = channel.basic_publish(
            ShortString::default(),
            parcel.queue.clone(),
            options,
            &parcel.body,
            parcel.properties.clone(),
        );
        match sent.await {
            Ok(confirm) => confirms.push(confirm),
            Err(error) => {
                failed = Some(Fault::from(error));
                break;
            }
        }
    }
    let (mut stored, mut unknown) = (false, failed.is_some());
    for (confirmed, parcel) in join_all(confirms).await.into_iter().zip(parcels) {
        let fault = match confirmed {
            Ok(Confirmation::Ack(None)) => {
                stored = true;
                continue;
            }
            Ok(Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_))) => {
                Fault::Unroutable(parcel.queue.to_string())
            }
            // A queue that refuses a message has not stored it.
            Ok(Confirmation::Nack(None)) => Fault::Refused,
            Ok(Confirmation::NotRequested) => {
                unknown = true;
                Fault::Refused
            }
            Err(error) => {
                unknown = true;
                Fault::from(error)
            }
        };
        failed.get_or_insert(fault);
    }
    match failed {
        None => Ok(()),
        Some(fault) => Err(Partly { fault, may_have_applied: stored || unknown }),
    }
}
