//! The file: its lock, its connections, and whether it is ours.

use std::fs::{File, TryLockError};
use std::io::ErrorKind::NotFound;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use tokio::time::Instant;

use super::Durability;
use super::schema::{APPLICATION_ID, SCHEMA, VERSION};
use crate::error::{Error, ErrorKind, Result};

/// How long a statement waits for another process's transaction.
const BUSY: Duration = Duration::from_secs(10);

/// The WAL is copied into the file when it has grown by so many pages of 4 KiB. Large enough that most messages are
/// finished before they would be copied at all.
const CHECKPOINT_PAGES: u32 = 8192;

/// How a file is opened.
#[derive(Debug, Clone)]
pub(super) struct Options {
    pub(super) path: PathBuf,
    pub(super) durability: Durability,
    pub(super) exclusive: bool,
}

/// Takes the file's lock: alone, or shared with others who do not want it alone. The kernel frees it with the process.
pub(super) fn try_lock(options: &Options) -> Result<Option<File>> {
    // By its one real name: a link must not lead round the lock.
    let real = real_path(&options.path).map_err(|error| cannot_open(&options.path, error))?;
    let mut name = real.into_os_string();
    name.push(".lock");
    let path = PathBuf::from(name);
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| cannot_open(&path, error))?;
    let locked = if options.exclusive { file.try_lock() } else { file.try_lock_shared() };
    match locked {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(cannot_open(&path, error)),
    }
}

/// The path with all links followed, also where the file itself does not exist yet.
fn real_path(path: &Path) -> std::io::Result<PathBuf> {
    match (std::fs::canonicalize(path), path.parent(), path.file_name()) {
        (Ok(real), ..) => Ok(real),
        (Err(error), Some(directory), Some(name)) if error.kind() == NotFound => {
            let directory =
                if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
            Ok(std::fs::canonicalize(directory)?.join(name))
        }
        (Err(error), ..) => Err(error),
    }
}

pub(super) fn in_use(options: &Options) -> Error {
    let how = if options.exclusive { "in use" } else { "used exclusively" };
    let message = format!(
        "{} is {how} by another process or handle; end that one, or open both without exclusive",
        options.path.display()
    );
    Error::new(ErrorKind::Unavailable, "open", message)
}

/// Opens the connection that writes, creating or checking the tables.
pub(super) fn open_writer(options: &Options) -> Result<Connection> {
    let mut conn =
        connect(&options.path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
    prepare(&mut conn, options)?;
    Ok(conn)
}

/// Opens a connection that reads.
pub(super) fn open_reader(options: &Options) -> Result<Connection> {
    let conn = connect(&options.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    conn.pragma_update(None, "query_only", true)
        .map_err(|error| failed(&options.path, "open", error))?;
    Ok(conn)
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection> {
    let conn = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(|error| cannot_open(path, error))?;
    let settle = || -> rusqlite::Result<()> {
        conn.busy_timeout(BUSY)?;
        conn.pragma_update(None, "cache_size", -8_192)?;
        conn.pragma_update(None, "temp_store", "MEMORY")?;
        Ok(())
    };
    settle().map_err(|error| failed(path, "open", error))?;
    conn.set_prepared_statement_cache_capacity(64);
    Ok(conn)
}

fn prepare(conn: &mut Connection, options: &Options) -> Result<()> {
    let fail = |error| failed(&options.path, "open", error);
    // Before anything is written: a file of somebody else's must stay as it is.
    // In one transaction, or it may see half of what another process is creating.
    patiently(|| check(&*conn.transaction()?, options)).map_err(fail)??;
    let to_wal = || conn.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0));
    let mode: String = patiently(to_wal).map_err(fail)?;
    if !mode.eq_ignore_ascii_case("wal") {
        let message = format!(
            "{} cannot be used with a write-ahead log; a queue needs a local file system",
            options.path.display()
        );
        return Err(Error::new(ErrorKind::Unsupported, "open", message));
    }
    let synchronous = match options.durability {
        Durability::Full => "FULL",
        Durability::Normal => "NORMAL",
    };
    let mut create = || -> rusqlite::Result<Result<()>> {
        conn.pragma_update(None, "synchronous", synchronous)?;
        conn.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        conn.pragma_update(None, "journal_size_limit", 256 << 20)?;
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Somebody may have created the tables since the first look.
        let known = match check(&tx, options)? {
            Ok(known) => known,
            Err(error) => return Ok(Err(error)),
        };
        if !known {
            tx.execute_batch(SCHEMA)?;
            tx.pragma_update(None, "application_id", APPLICATION_ID)?;
            tx.pragma_update(None, "user_version", VERSION)?;
        }
        if options.exclusive {
            // Whoever held a lease is dead, or the lock would not be ours. The next grants get higher epochs.
            tx.execute("UPDATE leases SET owner = NULL, expires = 0", [])?;
        }
        tx.commit()?;
        Ok(Ok(()))
    };
    create().map_err(fail)?
}

/// Tries again what SQLite refuses at once though it was told to wait: it does so wherever two that wait for each other could
/// be stuck, as when several processes turn a new file's write-ahead log on.
fn patiently<T>(mut attempt: impl FnMut() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    let began = Instant::now();
    let pause = Duration::from_millis(5);
    let mut paused = Duration::ZERO;
    loop {
        match attempt() {
            // What it has waited by itself counts, and so do the pauses where the clock stands still.
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && began.elapsed().max(paused) < BUSY =>
            {
                #[expect(clippy::disallowed_methods, reason = "on a thread that may block")]
                std::thread::sleep(pause);
                paused += pause;
            }
            outcome => return outcome,
        }
    }
}

/// Whether the file holds our tables; an error if it holds anything else.
fn check(conn: &Connection, options: &Options) -> rusqlite::Result<Result<bool>> {
    let pragma = |name| conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
    let path = options.path.display();
    let message = match (application, version) {
        (0, 0) if tables == 0 => return Ok(Ok(false)),
        (APPLICATION_ID, VERSION) => return Ok(Ok(true)),
        (APPLICATION_ID, newer) if newer > VERSION => format!(
            "{path} was written by a newer version (layout {newer}, this one knows {VERSION}); upgrade this program"
        ),
        (APPLICATION_ID, older) => {
            format!("{path} has the unknown layout {older}; use the version that wrote it")
        }
        _ => format!(
            "{path} is an SQLite file of another application; give the queue a file of its own"
        ),
    };
    Ok(Err(Error::new(ErrorKind::Incompatible, "open", message)))
}

fn cannot_open(path: &Path, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    let message = format!(
        "cannot open {}; its directory must exist, and both must be writable",
        path.display()
    );
    Error::new(ErrorKind::Unavailable, "open", message).with_source(error)
}

/// An error of the engine, by what the caller does next.
pub(super) fn failed(path: &Path, operation: &'static str, error: rusqlite::Error) -> Error {
    let (kind, text) = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => {
            (ErrorKind::Unavailable, "the disk is full and nothing was stored; make room")
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (
            ErrorKind::Unavailable,
            "another process keeps the write lock; look for one that hangs",
        ),
        Some(ErrorCode::NotADatabase) => (
            ErrorKind::Incompatible,
            "it is not an SQLite file, or its beginning is damaged; give the queue a file of its own, or restore this one",
        ),
        Some(ErrorCode::DatabaseCorrupt) => {
            (ErrorKind::Incompatible, "the file is damaged; restore it from a backup")
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
            (ErrorKind::Unavailable, "the file cannot be opened or written; check its permissions")
        }
        _ => (ErrorKind::Unavailable, "the file could not be read or written; the source says why"),
    };
    Error::new(kind, operation, format!("{}: {text}", path.display())).with_source(error)
}
