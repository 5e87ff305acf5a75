//! Settings of the routing.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind, Result};

/// Whether the primary answers reads that a strategy spreads over the replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PrimaryReads {
    /// When no replica is fit to. Default.
    #[default]
    Fallback,
    /// As one of them.
    Included,
    /// Never: without a replica reads fail. A session still reads there what no replica has.
    Never,
}

/// Settings of the routing: of a [`ReplicaSet`](crate::ReplicaSet), and of a [`Database`](crate::Database) as the field
/// `routing`.
///
/// Durations read human text (`"250ms"`) or plain seconds in files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RoutingConfig {
    /// Whether the primary answers reads. Default: when no replica is fit to.
    pub primary_reads: PrimaryReads,
    /// How often each node is asked for its role and position, in the background. Shorter finds a new primary sooner and
    /// measures lag finer. Default 250 ms.
    #[serde(with = "resonant_common::duration")]
    pub probe_interval: Duration,
    /// How long such a question may take. A node that has answered nothing meanwhile is then out of rotation. Default
    /// 500 ms.
    #[serde(with = "resonant_common::duration")]
    pub probe_timeout: Duration,
    /// How long it takes a node that comes back to reach its full share of the reads; zero is at once. Default 2 s.
    #[serde(with = "resonant_common::duration")]
    pub slow_start: Duration,
    /// How long a write that provably was not applied waits for another node to become the primary, to be sent there;
    /// zero is not at all. Default 1 s.
    #[serde(with = "resonant_common::duration")]
    pub failover_wait: Duration,
    /// A replica that is further behind is reported by [`findings`](crate::Database::findings) as `db.replica.stale`. It is not
    /// left out of the reads: [`max_staleness`](crate::Read::max_staleness) does that. Default 30 s.
    #[serde(with = "resonant_common::duration")]
    pub stale_after: Duration,
    /// The zone this process runs in, for [`ReadStrategy::ZoneFirst`](crate::ReadStrategy::ZoneFirst). Default none.
    pub zone: Option<String>,
    /// The zones of the nodes, by their names or URLs. Default none.
    pub zones: BTreeMap<String, String>,
}

impl Default for RoutingConfig {
    fn default() -> Self {
        Self {
            primary_reads: PrimaryReads::default(),
            probe_interval: Duration::from_millis(250),
            probe_timeout: Duration::from_millis(500),
            slow_start: Duration::from_secs(2),
            failover_wait: Duration::from_secs(1),
            stale_after: Duration::from_secs(30),
            zone: None,
            zones: BTreeMap::new(),
        }
    }
}

impl RoutingConfig {
    /// Whether the primary answers reads.
    #[must_use]
    pub fn primary_reads(self, primary_reads: PrimaryReads) -> Self {
        Self { primary_reads, ..self }
    }

    /// How often each node is asked for its role and position.
    #[must_use]
    pub fn probe_interval(self, probe_interval: Duration) -> Self {
        Self { probe_interval, ..self }
    }

    /// How long such a question may take.
    #[must_use]
    pub fn probe_timeout(self, probe_timeout: Duration) -> Self {
        Self { probe_timeout, ..self }
    }

    /// How long it takes a node that comes back to reach its full share.
    #[must_use]
    pub fn slow_start(self, slow_start: Duration) -> Self {
        Self { slow_start, ..self }
    }

    /// How long a write that was not applied waits for another primary.
    #[must_use]
    pub fn failover_wait(self, failover_wait: Duration) -> Self {
        Self { failover_wait, ..self }
    }

    /// How far behind a replica is reported.
    #[must_use]
    pub fn stale_after(self, stale_after: Duration) -> Self {
        Self { stale_after, ..self }
    }

    /// The zone this process runs in.
    #[must_use]
    pub fn zone(self, zone: impl Into<String>) -> Self {
        Self { zone: Some(zone.into()), ..self }
    }

    /// The zone of a node, by its name or URL.
    #[must_use]
    pub fn node_zone(mut self, node: impl Into<String>, zone: impl Into<String>) -> Self {
        self.zones.insert(node.into(), zone.into());
        self
    }

    pub(crate) fn validate(&self) -> Result<()> {
        for (name, value) in
            [("probe_interval", self.probe_interval), ("probe_timeout", self.probe_timeout)]
        {
            if value < Duration::from_millis(10) {
                let message = format!("{name} must be at least 10 ms, it is {value:?}");
                return Err(Error::new(ErrorKind::Config, "routing config", message));
            }
        }
        Ok(())
    }
}
