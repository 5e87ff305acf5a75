//! The statements, and how their answers are read.

use crate::region::Pledge;

/// The lock that makes looking at a pledge and obeying one critical section. Local to the server; works on a standby.
pub(super) const LOCK: &str = "SELECT pg_advisory_lock(7235421905431227649)";

pub(super) const PLEDGE: &str = "SELECT coalesce((SELECT setting FROM pg_file_settings \
     WHERE name = 'event_source' AND setting LIKE 'resonant:%' ORDER BY seqno DESC LIMIT 1), '')";

pub(super) const OBSERVE: &str = "SELECT pg_is_in_recovery(), \
     (SELECT system_identifier::text FROM pg_control_system()), \
     pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() \
       THEN greatest(coalesce(pg_last_wal_receive_lsn(), '0/0'), coalesce(pg_last_wal_replay_lsn(), '0/0')) \
       ELSE pg_current_wal_lsn() END, '0/0')::text, \
     coalesce((SELECT status = 'streaming' AND last_msg_receipt_time > clock_timestamp() \
       - greatest($1::float8, (SELECT setting::float8 FROM pg_settings WHERE name = 'wal_receiver_timeout') / 1000 * 0.75) \
       * interval '1 second' \
       FROM pg_stat_wal_receiver), false), \
     current_setting('synchronous_standby_names'), current_setting('synchronous_commit'), \
     current_setting('default_transaction_read_only')::bool, \
     (extract(epoch FROM pg_postmaster_start_time()) * 1000)::bigint";

pub(super) const TIMELINE: &str =
    "SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int";

/// Whether a standby has stopped receiving, and up to where it can be read.
pub(super) const STANDS: &str = "SELECT NOT EXISTS (SELECT FROM pg_stat_wal_receiver), \
     pg_wal_lsn_diff(coalesce(pg_last_wal_replay_lsn(), '0/0'), '0/0')::text, \
     coalesce(pg_last_wal_replay_lsn() >= pg_last_wal_receive_lsn(), true)";

pub(super) const LINEAGE: &str = "SELECT epoch FROM resonant_ha";

/// A write that does not wait for standbys: they are not what is asked about.
pub(super) const HEARTBEAT: &str = "BEGIN; SET TRANSACTION READ WRITE; SET LOCAL synchronous_commit = local; \
     SET LOCAL lock_timeout = '20ms'; UPDATE resonant_ha SET heartbeat = heartbeat + 1; COMMIT";

pub(super) const CREATE: &str = "CREATE TABLE IF NOT EXISTS resonant_ha (\
     one boolean PRIMARY KEY DEFAULT true CHECK (one), epoch bigint NOT NULL, operation text NOT NULL, \
     heartbeat bigint NOT NULL DEFAULT 0); \
     INSERT INTO resonant_ha (epoch, operation) VALUES (0, '') ON CONFLICT DO NOTHING";

pub(super) fn confirm(order: &Pledge) -> String {
    format!(
        "BEGIN; SET TRANSACTION READ WRITE; SET LOCAL synchronous_commit = on; \
         INSERT INTO resonant_ha (epoch, operation) VALUES ({epoch}, {operation}) \
         ON CONFLICT (one) DO UPDATE SET epoch = excluded.epoch, operation = excluded.operation, \
         heartbeat = resonant_ha.heartbeat + 1 WHERE resonant_ha.epoch <= excluded.epoch; \
         SELECT pg_advisory_unlock_all(); COMMIT",
        epoch = order.epoch,
        operation = quote(&order.operation)
    )
}

pub(super) fn pledge(order: &Pledge) -> String {
    let text = format!("resonant:{}:{}", order.epoch, order.operation);
    format!("ALTER SYSTEM SET event_source = {}", quote(&text))
}

pub(super) fn read_pledge(text: &str) -> Pledge {
    let parts = text.strip_prefix("resonant:").and_then(|rest| rest.split_once(':'));
    match parts.and_then(|(epoch, operation)| Some((epoch.parse().ok()?, operation))) {
        Some((epoch, operation)) => Pledge { epoch, operation: operation.to_owned() },
        None => Pledge::default(),
    }
}

/// A string literal.
pub(super) fn quote(text: &str) -> String {
    let text = text.replace('\'', "''");
    match text.contains('\\') {
        true => format!("E'{}'", text.replace('\\', "\\\\")),
        false => format!("'{text}'"),
    }
}

/// For how many standbys commits wait.
pub(super) fn waits(names: &str, commit: &str) -> u32 {
    let names = names.trim();
    if names.is_empty() || matches!(commit, "off" | "local") {
        return 0;
    }
    let lower = names.to_ascii_lowercase();
    let rest = ["any ", "first "].iter().find_map(|word| lower.strip_prefix(word));
    let count = rest.unwrap_or(&lower).split('(').next().unwrap_or_default().trim();
    match names.contains('(') {
        true => count.parse().unwrap_or(1),
        false => 1,
    }
}

/// `url` for a standby of this name, which is how the primary's `synchronous_standby_names` knows it.
pub(super) fn conninfo(url: &str, standby: &str) -> String {
    let mark = if url.contains('?') { '&' } else { '?' };
    let name: String = standby
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect();
    format!("{url}{mark}application_name={name}&connect_timeout=3")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_forms_are_counted() {
        for (names, waiting) in [
            ("", 0),
            ("ANY 2 (a, b, c)", 2),
            ("FIRST 1 (a, b)", 1),
            ("2 (a, b)", 2),
            ("a, b", 1),
            ("*", 1),
            ("any 1(\"x (y)\")", 1),
        ] {
            assert_eq!(waits(names, "on"), waiting, "{names}");
            assert_eq!(waits(names, "local"), 0, "{names}");
        }
    }

    #[test]
    fn a_pledge_is_read_back_as_it_was_written() {
        let order = Pledge { epoch: 7, operation: "it's:a\\b/1".to_owned() };
        assert_eq!(pledge(&order), "ALTER SYSTEM SET event_source = E'resonant:7:it''s:a\\\\b/1'");
        assert_eq!(read_pledge("resonant:7:it's:a\\b/1"), order);
        assert_eq!(read_pledge("PostgreSQL"), Pledge::default());
        assert_eq!(
            conninfo("postgresql://a@b/c", "p 1"),
            "postgresql://a@b/c?application_name=p%201&connect_timeout=3"
        );
    }
}
