//! What an engine implements to serve a [`Database`](crate::Database).
//!
//! A backend is two small traits: a [`Backend`] opens connections to nodes, a [`Connection`] runs statements. All else
//! (pools, routing, retries, sessions, conversion of rows) is done once, above them. Each backend, ours or yours, must
//! pass the conformance suite in [`testing`](crate::testing) (feature `testing`).
//!
//! | engine | URL | feature | module |
//! |---|---|---|---|
//! | PostgreSQL | `postgresql://user@host:5432/database` | `postgres` (default) | [`postgres`] |
//! | SQLite, embedded | `sqlite:/path/file.db`, `sqlite::memory:` | `sqlite` | [`sqlite`] |

mod credentials;
#[cfg(feature = "postgres")]
pub mod postgres;
mod sharing;
#[cfg(feature = "sqlite")]
pub mod sqlite;
mod streaming;
pub(crate) mod target;
mod violation;

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use resonant_common::join::Position;

use crate::pool::{PoolConfig, Verdict};
use crate::{Error, ErrorKind, Param, Result, Role, Rows};

pub use self::credentials::{Credentials, CredentialsProvider};
pub use self::sharing::{Fitness, Lanes, LanesStatus, Sharing};
pub use self::streaming::{Listen, Notification, Streaming};
pub use self::target::{Access, Target};
pub use self::violation::{ConstraintKind, ErrorExt, SqlState, Violation};
pub use crate::row::{Column, ParamRows, RowBlock, RowsBuilder};

/// An engine: opens connections to the nodes of a database.
///
/// # Contract
///
/// - Clones of one database share one backend; every method may be called from any task.
/// - `connect` answers a connection that has proven to work (the server, or the file, has answered), has only the
///   [`Access`] that was asked for, **enforced by the engine** and not by looking at statements, and holds no state of
///   anybody before. It does not retry and needs no deadline of its own: the pool has both.
/// - Errors carry the kind for what the caller does next, name the node and never a password or a parameter's value.
#[async_trait]
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// The engine's name as OpenTelemetry spells it (`sqlite`, `postgresql`).
    fn system(&self) -> &'static str;

    /// What the engine can do, so that callers and the suite can ask.
    fn capabilities(&self) -> Capabilities;

    /// Looks at a node's URL when the database is built, without asking anybody: a bad setting is refused there and then.
    /// Default: nothing is wrong with it.
    fn check(&self, target: &Target) -> Result<()> {
        let _ = target;
        Ok(())
    }

    /// Opens a connection.
    async fn connect(&self, target: &Target) -> Result<Box<dyn Connection>>;

    /// Opens a connection of its own that hears what is notified on these channels. Default: the engine has no
    /// notifications.
    async fn listen(&self, target: &Target, channels: &[String]) -> Result<Box<dyn Listen>> {
        let _ = (target, channels);
        let message = format!("{} has no notifications", self.system());
        Err(Error::new(ErrorKind::Unsupported, "listen", message))
    }

    /// Connections to a node that plain reads share. `None`, the default: each statement has one to itself.
    fn sharing(&self, target: &Target) -> Option<Arc<dyn Sharing>> {
        let _ = target;
        None
    }

    /// The size of a node's pool: what the user `wanted`, bent to what the engine can use; the engine's own default
    /// where nothing was asked for.
    fn fit_pool(&self, wanted: Option<&PoolConfig>, access: Access) -> PoolConfig {
        let _ = access;
        wanted.cloned().unwrap_or_default()
    }
}

/// What an engine can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Read-only connections to the primary's own node serve reads when there are no replicas. True where writing goes
    /// through a single connection (SQLite); false where the primary's pool serves both.
    pub local_readers: bool,
    /// Every connection sees a commit as soon as it is acknowledged, so sessions need no waiting.
    pub commits_visible_at_once: bool,
    /// A running statement can be stopped.
    pub stops_statements: bool,
    /// The engine refuses a value that is not of the column's declared type.
    pub typed_columns: bool,
    /// A replica can be promoted, and nodes say what they are ([`Connection::role`]): they are asked in the background.
    pub roles_change: bool,
    /// A node says by itself, with its next answer, that it has become something else. Without it that shows when it is asked
    /// in the background, or refuses a write.
    pub reports_role: bool,
    /// Nodes say how far they are ([`Connection::position`]). Without it a session reads from the primary once it has
    /// written, and no bound on age is kept by a replica.
    pub positions: bool,
    /// There are notifications ([`Backend::listen`]).
    pub notifications: bool,
}

impl Capabilities {
    /// The least an engine can do; set what yours does better.
    pub const fn none() -> Self {
        Self {
            local_readers: false,
            commits_visible_at_once: false,
            stops_statements: false,
            typed_columns: false,
            roles_change: false,
            reports_role: false,
            positions: false,
            notifications: false,
        }
    }

    /// What both can do.
    #[must_use]
    pub fn both(self, other: Self) -> Self {
        Self {
            local_readers: self.local_readers && other.local_readers,
            commits_visible_at_once: self.commits_visible_at_once && other.commits_visible_at_once,
            stops_statements: self.stops_statements && other.stops_statements,
            typed_columns: self.typed_columns && other.typed_columns,
            roles_change: self.roles_change && other.roles_change,
            reports_role: self.reports_role && other.reports_role,
            positions: self.positions && other.positions,
            notifications: self.notifications && other.notifications,
        }
    }
}

/// What a node turned out to be when it was first connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Survey {
    /// What of the engine's capabilities it has.
    pub capabilities: Capabilities,
    /// How many connections it allows whoever has logged in; `None` where that is not known, or not limited.
    pub connections: Option<u32>,
}

impl Survey {
    /// A node that can do so much.
    pub const fn new(capabilities: Capabilities) -> Self {
        Self { capabilities, connections: None }
    }

    /// It allows so many connections.
    #[must_use]
    pub const fn with_connections(self, connections: Option<u32>) -> Self {
        Self { connections, ..self }
    }
}

/// A connection to one node, used by one caller at a time.
///
/// # Contract
///
/// - **Placeholders** are `$1`, `$2`, … in any order, each as often as wanted; `$n` is the n-th parameter. A statement
///   that needs another number of parameters than it is given is `Rejected`.
/// - **One statement** per call; several are `Rejected`, except in `batch`.
/// - **Outside a transaction** each call is atomic and durable, as the engine is configured, once it has answered `Ok`. A
///   call that leaves a transaction open (a bare `BEGIN`) is `Rejected` and undone.
/// - **In a transaction** (between `begin` and `commit` or `rollback`) nothing is visible to others before `commit`
///   answered `Ok`. If the engine ended the transaction by itself, every later call fails until `rollback`; a `commit`
///   that rolled back is an error. After a failed call the caller only calls `rollback`, or rolls back to a savepoint
///   through `execute`.
/// - **A dropped future** leaves the connection *dirty*: [`verdict`](Connection::verdict) says
///   [`Verdict::Clean`], the statement is stopped where the engine can do that, and nothing is called before
///   [`clean`](Connection::clean) has answered. Whether a dropped write took effect is unknown, but never half of it.
/// - **A failed connection** says [`Verdict::Discard`] from then on.
/// - **A restricted connection** ([`restrict`](Connection::restrict)) refuses writes until it is told otherwise.
#[async_trait]
pub trait Connection: fmt::Debug + Send + 'static {
    /// Runs a statement and answers its rows.
    async fn query(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Rows>;

    /// Runs a statement and answers how many rows it inserted, updated or deleted; rows it returns are dropped.
    async fn execute(&mut self, sql: &str, params: &[Param<'_>]) -> Result<u64>;

    /// Runs a statement once a row of parameters, all or none, prepared once; answers the affected rows in total.
    async fn execute_many(&mut self, sql: &str, rows: ParamRows) -> Result<u64>;

    /// Runs several statements without parameters, all or none.
    async fn batch(&mut self, sql: &str) -> Result<()>;

    /// Opens a transaction.
    async fn begin(&mut self, options: BeginOptions) -> Result<()>;

    /// Commits. An error says [`may_have_applied`](crate::Error::may_have_applied) when the outcome is unknown.
    async fn commit(&mut self) -> Result<()>;

    /// Rolls back; without an open transaction it does nothing.
    async fn rollback(&mut self) -> Result<()>;

    /// Asks the node for a sign of life, as cheaply as it goes.
    async fn ping(&mut self) -> Result<()>;

    /// How far this connection's node is: whatever was committed up to this place is visible to a statement that starts
    /// now. `None` when the engine cannot tell.
    async fn position(&mut self) -> Result<Option<Position>>;

    /// What the connection's node is now. `None`, the default, when the engine cannot tell: then it is what the settings say.
    /// Asked only of backends with [`roles_change`](Capabilities::roles_change), on connections that read.
    async fn role(&mut self) -> Result<Option<Role>> {
        Ok(None)
    }

    /// Finds out what of what its engine has `declared` this node can do. Asked once a node, right after a connection was
    /// opened, and leaves it as it was. Default: all of it.
    async fn survey(&mut self, declared: Capabilities) -> Result<Survey> {
        Ok(Survey::new(declared))
    }

    /// Runs a statement if the node has come as far as `after`, else answers `None`.
    ///
    /// A backend that can check and read in one trip does so here.
    async fn query_after(
        &mut self,
        after: &Position,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Option<Rows>> {
        match self.position().await? {
            Some(position) if position.has_reached(after) == Some(true) => {
                self.query(sql, params).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    /// From the next call on it may do only this much, of what it was opened for; the engine enforces it. Free: nothing is
    /// sent before that call. The default does nothing: right where reading and writing connections are never the same.
    fn restrict(&mut self, access: Access) {
        let _ = access;
    }

    /// Answers in pieces; `None`, the default, where the engine cannot.
    fn streaming(&mut self) -> Option<&mut dyn Streaming> {
        None
    }

    /// The connection as what it is, for an engine's own door out of this trait. `None`, the default, where it has none.
    fn native(&mut self) -> Option<&mut (dyn Any + Send)> {
        None
    }

    /// Whether the connection can be used again, needs [`clean`](Connection::clean) first, or is done with. Free.
    fn verdict(&self) -> Verdict;

    /// Brings a dirty connection back: stops what runs, rolls back, undoes session state. An error means it is done with.
    async fn clean(&mut self) -> Result<()>;

    /// Closes it and waits until the engine has let go.
    async fn close(self: Box<Self>);
}

/// How a transaction begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct BeginOptions {
    /// How far concurrent transactions are kept apart; an engine may keep them further apart.
    pub isolation: Isolation,
    /// What the transaction may do.
    pub access: Access,
}

impl BeginOptions {
    /// Options with an isolation and an access.
    pub const fn new(isolation: Isolation, access: Access) -> Self {
        Self { isolation, access }
    }
}

/// How far concurrent transactions are kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Isolation {
    /// The engine's default. Default.
    #[default]
    Engine,
    /// Each statement sees what was committed before it.
    ReadCommitted,
    /// All statements see what was committed before the first.
    RepeatableRead,
    /// As if transactions ran one after the other; a conflict is run again.
    Serializable,
}

/// The default limit of one statement: 30 s.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
