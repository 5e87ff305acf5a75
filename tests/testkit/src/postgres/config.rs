//! The configuration of a node. It lies outside the data folder, so that neither a base backup nor a rewind carries one
//! node's port or upstream over to another.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

/// Settings of every node. Small and quick to notice a dead peer; what a test needs differently it sets on the builder.
const COMMON: &[(&str, &str)] = &[
    ("listen_addresses", "127.0.0.1"),
    ("shared_buffers", "16MB"),
    ("max_connections", "100"),
    ("huge_pages", "off"),
    // In files below the data folder, which go with it. The system's segments would outlive a killed server.
    ("dynamic_shared_memory_type", "mmap"),
    ("jit", "off"),
    ("max_parallel_workers", "0"),
    // The default since version 14.
    ("password_encryption", "scram-sha-256"),
    ("wal_level", "replica"),
    ("max_wal_senders", "10"),
    ("max_replication_slots", "10"),
    ("max_prepared_transactions", "20"),
    ("min_wal_size", "2MB"),
    ("max_wal_size", "64MB"),
    ("wal_keep_size", "16MB"),
    ("max_slot_wal_keep_size", "256MB"),
    ("wal_log_hints", "on"),
    ("wal_sender_timeout", "2s"),
    ("wal_receiver_timeout", "2s"),
    ("wal_receiver_status_interval", "1s"),
    ("wal_retrieve_retry_interval", "100ms"),
    ("hot_standby", "on"),
    ("hot_standby_feedback", "on"),
    ("max_standby_streaming_delay", "1s"),
    ("autovacuum_naptime", "10s"),
    ("logging_collector", "off"),
    ("log_line_prefix", "%m [%p] %b "),
    ("log_replication_commands", "on"),
];

/// Settings below whose template value a replica refuses to start from a copy of the template.
const TIED_TO_THE_TEMPLATE: [&str; 5] = [
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_wal_senders",
    "max_worker_processes",
];

/// Whom a replica follows.
#[derive(Clone, Debug)]
pub(super) struct Upstream {
    pub(super) port: u16,
    pub(super) slot: String,
}

/// What is written into a node's configuration; the parts that change at run time included.
#[derive(Clone, Debug)]
pub(super) struct NodeConfig {
    pub(super) name: String,
    pub(super) port: u16,
    pub(super) durable: bool,
    pub(super) tls: bool,
    pub(super) settings: BTreeMap<String, String>,
    pub(super) synchronous: String,
    pub(super) upstream: Option<Upstream>,
    pub(super) apply_delay: Duration,
}

impl NodeConfig {
    /// The text of `postgresql.conf` for a node whose files are in `folder`.
    pub(super) fn render(&self, folder: &Path) -> String {
        let mut all: BTreeMap<&str, String> =
            COMMON.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let path = |name: &str| folder.join(name).display().to_string();
        let onoff = |on: bool| if on { "on" } else { "off" }.to_owned();
        all.insert("port", self.port.to_string());
        all.insert("cluster_name", self.name.clone());
        all.insert("unix_socket_directories", path(""));
        all.insert("hba_file", path("pg_hba.conf"));
        all.insert("fsync", onoff(self.durable));
        if self.tls {
            all.insert("ssl", "on".to_owned());
            all.insert("ssl_cert_file", path("server.crt"));
            all.insert("ssl_key_file", path("server.key"));
        }
        for (name, value) in &self.settings {
            all.insert(name, value.clone());
        }
        all.insert("synchronous_standby_names", self.synchronous.clone());
        all.insert("recovery_min_apply_delay", format!("{}ms", self.apply_delay.as_millis()));
        if let Some(upstream) = &self.upstream {
            all.insert("primary_conninfo", conninfo(upstream.port, &self.name));
            all.insert("primary_slot_name", upstream.slot.clone());
        }
        let mut text = String::new();
        for (name, value) in all {
            let _ = writeln!(text, "{name} = '{}'", value.replace('\'', "''"));
        }
        text
    }

    /// Whether a replica can start from a copy of the template instead of a base backup.
    pub(super) fn starts_from_template(&self) -> bool {
        TIED_TO_THE_TEMPLATE.iter().all(|name| !self.settings.contains_key(*name))
    }
}

fn conninfo(port: u16, application: &str) -> String {
    format!(
        "host=127.0.0.1 port={port} user=postgres application_name={application} connect_timeout=2 keepalives_idle=1 \
         keepalives_interval=1 keepalives_count=2 tcp_user_timeout=2000"
    )
}

/// A login role with a password, which the server asks for over TCP.
#[derive(Clone, Debug)]
pub(super) struct Login {
    pub(super) name: String,
    pub(super) password: String,
}

/// Who may log in how: the kit's own superuser without a password over the socket and from this host, logins with theirs.
pub(super) fn hba(logins: &[Login], tls_only: bool) -> String {
    let mut text = String::from("local all all trust\nlocal replication all trust\n");
    for login in logins {
        let name = login.name.replace('"', "\"\"");
        if tls_only {
            let _ = writeln!(text, "hostnossl all \"{name}\" 127.0.0.1/32 reject");
        }
        let _ = writeln!(text, "host all \"{name}\" 127.0.0.1/32 scram-sha-256");
    }
    text.push_str(
        "host all postgres 127.0.0.1/32 trust\nhost replication postgres 127.0.0.1/32 trust\n",
    );
    if logins.is_empty() {
        text.push_str("host all all 127.0.0.1/32 trust\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_setting_wins_over_ours_and_quotes_are_doubled() {
        let config = NodeConfig {
            name: "p0".to_owned(),
            port: 20_001,
            durable: false,
            tls: false,
            settings: BTreeMap::from([
                ("wal_level".to_owned(), "logical".to_owned()),
                ("x.y".to_owned(), "it's".to_owned()),
            ]),
            synchronous: String::new(),
            upstream: None,
            apply_delay: Duration::ZERO,
        };
        let text = config.render(Path::new("/tmp/x"));
        assert!(text.contains("wal_level = 'logical'\n"), "{text}");
        assert!(text.contains("x.y = 'it''s'\n"), "{text}");
        assert!(!text.contains("primary_conninfo"), "{text}");
    }
}
