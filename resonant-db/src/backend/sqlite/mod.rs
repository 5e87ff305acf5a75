//! SQLite, embedded: one writer, many readers, in a file or in memory.
//!
//! # URL
//!
//! `sqlite:/path/file.db?key=value&…` (absolute or relative; `%20` and the like are decoded), or `sqlite::memory:` for a
//! database that lives as long as its `Database`. [`url`] writes one for any path.
//!
//! | key | values | default | meaning |
//! |---|---|---|---|
//! | `mode` | `rwc`, `rw`, `ro` | `rwc` | create the file if it is missing, require it, or only read |
//! | `synchronous` | `full`, `extra`, `normal`, `off` | `full` | see below |
//! | `busy_timeout` | a duration (`5s`, `100ms`) | `5s` | how long to wait for a lock another process holds |
//! | `cache` | KiB | `2048` | page cache of each connection |
//! | `statements` | count | `128` | prepared statements kept by each connection |
//!
//! # Durability
//!
//! With `synchronous=full` a commit that answered `Ok` survives a crash of the process, of the system and a power cut, as
//! far as the disk keeps its word. `normal` survives a crash of the process; a power cut may lose the last commits but
//! never corrupts. `off` may lose and corrupt.
//!
//! # How it runs
//!
//! Each connection lives on a thread of its own, so that no statement blocks the async threads, and keeps a bounded cache
//! of prepared statements. The file is in WAL mode: readers never wait for the writer. The pool of the writing node has
//! one connection, whatever was asked for. Reading connections are opened read-only, so that the engine itself refuses a
//! write. A statement that passes its time limit, or whose future is dropped, is interrupted.
//!
//! A stream of rows keeps its connection's thread, which runs the statement only as far as its rows are taken, and a
//! snapshot of the file: while it is open the log cannot be folded past that. There is no COPY.
//!
//! Foreign keys are enforced. A call that changes the session (`PRAGMA … = …`, `ATTACH`, temporary tables) costs the
//! connection: it is closed when it comes back.
//!
//! When the last connection of a `Database` is closed and nobody else has the file open, the log is folded into it: the
//! database is then one file. After a crash `…-wal` and `…-shm` stay beside it and belong to it.
//!
//! An in-memory database has no WAL: while a write transaction is open its readers wait, up to `busy_timeout`, and a
//! commit waits for readers. It is meant for tests and small data; a file serves readers and a writer side by side.
//!
//! Every reading connection sees a commit as soon as it is acknowledged, also in another process. A
//! [`Position`](resonant_common::join::Position) of SQLite names the file and, as its offset, a time of day in
//! microseconds that only rises within a process.

mod alter;
mod connection;
mod engine;
mod error;
mod flow;
mod options;
mod placeholder;
mod position;
mod rows;
mod tidy;
mod worker;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::OnceCell;

use super::{Access, Backend, Capabilities, Connection, Target};
use crate::pool::PoolConfig;
use crate::{Error, ErrorKind, Result};

use self::connection::SqliteConnection;
use self::options::{Location, Options};
use self::tidy::Tally;

/// The most reading connections a database opens when nothing is asked for.
const READERS: u32 = 8;

/// The SQLite backend of one file or of one in-memory database.
pub struct Sqlite {
    location: Location,
    prepared: OnceCell<u64>,
    /// Keeps an in-memory database alive: it ends with its last connection.
    anchor: Arc<Mutex<Option<rusqlite::Connection>>>,
    tally: Arc<Tally>,
}

impl Sqlite {
    /// The backend for a URL. Nothing is opened yet.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] says what is wrong with the URL.
    pub fn from_url(url: &str) -> Result<Self> {
        let options = Options::parse(url)?;
        Ok(Self {
            location: options.location,
            prepared: OnceCell::new(),
            anchor: Arc::default(),
            tally: Arc::default(),
        })
    }

    /// The settings of a node's URL, which must be of this backend's database.
    fn options(&self, target: &Target) -> Result<Options> {
        let mut options = Options::parse(&target.url)?;
        match (&options.location, &self.location) {
            // Each parse names a new in-memory database; there is one a backend.
            (Location::Memory(_), Location::Memory(_)) => options.location = self.location.clone(),
            (one, other) if one == other => {}
            _ => {
                let message = format!(
                    "{}: a SQLite replica must be the file of the primary; other files are other databases",
                    target.name
                );
                return Err(Error::new(ErrorKind::Config, "connect", message));
            }
        }
        Ok(options)
    }

    /// Creates the file and puts it into WAL mode, once, and answers its fingerprint.
    async fn prepare(&self, options: &Options, node: &Arc<str>) -> Result<u64> {
        let prepare = || async {
            let (options, name, anchor) =
                (options.clone(), Arc::clone(node), Arc::clone(&self.anchor));
            let task = tokio::task::spawn_blocking(move || {
                let connection = engine::prepare(&options, &name)?;
                let system = position::system(&options.location);
                if let Location::Memory(_) = options.location {
                    *anchor.lock().unwrap_or_else(PoisonError::into_inner) = connection;
                }
                Ok(system)
            });
            task.await.unwrap_or_else(|fault| {
                let message = format!("{node}: preparing the file was cut off");
                Err(Error::new(ErrorKind::Unavailable, "connect", message).with_source(fault))
            })
        };
        self.prepared.get_or_try_init(prepare).await.copied()
    }
}

#[async_trait]
impl Backend for Sqlite {
    fn system(&self) -> &'static str {
        "sqlite"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            local_readers: true,
            commits_visible_at_once: true,
            stops_statements: true,
            typed_columns: false,
            roles_change: false,
            reports_role: false,
            positions: true,
            notifications: false,
        }
    }

    fn check(&self, target: &Target) -> Result<()> {
        self.options(target).map(drop)
    }

    async fn connect(&self, target: &Target) -> Result<Box<dyn Connection>> {
        let options = self.options(target)?;
        let system = self.prepare(&options, &target.name).await?;
        let connection =
            SqliteConnection::open(options, target, system, Arc::clone(&self.tally)).await?;
        Ok(Box::new(connection))
    }

    fn fit_pool(&self, wanted: Option<&PoolConfig>, access: Access) -> PoolConfig {
        // Age does a connection to a file no harm.
        let default =
            || PoolConfig::default().min_size(1).max_size(READERS).max_lifetime(Duration::MAX);
        let config = wanted.cloned().unwrap_or_else(default);
        match access {
            Access::ReadOnly => config,
            Access::ReadWrite => config.min_size(1).max_size(1),
        }
    }
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite").field("location", &self.location).finish_non_exhaustive()
    }
}

/// The URL of a file, with whatever its path holds (`?`, `%`, spaces) escaped.
///
/// ```
/// use resonant_db::backend::sqlite;
/// assert_eq!(sqlite::url("/data/100%.db"), "sqlite:/data/100%25.db");
/// ```
pub fn url(path: impl AsRef<Path>) -> String {
    let mut url = String::from("sqlite:");
    for byte in path.as_ref().to_string_lossy().bytes() {
        match byte {
            b'?' | b'%' | b'#' | b' ' => url.push_str(&format!("%{byte:02X}")),
            byte if byte.is_ascii() => url.push(char::from(byte)),
            byte => url.push_str(&format!("%{byte:02X}")),
        }
    }
    url
}
