//! Why a standby that answers cannot be weighed yet.

use std::fmt;

/// Why a standby cannot be weighed, although it answers: what it has received and acknowledged is not all known. The source
/// of an error of kind [`ErrorKind::Unsettled`](crate::ErrorKind::Unsettled).
///
/// A region in this state counts as unable: it is neither promoted nor taken for a proof, however far it says it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unsettled {
    /// It receives, or may still begin to.
    Receives,
    /// Replay is paused: `pg_wal_replay_resume()` ends that.
    ReplayPaused,
    /// Replay waits for the named event, such as a reader whose rows it would remove, or a delay that was asked for.
    ReplayWaits(String),
    /// Replay has not come to the end of what was received.
    Replays,
    /// A promotion that was ordered before is under way.
    Promotes,
}

impl fmt::Display for Unsettled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unsettled::Receives => f.write_str("it still receives"),
            Unsettled::ReplayPaused => {
                f.write_str("its replay is paused; pg_wal_replay_resume() ends that")
            }
            Unsettled::ReplayWaits(event) => write!(f, "its replay waits for {event}"),
            Unsettled::Replays => f.write_str("it has not replayed all that it received"),
            Unsettled::Promotes => f.write_str("a promotion is under way"),
        }
    }
}

impl std::error::Error for Unsettled {}

impl Unsettled {
    /// The error with which a region says that it cannot be weighed yet.
    pub fn refuse(self, operation: &'static str) -> crate::Error {
        let message = format!("the standby cannot be weighed yet: {self}");
        crate::Error::new(crate::ErrorKind::Unsettled, operation, message).with_source(self)
    }
}
