//! Publishing: encode, find the key, wait for room, hand to the engine, return when it has confirmed.

use std::borrow::Borrow;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::time::Instant;

use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::message::{KeyChoice, Outgoing, PublishOptions, Receipt};
use crate::queue::{Core, PartitionedQueue};
use crate::trace;

/// How long a publisher waits for a sign of room before it asks again: another process may have made it.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Room for a body that is made before it is written, at most.
const LIKELY: usize = 4096;

/// Whether a full queue is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WhenFull {
    Wait,
    Refuse,
}

/// All methods encode their message when they are called; the future borrows nothing, so it can be spawned.
///
/// # Cancel safety
///
/// A publish whose future is dropped has stored all of its messages or none.
impl<T: Serialize> PartitionedQueue<T> {
    /// Publishes a message under the key the queue finds in it. Returns when the engine has confirmed it.
    ///
    /// Messages of a key keep the order of publishes that wait for each other. Two that are on their way at once may be stored
    /// in either order: wait for the first, or send both with [`publish_many`](Self::publish_many).
    ///
    /// # Errors
    ///
    /// `Key` if the message has no usable key, `Encoding`, `TooLarge`, `Full` after `publish_timeout`, `Closed`,
    /// `Unavailable`; an error that [may have applied](resonant_common::error::Error::may_have_applied) says so.
    pub fn publish(&self, message: &T) -> impl Future<Output = Result<Receipt>> + Send + use<T> {
        self.one(self.encode("publish", message, &PublishOptions::default()), WhenFull::Wait)
    }

    /// Publishes a message, or refuses at once with `Full` where [`publish`](Self::publish) would wait for room.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    pub fn try_publish(
        &self,
        message: &T,
    ) -> impl Future<Output = Result<Receipt>> + Send + use<T> {
        self.one(self.encode("try_publish", message, &PublishOptions::default()), WhenFull::Refuse)
    }

    /// Publishes a message under a given key.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    pub fn publish_with_key<K: Into<Key>>(
        &self,
        key: K,
        message: &T,
    ) -> impl Future<Output = Result<Receipt>> + Send + use<T, K> {
        let options = PublishOptions::new().key(key);
        self.one(self.encode("publish_with_key", message, &options), WhenFull::Wait)
    }

    /// Publishes a message with a delay, a unique id, headers, another key or none.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    pub fn publish_with(
        &self,
        message: &T,
        options: PublishOptions,
    ) -> impl Future<Output = Result<Receipt>> + Send + use<T> {
        self.one(self.encode("publish_with", message, &options), WhenFull::Wait)
    }

    /// Publishes all or none of many messages in one round trip, in their order. Receipts come in the same order. An
    /// engine that cannot do that, see [`Capabilities::atomic`](crate::backend::Capabilities::atomic), may store some of
    /// them where the error [may have applied](resonant_common::error::Error::may_have_applied).
    ///
    /// ```no_run
    /// # async fn example(queue: resonant_queue::PartitionedQueue<u64>) -> resonant_queue::Result<()> {
    /// let tasks: Vec<u64> = (0..1000).collect();
    /// queue.publish_many(&tasks).await?;              // by reference
    /// queue.publish_many(tasks.chunks(100).flatten()).await?; // any iterator
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish); `TooLarge` also if there are more messages than `max_depth`.
    pub fn publish_many<I>(
        &self,
        messages: I,
    ) -> impl Future<Output = Result<Vec<Receipt>>> + Send + use<T, I>
    where
        I: IntoIterator,
        I::Item: Borrow<T>,
    {
        let options = PublishOptions::default();
        let batch: Result<Vec<Outgoing>> = messages
            .into_iter()
            .map(|message| self.encode("publish_many", message.borrow(), &options))
            .collect();
        let core = Arc::clone(self.core());
        async move { core.publish("publish_many", batch?, WhenFull::Wait).await }
    }

    fn one(
        &self,
        message: Result<Outgoing>,
        when_full: WhenFull,
    ) -> impl Future<Output = Result<Receipt>> + Send + use<T> {
        let core = Arc::clone(self.core());
        async move {
            let receipts = core.publish("publish", vec![message?], when_full).await?;
            receipts.into_iter().next().ok_or_else(|| {
                Error::new(ErrorKind::Unavailable, "publish", "the engine gave no receipt, which is a fault of the engine; look whether the message is there")
                    .with_may_have_applied()
            })
        }
    }

    pub(crate) fn encode(
        &self,
        operation: &'static str,
        message: &T,
        options: &PublishOptions,
    ) -> Result<Outgoing> {
        // As large as the last one: most messages of a queue are alike.
        let room = &self.core().body_size;
        let mut body = Vec::with_capacity(room.load(Ordering::Relaxed).min(LIKELY));
        serde_json::to_writer(&mut body, message).map_err(|error| {
            let text = "the message cannot be written as JSON";
            Error::new(ErrorKind::Encoding, operation, text).with_source(error)
        })?;
        room.store(body.len(), Ordering::Relaxed);
        if body.capacity() > 2 * body.len() {
            body.shrink_to_fit();
        }
        let config = self.config();
        if body.len() > config.max_payload {
            let text = format!(
                "a body of {} bytes exceeds max_payload, {} bytes; store the payload elsewhere and publish where it is",
                body.len(),
                config.max_payload
            );
            return Err(Error::new(ErrorKind::TooLarge, operation, text));
        }
        let key = match &options.key {
            KeyChoice::Queue => self.key.key(operation, message, &body)?,
            KeyChoice::Given(key) => Some(key.clone()),
            KeyChoice::Unkeyed => None,
        };
        let partition = match &key {
            Some(key) => key.partition(config.partitions),
            // Every copy of a unique message must meet in one place.
            None => match &options.unique_id {
                Some(id) => resonant_common::hash::slot(id.as_bytes(), config.partitions),
                None => self.next_partition(),
            },
        };
        Ok(Outgoing {
            partition,
            key,
            body: Bytes::from(body),
            headers: trace::stamped(&options.headers, &self.versions),
            delay: options.delay,
            unique_id: options.unique_id.clone(),
        })
    }
}

impl Core {
    async fn publish(
        &self,
        operation: &'static str,
        batch: Vec<Outgoing>,
        when_full: WhenFull,
    ) -> Result<Vec<Receipt>> {
        self.open(operation)?;
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let (count, most) = (batch.len() as u64, self.config.max_depth);
        if count > most {
            let text = format!("{count} messages at once exceed max_depth, {most}");
            return Err(Error::new(ErrorKind::TooLarge, operation, text));
        }
        let batch = Arc::new(batch);
        let deadline = clock::after(Instant::now(), self.config.publish_timeout);
        loop {
            match self.store.publish(Arc::clone(&batch)).await {
                Ok(receipts) => {
                    let stored = receipts.iter().filter(|receipt| !receipt.duplicate).count();
                    self.metrics.published.increment(stored as u64);
                    return Ok(receipts);
                }
                Err(error)
                    if error.kind() == ErrorKind::Full
                        && !error.may_have_applied()
                        && when_full == WhenFull::Wait
                        && Instant::now() < deadline => {}
                Err(error) => return Err(error),
            }
            let ask = deadline.min(Instant::now() + ASK_AGAIN);
            let _ = tokio::time::timeout_at(ask, self.store.room()).await;
            self.open(operation)?;
        }
    }
}
