//! What a database says of itself.

use resonant_common::join::{Finding, Severity};

use crate::pool::PoolStatus;

use super::Inner;
use super::node::{Node, Role};

/// A snapshot of a [`Database`](crate::Database).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DatabaseStatus {
    /// The name from the settings.
    pub name: String,
    /// The engine, such as `sqlite`.
    pub system: &'static str,
    /// The nodes, the primary first.
    pub nodes: Vec<NodeStatus>,
}

/// A snapshot of a node.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NodeStatus {
    /// The node's name: its URL without scheme, user, password and options.
    pub name: String,
    /// What it is to the database.
    pub role: Role,
    /// Whether it kept failing. A replica is then out of rotation until it answers again; the primary has no stand-in.
    pub ejected: bool,
    /// Calls at the node from here, those that wait for a connection included.
    pub in_flight: usize,
    /// Its pool.
    pub pool: PoolStatus,
}

pub(super) fn of(inner: &Inner) -> DatabaseStatus {
    let node = |node: &Node| NodeStatus {
        name: node.target.name.to_string(),
        role: node.role,
        ejected: node.health.is_ejected(),
        in_flight: node.in_flight(),
        pool: node.pool.status(),
    };
    DatabaseStatus {
        name: inner.config.name.clone(),
        system: inner.backend.system(),
        nodes: inner.nodes().map(node).collect(),
    }
}

pub(super) fn findings(inner: &Inner) -> Vec<Finding> {
    let mut findings = Vec::new();
    for node in inner.nodes() {
        let of_pool = node.pool.findings();
        match node.role {
            Role::Primary => findings.extend(of_pool),
            // Without a replica the primary answers: worse, but it works.
            Role::Replica => findings.extend(of_pool.into_iter().map(|finding| Finding {
                severity: finding.severity.min(Severity::Warn),
                ..finding
            })),
        }
        if node.role == Role::Replica && node.health.is_ejected() {
            let name = node.pool.name().to_owned();
            findings.push(Finding::new(name, Severity::Warn, "db.replica.ejected"));
        }
    }
    findings
}
