//! Queues in RabbitMQ 3.10 or later, shared by all processes that reach it.
//!
//! ```no_run
//! use std::sync::Arc;
//! use resonant_common::join::MemoryLeaseStore;
//! use resonant_queue::{PartitionedQueue, RabbitMq};
//!
//! # async fn example() -> resonant_queue::Result<()> {
//! // With several processes: a lease store they share, such as a database.
//! let leases = Arc::new(MemoryLeaseStore::new());
//! let rabbit = RabbitMq::connect(["amqp://guest:guest@rabbit-1:5672/%2f", "amqp://guest:guest@rabbit-2:5672/%2f"])
//!     .leases(leases)
//!     .await?;
//! let queue = PartitionedQueue::<String>::builder("session-tasks").backend(rabbit).build().await?;
//! # let _ = queue;
//! # Ok(()) }
//! ```
//!
//! # How it works
//!
//! Every partition is a quorum queue with a single active consumer. Its owner holds up to 512 messages and acknowledges
//! each when it is finished; the broker gives nothing to the next owner before the channel of the last one is gone, and
//! then first what that one held, in its old order. A channel that is lost is made anew: what comes again and is with a
//! handler already is recognised and not handed out twice.
//!
//! What all processes must agree on (parked keys, pauses, epochs of owners, unique ids) is a log each of them reads: a
//! stream. An owner appends its epoch before it reads, and one that sees a higher epoch lets go at once.
//!
//! | object | is |
//! |---|---|
//! | `NAME.p.N` | the messages of partition N |
//! | `NAME.parked.N.HASH` | what was put aside for one parked key |
//! | `NAME.dead` | dead letters |
//! | `NAME.delay.L`, `NAME.due` | delayed messages |
//! | `NAME.log`, `NAME.ids` | what all agree on |
//! | `NAME.held` | how many messages owners hold, so that every process counts all |
//!
//! # What it promises, and what not
//!
//! - A publish returns after a majority of the nodes has stored the message. An error that may have applied leaves some of
//!   a batch stored, maybe.
//! - The next owner of a partition begins when the broker has noticed the end of the last one: at once for a closed or
//!   killed process, within about two [heartbeats](RabbitMqBuilder::heartbeat) for a frozen one.
//! - An acknowledgement the broker received but had not stored when it died is lost: that message comes again.
//! - `max_depth` is looked at by each process: several that publish at once may exceed it by what they have on their
//!   way. Messages that the worker of another process holds are not counted here, but there.
//! - [`Depth::oldest_age`](crate::Depth::oldest_age) is right where a partition is owned; elsewhere it is the age of
//!   the oldest message this process published since it last saw the partition empty.
//! - How often a message failed is forgotten with its owner. Receipts have no sequence.
//! - A handler may take longer than the broker waits for an acknowledgement (its `consumer_timeout`, by default 30 minutes): the
//!   broker closes the channel then, and the handler goes on and runs once, as long as its worker lives.
//! - A partition whose queue does not answer holds up the others by a second at most; once 512 delayed messages have fallen due
//!   for it, other delayed ones wait, too.
//! - A unique id whose publish ended in doubt is free again after a minute; its message may then be stored twice. Ids are
//!   kept in a log of 256 MiB, about a million ids. The log of parkings, pauses and openings is never cut: some 150 bytes each.
//! - RabbitMQ forgets a queue it made less than a second before it was killed. New queues are therefore left alone for
//!   [two seconds](RabbitMqBuilder::creation_wait); what was put aside for a key parked in the last second before a lone
//!   broker is killed may be lost.
//! - Queues that somebody deletes are [created again](RabbitMqBuilder::create_queues), empty, by whoever misses them first; but not
//!   `NAME.log`, without which nothing is sure: stop all processes before deleting that. Somebody who deletes a queue and makes
//!   it again by hand waits a second in between, else RabbitMQ forgets to tell its consumers.
//! - A parked key costs a queue. Dead letters are looked at 512 at a time, by one caller at a time.

mod control;
mod dead;
mod delays;
mod error;
mod falling;
mod feed;
mod flights;
mod heard;
mod holdings;
mod link;
mod log;
mod names;
mod opening;
mod owner;
mod publish;
mod publisher;
mod receiving;
mod settle;
mod store;
mod topology;
mod wire;

use std::fmt;
use std::future::{Future, IntoFuture, Ready, ready};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lapin::uri::AMQPUri;
use resonant_common::error::BoxError;
use resonant_common::join::LeaseStore;

use self::link::{Ask, Settings};
use self::store::RabbitStore;
use super::{Backend, Capabilities, QueueSpec, QueueStore};
use crate::error::{Error, ErrorKind, Result};

/// Queues in RabbitMQ. Clones share nothing but settings: each queue has connections of its own. See the
/// [module](self).
#[derive(Clone)]
pub struct RabbitMq {
    settings: Arc<Settings>,
    leases: Arc<dyn LeaseStore>,
}

impl fmt::Debug for RabbitMq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMq").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// How a [`RabbitMq`] is made; await it.
#[must_use = "await it"]
pub struct RabbitMqBuilder {
    urls: Vec<String>,
    leases: Option<Arc<dyn LeaseStore>>,
    ca: Option<String>,
    credentials: Option<Arc<Ask>>,
    heartbeat: Duration,
    connect_timeout: Duration,
    answer_timeout: Duration,
    confirm_timeout: Duration,
    create_queues: bool,
    creation_wait: Duration,
}

impl fmt::Debug for RabbitMqBuilder {
    /// Without addresses, as they hold passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMqBuilder").field("urls", &self.urls.len()).finish_non_exhaustive()
    }
}

impl RabbitMq {
    /// Begins with the nodes of one broker, as `amqp://user:password@host:port/vhost` or `amqps://…`. They are tried in
    /// turn. No connection is made before a queue is built, and a broker that is down stops no start.
    pub fn connect<I>(urls: I) -> RabbitMqBuilder
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        RabbitMqBuilder {
            urls: urls.into_iter().map(Into::into).collect(),
            leases: None,
            ca: None,
            credentials: None,
            heartbeat: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(10),
            confirm_timeout: Duration::from_secs(30),
            create_queues: true,
            creation_wait: Duration::from_secs(2),
        }
    }
}

impl RabbitMqBuilder {
    /// Where partitions are leased. Required; all processes of a queue need the same.
    pub fn leases(mut self, store: Arc<dyn LeaseStore>) -> Self {
        self.leases = Some(store);
        self
    }

    /// The certificates `amqps://` trusts, in PEM. Default: those of the system.
    pub fn ca(mut self, pem: impl Into<String>) -> Self {
        self.ca = Some(pem.into());
        self
    }

    /// Where user and password come from, instead of the addresses: asked for each new connection, and once more if what
    /// it gave was refused. So a password is changed without a restart: connections that are open stay, new ones use
    /// the new one. [`connect_timeout`](Self::connect_timeout) counts for it, too.
    ///
    /// ```
    /// # use resonant_queue::RabbitMq;
    /// let builder = RabbitMq::connect(["amqps://rabbit-1:5671/%2f"]).credentials(|| async {
    ///     let password = std::fs::read_to_string("/run/secrets/rabbitmq")?;
    ///     Ok::<_, std::io::Error>(("app".to_owned(), password.trim().to_owned()))
    /// });
    /// # drop(builder);
    /// ```
    pub fn credentials<F, Fut, E>(mut self, provide: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(String, String), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.credentials = Some(Arc::new(move || {
            let answer = provide();
            Box::pin(async move { answer.await.map_err(Into::into) })
        }));
        self
    }

    /// How soon a side that is silent is given up: a frozen owner is taken over from within about two of these. Default 5 s;
    /// whole seconds, at least 1, with which it takes up to three.
    ///
    /// The broker gives up a connection after two to three of the heartbeats agreed on with it: for the connection
    /// that reads this is half of what is set here, rounded up to a second.
    pub fn heartbeat(mut self, every: Duration) -> Self {
        self.heartbeat = every;
        self
    }

    /// How long a connection may take. Default 5 s.
    pub fn connect_timeout(mut self, wait: Duration) -> Self {
        self.connect_timeout = wait;
        self
    }

    /// How long the broker may take for anything but storing messages. Default 10 s.
    pub fn answer_timeout(mut self, wait: Duration) -> Self {
        self.answer_timeout = wait;
        self
    }

    /// How long the broker may take to store what is published, also while it takes nothing because its memory or disk is
    /// used up. Default 30 s.
    pub fn confirm_timeout(mut self, wait: Duration) -> Self {
        self.confirm_timeout = wait;
        self
    }

    /// Whether queues that are missing are created, also when somebody has deleted them. Default yes. With `false` they
    /// are looked at only, and a missing one is an error of kind `NotFound`; what is put aside for a parked key still
    /// gets a queue of its own.
    pub fn create_queues(mut self, create: bool) -> Self {
        self.create_queues = create;
        self
    }

    /// How long queues that were just created are left alone before anything is stored in them. Default 2 s.
    ///
    /// RabbitMQ writes down a new quorum queue's name up to a second after it said that it is there. A lone broker that
    /// is killed before comes back without what was confirmed meanwhile. Zero is for those who can bear that.
    pub fn creation_wait(mut self, wait: Duration) -> Self {
        self.creation_wait = wait;
        self
    }

    fn finish(self) -> Result<RabbitMq> {
        let refuse = |rule: &str| Error::new(ErrorKind::Config, "connect", rule);
        let seconds = u16::try_from(self.heartbeat.as_secs()).unwrap_or(u16::MAX);
        if self.urls.is_empty() {
            return Err(refuse("RabbitMQ needs at least one address"));
        }
        if seconds == 0 {
            return Err(refuse("heartbeat must be at least one second"));
        }
        let waits = [self.connect_timeout, self.answer_timeout, self.confirm_timeout];
        if waits.iter().any(Duration::is_zero) {
            return Err(refuse(
                "connect_timeout, answer_timeout and confirm_timeout must not be zero",
            ));
        }
        let leases = self.leases.ok_or_else(|| {
            refuse("RabbitMQ needs a lease store: .leases(Arc::new(MemoryLeaseStore::new())) for one process, a shared one for several")
        })?;
        let mut addresses = Vec::new();
        for (index, url) in self.urls.iter().enumerate() {
            // The text is not repeated: it holds a password.
            let address: AMQPUri = url.parse().map_err(|_| {
                refuse(&format!(
                    "address {} is not of the form amqp://user:password@host:port/vhost",
                    index + 1
                ))
            })?;
            addresses.push(address);
        }
        let settings = Settings {
            addresses,
            ca: self.ca,
            credentials: self.credentials,
            heartbeat: seconds,
            connect_timeout: self.connect_timeout,
            answer_timeout: self.answer_timeout,
            confirm_timeout: self.confirm_timeout,
            create_queues: self.create_queues,
            creation_wait: self.creation_wait,
        };
        Ok(RabbitMq { settings: Arc::new(settings), leases })
    }
}

impl IntoFuture for RabbitMqBuilder {
    type Output = Result<RabbitMq>;
    type IntoFuture = Ready<Result<RabbitMq>>;

    /// # Errors
    ///
    /// `Config` without a lease store or with an address that cannot be read.
    fn into_future(self) -> Self::IntoFuture {
        ready(self.finish())
    }
}

/// Runs to its end, also if whoever waits for it is dropped.
async fn to_its_end<T: Send + 'static>(
    operation: &'static str,
    tasks: &tokio_util::task::TaskTracker,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    tasks.spawn(work).await.unwrap_or_else(|_| Err(crate::error::closed(operation)))
}

#[async_trait]
impl Backend for RabbitMq {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new("rabbitmq")
            .durable(true)
            .seek(false)
            .numbered(false)
            .atomic(false)
            .remembers_failures(false)
    }

    async fn declare(&self, spec: &QueueSpec) -> Result<Arc<dyn QueueStore>> {
        let store = RabbitStore::new(Arc::clone(&self.settings), Arc::clone(&self.leases), spec);
        match store.shared.prepare("build").await {
            // A broker that is down stops no start.
            Err(error) if error.kind() != ErrorKind::Unavailable => return Err(error),
            Ok(()) | Err(_) => {}
        }
        Ok(Arc::new(store))
    }
}

#[cfg(test)]
mod tests {
    use resonant_common::join::MemoryLeaseStore;

    use super::*;

    fn connect(url: &str) -> RabbitMqBuilder {
        RabbitMq::connect([url]).leases(Arc::new(MemoryLeaseStore::new()))
    }

    #[test]
    fn a_bad_setting_is_refused_by_its_rule() {
        let good = "amqp://user:secret@host:5672/%2f";
        let no_leases = RabbitMq::connect([good]).finish();
        let cases = [
            (no_leases, "lease store"),
            (connect("host:secret").finish(), "address 1"),
            (connect(good).heartbeat(Duration::ZERO).finish(), "heartbeat"),
            (connect(good).answer_timeout(Duration::ZERO).finish(), "answer_timeout"),
            (RabbitMq::connect(Vec::<String>::new()).finish(), "at least one"),
        ];
        for (built, rule) in cases {
            let text = built.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(
                text.contains(rule) && !text.contains("secret"),
                "{text:?} should name {rule:?}"
            );
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        let builder = connect("amqp://user:secret@host:5672/%2f");
        let shown = format!("{builder:?}");
        let shown = format!("{shown} {:?}", builder.finish());
        assert!(shown.contains("host:5672") && !shown.contains("secret"), "{shown}");
    }
}
