//! How far a node is: system identifier, timeline, place in the log.
//!
//! On the primary it is the end of what has been put into the log, flushed or not, so that a commit with
//! `synchronous_commit=off` counts too; on a standby the end of what has been replayed. The timeline of a standby is the
//! highest it knows of: what it receives, or what its control file says, which may be behind for a while. Then tokens
//! compare too carefully, never too lightly.

use resonant_common::join::Position;
use tokio_postgres::Row;

/// The system's identifier, which a session's server never changes.
pub(super) const SYSTEM: &str = "SELECT system_identifier FROM pg_control_system()";

pub(super) const PLACE: &str = "\
    SELECT CASE WHEN pg_is_in_recovery() \
        THEN greatest((SELECT timeline_id FROM pg_control_checkpoint()), (SELECT received_tli FROM pg_stat_wal_receiver)) \
        ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int4 END, \
    pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() \
        THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END, '0/0')::int8";

/// What each page of the log begins with.
const PAGE: u64 = 8192;
const PAGE_HEADER: u64 = 24;

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

/// Where the next record will begin lies behind the header of its page; where the last one ended, which is what a standby
/// replays up to, lies before it.
fn settled(offset: u64) -> u64 {
    if offset % PAGE == PAGE_HEADER { offset - PAGE_HEADER } else { offset }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_of_an_empty_page_does_not_count() {
        assert_eq!(settled(3 * PAGE + PAGE_HEADER), 3 * PAGE);
        assert_eq!(settled(3 * PAGE + 32), 3 * PAGE + 32);
        assert_eq!(settled(3 * PAGE), 3 * PAGE);
    }
}
