//! Reads a log to its end and on, and appends to it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::control::{Control, Record};
use super::error::{Fault, Partly};
use super::link::Link;
use super::publisher::{Parcel, Publisher};
use super::wire::fresh_id;

/// Records on their way to this reader.
const WINDOW: u16 = 200;

/// The wait before a lost log is read again.
const AGAIN: Duration = Duration::from_millis(150);

/// A log and what its records amount to.
pub(super) struct Log {
    stream: ShortString,
    publisher: Arc<Publisher>,
    state: Mutex<State>,
    /// Rises with every record that was read.
    version: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    control: Control,
    /// Who waits for a record of theirs, by its number.
    awaited: HashMap<String, oneshot::Sender<()>>,
    /// The offset after the last record that was read.
    next: Option<i64>,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("stream", &self.stream.as_str()).finish_non_exhaustive()
    }
}

impl Log {
    pub(super) fn new(stream: ShortString, publisher: Arc<Publisher>) -> Self {
        Self { stream, publisher, state: Mutex::default(), version: watch::Sender::new(0) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at what the records amount to, as far as they were read.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Control) -> T) -> T {
        look(&self.state().control)
    }

    /// Tells when more was read.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Appends a record and waits until it was read, and so all before it. Returns its number.
    pub(super) async fn append(&self, record: &Record) -> Result<String, Partly> {
        let number = fresh_id();
        let (sender, receiver) = oneshot::channel();
        self.state().awaited.insert(number.clone(), sender);
        let guard = Awaited { log: self, number: &number };
        let body = serde_json::to_vec(record).unwrap_or_default();
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type("application/json".into())
            .with_message_id(number.as_str().into());
        let queue = self.stream.clone();
        let deadline = Instant::now() + self.publisher.link().settings().confirm_timeout;
        self.publisher.send_one(Parcel { queue, properties, body: Bytes::from(body) }).await?;
        let read = timeout_at(deadline, receiver).await;
        drop(guard);
        match read {
            Ok(Ok(())) => Ok(number),
            _ => Err(Partly { fault: Fault::Late("reading the log"), may_have_applied: true }),
        }
    }

    /// Reads until told to end. The stream is there.
    pub(super) async fn follow(self: Arc<Self>, link: Arc<Link>, end: CancellationToken) {
        let mut failing = false;
        loop {
            tokio::select! {
                () = end.cancelled() => return,
                fault = self.read(&link) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::debug!(log = %self.stream, error = %fault, "reading the log again");
                    }
                }
            }
            tokio::select! {
                () = end.cancelled() => return,
                () = sleep(AGAIN) => {}
            }
        }
    }

    async fn read(&self, link: &Link) -> Fault {
        match self.try_read(link).await {
            Ok(()) => Fault::Late("following the log"),
            Err(fault) => fault,
        }
    }

    async fn try_read(&self, link: &Link) -> Result<(), Fault> {
        let channel = link.consuming(WINDOW).await?;
        let mut from = FieldTable::default();
        let offset = match self.state().next {
            None => AMQPValue::LongString("first".into()),
            Some(next) => AMQPValue::LongLongInt(next),
        };
        from.insert("x-stream-offset".into(), offset);
        let asked = channel.basic_consume(
            self.stream.clone(),
            ShortString::default(),
            BasicConsumeOptions::default(),
            from,
        );
        let mut consumer = link.answer("following the log", asked).await?;
        let mut unread = 0;
        while let Some(delivery) = consumer.next().await {
            let delivery = delivery?;
            let tag = delivery.delivery_tag;
            self.take(&delivery);
            unread += 1;
            // Credit in bulk, but never later than the window allows.
            if unread >= WINDOW / 4 {
                unread = 0;
                channel.basic_ack(tag, BasicAckOptions { multiple: true }).await?;
            }
        }
        Ok(())
    }

    fn take(&self, delivery: &Delivery) {
        let headers = delivery.properties.headers().as_ref();
        let offset = match headers.and_then(|table| table.inner().get("x-stream-offset")) {
            Some(AMQPValue::LongLongInt(offset)) => Some(*offset),
            _ => None,
        };
        let number = delivery.properties.message_id().as_ref().map_or("", ShortString::as_str);
        let mut state = self.state();
        if let (Some(offset), Some(next)) = (offset, state.next)
            && offset < next
        {
            // A reader that begins in the middle of a chunk is given its beginning, too.
            return;
        }
        state.next = offset.map(|offset| offset + 1);
        // What a later version wrote is none of our business.
        if let Ok(record) = serde_json::from_slice(&delivery.data) {
            state.control.apply(record, number);
        }
        let waiting = state.awaited.remove(number);
        drop(state);
        self.version.send_modify(|version| *version += 1);
        if let Some(waiting) = waiting {
            let _ = waiting.send(());
        }
    }
}

/// Forgets who waits when they no longer do.
struct Awaited<'a> {
    log: &'a Log,
    number: &'a str,
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        self.log.state().awaited.remove(self.number);
    }
}
