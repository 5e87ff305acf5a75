//! Messages on their way in and out, and what a publish may ask for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::key::Key;

/// Text that travels beside the body, such as a `traceparent`. Sorted, so that the stored form is stable.
pub type Headers = BTreeMap<String, String>;

/// A message on its way into an engine.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Outgoing {
    /// The partition, already chosen.
    pub partition: u32,
    /// The key, if it has one. Without one a message is in no order.
    pub key: Option<Key>,
    /// The user's JSON.
    pub body: Bytes,
    /// Text beside the body.
    pub headers: Option<Arc<Headers>>,
    /// When it takes its place in its key's order: now, or after this wait.
    pub delay: Option<Duration>,
    /// Refuses a second message of the same id within the queue's dedup window.
    pub unique_id: Option<String>,
}

impl Outgoing {
    /// A message for `partition`, to be delivered at once.
    pub fn new(partition: u32, key: Option<Key>, body: Bytes) -> Self {
        Self { partition, key, body, headers: None, delay: None, unique_id: None }
    }
}

/// A message as an engine hands it to the owner of its partition.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Message {
    /// Its place in the partition. Only rises; numbers may be missing.
    pub sequence: u64,
    /// The sequence of the message of the same key before it, where the engine knows it.
    pub previous: Option<u64>,
    /// The key, if it has one.
    pub key: Option<Key>,
    /// How many deliveries of it have failed.
    pub failures: u32,
    /// How long it must still wait because its last delivery failed.
    pub wait: Option<Duration>,
    /// When it took its place: was published, fell due or was redriven. In milliseconds since 1970.
    pub published: u64,
    /// Text beside the body.
    pub headers: Option<Arc<Headers>>,
    /// The user's JSON.
    pub body: Bytes,
}

impl Message {
    /// A message that was never delivered yet.
    pub fn new(sequence: u64, key: Option<Key>, body: Bytes) -> Self {
        Self {
            sequence,
            previous: None,
            key,
            failures: 0,
            wait: None,
            published: 0,
            headers: None,
            body,
        }
    }
}

/// The engine's confirmation of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Receipt {
    /// The partition the message is in.
    pub partition: u32,
    /// Its place there. `None` for a delayed message, which gets its place when it falls due, and where the engine does
    /// not number messages.
    pub sequence: Option<u64>,
    /// Whether a message of the same unique id was there already; then this is that message's receipt.
    pub duplicate: bool,
}

impl Receipt {
    /// A receipt of a message stored now.
    pub fn new(partition: u32, sequence: Option<u64>) -> Self {
        Self { partition, sequence, duplicate: false }
    }

    /// The receipt of the message that was there before.
    #[must_use]
    pub fn of_duplicate(mut self) -> Self {
        self.duplicate = true;
        self
    }
}

/// What a single publish may ask for beyond the queue's settings.
///
/// ```
/// use resonant_queue::PublishOptions;
/// use std::time::Duration;
///
/// let options = PublishOptions::new().key("agent_123").delay(Duration::from_secs(30)).unique_id("job-7");
/// # let _ = options;
/// ```
#[derive(Debug, Clone, Default)]
pub struct PublishOptions {
    pub(crate) key: KeyChoice,
    pub(crate) delay: Option<Duration>,
    pub(crate) unique_id: Option<String>,
    pub(crate) headers: Headers,
}

#[derive(Debug, Clone, Default)]
pub(crate) enum KeyChoice {
    /// As the queue says.
    #[default]
    Queue,
    Given(Key),
    Unkeyed,
}

impl PublishOptions {
    /// Nothing beyond the queue's settings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Orders the message by this key, whatever the queue's key says.
    #[must_use]
    pub fn key(mut self, key: impl Into<Key>) -> Self {
        self.key = KeyChoice::Given(key.into());
        self
    }

    /// Gives the message no key: it is in no order and waits for nobody.
    #[must_use]
    pub fn unkeyed(mut self) -> Self {
        self.key = KeyChoice::Unkeyed;
        self
    }

    /// Delivers the message after `delay`. It takes its place in its key's order when it falls due.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = (!delay.is_zero()).then_some(delay);
        self
    }

    /// Stores at most one message of this id within the queue's `dedup_window`.
    #[must_use]
    pub fn unique_id(mut self, id: impl Into<String>) -> Self {
        self.unique_id = Some(id.into());
        self
    }

    /// Adds text that travels beside the body.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }
}
