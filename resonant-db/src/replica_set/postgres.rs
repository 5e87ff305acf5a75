//! What a PostgreSQL server says of itself, for those who ask it through a driver of their own.

use resonant_common::join::Position;

use super::{Observation, Role};

/// The columns timeline and offset.
macro_rules! place_columns {
    () => {
        "CASE WHEN pg_is_in_recovery() \
            THEN greatest((SELECT timeline_id FROM pg_control_checkpoint()), (SELECT received_tli FROM pg_stat_wal_receiver)) \
            ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int4 END, \
        pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() \
            THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END, '0/0')::int8"
    };
}
#[cfg(feature = "postgres")]
pub(crate) use place_columns;

/// Asks a PostgreSQL server (12 or later) what it is and how far it is: one row of `bool`, `bigint`, `integer` and
/// `bigint`, which [`Observation::from_postgres`] reads. Any role may ask.
///
/// The place is the end of what the primary has put into its log, flushed or not, or of what a standby has replayed.
pub const POSTGRES_PROBE: &str = concat!(
    "SELECT pg_is_in_recovery(), (SELECT system_identifier FROM pg_control_system()), ",
    place_columns!()
);

impl Observation {
    /// What a row of [`POSTGRES_PROBE`] says: whether the node is in recovery, system identifier, timeline, and place in the
    /// log, each as the driver read it.
    ///
    /// ```
    /// # use resonant_db::replica_set::{Observation, Role};
    /// let said = Observation::from_postgres((true, 7_301, Some(1), Some(50_331_648)));
    /// assert_eq!(said.role, Some(Role::Replica));
    /// assert_eq!(said.position.map(|place| place.offset), Some(50_331_648));
    /// ```
    pub fn from_postgres(row: (bool, i64, Option<i32>, Option<i64>)) -> Self {
        let (in_recovery, system, timeline, offset) = row;
        let place = timeline.zip(offset).and_then(|(timeline, offset)| {
            Some(Position {
                // An identifier is unsigned; SQL has no such type.
                system: system as u64,
                timeline: u32::try_from(timeline).ok()?,
                offset: settled(u64::try_from(offset).ok()?),
            })
        });
        let role = if in_recovery { Role::Replica } else { Role::Primary };
        Self::alive().role(role).position(place)
    }
}

/// What each page of the log begins with.
const PAGE: u64 = 8192;
const PAGE_HEADER: u64 = 24;

/// Where the next record will begin lies behind the header of its page; where the last one ended, which is what a standby
/// replays up to, lies before it.
pub(crate) fn settled(offset: u64) -> u64 {
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

    #[test]
    fn what_is_not_said_is_not_known() {
        let said = Observation::from_postgres((false, 1, Some(1), None));
        assert_eq!((said.role, said.position), (Some(Role::Primary), None));
        assert_eq!(Observation::from_postgres((true, 1, None, Some(8))).position, None);
        assert_eq!(Observation::from_postgres((true, 1, Some(-1), Some(8))).position, None);
    }
}
