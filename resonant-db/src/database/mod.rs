//! [`Database`]: one primary, any number of replicas, one handle.

mod builder;
mod bulk;
mod config;
mod environment;
mod found;
mod listen;
mod node;
mod queries;
#[cfg(feature = "postgres")]
mod raw;
mod read;
mod rows;
mod session;
mod shared;
mod status;
mod stream;
mod switches;
mod tour;
mod transaction;
mod verdicts;
mod write;

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use resonant_common::join::Finding;
use resonant_common::telemetry::{Counter, names};

use crate::Result;
use crate::backend::{Access, Backend, Capabilities};
use crate::replica_set::ReplicaSet;

use self::node::{Handle, Lease, Report, lease};
use self::shared::Switch;
use self::verdicts::{Stage, write_elsewhere};

pub use self::builder::DatabaseBuilder;
pub use self::config::DatabaseConfig;
pub use self::listen::{Event, Listener};
pub use self::read::Read;
pub use self::rows::{TransactionCopy, TransactionRows};
pub use self::session::Session;
pub use self::status::{DatabaseStatus, NodeStatus};
#[cfg(feature = "sharding")]
pub(crate) use self::stream::cut_short;
pub use self::stream::{CopyOut, RowStream};
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
    set: ReplicaSet<Handle>,
    conflict_retries: Counter,
    reads: read::Reads,
    lanes: Switch,
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

    #[cfg(feature = "tower")]
    pub(crate) fn has_one_node(&self) -> bool {
        self.inner.set.nodes().len() == 1
    }

    /// Whether a token can be of this database, as far as that is known.
    #[cfg(feature = "tower")]
    pub(crate) fn may_be_of(&self, written: &crate::replica_set::Written) -> bool {
        self.inner.set.may_be_of(written)
    }

    /// Asks the database for a sign of life: the primary, or for an embedded engine a reading connection to its file, so
    /// that a long write does not look like an outage.
    ///
    /// The future owns what it needs, so it fits a health check: `.check("database", move || db.ping())`.
    #[track_caller]
    pub fn ping(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        let (inner, site) = (Arc::clone(&self.inner), Location::caller());
        async move {
            let pick = match inner.capabilities().local_readers {
                true => inner.set.read()?,
                false => inner.set.write()?,
            };
            let mut lease =
                lease(pick, Access::ReadOnly, site).await.map_err(|(error, _)| error)?;
            lease.ping().await
        }
    }

    /// What the database can do: what its engine declares, less what a node that was connected to turned out not to have, such
    /// as `LISTEN` behind a pooler, or a place in the log on a service that shows none. What is missing was said in the log,
    /// once a node; what then happens instead is written at each [capability](Capabilities).
    pub fn capabilities(&self) -> Capabilities {
        let nodes = self.inner.set.nodes();
        let found = nodes.iter().filter_map(|node| node.handle.survey());
        found.fold(self.inner.capabilities(), |all, one| all.both(one.capabilities))
    }

    /// The settings.
    pub fn config(&self) -> &DatabaseConfig {
        &self.inner.config
    }

    /// A snapshot of every node.
    pub fn status(&self) -> DatabaseStatus {
        status::of(&self.inner)
    }

    /// What the database says of its own health, without asking a server: each pool's findings (`db.pool.…`),
    /// `db.replica.ejected` and `db.replica.held` for a replica that is out of rotation, `db.replica.stale` for one that is
    /// further behind than [`stale_after`](crate::RoutingConfig::stale_after), `db.primary.none` while no node takes writes.
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
        self.inner.set.stop();
        let nodes = self.inner.set.nodes();
        let closing = nodes.iter().map(|node| node.handle.close(deadline));
        futures::future::join_all(closing).await.into_iter().collect()
    }
}

impl Inner {
    fn new(
        config: DatabaseConfig,
        backend: Arc<dyn Backend>,
        set: ReplicaSet<Handle>,
        lanes: Switch,
    ) -> Self {
        let labels = [("database", config.name.as_str()), ("reason", "conflict")];
        let conflict_retries = Counter::new(&names::DB_RETRIES, &labels);
        let reads = read::Reads::new(&config.name);
        Self { config, backend, set, conflict_retries, reads, lanes }
    }

    fn capabilities(&self) -> Capabilities {
        self.backend.capabilities()
    }

    /// Borrows a connection to the primary, for a write. If that fails, or takes until another node is the primary, the new
    /// primary's is borrowed: nothing was sent yet.
    async fn lease_primary(&self, site: &'static Location<'static>) -> Result<Lease> {
        self.set.ready().await;
        let mut again = true;
        loop {
            let (error, failed) = match self.set.write() {
                Err(error) => (error, None),
                Ok(pick) => {
                    let id = pick.id();
                    let left = pin!(self.set.left(&pick));
                    let borrowed = pin!(lease(pick, Access::ReadWrite, site));
                    match select(borrowed, left).await {
                        Either::Left((Ok(lease), _)) if lease.pick.is_current() => {
                            return Ok(lease);
                        }
                        // It became something else while we waited. Primaries do not change often enough to go round.
                        Either::Left((Ok(_), _)) | Either::Right(_) => continue,
                        Either::Left((Err((error, pick)), _)) => {
                            pick.note(&error);
                            (error, Some(id))
                        }
                    }
                }
            };
            let moves = again && write_elsewhere(&error, Stage::Connecting);
            again = false;
            if !moves || !self.set.moves_on_from(failed).await {
                return Err(error);
            }
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("name", &self.inner.config.name)
            .field("nodes", &self.inner.set.nodes())
            .finish_non_exhaustive()
    }
}
