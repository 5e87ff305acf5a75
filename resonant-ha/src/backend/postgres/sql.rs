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

/// What keeps the session of an order from outliving a manager that stands still in it.
pub(super) const ORDER: &str = "SELECT set_config(name, value, false) FROM (VALUES \
     ('idle_session_timeout', '5s'), ('synchronous_commit', 'local')) AS wanted (name, value) JOIN pg_settings USING (name)";

/// Whether a promotion that was asked for has not been noticed by the server yet.
pub(super) const PROMOTES: &str = "SELECT (pg_stat_file('promote', true)).size IS NOT NULL";

/// What a standby's parts are doing: whether a receiver lives, connecting ones included; whether replay is paused; what
/// the startup process waits for.
pub(super) const PARTS: &str = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'walreceiver') \
     OR EXISTS (SELECT FROM pg_stat_wal_receiver), pg_is_wal_replay_paused(), \
     coalesce((SELECT coalesce(wait_event, '') FROM pg_stat_activity WHERE backend_type = 'startup'), '')";

/// How far a standby has replayed, and how far it received since it was started.
pub(super) const POSITIONS: &str = "SELECT pg_wal_lsn_diff(coalesce(pg_last_wal_replay_lsn(), '0/0'), '0/0')::text, \
     pg_wal_lsn_diff(pg_last_wal_receive_lsn(), '0/0')::text";

/// Promotes, and answers whether that ended within 25 s. The server's own `pg_promote` looks every 100 ms only, in which nobody
/// can write. As with it the session waits on the server, lock and all, also when nobody waits for its answer any more.
pub(super) const PROMOTE: &str = "WITH RECURSIVE waited (n) AS (SELECT 0 FROM pg_promote(false) \
     UNION ALL SELECT n + 1 FROM waited WHERE pg_is_in_recovery() AND clock_timestamp() < now() + interval '25 s' AND pg_sleep(0.005) IS NOT NULL) \
     SELECT count(*) > 0 AND NOT pg_is_in_recovery() FROM waited";

pub(super) const UNLOCK: &str = "SELECT pg_advisory_unlock_all()";

pub(super) const LINEAGE: &str = "SELECT epoch FROM resonant_ha";

/// A write that does not wait for standbys: they are not what is asked about.
pub(super) const HEARTBEAT: &str = "BEGIN; SET TRANSACTION READ WRITE; SET LOCAL synchronous_commit = local; \
     SET LOCAL lock_timeout = '20ms'; UPDATE resonant_ha SET heartbeat = heartbeat + 1; COMMIT";

pub(super) const CREATE: &str = "CREATE TABLE IF NOT EXISTS resonant_ha (\
     one boolean PRIMARY KEY DEFAULT true CHECK (one), epoch bigint NOT NULL, operation text NOT NULL, \
     heartbeat bigint NOT NULL DEFAULT 0); \
     INSERT INTO resonant_ha (epoch, operation) VALUES (0, '') ON CONFLICT DO NOTHING";

/// Ends sessions of ours that wait for standbys with the epoch row locked: whoever gave that order is no longer heard. Ending
/// them, unlike cancelling them, lets nobody take the row for acknowledged.
pub(super) const END_WAITING: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
     WHERE application_name = 'resonant_ha' AND wait_event = 'SyncRep' AND pid <> pg_backend_pid()";

/// How many standbys have the row that was committed last, of those that commits may wait for.
pub(super) const ACKNOWLEDGED: &str = "SELECT count(*) FROM pg_stat_replication \
     WHERE sync_state IN ('sync', 'quorum') AND flush_lsn >= ($1::text)::pg_lsn";

/// The epoch row, on this server alone.
pub(super) fn epoch_row(order: &Pledge) -> String {
    format!(
        "BEGIN; SET TRANSACTION READ WRITE; SET LOCAL synchronous_commit = local; {}; COMMIT",
        write_row(order)
    )
}

/// The epoch row, once as many standbys as commits wait for have it; the server's lock is let go before that.
pub(super) fn confirm(order: &Pledge) -> String {
    format!(
        "BEGIN; SET TRANSACTION READ WRITE; SET LOCAL synchronous_commit = on; {}; \
         {UNLOCK}; COMMIT",
        write_row(order)
    )
}

fn write_row(order: &Pledge) -> String {
    format!(
        "INSERT INTO resonant_ha (epoch, operation) VALUES ({epoch}, {operation}) \
         ON CONFLICT (one) DO UPDATE SET epoch = excluded.epoch, operation = excluded.operation, \
         heartbeat = resonant_ha.heartbeat + 1 WHERE resonant_ha.epoch <= excluded.epoch",
        epoch = order.epoch,
        operation = quote(&order.operation)
    )
}

/// The pledge as the parameter `event_source` holds it.
pub(super) fn pledge_text(order: &Pledge) -> String {
    format!("resonant:{}:{}", order.epoch, order.operation)
}

pub(super) fn pledge(order: &Pledge) -> String {
    format!("ALTER SYSTEM SET event_source = {}", quote(&pledge_text(order)))
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
