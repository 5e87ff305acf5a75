//! What a move says of itself.

use std::fmt;
use std::time::Duration;

use super::steps::MoveState;

/// What happens while buckets move, as it happens.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MoveEvent {
    /// Buckets begin to move, or go on.
    Began {
        /// The shard they leave.
        from: String,
        /// The shard they go to.
        to: String,
        /// How many they are.
        buckets: usize,
    },
    /// A step was written down; what follows belongs to it.
    Reached(MoveState),
    /// The rows of a table are on the target, where no statement sees them yet.
    Copied {
        /// The table.
        table: String,
        /// How many.
        rows: u64,
    },
    /// Rows that were changed meanwhile were brought after.
    Followed {
        /// How many.
        rows: u64,
    },
    /// Writes to a group of buckets wait from here on.
    Fenced {
        /// The buckets.
        buckets: Vec<u32>,
    },
    /// The rows of the group are on the target and equal to those of the source.
    Landed {
        /// The buckets.
        buckets: Vec<u32>,
        /// How many rows.
        rows: u64,
    },
    /// The group has its new owner; writes go on there.
    Switched {
        /// The buckets.
        buckets: Vec<u32>,
        /// How many rows.
        rows: u64,
        /// How long writes to these buckets waited.
        pause: Duration,
    },
    /// A statement held the group or a table for too long; it is tried again after a while.
    GaveWay,
    /// What the move needed was taken away.
    Finished,
}

/// What has become of the buckets of a move.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MoveReport {
    /// The shard they leave.
    pub from: String,
    /// The shard they go to.
    pub to: String,
    /// How far the move has come; `None` when it has ended.
    pub state: Option<MoveState>,
    /// The buckets that have their new owner.
    pub moved: usize,
    /// The buckets that have their old one.
    pub left: usize,
    /// The rows that went along in this run.
    pub rows: u64,
    /// How long writes to a group of buckets waited, for each group of this run.
    pub pauses: Vec<Duration>,
}

impl MoveReport {
    /// The longest time writes to a bucket waited.
    pub fn longest_pause(&self) -> Duration {
        self.pauses.iter().max().copied().unwrap_or_default()
    }
}

impl fmt::Display for MoveReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, moved, left, rows, .. } = self;
        write!(f, "{from} to {to}: {moved} buckets have moved, {left} have not")?;
        if !self.pauses.is_empty() {
            let pause = self.longest_pause();
            write!(f, "; {rows} rows in {} groups, longest pause {pause:?}", self.pauses.len())?;
        }
        match &self.state {
            Some(state) => write!(f, "; {state}"),
            None => Ok(()),
        }
    }
}
