//! What was done to each shard, what is to be done, and where a shard differs from the files.

use std::fmt;
use std::time::Duration;

use crate::Error;

/// The state of every shard, after a run or as it is; made by [`Migrator`](super::Migrator).
///
/// `Display` shows a line for each shard.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MigrationReport {
    /// The shards, in the order of declaration.
    pub shards: Vec<ShardMigrations>,
}

/// One shard of a [`MigrationReport`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ShardMigrations {
    /// Its name.
    pub name: String,
    /// The latest version it has.
    pub version: Option<i64>,
    /// What this run applied or took back, in order, with the time it took.
    pub done: Vec<(i64, Duration)>,
    /// The versions it does not have.
    pub pending: Vec<i64>,
    /// Where it differs from the files.
    pub drift: Vec<Drift>,
    /// What stopped it; the next run goes on from there.
    pub error: Option<Error>,
}

/// How the ledger of a shard contradicts the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Drift {
    /// The file was changed after it was applied: its checksum is another one.
    Changed(i64),
    /// The ledger says that it failed half-way.
    Dirty(i64),
    /// It was applied, and there is no such file.
    Unknown(i64),
}

/// What happens during a run, as it happens.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum MigrationEvent<'e> {
    /// A version is begun on a shard.
    Started {
        /// The shard.
        shard: &'e str,
        /// The version.
        version: i64,
        /// What its file is called.
        description: &'e str,
    },
    /// A version is done on a shard.
    Finished {
        /// The shard.
        shard: &'e str,
        /// The version.
        version: i64,
        /// How long it took.
        took: Duration,
    },
    /// A shard stopped; the others go on.
    Failed {
        /// The shard.
        shard: &'e str,
        /// The version, where it was one.
        version: Option<i64>,
        /// Why.
        error: &'e Error,
    },
}

impl MigrationReport {
    /// Whether every shard has every version and none differs from the files.
    pub fn is_complete(&self) -> bool {
        self.shards.iter().all(|shard| {
            shard.pending.is_empty() && shard.drift.is_empty() && shard.error.is_none()
        })
    }
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Drift::Changed(version) => write!(f, "{version} was changed after it was applied"),
            Drift::Dirty(version) => write!(f, "{version} failed half-way"),
            Drift::Unknown(version) => write!(f, "{version} was applied and has no file"),
        }
    }
}

impl fmt::Display for ShardMigrations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name)?;
        match self.version {
            Some(version) => write!(f, "at {version}")?,
            None => f.write_str("nothing applied")?,
        }
        if !self.done.is_empty() {
            write!(f, ", {} done now", self.done.len())?;
        }
        if !self.pending.is_empty() {
            let pending: Vec<_> = self.pending.iter().map(i64::to_string).collect();
            write!(f, ", pending {}", pending.join(" "))?;
        }
        for drift in &self.drift {
            write!(f, ", {drift}")?;
        }
        match &self.error {
            Some(error) => write!(f, ", stopped: {}", error.message()),
            None => Ok(()),
        }
    }
}

impl fmt::Display for MigrationReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, shard) in self.shards.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            shard.fmt(f)?;
        }
        Ok(())
    }
}
