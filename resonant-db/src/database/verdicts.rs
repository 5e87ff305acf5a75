//! What follows from an error: the one table of retries, and which errors speak against a node. Pure.

use crate::{Error, ErrorKind};

/// How far a read got before it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Waiting for a connection: nothing was sent.
    Connecting,
    /// Running the statement.
    Running,
}

/// Whether a failed read is tried on another node. A read changes nothing, so it may be sent twice.
///
/// | kind | waiting for a connection | running |
/// |---|---|---|
/// | `Unavailable` | another node | another node |
/// | `Conflict` (on a replica: it had to choose between the statement and the replication) | another node | another node |
/// | `TimedOut` | another node | given up: the time is spent |
/// | `Overloaded` | given up: another node would only be next | . |
/// | others | given up: no other node would say otherwise | given up |
pub(super) fn read_elsewhere(kind: ErrorKind, stage: Stage) -> bool {
    match kind {
        ErrorKind::Unavailable | ErrorKind::Conflict => true,
        ErrorKind::TimedOut => stage == Stage::Connecting,
        _ => false,
    }
}

/// Whether an error speaks against the node rather than against the statement or the load.
pub(super) fn blames_node(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unavailable | ErrorKind::TimedOut)
}

/// Whether a failed transaction is run again as a whole: only when the engine says that it gave up because of another
/// transaction, and that nothing of it was applied.
pub(super) fn transaction_again(error: &Error) -> bool {
    error.kind() == ErrorKind::Conflict && !error.may_have_applied() && !error.retries_exhausted()
}

/// Whether a write that failed may be sent to another node, once that is the primary: only when it provably was not
/// applied, and the node is to blame.
///
/// | kind | waiting for a connection | running |
/// |---|---|---|
/// | `Unavailable` (a lost connection, a node that takes no writes any more) | to the new primary | to the new primary, unless it may have been applied |
/// | `TimedOut` | to the new primary | given up |
/// | others | given up | given up |
pub(super) fn write_elsewhere(error: &Error, stage: Stage) -> bool {
    let blamed = match stage {
        Stage::Connecting => blames_node(error.kind()),
        Stage::Running => error.kind() == ErrorKind::Unavailable,
    };
    blamed && !error.may_have_applied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_holds() {
        use ErrorKind::*;
        let kinds = [
            Closed,
            Config,
            Conflict,
            Constraint,
            Decode,
            NotFound,
            Overloaded,
            Refused,
            Rejected,
            TimedOut,
            Unavailable,
            Unsupported,
        ];
        for kind in kinds {
            let connecting = matches!(kind, Conflict | TimedOut | Unavailable);
            assert_eq!(read_elsewhere(kind, Stage::Connecting), connecting, "{kind:?}");
            let running = matches!(kind, Conflict | Unavailable);
            assert_eq!(read_elsewhere(kind, Stage::Running), running, "{kind:?}");
            assert_eq!(blames_node(kind), matches!(kind, TimedOut | Unavailable), "{kind:?}");
            let error = Error::new(kind, "commit", "");
            assert_eq!(transaction_again(&error), kind == Conflict, "{kind:?}");
            let connecting = matches!(kind, TimedOut | Unavailable);
            assert_eq!(write_elsewhere(&error, Stage::Connecting), connecting, "{kind:?}");
            let running = kind == Unavailable;
            assert_eq!(write_elsewhere(&error, Stage::Running), running, "{kind:?}");
            let unknown = error.with_may_have_applied();
            assert!(!transaction_again(&unknown), "{kind:?}");
            assert!(!write_elsewhere(&unknown, Stage::Connecting), "{kind:?}");
            assert!(!write_elsewhere(&unknown, Stage::Running), "{kind:?}");
        }
    }
}
