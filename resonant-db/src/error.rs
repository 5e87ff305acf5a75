//! What can go wrong, named for what the caller does next.

use resonant_common::error::Kind;

/// An error of this crate.
pub type Error = resonant_common::error::Error<ErrorKind>;

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The pool or the database was closed: build a new one.
    Closed,
    /// A setting breaks a rule, which the message names.
    Config,
    /// The engine gave up because of a concurrent transaction: run the whole transaction again.
    Conflict,
    /// A constraint refused the data: change the data.
    Constraint,
    /// A value of a row has not the type that was asked for: change the type or the statement.
    Decode,
    /// Exactly one row was asked for and there was none.
    NotFound,
    /// No connection came free in time: lower the load or raise the limit the message names.
    Overloaded,
    /// The statement cannot be proven to touch only the shards it would be sent to: rewrite it as the message says.
    Refused,
    /// The engine refused the statement: fix it.
    Rejected,
    /// A deadline passed.
    TimedOut,
    /// The node cannot be reached.
    Unavailable,
    /// The backend, or this build of it, cannot do that; the message says what can.
    Unsupported,
}

impl Kind for ErrorKind {
    fn code(self) -> &'static str {
        match self {
            ErrorKind::Closed => "db.closed",
            ErrorKind::Config => "db.config",
            ErrorKind::Conflict => "db.conflict",
            ErrorKind::Constraint => "db.constraint",
            ErrorKind::Decode => "db.decode",
            ErrorKind::NotFound => "db.not_found",
            ErrorKind::Overloaded => "db.overloaded",
            ErrorKind::Refused => "db.refused",
            ErrorKind::Rejected => "db.rejected",
            ErrorKind::TimedOut => "db.timed_out",
            ErrorKind::Unavailable => "db.unavailable",
            ErrorKind::Unsupported => "db.unsupported",
        }
    }

    fn is_transient(self) -> bool {
        matches!(
            self,
            ErrorKind::Conflict
                | ErrorKind::Overloaded
                | ErrorKind::TimedOut
                | ErrorKind::Unavailable
        )
    }
}
