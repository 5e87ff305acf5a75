//! PostgreSQL, through tokio-postgres: one primary, any number of streaming replicas.
//!
//! ```no_run
//! # async fn example() -> resonant_db::Result<()> {
//! use resonant_db::{Database, params};
//!
//! let db = Database::builder()
//!     .primary("postgresql://app@primary:5432/resonant")
//!     .replicas(["postgresql://app@replica1:5432/resonant", "postgresql://app@replica2:5432/resonant"])
//!     .connect()
//!     .await?;
//! let names: Vec<String> = db.read().query_as("SELECT name FROM users WHERE org = $1", params!["org_1"]).await?;
//! # Ok(()) }
//! ```
//!
//! # URL
//!
//! `postgresql://user:password@host:5432/database?key=value&…`, as libpq reads it; `%2F` and the like are decoded. Several
//! hosts, separated by commas, are tried in their order, beginning with the one that was good last. libpq's variables (`PGUSER`,
//! `PGPASSWORD`, `PGSSLMODE`, …) say what the URL leaves out; `PGHOST` and `PGHOSTADDR` only where it names no host at all. Those
//! that mean nothing here (`PGSERVICE`, `PGPASSFILE`, `PGSSLCRL`, `PGTZ`, …) are named in the log when they are set.
//!
//! | key | default | meaning |
//! |---|---|---|
//! | `sslmode` | `prefer` | `disable`, `allow`, `prefer`, `require`, `verify-ca`, `verify-full`, as in libpq; from `require` on it needs the feature `tls` |
//! | `sslrootcert` | the system's | file of the authorities to trust; with it `require` is `verify-ca` |
//! | `sslcert`, `sslkey` | none | the client's own certificate and its key |
//! | `sslnegotiation` | `postgres` | `direct` skips a round trip (server 17 and later) |
//! | `channel_binding` | `prefer` | `disable`, `prefer`, `require` |
//! | `target_session_attrs` | `any` | `read-write`, `read-only`, `primary`, `standby`, `prefer-standby` |
//! | `load_balance_hosts` | `disable` | `random` tries hosts and addresses in any order |
//! | `application_name`, `options`, `hostaddr` | none | as in libpq |
//! | `connect_timeout` | none; 1.5 s for each of several hosts | seconds for one attempt in all; the pool has a limit of its own |
//! | `keepalives`, `keepalives_idle`, `keepalives_interval`, `keepalives_count` | on, 30 s, 10 s, 3 | how a dead link is noticed while nothing is sent |
//! | `tcp_user_timeout` | 30000 | milliseconds until a link that swallows what is sent is dead (Linux) |
//! | `statements` | 256 | prepared statements kept by each connection |
//! | `session_reset` | `needed` | `always` resets the session after every use, see below |
//!
//! A key nobody knows is reported once in the log. Keys of libpq that would make the connection less safe if they were
//! left out (`sslcrl`, `requirepeer`, …) are refused.
//!
//! # Types
//!
//! A parameter is encoded by the type the server declared for its placeholder: whole numbers take whatever width fits,
//! text is read by the server as anything it likes (`uuid`, `jsonb`, `timestamptz`, an enum, an array: `{1,2}`), vectors are arrays.
//! What would change a value silently is refused: a number for a text, text for `bytea`, a timestamp without a zone for one
//! with.
//!
//! Booleans, integers, floats, text and bytes come back as they are, `numeric` with all its digits, arrays as vectors
//! (`Vec<i64>`, `Vec<Option<String>>`). With the features `uuid`, `chrono`, `time`, `jiff` and `rust_decimal` the types of
//! these crates go in and come back as themselves. Other types come back
//! as text that the server would read as the same value: dates and times in the form of RFC 3339, intervals in that of
//! ISO 8601, `uuid`, `json`, `inet`, ranges as `[1,5)`, composite values as `(a,b)`. Of types without
//! a text form here (`tsvector`, geometric ones, extensions) the column is unreadable until the statement casts it to text.
//!
//! # A primary whose name moves
//!
//! Every new connection asks for the addresses behind the name anew, of the system or of a [`Resolver`]. A server that hangs
//! while its name moves on is left as well: a statement that has been silent for half a second looks where the name leads,
//! and if that is elsewhere and nobody answers at the old address within another half a second, all connections there are given
//! up. [`Names`] follows the name from outside, also while nothing is asked of the primary.
//!
//! # What is promised
//!
//! - **Nothing dirty comes back.** The status of the session is read from every answer, at no cost. A connection that
//!   comes back in a transaction is rolled back; one that somebody changed (`SET`, `LISTEN`, a cursor, temporary tables,
//!   `set_config`, session-level advisory locks) is reset; one whose prepared statements were touched is closed. What a
//!   function of your own does inside is not seen: `session_reset=always` is for such a schema.
//! - **A dropped future stops the server.** What runs is cancelled at once, and the connection is used again only when it
//!   is certain that the request to cancel cannot hit a later statement.
//! - **COMMIT means committed.** A `COMMIT` that the server answers with a rollback is an error. If the connection is lost
//!   before the answer, the error says [`may_have_applied`](crate::Error::may_have_applied).
//! - **Nothing waits for ever.** The server stops a statement at the time limit; if it shows no sign of life for half
//!   of that more (from 500 ms to 2 s), the call ends and the connection is given up.
//! - **Reads only read.** Connections for reading start with `default_transaction_read_only`, on a standby the server
//!   refuses writes anyway, and a connection of the primary's that serves a read is told so before it, in the same round
//!   trip. A statement that changes that very setting is not stopped on the primary: use a role without
//!   rights where you do not trust the statements. Connections for writing are not opened to a standby, and are closed
//!   when their node turns out to have become one.
//! - **A schema change heals itself**: a prepared statement that no longer fits is prepared again; inside a transaction the
//!   error is a `Conflict`, so that it is run again.
//! - **No value is shown**, neither in errors nor in the driver's log: what the server quotes of them is left out.
//!
//! # Lanes: connections that reads share
//!
//! Once more tasks read than the pool of a node has idle connections, plain reads of [`read`](crate::Database::read) share up to four
//! connections of their own, on which the requests go out and the answers come back many at a time. These connections, the
//! lanes, are opened when they are first needed, closed after a minute without a read, come on top of the pool's
//! `max_size`, and are called `<application_name> lane` in `pg_stat_activity`.
//!
//! A read goes to an idle connection as long as there is one. Reads go on to share until there are no more than half as many of
//! them as the pool has connections, so that the others are left to whoever needs one to himself. What has a
//! connection to itself, always: transactions, writes, streams, COPY, sessions that wait for their own writes, and each
//! read that is not plain.
//!
//! A statement is plain if all of this holds; when in doubt it is not.
//!
//! - It begins with `SELECT`, `WITH`, `VALUES` or `TABLE`, holds neither `FOR` nor `INTO` nor a word that writes, and
//!   calls only built-in functions that depend on nothing but their arguments and the clock. So never `set_config`, `nextval`, advisory
//!   locks, `pg_sleep`, what begins with `pg_`, or a function of your own.
//! - The catalogue knows nothing else behind its names: no view, no foreign table, no policy, no function, no domain; and
//!   the database has no operator or cast that runs anything but compiled code.
//! - It has run alone, in 2 ms at most beside the way to the server and back. That is asked again every minute, and so
//!   is the catalogue. A statement that takes four times what others take, or that holds the others up, is left out for 5 s, then for
//!   longer.
//!
//! What is promised:
//!
//! - **A wrong verdict is an error, never a write**: the server opens a lane read-only, stops a statement after 200 ms, and
//!   its wait for a lock after 50 ms.
//! - **Nothing is ever cancelled on a lane**, so no request to cancel hits a neighbour. A read that was dropped ends by itself, after 200 ms at most.
//! - **What fails on a lane is no answer.** Any error, a lane that is lost or that says nothing for half a second: the read
//!   runs again on a connection of its own, and that is where errors come from.
//! - **Who does not take his answer holds up nobody** for longer than a moment: he is cut off, and reads again on a connection
//!   of his own when he comes back.
//! - **A lane is at the server the other connections are at.** One of a primary's is not opened to a standby or to another
//!   system, and leaves an address that connections have left.
//! - **A failover empties the lanes** of the node. [`set_lanes(Lanes::Off)`](crate::Database::set_lanes) closes them and keeps
//!   them closed, in one call and without a restart. [`lanes`](crate::DatabaseBuilder::lanes) turns them off from the start.
//!
//! There are none behind a pooler, with `statements=0`, or where the URL names several hosts.
//!
//! # Behind a pooler
//!
//! A pooler in transaction mode (PgBouncer, from 1.18 on) is noticed by itself: it does not keep, or refuses, the options a
//! session is opened with. Then no prepared statement has a name at the server, and each statement carries its time limit, and
//! for reading its read-only transaction, in the same round trip. What does not work there is refused or said, and missing
//! from [`Database::capabilities`](crate::Database::capabilities):
//!
//! - `options=` in the URL, and statements outside a transaction that change the session for whoever has it next (`SET`,
//!   `LISTEN`, `PREPARE`, …). `SET LOCAL` in a transaction works. What a function changes in the session is not undone.
//! - `LISTEN`; several statements at once on a connection that reads.
//! - The server does not limit `batch` and utilities such as `VACUUM`; they are cancelled from here.
//!
//! # What is not
//!
//! - A commit whose answer was lost is not looked up afterwards: the error says that its outcome is unknown.

mod after;
mod alarm;
mod apart;
mod bulk;
mod calls;
mod connection;
mod driver;
mod environment;
mod error;
mod facts;
mod flow;
mod hosts;
mod hygiene;
mod lanes;
mod lessons;
mod listen;
mod login;
mod names;
mod native;
mod param;
mod pooler;
mod position;
mod render;
mod resolver;
mod rows;
mod run;
mod session;
mod settings;
#[cfg(test)]
mod sizes;
mod statements;
mod survey;
mod tap;
#[cfg(feature = "tls")]
mod tls;
mod whereabouts;
mod wire;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Backend, Capabilities, Connection, Listen, Sharing, Target};
use crate::Result;

use self::connection::PostgresConnection;
use self::lessons::Lessons;
pub(crate) use self::native::Native;
use self::settings::Settings;

pub use self::names::Names;
pub use self::native::NativeOutcome;
pub use self::resolver::Resolver;

/// A stream with what listens in on those of shared connections, for the bench that says what it costs.
#[doc(hidden)]
pub fn tapped<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> impl AsyncRead + AsyncWrite + Unpin {
    let facts = facts::Facts::default();
    facts.note_times();
    tap::Tap::new(stream, Arc::new(facts))
}

/// How many statements a node's connections remember the types of.
const LESSONS: usize = 1024;

/// The PostgreSQL backend of the nodes of one database.
#[derive(Default)]
pub struct Postgres {
    /// What each URL says, read once.
    nodes: Mutex<HashMap<Arc<str>, Arc<Node>>>,
    resolver: Resolver,
}

/// A node's settings, with what is made of them once.
struct Node {
    settings: Arc<Settings>,
    whereabouts: whereabouts::Whereabouts,
    /// A pooler stands in front of it.
    pooler: AtomicBool,
    lessons: Lessons,
    resolver: Resolver,
    #[cfg(feature = "tls")]
    connector: tokio::sync::OnceCell<tls::Connector>,
}

impl Postgres {
    /// The backend for a URL. Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) says what is wrong with the URL,
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) what is not supported or not compiled in.
    pub fn from_url(url: &str) -> Result<Self> {
        let backend = Self::default();
        backend.node(url)?;
        Ok(backend)
    }

    /// Where the addresses behind a name come from, instead of the system: asked for each new connection, so that a name
    /// that has moved is followed. Give the result to [`DatabaseBuilder::backend`](crate::DatabaseBuilder::backend).
    ///
    /// ```
    /// # use resonant_db::backend::postgres::{Postgres, Resolver};
    /// # async fn ask_my_registry(_host: String, _port: u16) -> std::io::Result<Vec<std::net::SocketAddr>> { Ok(vec![]) }
    /// let backend = Postgres::default().resolver(Resolver::new(|host, port| ask_my_registry(host, port)));
    /// ```
    #[must_use]
    pub fn resolver(self, resolver: Resolver) -> Self {
        Self { resolver, ..self }
    }

    fn node(&self, url: &str) -> Result<Arc<Node>> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(node) = nodes.get(url) {
            return Ok(Arc::clone(node));
        }
        let settings = Settings::parse(url, |name| std::env::var(name).ok())?;
        if !settings.unknown.is_empty() {
            let node = super::target::name_of(url);
            tracing::warn!(node, keys = ?settings.unknown, "the URL has keys that mean nothing here");
        }
        if !settings.unheeded.is_empty() {
            let node = super::target::name_of(url);
            tracing::warn!(node, variables = ?settings.unheeded, "variables of libpq are set that mean nothing here");
        }
        let node = Arc::new(Node {
            whereabouts: whereabouts::Whereabouts::default(),
            pooler: AtomicBool::new(false),
            lessons: Lessons::new(LESSONS),
            settings: Arc::new(settings),
            resolver: self.resolver.clone(),
            #[cfg(feature = "tls")]
            connector: tokio::sync::OnceCell::new(),
        });
        nodes.insert(url.into(), Arc::clone(&node));
        Ok(node)
    }
}

#[cfg(feature = "tls")]
impl Node {
    async fn connector(&self, name: &str) -> Result<tls::Connector> {
        let wrong = |fault: String| {
            crate::Error::new(crate::ErrorKind::Config, "connect", format!("{name}: {fault}"))
        };
        let make = || async {
            let settings = Arc::clone(&self.settings);
            // Files are read.
            let made = tokio::task::spawn_blocking(move || tls::Connector::new(&settings)).await;
            made.map_err(|_| wrong("reading the certificates was cut off".into()))?.map_err(wrong)
        };
        self.connector.get_or_try_init(make).await.cloned()
    }
}

#[async_trait]
impl Backend for Postgres {
    fn system(&self) -> &'static str {
        "postgresql"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            local_readers: false,
            commits_visible_at_once: false,
            stops_statements: true,
            typed_columns: true,
            roles_change: true,
            reports_role: true,
            positions: true,
            notifications: true,
        }
    }

    fn check(&self, target: &Target) -> Result<()> {
        self.node(&target.url).map(drop)
    }

    async fn connect(&self, target: &Target) -> Result<Box<dyn Connection>> {
        let node = self.node(&target.url)?;
        Ok(Box::new(PostgresConnection::open(&node, target).await?))
    }

    fn sharing(&self, target: &Target) -> Option<Arc<dyn Sharing>> {
        let node = self.node(&target.url).ok()?;
        // Lanes prepare what they run, and which of several hosts answers must not change between them.
        let may = node.settings.statements > 0 && !target.name.contains(',');
        may.then(|| Arc::new(lanes::PostgresLanes::new(node, target.clone())) as _)
    }

    async fn listen(&self, target: &Target, channels: &[String]) -> Result<Box<dyn Listen>> {
        let node = self.node(&target.url)?;
        Ok(Box::new(listen::Ears::open(&node, target, channels).await?))
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let names: Vec<_> = nodes.keys().map(|url| super::target::name_of(url)).collect();
        f.debug_struct("Postgres").field("nodes", &names).finish()
    }
}
