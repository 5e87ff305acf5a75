//! How far a node is: system identifier, timeline, place in the log.
//!
//! On the primary it is the end of what has been put into the log, flushed or not, so that a commit with
//! `synchronous_commit=off` counts too; on a standby the end of what has been replayed. The timeline of a standby is the
//! highest it knows of: what it receives, or what its control file says, which may be behind for a while. Then tokens
//! compare too carefully, never too lightly.

use resonant_common::join::Position;
use tokio_postgres::Row;

use crate::replica_set::postgres::{place_columns, settled};

/// The system's identifier, which a session's server never changes.
pub(super) const SYSTEM: &str = "SELECT system_identifier FROM pg_control_system()";

pub(super) const PLACE: &str = concat!("SELECT ", place_columns!());

/// The place a row of [`PLACE`] tells; `None` where the server does not say.
pub(super) fn place(system: u64, row: &Row) -> Option<Position> {
    let timeline: i32 = row.try_get::<_, Option<i32>>(0).ok()??;
    let offset: i64 = row.try_get::<_, Option<i64>>(1).ok()??;
    Some(Position {
        system,
        timeline: u32::try_from(timeline).ok()?,
        offset: settled(u64::try_from(offset).ok()?),
    })
}

pub(super) fn system(row: &Row) -> Option<u64> {
    // An identifier is unsigned; SQL has no such type.
    row.try_get::<_, Option<i64>>(0).ok()?.map(|system| system as u64)
}
