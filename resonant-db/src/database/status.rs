//! What a database says of itself.

use std::time::Duration;

use resonant_common::join::{Finding, Severity};
use tokio::time::Instant;

use crate::backend::LanesStatus;
use crate::pool::PoolStatus;
use crate::replica_set::Role;

use super::Inner;

/// A snapshot of a [`Database`](crate::Database).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DatabaseStatus {
    /// The name from the settings.
    pub name: String,
    /// The engine, such as `sqlite`.
    pub system: &'static str,
    /// The nodes, as they are in the settings: the primary of the settings first.
    pub nodes: Vec<NodeStatus>,
}

/// A snapshot of a node.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NodeStatus {
    /// The node's name: its URL without scheme, user, password and options.
    pub name: String,
    /// What it is to the database now.
    pub role: Role,
    /// Whether it kept failing, or did not answer when it was asked in the background. A replica is then out of rotation until
    /// it answers again; the primary has no stand-in.
    pub ejected: bool,
    /// Whether it was taken out of rotation by hand.
    pub held: bool,
    /// Calls at the node from here, those that wait for a connection included.
    pub in_flight: usize,
    /// What an answer is expected to take; `None` before the first.
    pub latency: Option<Duration>,
    /// How far it is behind at most; `None` where that is not known. Zero for the primary.
    pub staleness: Option<Duration>,
    /// The pool for its role.
    pub pool: PoolStatus,
    /// The connections that plain reads share, on top of the pool's.
    pub lanes: LanesStatus,
}

pub(super) fn of(inner: &Inner) -> DatabaseStatus {
    let now = Instant::now();
    let nodes = inner.set.nodes();
    let states = nodes.iter().filter_map(|node| {
        let state = node.status(now);
        Some(NodeStatus {
            role: state.role,
            ejected: state.ejected,
            held: state.held,
            in_flight: state.in_flight,
            latency: state.latency,
            staleness: state.staleness,
            pool: node.handle.pool(state.role).ok()?.status(),
            lanes: node.handle.lanes(),
            name: state.name,
        })
    });
    DatabaseStatus {
        name: inner.config.name.clone(),
        system: inner.backend.system(),
        nodes: states.collect(),
    }
}

pub(super) fn findings(inner: &Inner) -> Vec<Finding> {
    let mut findings = Vec::new();
    for node in inner.set.nodes() {
        let role = node.role();
        let Ok(pool) = node.handle.pool(role) else { continue };
        let of_pool = pool.findings();
        match role {
            Role::Primary => findings.extend(of_pool),
            // Without a replica the primary answers: worse, but it works.
            Role::Replica => findings.extend(of_pool.into_iter().map(|finding| Finding {
                severity: finding.severity.min(Severity::Warn),
                ..finding
            })),
        }
    }
    // By the names of the pools: a finding may be shown to anybody, the name of a host may not.
    findings.extend(inner.set.findings_as(|node| node.handle.label.clone()));
    findings
}
