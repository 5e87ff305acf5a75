//! What can go wrong, named for what the caller does next.

use resonant_common::error::Kind;

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The queue or its engine was closed: build a new one.
    Closed,
    /// A setting breaks a rule, which the message names.
    Config,
    /// The message cannot be written as JSON.
    Encoding,
    /// The partition has a newer owner: stop acting on it. What was not settled comes back to that owner.
    Fenced,
    /// The queue holds as many messages as `max_depth` allows: slow down, or add workers.
    Full,
    /// What is stored does not fit what was asked: another number of partitions, a newer or a foreign file.
    Incompatible,
    /// The message has no usable partition key.
    Key,
    /// There is no such key or message.
    NotFound,
    /// The body exceeds `max_payload`.
    TooLarge,
    /// The engine cannot be reached or failed: try again later.
    Unavailable,
    /// The backend cannot do this; the message says which can.
    Unsupported,
}

impl Kind for ErrorKind {
    fn code(self) -> &'static str {
        match self {
            ErrorKind::Closed => "queue.closed",
            ErrorKind::Config => "queue.config",
            ErrorKind::Encoding => "queue.encoding",
            ErrorKind::Fenced => "queue.fenced",
            ErrorKind::Full => "queue.full",
            ErrorKind::Incompatible => "queue.incompatible",
            ErrorKind::Key => "queue.key",
            ErrorKind::NotFound => "queue.not_found",
            ErrorKind::TooLarge => "queue.too_large",
            ErrorKind::Unavailable => "queue.unavailable",
            ErrorKind::Unsupported => "queue.unsupported",
        }
    }

    fn is_transient(self) -> bool {
        matches!(self, ErrorKind::Full | ErrorKind::Unavailable)
    }
}

/// An error of a queue.
pub type Error = resonant_common::error::Error<ErrorKind>;

/// The result of a queue's call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The engine's thread or task is gone.
pub(crate) fn closed(operation: &'static str) -> Error {
    Error::new(ErrorKind::Closed, operation, "the queue is closed; build a new one")
}

/// A settlement or an opening by an owner that was superseded.
pub(crate) fn fenced(operation: &'static str, partition: u32, epoch: u64, current: u64) -> Error {
    let message = format!(
        "partition {partition} is owned at epoch {current}, epoch {epoch} may no longer act on it: what it did not settle comes again there"
    );
    Error::new(ErrorKind::Fenced, operation, message)
}
