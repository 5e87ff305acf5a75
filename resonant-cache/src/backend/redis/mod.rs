//! A store in Redis: on a Redis Cluster, or on one server.
//!
//! What is one key of the cache is one slot of the cluster: a user's braces never choose it. Every decision (lease, fence,
//! version) is made in the server, by a script. What anybody changes, by whatever program, is announced by the server itself
//! (RESP3 client tracking) on a connection of its own to each primary. Stored keys and values are specified in
//! `docs/formats/cache.md`.
//!
//! # Limits
//!
//! - Redis replicates behind the answer: a write that was acknowledged can be lost when a primary dies, and with it a lease,
//!   a fence or an invalidation. Whatever the process holds is looked at anew after such a change of primaries.
//! - While a primary is away, the epochs it counts are asked of its replica, which may lack the last ones.
//! - A primary that the network cut off from its cluster, but not from this process, is believed until somebody else was
//!   asked: for some seconds, as a rule no more than ten.
//! - While a slot is being moved to another primary, writes to it wait for the end of that, within `command_timeout`.
//! - A server that evicts (`maxmemory-policy` other than `noeviction`) may evict fences, and then admits what they kept
//!   out; evicted epochs cost misses only. A value that is set while its key is loaded, and is evicted before the load ends,
//!   does not keep the load's value out.
//!
//! # What a guarantee costs
//!
//! - A read is one `GET` of the value and the 28 bytes before it; so is each key of a batch, in one pipeline for each server.
//! - A write that has no condition and no position, and lives for four minutes or longer, is one `SET`. With a condition, a
//!   position or a shorter life it is one script of three to five commands inside the server, in one round trip; so is every
//!   removal. Nothing takes two round trips, but the first use of a script on a server.
//! - A load of a missing key is four round trips: a read, the lease, a second read behind it, and the fill, which ends the lease; and
//!   one for the epochs of a namespace at its first use.
//! - Each primary has a second connection, for announcements.
//!
//! # The driver fred
//!
//! With the feature `fred` and [`driver`](crate::CacheConfig::driver) `fred` commands go through the crate of that name: one
//! client of one connection for each server, without a policy of reconnection. Slots, redirections, scripts, deadlines, who is
//! taken for dead, and reconnection are decided above the driver, so that what is promised holds with each, and is tested with
//! each. What differs:
//!
//! - Announcements come on connections of our own with it, too. `fred` tracks one node of a cluster, says nothing of a flush,
//!   drops announcements in bursts, and forgets to track when it reconnects.
//! - A server that answers `CLUSTERDOWN` makes `fred` end the connection for everybody on it. Reads are repeated; a write that was
//!   on its way fails, and says that it may have been applied, where the own driver repeats it until its deadline. The next
//!   connection is made a tenth of a second later.
//! - What a caller who went away has not yet sent is still sent; the own driver leaves it out.
//! - A connection costs two more commands, `CLIENT ID` and `INFO server`. A login that may not say `INFO` works, and `fred` logs
//!   a warning for each connection, as it does for each that ends, by the crate `log`. Where there is no password, the default
//!   user must be allowed to `PING`.
//! - It is slower: a command takes two more turns of tasks, is written with fewer others at once, and its answer is copied once
//!   more. Where 64 tasks read, the own driver is as fast as the clustered client of `fred` or faster; through `fred` reads
//!   reached 0.38 of it, on a busy machine of two cores (`cache.l2_get.fred_driver_vs_fred.64` of the benches).

mod clock;
mod cluster;
mod conn;
mod driver;
mod ear;
mod error;
#[cfg(feature = "fred")]
mod fred;
mod hub;
#[cfg(feature = "testing")]
pub(crate) mod inputs;
mod lag;
mod link;
mod node;
mod resp;
mod route;
mod scripts;
mod slots;
mod target;
mod tls;
mod trace;
mod wire;

use std::fmt;
use std::sync::{Arc, Once, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use resonant_common::join::Position;
use tokio::time::Instant;

use self::cluster::Cluster;
use self::driver::{Fault, Reply, Settings};
use self::hub::{Hub, fingerprint};
use self::route::{Job, number};
use self::scripts::{
    ADD, BUMP, EPOCHS, EPOCHS_THERE, LEASE, LEASES_REMEMBER, RELEASE, REMOVE, WRITE, is_mark,
};
use self::target::Targets;
use self::tls::Tls;
use super::{
    Announces, Bump, Capabilities, Epochs, FenceAt, Guard, Key, LeaseAsk, LeaseToken, Leased,
    Listener, Origin, ReadFrom, Store, TagId, Write, WriteOutcome, version,
};
use crate::config::CacheConfig;
use crate::credentials::Provider;
use crate::error::{Error, ErrorKind, Result};
use crate::key::escape_namespace;

/// Tags remembered by a namespace's hash; forgetting costs misses, never correctness.
const MAX_TAGS: u32 = 65_536;
/// Commands that may be on their way to one server.
const MAX_QUEUED: usize = 65_536;
/// A time to live beyond it is taken for it: three thousand years.
const MAX_TTL_MS: u128 = 100_000_000_000_000;

/// A [`Store`] in Redis.
///
/// Made from `nodes` by [`DistributedCache::builder`](crate::DistributedCache::builder), or by [`RedisStore::new`]. It
/// connects in the background, starting with its first use inside a tokio runtime, and belongs to that runtime.
pub struct RedisStore {
    cluster: Arc<Cluster>,
    started: Once,
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("seeds", &self.cluster.targets.seeds.len())
            .field("cluster", &self.cluster.is_cluster)
            .field("announced", &self.cluster.hub.is_announced())
            .finish_non_exhaustive()
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        self.cluster.stop.cancel();
    }
}

impl RedisStore {
    /// A store on the `nodes` of the settings. Asks nobody anything yet.
    ///
    /// # Errors
    ///
    /// `Config` for a node URL or a certificate that cannot be used; `Unsupported` for TLS without the feature `tls`.
    pub fn new(config: &CacheConfig) -> Result<Self> {
        Self::logged_in(config, None)
    }

    /// The same, with a provider of what to log in with.
    pub(crate) fn logged_in(config: &CacheConfig, provider: Option<Provider>) -> Result<Self> {
        config.validate()?;
        let targets = Targets::parse(&config.nodes, config.cluster_mode)?.asking(provider)?;
        if targets.seeds.is_empty() {
            let message = "nodes must name at least one Redis server";
            return Err(Error::new(ErrorKind::Config, "build", message));
        }
        let settings = Settings {
            driver: config.driver,
            connect_timeout: (config.command_timeout / 2).max(Duration::from_millis(1)),
            silence: config.command_timeout * 3 / 8,
            database: targets.database,
            tls: tls_for(&targets, config)?,
            max_queued: MAX_QUEUED,
        };
        let cluster = Arc::new(Cluster::new(Arc::new(targets), Arc::new(settings), config));
        Ok(Self { cluster, started: Once::new() })
    }

    /// Whether every change is announced by every primary right now. While it is not, values stay in the process for
    /// `unannounced_max_age` at most.
    pub fn is_announced(&self) -> bool {
        self.cluster.hub.is_announced()
    }

    fn cluster(&self) -> &Arc<Cluster> {
        self.started.call_once(|| self.cluster.start());
        &self.cluster
    }

    fn hub(&self) -> &Hub {
        &self.cluster.hub
    }

    fn names(&self, key: &Key) -> KeyNames {
        let prefix = &self.hub().names().prefix;
        KeyNames { value: key.encode(prefix), from: prefix.len() + 1 }
    }

    fn namespace_name(&self, kind: &str, namespace: &str) -> String {
        format!("{}:{kind}{{{}}}", self.hub().names().prefix, escape_namespace(namespace))
    }

    /// What this process changed itself counts as changed when the call ends, however it ends.
    fn note_changes(&self, keys: &[KeyNames]) -> NoteChanges<'_> {
        let prints = match self.cluster.read_replicas {
            true => keys.iter().map(|names| fingerprint(names.value.as_bytes())).collect(),
            false => Vec::new(),
        };
        NoteChanges { hub: self.hub(), prints }
    }

    async fn one(&self, job: Job, operation: &'static str, writes: bool) -> Result<Reply> {
        let mut answers = self.cluster().run(vec![job]).await;
        let none = || Err(Fault::Broken("the command was not answered".into()));
        answers.pop().unwrap_or_else(none).map_err(|fault| fault.into_error(operation, writes))
    }
}

fn tls_for(targets: &Targets, config: &CacheConfig) -> Result<Option<Tls>> {
    if !targets.tls {
        if config.tls_ca_file.is_some() {
            let message = "tls_ca_file is given, but the nodes are not rediss:// or valkeys://";
            return Err(Error::new(ErrorKind::Config, "build", message));
        }
        return Ok(None);
    }
    #[cfg(feature = "tls")]
    return Tls::new(config.tls_ca_file.as_deref()).map(Some);
    #[cfg(not(feature = "tls"))]
    Err(crate::builder::needs_feature("rediss", "tls"))
}

/// The stored names of one key, all in one slot.
struct KeyNames {
    value: String,
    /// Where the braces begin.
    from: usize,
}

impl KeyNames {
    fn of_kind(&self, kind: char) -> String {
        let (prefix, braces) = self.value.split_at(self.from);
        format!("{prefix}{kind}{braces}")
    }

    fn lease(&self) -> String {
        self.of_kind('l')
    }

    fn counter(&self) -> String {
        self.of_kind('c')
    }

    fn fence(&self) -> String {
        self.of_kind('f')
    }
}

struct NoteChanges<'a> {
    hub: &'a Hub,
    prints: Vec<u64>,
}

impl Drop for NoteChanges<'_> {
    fn drop(&mut self) {
        if let Some(mut lag) = self.hub.lag() {
            let now = Instant::now();
            self.prints.iter().for_each(|print| lag.changed(*print, now));
        }
    }
}

#[async_trait]
impl Store for RedisStore {
    fn capabilities(&self) -> Capabilities {
        let announced = self.is_announced();
        Capabilities::new(if announced { Announces::Soon } else { Announces::Never }, true)
    }

    fn clock(&self) -> u64 {
        self.cluster.clock.now()
    }

    fn attach(&self, listener: Weak<dyn Listener>) -> Origin {
        if tokio::runtime::Handle::try_current().is_ok() {
            self.cluster();
        }
        self.hub().attach(listener)
    }

    async fn read(&self, keys: &[Key], from: ReadFrom) -> Vec<Result<Option<Bytes>>> {
        let any = from == ReadFrom::Any;
        let jobs = keys.iter().map(|key| Job::get(self.names(key).value, any)).collect();
        let answers = self.cluster().run(jobs).await;
        let open = |answer| match answer {
            Ok(Reply::Bytes(bytes)) => Ok(Some(bytes).filter(|bytes| !is_mark(bytes))),
            Ok(_) => Ok(None),
            // Another program's list or hash is no value of ours.
            Err(Fault::Refused(text)) if text.starts_with("WRONGTYPE") => Ok(None),
            Err(fault) => Err(fault.into_error("read", false)),
        };
        answers.into_iter().map(open).collect()
    }

    async fn write(&self, _: Origin, writes: Vec<Write>) -> Vec<Result<WriteOutcome>> {
        let names: Vec<_> = writes.iter().map(|write| self.names(&write.key)).collect();
        let _note = self.note_changes(&names);
        let jobs = writes.into_iter().zip(&names).map(|(write, names)| write_job(write, names));
        let answers = self.cluster().run(jobs.collect()).await;
        let outcome = |answer| match answer {
            // A script says 1, a plain command OK.
            Ok(Reply::Int(1) | Reply::Bytes(_)) => Ok(WriteOutcome::Stored),
            Ok(_) => Ok(WriteOutcome::Refused),
            Err(fault) => Err(Fault::into_error(fault, "write", true)),
        };
        answers.into_iter().map(outcome).collect()
    }

    async fn remove(&self, _: Origin, keys: &[Key], fence: Option<FenceAt>) -> Vec<Result<bool>> {
        let names: Vec<_> = keys.iter().map(|key| self.names(key)).collect();
        let _note = self.note_changes(&names);
        let (position, ttl) = fence_args(fence);
        let jobs = names.iter().map(|names| {
            let keys = [names.value.clone(), names.lease(), names.counter(), names.fence()];
            Job::script(&REMOVE, keys, [position.clone(), ttl.clone()], false)
        });
        let answers = self.cluster().run(jobs.collect()).await;
        let removed = |answer| match answer {
            Ok(reply) => Ok(reply == Reply::Int(1)),
            Err(fault) => Err(Fault::into_error(fault, "remove", true)),
        };
        answers.into_iter().map(removed).collect()
    }

    async fn lease(&self, keys: &[Key], ask: LeaseAsk) -> Vec<Result<Leased>> {
        let plain = number(u8::from(ask.plain));
        let args = [token(ask.token), number(ask.cleared), number(millis(ask.ttl)), plain];
        let job = |key| {
            let names = self.names(key);
            Job::script(&LEASE, [names.lease(), names.value], args.clone(), true)
        };
        let answers = self.cluster().run(keys.iter().map(job).collect()).await;
        let leased = |answer| match answer {
            Ok(Reply::Int(left)) => Ok(match u64::try_from(left) {
                Ok(left) => Leased::Held { remaining: Duration::from_millis(left) },
                Err(_) => Leased::Granted,
            }),
            Ok(_) => Err(strange("lease")),
            Err(fault) => Err(Fault::into_error(fault, "lease", true)),
        };
        answers.into_iter().map(leased).collect()
    }

    async fn release(&self, keys: &[Key], holder: LeaseToken) -> Result<()> {
        let job = |key| Job::script(&RELEASE, [self.names(key).lease()], [token(holder)], true);
        let answers = self.cluster().run(keys.iter().map(job).collect()).await;
        let failed = answers.into_iter().find_map(Result::err);
        failed.map_or(Ok(()), |fault| Err(fault.into_error("release", true)))
    }

    async fn add(&self, key: &Key, by: i64, ttl: Option<Duration>) -> Result<i64> {
        let args = [number(by), ttl_arg(ttl)];
        let job = Job::script(&ADD, [self.names(key).counter()], args, by == 0);
        match self.one(job, "add", by != 0).await? {
            Reply::Int(count) => Ok(count),
            Reply::Bytes(text) => parse(&text).ok_or_else(|| strange("add")),
            _ => Err(strange("add")),
        }
    }

    async fn epochs(&self, namespace: &str, tags: &[TagId]) -> Result<Epochs> {
        // Every use of a namespace begins here; what it writes is dated.
        self.cluster().clock.settled(self.cluster.command_timeout / 4).await;
        let name = || [self.namespace_name("e", namespace)];
        let begun = Instant::now();
        let mut rounds = 0;
        let there = || Job::script(&EPOCHS_THERE, name(), tags.iter().map(tag), true);
        let answer = loop {
            // Nobody's keys on other servers wait for one that hangs.
            if rounds == 0
                && self.cluster().is_away(&there())
                && let Some(reply) = self.cluster().ask_replicas(there()).await
            {
                break Ok(reply);
            }
            let job = Job::script(&EPOCHS, name(), tags.iter().map(tag), true);
            let error = match self.one(job, "epochs", false).await {
                Err(error) if error.is_transient() => error,
                answer => break answer,
            };
            // Without them nothing of the namespace can be read, wherever its values are.
            if let Some(reply) = self.cluster().ask_replicas(there()).await {
                break Ok(reply);
            }
            // In the moment of a promotion the old primary is gone and the new one is no replica any more.
            rounds += 1;
            let limit = self.cluster.command_timeout / 2;
            if !self.cluster.is_cluster || begun.elapsed() > limit {
                break Err(error);
            }
            tokio::time::sleep(route::PAUSE * rounds.min(5)).await;
        };
        epochs_of(&answer?).ok_or_else(|| strange("epochs"))
    }

    async fn bump(&self, _: Origin, namespace: &str, what: Bump) -> Result<u64> {
        let tags = match what {
            Bump::All => Vec::new(),
            Bump::Tags(tags) if tags.is_empty() => {
                return Ok(self.epochs(namespace, &[]).await?.latest);
            }
            Bump::Tags(tags) => tags,
        };
        let says = Bytes::from(self.namespace_name("b", namespace));
        let args = [says, number(MAX_TAGS)].into_iter().chain(tags.iter().map(tag));
        let job = Job::script(&BUMP, [self.namespace_name("e", namespace)], args, false);
        match self.one(job, "bump", true).await? {
            Reply::Bytes(text) => parse(&text).ok_or_else(|| strange("bump")),
            _ => Err(strange("bump")),
        }
    }

    async fn ping(&self) -> Result<()> {
        self.cluster().ping().await.map_err(|fault| fault.into_error("ping", false))
    }
}

fn epochs_of(reply: &Reply) -> Option<Epochs> {
    let Reply::Array(parts) = reply else { return None };
    let number = |reply: &Reply| match reply {
        Reply::Bytes(text) => parse(text),
        _ => None,
    };
    let numbers = parts.iter().map(number).collect::<Option<Vec<u64>>>()?;
    let [latest, cleared, tags @ ..] = &numbers[..] else { return None };
    Some(Epochs { latest: *latest, cleared: *cleared, tags: tags.to_vec() })
}

fn write_job(write: Write, names: &KeyNames) -> Job {
    let (guard, wanted) = match write.guard {
        Guard::Always => ("", Bytes::new()),
        Guard::Absent => ("a", Bytes::new()),
        Guard::Version(version) => ("v", Bytes::copy_from_slice(version.as_bytes())),
        Guard::Lease(holder) => ("l", token(holder)),
    };
    if write.guard == Guard::Always
        && write.fence.is_none()
        && write.ttl.is_none_or(|ttl| ttl >= LEASES_REMEMBER)
        && version(&write.value).is_some()
    {
        return Job::set(names.value.clone(), write.value, write.ttl.map(millis));
    }
    let (position, fence_ttl) = fence_args(write.fence);
    let guard = Bytes::from_static(guard.as_bytes());
    let args = [write.value, ttl_arg(write.ttl), guard, wanted, position, fence_ttl];
    Job::script(&WRITE, [names.value.clone(), names.lease(), names.fence()], args, false)
}

fn fence_args(fence: Option<FenceAt>) -> (Bytes, Bytes) {
    let Some(FenceAt { position: Position { system, timeline, offset }, ttl }) = fence else {
        return (Bytes::new(), Bytes::new());
    };
    let parts = [&system.to_be_bytes()[..], &timeline.to_be_bytes(), &offset.to_be_bytes()];
    (Bytes::from(parts.concat()), number(millis(ttl)))
}

fn token(token: LeaseToken) -> Bytes {
    Bytes::copy_from_slice(&token.0.to_be_bytes())
}

fn tag(tag: &TagId) -> Bytes {
    Bytes::from(format!("{:016x}", tag.0))
}

fn ttl_arg(ttl: Option<Duration>) -> Bytes {
    ttl.map_or(Bytes::from_static(b"0"), |ttl| number(millis(ttl)))
}

/// Rounded up, so that a life below a millisecond is not for ever.
fn millis(ttl: Duration) -> u128 {
    ttl.as_micros().div_ceil(1000).clamp(1, MAX_TTL_MS)
}

fn parse<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn strange(operation: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, operation, "the store gave an answer of another kind")
}
