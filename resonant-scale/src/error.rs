//! What can go wrong with scaling.

use resonant_common::error::Kind;

/// What went wrong, named for what the caller does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Another change is under way. Look at the status and ask again.
    Busy,
    /// The scaler or the pool was closed. Build a new one.
    Closed,
    /// A setting breaks a rule; the message names it. Correct it.
    Config,
    /// The state moved on since the generation named. Read the status and decide anew.
    Conflict,
    /// A pause or a failover forbids it. Wait for its end.
    Held,
    /// Too soon after another change. Wait as long as `retry_after` says.
    Limited,
    /// Called outside a Tokio runtime. Call it from inside one.
    NoRuntime,
    /// The number is outside the bounds. Ask for one within them.
    OutOfBounds,
    /// Somebody else scales this target. Take one of the two away.
    Owned,
    /// A metric or the target does not answer. Try again later.
    Unavailable,
}

impl Kind for ErrorKind {
    fn code(self) -> &'static str {
        match self {
            ErrorKind::Busy => "scale.busy",
            ErrorKind::Closed => "scale.closed",
            ErrorKind::Config => "scale.config",
            ErrorKind::Conflict => "scale.conflict",
            ErrorKind::Held => "scale.held",
            ErrorKind::Limited => "scale.limited",
            ErrorKind::NoRuntime => "scale.no_runtime",
            ErrorKind::OutOfBounds => "scale.out_of_bounds",
            ErrorKind::Owned => "scale.owned",
            ErrorKind::Unavailable => "scale.unavailable",
        }
    }

    fn is_transient(self) -> bool {
        matches!(
            self,
            ErrorKind::Busy | ErrorKind::Held | ErrorKind::Limited | ErrorKind::Unavailable
        )
    }
}

/// An error of this crate.
pub type Error = resonant_common::error::Error<ErrorKind>;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

pub(crate) fn config(operation: &'static str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, operation, message)
}
