//! SQLite's result codes as kinds of ours.

use std::fmt;

use rusqlite::ErrorCode;
use rusqlite::ffi;

use crate::backend::{Access, ConstraintKind, Violation};
use crate::{Error, ErrorKind};

/// What SQLite said, without the statement, which could hold values.
#[derive(Debug)]
struct SqliteFault {
    code: i32,
    message: String,
}

impl fmt::Display for SqliteFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SQLite result {}: {}", self.code, self.message)
    }
}

impl std::error::Error for SqliteFault {}

/// The facts an error is made of.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) operation: &'static str,
    pub(super) node: &'a str,
    pub(super) access: Access,
}

/// Whether the connection is done with after this.
pub(super) fn is_fatal(error: &rusqlite::Error) -> bool {
    use ErrorCode::*;
    matches!(
        error.sqlite_error_code(),
        Some(
            CannotOpen
                | DatabaseCorrupt
                | FileLockingProtocolFailed
                | InternalMalfunction
                | NotADatabase
                | OutOfMemory
                | SystemIoFailure
        )
    )
}

pub(super) fn translate(place: Place<'_>, error: rusqlite::Error) -> Error {
    let Place { operation, node, access } = place;
    let (code, said) = match error {
        rusqlite::Error::SqliteFailure(code, message) => (code, message),
        rusqlite::Error::SqlInputError { error, msg, offset, .. } => {
            (error, Some(format!("{msg} (at byte {offset})")))
        }
        rusqlite::Error::MultipleStatement => {
            let message = "one call runs one statement; use batch for several";
            return Error::new(ErrorKind::Rejected, operation, message);
        }
        rusqlite::Error::NulError(_) => {
            return Error::new(ErrorKind::Rejected, operation, "a statement holds no NUL");
        }
        other => {
            let fault = SqliteFault { code: -1, message: "the driver refused the call".into() };
            let _ = other;
            return Error::new(ErrorKind::Rejected, operation, "the driver refused the call")
                .with_source(fault);
        }
    };
    let said = said.unwrap_or_else(|| code.to_string());
    let (kind, message) = classify(code, access, &said);
    let message = match kind {
        ErrorKind::Rejected | ErrorKind::Constraint => message,
        _ => format!("{node}: {message}"),
    };
    let fault = SqliteFault { code: code.extended_code, message: said.clone() };
    let error = Error::new(kind, operation, message);
    match kind {
        ErrorKind::Constraint => {
            let violation = Violation::new(constraint_kind(code.extended_code), named(&said));
            error.with_source(violation.with_source(fault))
        }
        _ => error.with_source(fault),
    }
}

/// What a statement failed with while it ran: the engine's own word for it, without the values some of its functions
/// repeat ("bad JSON path: '…'").
pub(super) fn without_values(error: rusqlite::Error) -> rusqlite::Error {
    match error {
        rusqlite::Error::SqliteFailure(code, Some(said))
            if code.extended_code == ffi::SQLITE_ERROR =>
        {
            let kept = said.find(['\'', '"']).unwrap_or(said.len());
            let kept = said[..kept].rfind(": ").map_or(kept, |colon| colon + 2);
            let said = if kept < said.len() { format!("{}…", &said[..kept]) } else { said };
            rusqlite::Error::SqliteFailure(code, Some(said))
        }
        other => other,
    }
}

fn classify(code: ffi::Error, access: Access, said: &str) -> (ErrorKind, String) {
    use ErrorCode::*;
    let next = |what: &str, step: &str| format!("{what} ({said}); {step}");
    match code.code {
        DatabaseBusy | DatabaseLocked => (
            ErrorKind::Conflict,
            next("another connection holds the lock", "run it again, or raise busy_timeout"),
        ),
        SchemaChanged | OperationAborted => {
            (ErrorKind::Conflict, next("a concurrent change got in between", "run it again"))
        }
        ConstraintViolation => (ErrorKind::Constraint, said.to_owned()),
        ReadOnly if access == Access::ReadOnly => (
            ErrorKind::Rejected,
            "this connection only reads; send writes through write() or transaction()".into(),
        ),
        ReadOnly | PermissionDenied => (
            ErrorKind::Unavailable,
            next("the file cannot be written", "check the permissions of the file and its folder"),
        ),
        OperationInterrupted => {
            (ErrorKind::TimedOut, "the statement was stopped before it ended".into())
        }
        CannotOpen => (
            ErrorKind::Unavailable,
            next("the file cannot be opened", "check that its folder exists and can be written"),
        ),
        DatabaseCorrupt | NotADatabase => (
            ErrorKind::Unavailable,
            next("the file is damaged or no SQLite database", "restore it from a backup"),
        ),
        DiskFull => (ErrorKind::Unavailable, next("the disk is full", "make room")),
        SystemIoFailure | FileLockingProtocolFailed | NoLargeFileSupport => {
            (ErrorKind::Unavailable, next("reading or writing the file failed", "check the disk"))
        }
        OutOfMemory => (ErrorKind::Unavailable, next("memory ran out", "lower the load")),
        AuthorizationForStatementDenied => {
            (ErrorKind::Rejected, "the statement is not allowed here".into())
        }
        _ => (ErrorKind::Rejected, said.to_owned()),
    }
}

fn constraint_kind(extended: i32) -> ConstraintKind {
    match extended {
        ffi::SQLITE_CONSTRAINT_CHECK => ConstraintKind::Check,
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => ConstraintKind::ForeignKey,
        ffi::SQLITE_CONSTRAINT_NOTNULL => ConstraintKind::NotNull,
        ffi::SQLITE_CONSTRAINT_PRIMARYKEY
        | ffi::SQLITE_CONSTRAINT_ROWID
        | ffi::SQLITE_CONSTRAINT_UNIQUE => ConstraintKind::Unique,
        _ => ConstraintKind::Other,
    }
}

/// The part behind "… constraint failed: ", where SQLite names columns or the check.
fn named(said: &str) -> Option<String> {
    said.split_once("constraint failed: ").map(|(_, name)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::ErrorExt;

    fn kind(code: i32, access: Access) -> ErrorKind {
        let failure = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        let place = Place { operation: "query", node: "/a.db", access };
        translate(place, failure).kind()
    }

    #[test]
    fn every_code_has_its_kind() {
        use ErrorKind::*;
        let cases = [
            (ffi::SQLITE_BUSY, Conflict),
            (ffi::SQLITE_BUSY_SNAPSHOT, Conflict),
            (ffi::SQLITE_LOCKED, Conflict),
            (ffi::SQLITE_SCHEMA, Conflict),
            (ffi::SQLITE_CONSTRAINT_UNIQUE, Constraint),
            (ffi::SQLITE_INTERRUPT, TimedOut),
            (ffi::SQLITE_CANTOPEN, Unavailable),
            (ffi::SQLITE_CORRUPT, Unavailable),
            (ffi::SQLITE_NOTADB, Unavailable),
            (ffi::SQLITE_FULL, Unavailable),
            (ffi::SQLITE_IOERR_READ, Unavailable),
            (ffi::SQLITE_NOMEM, Unavailable),
            (ffi::SQLITE_PERM, Unavailable),
            (ffi::SQLITE_READONLY, Unavailable),
            (ffi::SQLITE_ERROR, Rejected),
            (ffi::SQLITE_MISMATCH, Rejected),
            (ffi::SQLITE_TOOBIG, Rejected),
            (ffi::SQLITE_RANGE, Rejected),
            (ffi::SQLITE_MISUSE, Rejected),
        ];
        for (code, expected) in cases {
            assert_eq!(kind(code, Access::ReadWrite), expected, "{code}");
        }
        assert_eq!(kind(ffi::SQLITE_READONLY, Access::ReadOnly), Rejected);
    }

    #[test]
    fn a_constraint_says_its_kind_and_columns() {
        let failure = rusqlite::Error::SqliteFailure(
            ffi::Error::new(ffi::SQLITE_CONSTRAINT_PRIMARYKEY),
            Some("UNIQUE constraint failed: users.id".into()),
        );
        let place = Place { operation: "execute", node: "/a.db", access: Access::ReadWrite };
        let error = translate(place, failure);
        assert!(error.is_unique_violation());
        assert_eq!(error.constraint(), Some("users.id"));
    }

    #[test]
    fn values_are_not_repeated() {
        let cases = [
            ("bad JSON path: 's3cr3t: it''s'", "bad JSON path: …"),
            ("fts5: syntax error near \"s3cr3t\"", "fts5: …"),
            ("unable to open database: s3cr3t", "unable to open database: …"),
            ("integer overflow", "integer overflow"),
        ];
        for (said, kept) in cases {
            let code = ffi::Error::new(ffi::SQLITE_ERROR);
            let failure = without_values(rusqlite::Error::SqliteFailure(code, Some(said.into())));
            assert_eq!(failure.to_string(), kept);
        }
    }

    #[test]
    fn the_statement_is_not_repeated() {
        let failure = rusqlite::Error::SqlInputError {
            error: ffi::Error::new(ffi::SQLITE_ERROR),
            msg: "no such column: nmae".into(),
            sql: "SELECT nmae FROM users WHERE password = 's3cr3t'".into(),
            offset: 7,
        };
        let place = Place { operation: "query", node: "/a.db", access: Access::ReadWrite };
        let shown = format!("{:?}", translate(place, failure));
        assert!(shown.contains("nmae") && !shown.contains("s3cr3t"), "{shown}");
    }
}
