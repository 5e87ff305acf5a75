//! What can go wrong with a checker itself. A failed check is no error: it is a row of the report.

use resonant_common::error::Kind;

/// What went wrong, named for what the caller does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting or a registration breaks a rule; the message names it. Correct it and start again.
    Config,
    /// Called outside a Tokio runtime. Call it from inside one.
    NoRuntime,
}

impl Kind for ErrorKind {
    fn code(self) -> &'static str {
        match self {
            ErrorKind::Config => "health.config",
            ErrorKind::NoRuntime => "health.no_runtime",
        }
    }

    fn is_transient(self) -> bool {
        false
    }
}

/// An error of this crate.
pub type Error = resonant_common::error::Error<ErrorKind>;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
