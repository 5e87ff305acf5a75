//! SQLite itself, used from one thread.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rusqlite::hooks::Authorization;
use rusqlite::{ErrorCode, OpenFlags, Statement};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::backend::{Access, BeginOptions, ParamRows};
use crate::{Error, ErrorKind, Param, Result, Rows};

use super::alter::alters_session;
use super::error::{Place, is_fatal, translate, without_values};
use super::options::{Location, Mode, Options};
use super::placeholder;
use super::rows::{Pieces, collect, pour, step};
use super::tidy::Counted;

/// What the thread finds out and the async side asks.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// The connection is done with.
    pub(super) broken: AtomicBool,
    /// The session differs from a fresh one.
    pub(super) altered: AtomicBool,
    /// Nobody waits any more for what runs, nor will ask for anything else.
    pub(super) abandoned: AtomicBool,
}

/// After how many of its own operations SQLite looks whether a statement was abandoned.
const LOOK: i32 = 10_000;

pub(super) struct Engine {
    connection: rusqlite::Connection,
    node: Arc<str>,
    access: Access,
    in_transaction: bool,
    /// A transaction that only reads is open on a connection that could write.
    reading: bool,
    facts: Arc<Facts>,
    counted: Counted,
    done: Option<oneshot::Sender<()>>,
}

/// Creates the file and puts it into WAL mode; of an in-memory database it answers the connection that keeps it alive.
pub(super) fn prepare(options: &Options, node: &Arc<str>) -> Result<Option<rusqlite::Connection>> {
    let place = Place { operation: "connect", node, access: Access::ReadWrite };
    if options.mode == Mode::Read && matches!(options.location, Location::File(_)) {
        return Ok(None);
    }
    let connection = open(options, Access::ReadWrite).map_err(|error| translate(place, error))?;
    let Location::File(_) = options.location else { return Ok(Some(connection)) };
    let to_wal = || connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0));
    let mode: String =
        patiently(options.busy_timeout, to_wal).map_err(|error| translate(place, error))?;
    if mode.eq_ignore_ascii_case("wal") {
        return Ok(None);
    }
    let message = format!(
        "{node}: the file stays in journal mode {mode}; WAL needs a local file system with shared memory"
    );
    Err(Error::new(ErrorKind::Config, "connect", message))
}

/// Tries again what SQLite refuses at once though it was told to wait: it does so wherever two that wait for each other could
/// be stuck, as when several processes turn a new file's write-ahead log on, or the last one that closes takes it away.
fn patiently<T>(
    limit: Duration,
    mut attempt: impl FnMut() -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let began = Instant::now();
    let pause = Duration::from_millis(5);
    let mut paused = Duration::ZERO;
    loop {
        match attempt() {
            // What it has waited by itself counts, and so do the pauses where the clock stands still.
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && began.elapsed().max(paused) < limit =>
            {
                #[expect(clippy::disallowed_methods, reason = "on a thread that may block")]
                std::thread::sleep(pause);
                paused += pause;
            }
            outcome => return outcome,
        }
    }
}

/// Opens and closes the file, alone if nobody else has it open: SQLite then folds the log into it.
pub(super) fn fold(options: &Options) -> rusqlite::Result<()> {
    let connection = open(options, Access::ReadWrite)?;
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    connection.close().map_err(|(_, error)| error)
}

fn open(options: &Options, access: Access) -> rusqlite::Result<rusqlite::Connection> {
    let mut flags = OpenFlags::SQLITE_OPEN_NO_MUTEX;
    flags |= match (access, options.mode) {
        (Access::ReadOnly, _) | (_, Mode::Read) => OpenFlags::SQLITE_OPEN_READ_ONLY,
        (Access::ReadWrite, Mode::Existing) => OpenFlags::SQLITE_OPEN_READ_WRITE,
        (Access::ReadWrite, Mode::Create) => {
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE
        }
    };
    let connection = match &options.location {
        // The build reads every path that starts with file: as a URI; a file of that name is still a file.
        Location::File(path) if path.as_os_str().as_encoded_bytes().starts_with(b"file:") => {
            rusqlite::Connection::open_with_flags(Path::new(".").join(path), flags)?
        }
        Location::File(path) => rusqlite::Connection::open_with_flags(path, flags)?,
        Location::Memory(number) => {
            let uri = format!("file:/resonant-{}-{number}?vfs=memdb", std::process::id());
            rusqlite::Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)?
        }
    };
    connection.busy_timeout(options.busy_timeout)?;
    Ok(connection)
}

impl Engine {
    pub(super) fn open(
        options: &Options,
        node: Arc<str>,
        access: Access,
        facts: Arc<Facts>,
        counted: Counted,
    ) -> Result<Self> {
        let place = Place { operation: "connect", node: &node, access };
        let set_up = || -> rusqlite::Result<rusqlite::Connection> {
            #[allow(unused_mut, reason = "the hook takes &self in some of the versions we accept")]
            let mut connection = open(options, access)?;
            connection.set_prepared_statement_cache_capacity(options.statements);
            connection.execute_batch(&format!(
                "PRAGMA foreign_keys = ON; PRAGMA synchronous = {}; PRAGMA cache_size = -{}; \
                 PRAGMA journal_size_limit = 67108864; PRAGMA temp_store = MEMORY",
                options.synchronous, options.cache_kib
            ))?;
            // The first read proves that this is a database.
            connection.query_row("SELECT count(*) FROM sqlite_schema LIMIT 1", [], |_| Ok(()))?;
            let seen = Arc::clone(&facts);
            connection.authorizer(Some(move |context: rusqlite::hooks::AuthContext<'_>| {
                if alters_session(&context) {
                    seen.altered.store(true, Ordering::Release);
                }
                Authorization::Allow
            }))?;
            let seen = Arc::clone(&facts);
            let abandoned = move || seen.abandoned.load(Ordering::Acquire);
            connection.progress_handler(LOOK, Some(abandoned))?;
            Ok(connection)
        };
        let connection =
            patiently(options.busy_timeout, set_up).map_err(|error| translate(place, error))?;
        Ok(Self {
            connection,
            node,
            access,
            in_transaction: false,
            reading: false,
            facts,
            counted,
            done: None,
        })
    }

    pub(super) fn interrupt_handle(&self) -> rusqlite::InterruptHandle {
        self.connection.get_interrupt_handle()
    }

    pub(super) fn query(&mut self, sql: &str, params: &ParamRows) -> Result<Rows> {
        self.guarded("query", |engine| {
            let (mut statement, places) = engine.prepare("query", sql, params.width())?;
            engine.bind("query", &mut statement, &places, params, 0)?;
            let rows = collect(&mut statement);
            rows.map_err(|error| engine.failed("query", error))
        })
    }

    /// Runs a statement and hands its rows over piece by piece, the first piece being none: it says that they come. Ends early
    /// where nobody takes them any more.
    pub(super) fn stream(&mut self, sql: &str, params: &ParamRows, to: &Pieces) -> Result<()> {
        self.guarded("stream", |engine| {
            let (mut statement, places) = engine.prepare("stream", sql, params.width())?;
            engine.bind("stream", &mut statement, &places, params, 0)?;
            let poured = pour(&mut statement, to);
            poured.map_err(|error| engine.failed("stream", error))
        })
    }

    pub(super) fn execute(&mut self, sql: &str, params: &ParamRows) -> Result<u64> {
        self.guarded("execute", |engine| {
            let (mut statement, places) = engine.prepare("execute", sql, params.width())?;
            engine.bind("execute", &mut statement, &places, params, 0)?;
            step(&mut statement).map_err(|error| engine.failed("execute", error))?;
            Ok(if counts_rows(sql) && !statement.readonly() {
                engine.connection.changes()
            } else {
                0
            })
        })
    }

    pub(super) fn execute_many(&mut self, sql: &str, rows: &ParamRows) -> Result<u64> {
        const NAME: &str = "execute_many";
        if rows.is_empty() {
            return Ok(0);
        }
        self.all_or_none(NAME, |engine| {
            let (mut statement, places) = engine.prepare(NAME, sql, rows.width())?;
            let counts = counts_rows(sql) && !statement.readonly();
            let mut affected = 0;
            for row in 0..rows.len() {
                engine.bind(NAME, &mut statement, &places, rows, row)?;
                step(&mut statement).map_err(|error| engine.failed(NAME, error))?;
                if counts {
                    affected += engine.connection.changes();
                }
            }
            Ok(affected)
        })
    }

    pub(super) fn batch(&mut self, sql: &str) -> Result<()> {
        self.all_or_none("batch", |engine| {
            engine.connection.execute_batch(sql).map_err(|error| engine.error("batch", error))
        })
    }

    pub(super) fn begin(&mut self, options: BeginOptions) -> Result<()> {
        if self.in_transaction || !self.connection.is_autocommit() {
            let message = "a transaction is open on this connection";
            return Err(Error::new(ErrorKind::Rejected, "begin", message));
        }
        // SQLite's transactions are always serializable. Taking the lock at once avoids the conflict that a read which
        // turns into a write can only answer by starting again.
        match options.access {
            Access::ReadWrite => self.run("begin", "BEGIN IMMEDIATE")?,
            Access::ReadOnly => {
                self.only_read("begin", true)?;
                self.run("begin", "BEGIN")?;
            }
        }
        self.in_transaction = true;
        Ok(())
    }

    pub(super) fn commit(&mut self) -> Result<()> {
        if !self.in_transaction {
            return Err(Error::new(ErrorKind::Rejected, "commit", "no transaction is open"));
        }
        self.still_open("commit")?;
        self.run("commit", "COMMIT")?;
        self.in_transaction = false;
        self.only_read("commit", false)
    }

    pub(super) fn rollback(&mut self) -> Result<()> {
        self.in_transaction = false;
        if !self.connection.is_autocommit() {
            self.run("rollback", "ROLLBACK")?;
        }
        self.only_read("rollback", false)
    }

    /// Makes a connection that could write refuse to, or lets it write again.
    fn only_read(&mut self, operation: &'static str, only_read: bool) -> Result<()> {
        if self.access == Access::ReadOnly || self.reading == only_read {
            return Ok(());
        }
        let altered = self.facts.altered.load(Ordering::Acquire);
        self.run(
            operation,
            if only_read { "PRAGMA query_only = 1" } else { "PRAGMA query_only = 0" },
        )?;
        // That was us, not the caller.
        self.facts.altered.store(altered, Ordering::Release);
        self.reading = only_read;
        Ok(())
    }

    /// Ends whatever is open. An interrupt meant for the statement before may hit the first tries.
    pub(super) fn reset(&mut self) -> Result<()> {
        let mut last = Ok(());
        for _ in 0..100 {
            last = self.rollback();
            if last.is_ok() {
                break;
            }
        }
        last
    }

    pub(super) fn ping(&mut self) -> Result<()> {
        self.run("ping", "SELECT 1 FROM sqlite_schema LIMIT 1")
    }

    /// Whom to tell, by being dropped, that the connection is closed.
    pub(super) fn tell_when_closed(&mut self, done: oneshot::Sender<()>) {
        self.done = Some(done);
    }

    /// Closes the connection; the last one of a file folds the log back into it.
    pub(super) fn close(self) {
        let Self { connection, counted, done, .. } = self;
        let _ = connection.close();
        drop(counted);
        drop(done);
    }

    /// The error of a statement that failed while it ran.
    fn failed(&self, operation: &'static str, error: rusqlite::Error) -> Error {
        self.error(operation, without_values(error))
    }

    fn error(&self, operation: &'static str, error: rusqlite::Error) -> Error {
        if is_fatal(&error) {
            self.facts.broken.store(true, Ordering::Release);
        }
        let access = if self.reading { Access::ReadOnly } else { self.access };
        translate(Place { operation, node: &self.node, access }, error)
    }

    /// Runs a fixed statement.
    fn run(&self, operation: &'static str, sql: &str) -> Result<()> {
        let run = || step(&mut *self.connection.prepare_cached(sql)?);
        run().map_err(|error| self.error(operation, error))
    }

    /// Runs `work` and sees to it that a transaction is open afterwards exactly if one was open before.
    fn guarded<T>(
        &mut self,
        operation: &'static str,
        work: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        self.still_open(operation)?;
        let result = work(self)?;
        self.still_open(operation).map_err(Error::with_may_have_applied)?;
        if !self.in_transaction && !self.connection.is_autocommit() {
            self.rollback()?;
            let message = "a call cannot leave a transaction open; use transaction()";
            return Err(Error::new(ErrorKind::Rejected, operation, message));
        }
        Ok(result)
    }

    /// The same in a transaction of its own, unless one is open.
    fn all_or_none<T>(
        &mut self,
        operation: &'static str,
        work: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        if self.in_transaction {
            return self.guarded(operation, work);
        }
        let begin = match self.access {
            Access::ReadWrite => "BEGIN IMMEDIATE",
            Access::ReadOnly => "BEGIN",
        };
        self.run(operation, begin)?;
        self.in_transaction = true;
        let result = self.guarded(operation, work).and_then(|result| {
            self.run(operation, "COMMIT")?;
            Ok(result)
        });
        self.in_transaction = false;
        match result {
            Ok(result) => Ok(result),
            Err(error) => {
                // A rollback that fails leaves the connection for `reset`, and the first error is the one that matters.
                let _ = self.rollback();
                Err(error)
            }
        }
    }

    fn still_open(&self, operation: &'static str) -> Result<()> {
        if self.in_transaction && self.connection.is_autocommit() {
            let message = "the transaction has ended: the engine rolled it back, or a statement ended it by hand";
            return Err(Error::new(ErrorKind::Rejected, operation, message));
        }
        Ok(())
    }

    /// Compiles a statement and finds out which parameter stands where.
    fn prepare(
        &self,
        operation: &'static str,
        sql: &str,
        width: usize,
    ) -> Result<(rusqlite::CachedStatement<'_>, Vec<usize>)> {
        let statement =
            self.connection.prepare_cached(sql).map_err(|error| self.error(operation, error))?;
        let reject = |fault| Error::new(ErrorKind::Rejected, operation, fault);
        let places: Vec<usize> = (1..=statement.parameter_count())
            .map(|place| placeholder::position(statement.parameter_name(place)))
            .collect::<Result<_, String>>()
            .map_err(reject)?;
        let highest = places.iter().max().map_or(0, |position| position + 1);
        placeholder::check(highest, width).map_err(reject)?;
        Ok((statement, places))
    }

    fn bind(
        &self,
        operation: &'static str,
        statement: &mut Statement<'_>,
        places: &[usize],
        params: &ParamRows,
        row: usize,
    ) -> Result<()> {
        for (index, position) in places.iter().enumerate() {
            let place = index + 1;
            let bound = match params.param(row, *position) {
                Param::Null => statement.raw_bind_parameter(place, rusqlite::types::Null),
                Param::Bool(value) => statement.raw_bind_parameter(place, value),
                Param::Int(value) => statement.raw_bind_parameter(place, value),
                Param::Float(value) if value.is_nan() => {
                    let message =
                        format!("${} is not a number, which SQLite stores as NULL", position + 1);
                    return Err(Error::new(ErrorKind::Rejected, operation, message));
                }
                Param::Float(value) => statement.raw_bind_parameter(place, value),
                Param::Text(value) => statement.raw_bind_parameter(place, value),
                Param::Bytes(value) => statement.raw_bind_parameter(place, value),
                // It would keep fifteen digits of one, and has no notion of the other.
                unknown @ (Param::Decimal(_) | Param::Array(_)) => {
                    let message = format!(
                        "${} is {}, which SQLite does not know; give it as text",
                        position + 1,
                        unknown.kind()
                    );
                    return Err(Error::new(ErrorKind::Rejected, operation, message));
                }
                other => {
                    let mut text = String::new();
                    crate::param::write_text(other, &mut text);
                    statement.raw_bind_parameter(place, text)
                }
            };
            bound.map_err(|error| self.error(operation, error))?;
        }
        Ok(())
    }
}

/// Whether a statement sets SQLite's count of changes; others leave there what an earlier one counted.
fn counts_rows(sql: &str) -> bool {
    let word = first_word(sql);
    ["insert", "update", "delete", "replace", "with"]
        .iter()
        .any(|counting| word.eq_ignore_ascii_case(counting))
}

/// The first word behind spaces and comments.
fn first_word(sql: &str) -> &str {
    let mut rest = sql;
    loop {
        rest = rest.trim_start();
        rest = if let Some(comment) = rest.strip_prefix("--") {
            comment.split_once('\n').map_or("", |(_, rest)| rest)
        } else if let Some(comment) = rest.strip_prefix("/*") {
            comment.split_once("*/").map_or("", |(_, rest)| rest)
        } else {
            let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
            return &rest[..end];
        };
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    #[test]
    fn the_first_word_is_found_behind_comments() {
        assert_eq!(first_word("  -- new\n /* rows */INSERT INTO t"), "INSERT");
        assert_eq!(first_word("/* open"), "");
        assert_eq!(first_word(""), "");
        assert!(counts_rows("with x as (select 1) delete from t"));
        assert!(!counts_rows("CREATE TABLE t (a)") && !counts_rows("EXPLAIN DELETE FROM t"));
    }

    #[test]
    fn codes_of_ours_and_of_the_driver_agree() {
        let failure = rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR), None);
        assert!(is_fatal(&failure));
        let failure = rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_BUSY), None);
        assert!(!is_fatal(&failure));
    }
}
