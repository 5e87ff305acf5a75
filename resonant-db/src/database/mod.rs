//! [`Database`]: one primary, any number of replicas, one handle.

mod builder;
mod bulk;
mod config;
mod health;
mod node;
mod queries;
mod read;
mod session;
mod status;
mod strategy;
mod tour;
mod transaction;
mod verdicts;
mod write;

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use resonant_common::budget::RetryBudget;
use resonant_common::join::Finding;
use resonant_common::telemetry::{Counter, names};
use tokio::time::Instant;

use crate::backend::{Backend, Capabilities};
use crate::{Error, Result};

use self::node::{Lease, Node};
use self::strategy::{Choice, Field};

pub use self::builder::DatabaseBuilder;
pub use self::config::DatabaseConfig;
pub use self::node::Role;
pub use self::read::Read;
pub use self::session::Session;
pub use self::status::{DatabaseStatus, NodeStatus};
pub use self::strategy::ReadStrategy;
pub use self::transaction::{Transaction, TransactionOptions};
pub use self::write::Write;

/// A database: reads go to its replicas, writes to its primary, connections come from a pool a node.
///
/// Clones are cheap and share everything. When the last one goes, the connections are closed in the background;
/// [`close`](Database::close) waits for that.
///
/// # Cancel safety
///
/// Any future of this type may be dropped at any await. A dropped statement is stopped where the engine can do that, and
/// its connection is brought back to a clean state before anybody else gets it. A dropped read has no effect. Of a
/// dropped write outside a transaction it is unknown whether it took effect, but never half of it did. A dropped
/// [`transaction`](Database::transaction) is rolled back unless its commit was already on the way, in which case it is
/// unknown whether it committed.
#[derive(Clone)]
pub struct Database {
    inner: Arc<Inner>,
}

struct Inner {
    config: DatabaseConfig,
    backend: Arc<dyn Backend>,
    primary: Node,
    replicas: Vec<Node>,
    turn: AtomicUsize,
    budget: RetryBudget,
    meters: Meters,
}

struct Meters {
    primary: Counter,
    replica: Counter,
    read_retries: Counter,
    conflict_retries: Counter,
    ejections: Counter,
}

impl Database {
    /// A builder for more than a single node.
    pub fn builder() -> DatabaseBuilder {
        DatabaseBuilder::new(DatabaseConfig::default())
    }

    /// A builder that starts from settings.
    pub fn from_config(config: DatabaseConfig) -> DatabaseBuilder {
        DatabaseBuilder::new(config)
    }

    /// Connects to a single node: `Database::connect("sqlite:/path/file.db")`.
    ///
    /// # Errors
    ///
    /// As [`DatabaseBuilder::connect`].
    pub async fn connect(url: impl Into<String>) -> Result<Self> {
        Self::builder().primary(url).connect().await
    }

    /// Reads: go to a replica as the read strategy says, to the primary when there is none. The engine refuses writes here.
    ///
    /// A replica may be behind: what was just written may not be there yet. Read through a [`session`](Database::session)
    /// where that matters.
    pub fn read(&self) -> Read<'_> {
        Read::new(self, None)
    }

    /// Writes, and reads that must see the newest state: go to the primary.
    pub fn write(&self) -> Write<'_> {
        Write::new(self, None)
    }

    /// A session that reads what it has written.
    pub fn session(&self) -> Session {
        Session::new(self.clone())
    }

    /// A session that goes on from another one's [`token`](Session::token), which may come from another process.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when the text is no token. That it is of another database turns out at the first read.
    pub fn session_from(&self, token: &str) -> Result<Session> {
        Session::from_token(self.clone(), token)
    }

    /// Asks the database for a sign of life: the primary, or for an embedded engine a reading connection to its file, so
    /// that a long write does not look like an outage.
    ///
    /// The future owns what it needs, so it fits a health check: `.check("database", move || db.ping())`.
    #[track_caller]
    pub fn ping(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        let (inner, site) = (Arc::clone(&self.inner), Location::caller());
        async move {
            let node = match inner.replicas.first() {
                Some(readers) if inner.capabilities().local_readers => readers,
                _ => &inner.primary,
            };
            node.lease(site).await?.ping().await
        }
    }

    /// What the engine can do.
    pub fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    /// The settings.
    pub fn config(&self) -> &DatabaseConfig {
        &self.inner.config
    }

    /// A snapshot of every node.
    pub fn status(&self) -> DatabaseStatus {
        status::of(&self.inner)
    }

    /// What the database says of its own health, without asking a server: each pool's findings (`db.pool.…`), and
    /// `db.replica.ejected` for a replica that is out of rotation.
    pub fn findings(&self) -> Vec<Finding> {
        status::findings(&self.inner)
    }

    /// Closes the database, for all clones: no new calls, those under way may finish until `deadline`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut) when calls were still under way; their connections are closed as they come back.
    ///
    /// # Cancel safety
    ///
    /// The database is closed with the first poll and stays so; a dropped future only stops waiting.
    pub async fn close(&self, deadline: Duration) -> Result<()> {
        let pools = self.inner.nodes().map(|node| node.pool.close(deadline));
        futures::future::join_all(pools).await.into_iter().collect()
    }
}

impl Inner {
    fn new(
        config: DatabaseConfig,
        backend: Arc<dyn Backend>,
        primary: Node,
        replicas: Vec<Node>,
    ) -> Self {
        let name = config.name.as_str();
        let routed = |role: Role| {
            Counter::new(&names::DB_ROUTED, &[("database", name), ("role", role.as_str())])
        };
        let retries = |reason: &str| {
            Counter::new(&names::DB_RETRIES, &[("database", name), ("reason", reason)])
        };
        let meters = Meters {
            primary: routed(Role::Primary),
            replica: routed(Role::Replica),
            read_retries: retries("other_node"),
            conflict_retries: retries("conflict"),
            ejections: Counter::new(&names::DB_EJECTIONS, &[("database", name)]),
        };
        Self {
            config,
            backend,
            primary,
            replicas,
            turn: AtomicUsize::new(0),
            budget: RetryBudget::default(),
            meters,
        }
    }

    fn capabilities(&self) -> Capabilities {
        self.backend.capabilities()
    }

    /// Every node, the primary first.
    fn nodes(&self) -> impl Iterator<Item = &Node> {
        std::iter::once(&self.primary).chain(&self.replicas)
    }

    /// The next node to read from that was not tried yet.
    fn choose(&self, tried: &[Choice]) -> Option<(Choice, &Node)> {
        let (now, turn) = (Instant::now(), self.turn.fetch_add(1, Ordering::Relaxed));
        let untried = |choice: Choice| !tried.contains(&choice);
        let strategy = self.config.read_strategy;
        let pick = |usable: &dyn Fn(usize) -> bool, primary_usable: bool| {
            strategy.choose(&Field {
                replicas: self.replicas.len(),
                turn,
                chance: match strategy {
                    ReadStrategy::Random => rand::random(),
                    _ => 0,
                },
                usable: &|place| untried(Choice::Replica(place)) && usable(place),
                primary_usable: untried(Choice::Primary) && primary_usable,
                in_flight: &|place| self.replicas[place].in_flight(),
            })
        };
        // Who is out of rotation is asked after all when nobody else is left.
        let primary_usable =
            strategy != ReadStrategy::PreferPrimary || self.primary.health.is_usable(now);
        let choice = pick(&|place| self.replicas[place].health.is_usable(now), primary_usable)
            .or_else(|| pick(&|_| true, true))?;
        let node = match choice {
            Choice::Primary => &self.primary,
            Choice::Replica(place) => &self.replicas[place],
        };
        node.health.asked(now);
        Some((choice, node))
    }

    /// Borrows a connection to the primary, for a write.
    async fn lease_primary(&self, site: &'static Location<'static>) -> Result<Lease<'_>> {
        self.meters.primary.increment(1);
        self.primary.lease(site).await
    }

    fn count_routed(&self, role: Role) {
        match role {
            Role::Primary => self.meters.primary.increment(1),
            Role::Replica => self.meters.replica.increment(1),
        }
    }

    /// Remembers that an attempt on a node failed.
    fn note_failure(&self, node: &Node, error: &Error) {
        if node.failed(error) && node.role == Role::Replica {
            self.meters.ejections.increment(1);
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("name", &self.inner.config.name)
            .field("nodes", &self.inner.nodes().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
