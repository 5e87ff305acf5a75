//! What can go wrong with an item or a batch.

use resonant_common::error::{BoxError, Kind};

/// What went wrong, named for what the caller does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The processor failed the whole batch this item was in. The cause is the processor's own error, shared by all items
    /// of the batch: `error.source()` and a downcast give it back.
    BatchFailed,
    /// The processor takes no more items, or ended before this one was done.
    Closed,
    /// A setting breaks a rule; the message names it.
    Config,
    /// The processor failed this item; others of its batch may have succeeded. The cause is the processor's own error.
    ItemFailed,
    /// The queue is full and the caller did not want to wait.
    Overloaded,
    /// User code panicked. Only this batch is touched.
    Panicked,
    /// The time given to this item or to its batch is over.
    TimedOut,
    /// The item alone weighs more than a batch may.
    TooHeavy,
    /// The processor returned another number of results than it was given items, so nobody can tell whose is whose.
    WrongLength,
}

impl Kind for ErrorKind {
    fn code(self) -> &'static str {
        match self {
            ErrorKind::BatchFailed => "batch.batch_failed",
            ErrorKind::Closed => "batch.closed",
            ErrorKind::Config => "batch.config",
            ErrorKind::ItemFailed => "batch.item_failed",
            ErrorKind::Overloaded => "batch.overloaded",
            ErrorKind::Panicked => "batch.panicked",
            ErrorKind::TimedOut => "batch.timed_out",
            ErrorKind::TooHeavy => "batch.too_heavy",
            ErrorKind::WrongLength => "batch.wrong_length",
        }
    }

    fn is_transient(self) -> bool {
        matches!(self, ErrorKind::BatchFailed | ErrorKind::Overloaded | ErrorKind::TimedOut)
    }
}

/// The error of this crate. It is cheap to clone: all items of a failed batch share one.
pub type Error = resonant_common::error::Error<ErrorKind>;

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

pub(crate) fn batch_failed(source: impl Into<BoxError>) -> Error {
    Error::new(
        ErrorKind::BatchFailed,
        "submit",
        "the processor failed the whole batch; see its own error",
    )
    .with_may_have_applied()
    .with_source(source)
}

pub(crate) fn item_failed(operation: &'static str, source: impl Into<BoxError>) -> Error {
    Error::new(ErrorKind::ItemFailed, operation, "the item failed; see its own error")
        .with_source(source)
}

pub(crate) fn closed(operation: &'static str) -> Error {
    Error::new(ErrorKind::Closed, operation, "the batch processor is closed to new items")
}

pub(crate) fn not_run() -> Error {
    Error::new(
        ErrorKind::Closed,
        "submit",
        "the batch processor was drained before this item was dispatched",
    )
}

pub(crate) fn interrupted() -> Error {
    Error::new(
        ErrorKind::Closed,
        "submit",
        "the batch processor ended while this item was being processed",
    )
    .with_may_have_applied()
}

pub(crate) fn overloaded(limit: usize) -> Error {
    Error::new(
        ErrorKind::Overloaded,
        "try_submit",
        format!(
            "{limit} items are queued already (max_queued); try again later, or wait with submit"
        ),
    )
}

pub(crate) fn panicked(operation: &'static str) -> Error {
    Error::new(
        ErrorKind::Panicked,
        operation,
        "the processor panicked; the panic hook has its message",
    )
    .with_may_have_applied()
}

pub(crate) fn too_heavy(operation: &'static str, weight: u64, limit: u64) -> Error {
    Error::new(
        ErrorKind::TooHeavy,
        operation,
        format!("the item weighs {weight}, a batch at most {limit} (max_batch_weight)"),
    )
}

pub(crate) fn wrong_length(expected: usize, returned: usize) -> Error {
    Error::new(
        ErrorKind::WrongLength,
        "submit",
        format!("the processor returned {returned} results for {expected} items; it must return one for each, in order"),
    )
    .with_may_have_applied()
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn kinds_answer_what_the_caller_does_next() {
        let table = [
            (batch_failed("down"), "batch.batch_failed", true, true),
            (item_failed("submit", "bad"), "batch.item_failed", false, false),
            (closed("submit"), "batch.closed", false, false),
            (not_run(), "batch.closed", false, false),
            (interrupted(), "batch.closed", false, true),
            (overloaded(7), "batch.overloaded", true, false),
            (panicked("submit"), "batch.panicked", false, true),
            (too_heavy("submit", 9, 8), "batch.too_heavy", false, false),
            (wrong_length(3, 2), "batch.wrong_length", false, true),
        ];
        for (error, code, transient, applied) in table {
            assert_eq!(error.code(), code);
            assert_eq!(
                (error.is_transient(), error.may_have_applied()),
                (transient, applied),
                "{code}"
            );
        }
    }

    #[test]
    fn the_processors_own_error_is_shared_not_copied() {
        #[derive(Debug)]
        struct NotClone;
        impl std::fmt::Display for NotClone {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("not clone")
            }
        }
        impl std::error::Error for NotClone {}

        let error = batch_failed(NotClone);
        let copy = error.clone();
        let (one, two) = (error.source().unwrap(), copy.source().unwrap());
        assert!(std::ptr::eq(
            one.downcast_ref::<NotClone>().unwrap(),
            two.downcast_ref::<NotClone>().unwrap()
        ));
    }
}
