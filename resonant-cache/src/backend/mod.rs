//! The shared tier behind the cache: what a store must do.

pub mod memory;
#[cfg(feature = "redis")]
pub mod redis;

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use resonant_common::join::Position;

use crate::error::Result;

pub use crate::envelope::{TagId, Version, version};
pub use crate::fence::has_reached;
pub use crate::key::Key;
pub use memory::MemoryStore;
#[cfg(feature = "redis")]
pub use redis::RedisStore;

/// A place that holds encoded values for every process of a service.
///
/// A store holds opaque bytes. Of their content it reads the [`version`] and nothing else. Per key it also keeps one
/// lease, one counter and one fence, which live and die apart from the value as said below.
///
/// # Contract
///
/// 1. **Atomic per key.** Each key of a call is done completely or not at all, and in one order that all callers see.
///    Nothing is promised across keys.
/// 2. **Status per key.** The answers stand in the order of the keys, one for each; one that fails does not fail the
///    others.
/// 3. **Time to live.** A value is gone once its time to live is over, by the store's clock; without one it stays. A
///    store may drop values and counters at any time to keep its own limits.
/// 4. **Leases.** At most one live lease per key; one that was asked for at a higher [`cleared`](LeaseAsk::cleared)
///    epoch takes the place of a lower one. Every stored write and every removal of a key ends its lease, so a
///    [`Guard::Lease`] write whose lease ended, lapsed or was taken over is [`Refused`](WriteOutcome::Refused): a load
///    that began before a change can never store what it read. A store that cannot keep a lease in its limits drops
///    it; that refuses a fill, and never admits one.
/// 5. **Fences.** A write with a position is refused when the key's fence [has not been reached](has_reached) by it;
///    stored, it raises the fence. A removal with a position raises the fence. Fences outlive values and removals and
///    lapse after their own time. One that cannot be kept is replaced by something that refuses more, never less.
/// 6. **Versions.** [`Guard::Version`] compares with the version of the stored bytes. [`Guard::Absent`] stores only
///    where no bytes with a version are.
/// 7. **Counters** are apart from values: [`add`](Store::add) is atomic, refuses to overflow, and sets the time to live
///    only when it creates the counter. Adding zero reads, and creates nothing. A removal removes the counter too.
/// 8. **Epochs.** [`bump`](Store::bump) raises the namespace's epoch by at least one and notes it for the tags or for
///    everything, in one step. [`epochs`](Store::epochs) never answers a tag's epoch too low; a forgotten tag is
///    answered with an epoch that is at least as high as the true one.
/// 9. **Announcements.** Unless [`Capabilities::announces`] is [`Announces::Never`], every write, removal and bump
///    reaches every attached [`Listener`], as soon as it says; the one whose [`Origin`] made the change may be spared.
///    Where some may have been missed, [`Event::Lost`] is sent. Values that ran out or were dropped for room need no
///    word.
/// 10. **Dropped futures.** A call whose future is dropped was done or not done for each key, never half done.
///
/// [`testing`](crate::testing) has a suite that checks it.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// What the store can do.
    fn capabilities(&self) -> Capabilities;

    /// Milliseconds of the store's own clock, from a start of its choosing that all its clients share.
    fn clock(&self) -> u64;

    /// Adds a listener to the announcements for as long as it lives. The answer marks its own changes.
    fn attach(&self, listener: Weak<dyn Listener>) -> Origin;

    /// The bytes of each key, or `None`.
    async fn read(&self, keys: &[Key], from: ReadFrom) -> Vec<Result<Option<Bytes>>>;

    /// Stores bytes under the guards.
    async fn write(&self, origin: Origin, writes: Vec<Write>) -> Vec<Result<WriteOutcome>>;

    /// Removes value, counter and lease of each key, and raises its fence where one is given. Answers whether there
    /// was a value.
    async fn remove(
        &self,
        origin: Origin,
        keys: &[Key],
        fence: Option<FenceAt>,
    ) -> Vec<Result<bool>>;

    /// Asks for the lease of each key.
    async fn lease(&self, keys: &[Key], ask: LeaseAsk) -> Vec<Result<Leased>>;

    /// Ends those leases that `token` still holds.
    async fn release(&self, keys: &[Key], token: LeaseToken) -> Result<()>;

    /// Adds to the counter of a key and answers its new value.
    async fn add(&self, key: &Key, by: i64, ttl: Option<Duration>) -> Result<i64>;

    /// The namespace's epochs, and those of `tags` in their order.
    async fn epochs(&self, namespace: &str, tags: &[TagId]) -> Result<Epochs>;

    /// Raises the namespace's epoch for some tags or for everything, and answers it.
    async fn bump(&self, origin: Origin, namespace: &str, what: Bump) -> Result<u64>;

    /// Whether the store answers.
    async fn ping(&self) -> Result<()>;
}

/// What a store can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Whether changes are announced, and how soon. Without announcements the in-process tier keeps values only for
    /// `unannounced_max_age`.
    pub announces: Announces,
    /// Whether other processes share the store.
    pub shared: bool,
}

impl Capabilities {
    /// A store that announces as said, and whether it is shared.
    pub fn new(announces: Announces, shared: bool) -> Self {
        Self { announces, shared }
    }
}

/// How soon listeners learn of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Announces {
    /// Before the call that made the change returns.
    Before,
    /// Shortly after.
    Soon,
    /// Never.
    Never,
}

/// Marks the changes of one attached listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Origin(pub u64);

/// Proof of who holds a lease: random, one for each load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseToken(pub u64);

/// Which nodes may answer a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFrom {
    /// Any, replicas included where the settings allow it.
    Any,
    /// The one that decides writes.
    Primary,
}

/// One value to store.
#[derive(Debug, Clone)]
pub struct Write {
    /// Its name.
    pub key: Key,
    /// Its bytes.
    pub value: Bytes,
    /// How long the store keeps it; `None` for ever.
    pub ttl: Option<Duration>,
    /// The condition.
    pub guard: Guard,
    /// The position it was read at, and for how long that keeps older ones out.
    pub fence: Option<FenceAt>,
}

/// The condition of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// None.
    Always,
    /// No bytes with a version are there.
    Absent,
    /// The stored bytes have this version.
    Version(Version),
    /// The lease is live and held with this token.
    Lease(LeaseToken),
}

/// A position, and for how long it keeps older ones out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FenceAt {
    /// The position.
    pub position: Position,
    /// For how long.
    pub ttl: Duration,
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOutcome {
    /// It is stored.
    Stored,
    /// Its guard or the key's fence did not hold; nothing changed.
    Refused,
}

/// What a lease is asked for with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseAsk {
    /// Who asks.
    pub token: LeaseToken,
    /// The epoch of the namespace's last clear that the asker knows of. A load from before a clear need not be waited
    /// for, so a higher one takes the place of a lower one.
    pub cleared: u64,
    /// How long the lease lasts.
    pub ttl: Duration,
    /// Whether the key's values are [plain](crate::NamespaceBuilder::plain). A store that tells by the stored bytes whether
    /// somebody wrote during a lease must not look for a version in them.
    pub plain: bool,
}

/// What became of asking for a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leased {
    /// It is the caller's.
    Granted,
    /// Somebody holds it.
    Held {
        /// For how long at most.
        remaining: Duration,
    },
}

/// The epochs of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epochs {
    /// The highest so far.
    pub latest: u64,
    /// That of the last clear.
    pub cleared: u64,
    /// Those of the tags asked for, in order.
    pub tags: Vec<u64>,
}

/// For what an epoch is raised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bump {
    /// These tags.
    Tags(Vec<TagId>),
    /// Everything in the namespace.
    All,
}

/// Told of changes that others made.
///
/// # Contract
///
/// `apply` returns quickly, never blocks on anything slow, and never calls back into the store.
pub trait Listener: Send + Sync + 'static {
    /// Something changed.
    fn apply(&self, event: &Event);
}

/// A change.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The value of a key was written, removed, or ran out.
    Changed(Key),
    /// Tags of a namespace were invalidated at an epoch.
    TagsInvalidated {
        /// The namespace.
        namespace: Arc<str>,
        /// The tags.
        tags: Vec<TagId>,
        /// The epoch.
        epoch: u64,
    },
    /// A namespace was cleared at an epoch.
    Cleared {
        /// The namespace.
        namespace: Arc<str>,
        /// The epoch.
        epoch: u64,
    },
    /// Announcements may have been missed: nothing held in the process can be trusted.
    Lost,
}
