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
    /// The manager has ended: build a new one.
    Closed,
    /// A setting breaks a law, which the message names.
    Config,
    /// A region, a hook or a command did not do what it was told; the source or the message says why.
    Failed,
    /// The order is older than what the region has pledged itself to: somebody newer is in charge.
    Fenced,
    /// A gate is closed; the message names it. `plan()` says what would open it.
    Refused,
    /// A deadline passed. Whether the step was taken is unknown.
    TimedOut,
    /// A server cannot be reached.
    Unavailable,
    /// A standby has not applied all that it received, or still receives: it cannot be weighed yet. The source is an
    /// [`Unsettled`](crate::Unsettled).
    Unsettled,
    /// This backend cannot do that: give it a command or choose another one.
    Unsupported,
}

impl Kind for ErrorKind {
    fn code(self) -> &'static str {
        match self {
            ErrorKind::Closed => "ha.closed",
            ErrorKind::Config => "ha.config",
            ErrorKind::Failed => "ha.failed",
            ErrorKind::Fenced => "ha.fenced",
            ErrorKind::Refused => "ha.refused",
            ErrorKind::TimedOut => "ha.timed_out",
            ErrorKind::Unavailable => "ha.unavailable",
            ErrorKind::Unsettled => "ha.unsettled",
            ErrorKind::Unsupported => "ha.unsupported",
        }
    }

    fn is_transient(self) -> bool {
        use ErrorKind::{Failed, Refused, TimedOut, Unavailable, Unsettled};
        matches!(self, Failed | Refused | TimedOut | Unavailable | Unsettled)
    }
}

pub(crate) fn config(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, "build", message)
}
