//! What an engine must do, and the engines that ship.
//!
//! A [`Backend`] is a place queues live in: a process, a file, a broker. [`declare`](Backend::declare) gives the
//! [`QueueStore`] of one queue, and [`open`](QueueStore::open) the [`Feed`] of one leased partition. Everything that is
//! hard about order (lanes per key, retries that hold their key, parking, runs) is decided once, above the
//! engines, in a dispatcher that knows no I/O. An engine stores, numbers, hands out by cursor, and fences.
//!
//! The contract fits engines one pulls from (a file, a database) and brokers that push. What a broker cannot do it
//! says in its [`Capabilities`]: read again, number messages, store a batch as a whole, remember failures.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use resonant_common::join::LeaseStore;

use crate::depth::{DeadLetter, ParkedKey, Stored};
use crate::error::Result;
use crate::key::Key;
use crate::message::{Message, Outgoing, Receipt};

pub mod memory;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "rabbitmq")]
pub mod rabbitmq;
#[cfg(feature = "sqlite")]
pub mod sqlite;

/// A place queues live in.
#[async_trait]
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// What the engine can do.
    fn capabilities(&self) -> Capabilities;

    /// Opens the queue of this name, creating it if there is none.
    ///
    /// # Errors
    ///
    /// `Incompatible` if it exists with another number of partitions.
    async fn declare(&self, spec: &QueueSpec) -> Result<Arc<dyn QueueStore>>;
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<B: Backend + ?Sized> Backend for Arc<B> {
    fn capabilities(&self) -> Capabilities {
        (**self).capabilities()
    }

    async fn declare(&self, spec: &QueueSpec) -> Result<Arc<dyn QueueStore>> {
        (**self).declare(spec).await
    }
}

/// What an engine can do, beyond the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// The engine's name, for logs.
    pub engine: &'static str,
    /// A confirmed message survives the end of the process.
    pub durable: bool,
    /// A feed reads from any sequence again. Without it the dispatcher keeps in memory what it may not run yet, so
    /// that a slow key with more messages than `prefetch` holds up the others of its partition.
    pub seek: bool,
    /// Receipts tell sequences, and a message keeps its own as long as it exists. Without it receipts have none, and
    /// a sequence is that of one opening: it tells the order, and which message a settlement is about.
    pub numbered: bool,
    /// A batch is stored whole or not at all. Without it an error that
    /// [may have applied](resonant_common::error::Error::may_have_applied) may leave some of its messages stored.
    pub atomic: bool,
    /// [`Settlement::Retry`] outlives its owner. Without it the next owner counts failures, and waits, anew.
    pub remembers_failures: bool,
    /// Only one process uses the engine at a time, so that leases need not be short.
    pub exclusive: bool,
}

impl Capabilities {
    /// An engine that can do everything, but is neither durable nor exclusive.
    pub fn new(engine: &'static str) -> Self {
        Self {
            engine,
            durable: false,
            seek: true,
            numbered: true,
            atomic: true,
            remembers_failures: true,
            exclusive: false,
        }
    }

    /// Says whether confirmed messages survive the process.
    #[must_use]
    pub fn durable(mut self, durable: bool) -> Self {
        self.durable = durable;
        self
    }

    /// Says whether a feed reads from any sequence again.
    #[must_use]
    pub fn seek(mut self, seek: bool) -> Self {
        self.seek = seek;
        self
    }

    /// Says whether messages have lasting sequences that receipts tell.
    #[must_use]
    pub fn numbered(mut self, numbered: bool) -> Self {
        self.numbered = numbered;
        self
    }

    /// Says whether a batch is stored whole or not at all.
    #[must_use]
    pub fn atomic(mut self, atomic: bool) -> Self {
        self.atomic = atomic;
        self
    }

    /// Says whether failures are remembered beyond their owner.
    #[must_use]
    pub fn remembers_failures(mut self, remembers: bool) -> Self {
        self.remembers_failures = remembers;
        self
    }

    /// Says whether one process owns the engine.
    #[must_use]
    pub fn exclusive(mut self, exclusive: bool) -> Self {
        self.exclusive = exclusive;
        self
    }
}

/// What an engine must know of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueSpec {
    /// The queue's name.
    pub name: String,
    /// Its number of partitions.
    pub partitions: u32,
    /// The most messages it stores, in whatever state.
    pub max_depth: u64,
    /// For how long a unique id is remembered.
    pub dedup_window: Duration,
    /// The most unique ids remembered.
    pub dedup_limit: u64,
}

impl QueueSpec {
    /// A queue of this name and number of partitions, with default limits.
    pub fn new(name: impl Into<String>, partitions: u32) -> Self {
        let defaults = crate::QueueConfig::default();
        Self {
            name: name.into(),
            partitions,
            max_depth: defaults.max_depth,
            dedup_window: defaults.dedup_window,
            dedup_limit: defaults.dedup_limit,
        }
    }

    /// The name of a partition's lease.
    pub fn lease_name(&self, partition: u32) -> String {
        format!("{}/partition/{partition}", self.name)
    }
}

/// One queue in an engine.
///
/// # Contract
///
/// - **publish** stores all of a batch or nothing, in the given order, and returns when a crash can no longer lose it
///   (as far as the engine is [durable](Capabilities::durable)). One whose batches are not
///   [atomic](Capabilities::atomic) marks an error after which some may be stored as having maybe applied. Within a
///   partition sequences only rise, also over deletion and restart, if the engine is
///   [numbered](Capabilities::numbered). A delayed message gets its sequence when it falls due. A unique id that is remembered
///   stores nothing and gives the earlier receipt, marked as duplicate. A batch that does not fit into `max_depth`
///   fails with `Full` and stores nothing; a `Full` that may have applied is not tried again.
/// - **declare** may answer before it has reached a server, so that one that is down stops no start; calls fail with
///   `Unavailable` until it has.
/// - **open** fences: once it returned for an epoch, settlements of lower epochs fail with `Fenced` and change
///   nothing; an epoch below one already opened is refused in the same way. A broker may let the owner before it settle what
///   that one holds until the new feed has given its first message; what was settled is not given then. An opening lasts until
///   its feed is dropped: an engine may refuse to settle for it from then on.
/// - **settle** applies a whole batch or nothing, in order. Settling a message that is no longer there changes nothing, so a
///   caller who does not know whether a settlement was applied repeats it. Epochs are checked together with the change.
/// - A message that was not settled as finished, parked or dead is handed out again to the next owner.
/// - Each call is atomic under a dropped future: it is done or not done.
#[async_trait]
pub trait QueueStore: fmt::Debug + Send + Sync + 'static {
    /// Stores a batch; receipts come in its order.
    async fn publish(&self, batch: Arc<Vec<Outgoing>>) -> Result<Vec<Receipt>>;

    /// Waits until room may have appeared since the last `Full`. May return early for no reason.
    async fn room(&self);

    /// Where partitions of this queue are leased.
    fn leases(&self) -> Arc<dyn LeaseStore>;

    /// Begins to read a partition that was leased with this epoch.
    async fn open(&self, partition: u32, epoch: u64) -> Result<Opened>;

    /// Applies what became of messages of a partition.
    async fn settle(&self, partition: u32, epoch: u64, batch: Arc<Vec<Settlement>>) -> Result<()>;

    /// Counts what is stored. Cheap: cost must not grow with the number of ready messages.
    async fn stored(&self) -> Result<Stored>;

    /// The parked keys, oldest first, at most `limit`.
    async fn parked(&self, limit: usize) -> Result<Vec<ParkedKey>>;

    /// Ends the parking of a key: its messages are ready again before all later ones of the key, in their order, and the
    /// partition's feed reports it in [`Fetched::resumed`]. An engine that seeks keeps their sequences. Returns how many messages there were, or `None` if it is not parked.
    async fn resume_key(&self, partition: u32, key: &Key) -> Result<Option<u64>>;

    /// The dead letters, oldest first, at most `limit`.
    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>>;

    /// Makes up to `limit` dead letters ready again, oldest first, as if published now (`published` is now, too), in
    /// their old order, with no failures. Returns how many.
    async fn redrive(&self, limit: usize) -> Result<u64>;

    /// Removes up to `limit` dead letters, oldest first. Returns how many.
    async fn purge_dead(&self, limit: usize) -> Result<u64>;

    /// Stores whether the queue is paused.
    async fn set_paused(&self, paused: bool) -> Result<()>;

    /// Whether the queue is paused.
    async fn paused(&self) -> Result<bool>;

    /// Proves that the engine answers.
    async fn ping(&self) -> Result<()>;

    /// Ends this handle: calls under way finish, later ones fail with `Closed`. Idempotent.
    async fn close(&self);
}

/// A partition that was opened.
#[derive(Debug)]
#[non_exhaustive]
pub struct Opened {
    /// Hands out its messages.
    pub feed: Arc<dyn Feed>,
    /// The keys that were parked when it was opened. Later changes come through the feed.
    pub parked: Vec<Key>,
}

impl Opened {
    /// A feed with the keys parked at its beginning.
    pub fn new(feed: Arc<dyn Feed>, parked: Vec<Key>) -> Self {
        Self { feed, parked }
    }
}

/// Hands out the messages of one partition to its owner. A read that waits and one with an `until` may run at once.
///
/// # Contract
///
/// - [`fetch`](Feed::fetch) waits until it has a message or a resumed key to report, and wakes promptly when one is
///   published. It gives messages by rising sequence, skips none that is stored, and at most [`Fetch::limit`].
/// - It stops before the bodies exceed [`Fetch::bytes`], but gives at least one message. Where it stops although more
///   could be given, for whatever reason, it says so in [`Fetched::more`]: who asked up to an `until` concludes from its
///   absence that there is nothing more, and never asks again.
/// - An engine that seeks gives messages after [`Fetch::after`], up to and with [`Fetch::until`]; with an `until` it does
///   not wait.
/// - One that does not seek is never asked with an `until`, ignores `after`, and gives what it has not given yet. When a
///   key is resumed, it reports that before or with the key's first message, and gives all messages of the key again
///   that were put aside or are to be ([`Settlement::ParkBehind`]), in their order and before any later one of the key;
///   their sequences may be new.
/// - A dropped fetch loses nothing: what it would have given is given again.
#[async_trait]
pub trait Feed: fmt::Debug + Send + Sync + 'static {
    /// The next messages.
    async fn fetch(&self, fetch: Fetch) -> Result<Fetched>;
}

/// What to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fetch {
    /// Only messages after this sequence.
    pub after: u64,
    /// Only messages up to this one, without waiting; `None` waits for what is to come.
    pub until: Option<u64>,
    /// At most so many; at least 1.
    pub limit: usize,
    /// Bodies of at most so many bytes together, except that one message may always come.
    pub bytes: usize,
}

impl Fetch {
    /// Waits for up to `limit` messages after a sequence.
    pub fn after(after: u64, limit: usize) -> Self {
        Self { after, until: None, limit, bytes: usize::MAX }
    }

    /// Reads up to `limit` messages after one sequence up to another, without waiting.
    pub fn between(after: u64, until: u64, limit: usize) -> Self {
        Self { after, until: Some(until), limit, bytes: usize::MAX }
    }

    /// The same, for bodies of at most so many bytes together.
    #[must_use]
    pub fn bytes(mut self, bytes: usize) -> Self {
        self.bytes = bytes;
        self
    }

    /// How many of these bodies, by their sizes, may come: at least one.
    pub fn fitting(&self, sizes: impl Iterator<Item = usize>) -> usize {
        let total = sizes.take(self.limit).scan(0_usize, |total, size| {
            *total = total.saturating_add(size);
            Some(*total)
        });
        total.enumerate().take_while(|(index, total)| *index == 0 || *total <= self.bytes).count()
    }
}

/// What was read.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Fetched {
    /// Messages by rising sequence.
    pub messages: Vec<Message>,
    /// Keys that are no longer parked, with the sequence from which their messages are to be read again. An engine that
    /// does not seek gives them by itself, and any sequence here.
    pub resumed: Vec<(Key, u64)>,
    /// It stopped although there is more.
    pub more: bool,
}

impl Fetched {
    /// Messages alone.
    pub fn messages(messages: Vec<Message>) -> Self {
        Self { messages, resumed: Vec::new(), more: false }
    }
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Settlement {
    /// It is finished: remove it.
    Done {
        /// Which.
        sequence: u64,
    },
    /// It failed: keep it, remember how often, and how long it must wait.
    Retry {
        /// Which.
        sequence: u64,
        /// How many deliveries have failed now.
        failures: u32,
        /// How long it must wait.
        wait: Duration,
        /// Why the last one failed, cut to a line.
        error: String,
    },
    /// Its key is parked from this message on: put both aside.
    Park {
        /// Which.
        sequence: u64,
        /// How many deliveries have failed now.
        failures: u32,
        /// Why the last one failed.
        error: String,
    },
    /// Its key is parked already: put it aside too, unless the key was resumed meanwhile; then leave it.
    ParkBehind {
        /// Which.
        sequence: u64,
    },
    /// It failed for good: put it among the dead letters.
    Dead {
        /// Which.
        sequence: u64,
        /// How many deliveries have failed now.
        failures: u32,
        /// Why the last one failed.
        error: String,
    },
}

impl Settlement {
    /// The message it is about.
    pub fn sequence(&self) -> u64 {
        match self {
            Settlement::Done { sequence }
            | Settlement::Retry { sequence, .. }
            | Settlement::Park { sequence, .. }
            | Settlement::ParkBehind { sequence }
            | Settlement::Dead { sequence, .. } => *sequence,
        }
    }
}
