//! A node: its pool, its health, and connections borrowed from it.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::Instant;

use crate::backend::{Backend, Connection, Target};
use crate::pool::{ConnectionPool, Manager, PoolConfig, Pooled, Verdict};
use crate::{Error, Result};

use super::health::Health;
use super::verdicts::blames_node;

/// What a node is to its database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    /// Takes the writes.
    Primary,
    /// Answers reads.
    Replica,
}

impl Role {
    /// The role as a label of metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Primary => "primary",
            Role::Replica => "replica",
        }
    }
}

pub(super) struct Node {
    pub(super) target: Target,
    pub(super) role: Role,
    pub(super) pool: ConnectionPool<NodeManager>,
    pub(super) health: Health,
    in_flight: AtomicUsize,
}

impl Node {
    pub(super) fn new(
        backend: Arc<dyn Backend>,
        target: Target,
        role: Role,
        pool_name: String,
        config: PoolConfig,
    ) -> Result<Self> {
        let manager = NodeManager { backend, target: target.clone() };
        let pool = ConnectionPool::new(pool_name, manager, config)?;
        Ok(Self { target, role, pool, health: Health::default(), in_flight: AtomicUsize::new(0) })
    }

    /// Borrows a connection in the name of `site`.
    pub(super) async fn lease(&self, site: &'static Location<'static>) -> Result<Lease<'_>> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let counted = Counted(&self.in_flight);
        let connection = self.pool.get_at(site, None).await?;
        Ok(Lease { connection, _counted: counted })
    }

    /// Statements in flight, those that wait for a connection included.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// The node answered.
    pub(super) fn succeeded(&self) {
        if self.health.succeeded() {
            tracing::info!(node = %self.target.name, role = self.role.as_str(), "the node answers again");
        }
    }

    /// An attempt on the node failed. True when that took it out of rotation.
    pub(super) fn failed(&self, error: &Error) -> bool {
        if !blames_node(error.kind()) {
            // It answered, if not what was hoped for.
            self.succeeded();
            return false;
        }
        let ejected = self.health.failed(Instant::now());
        if ejected {
            tracing::warn!(node = %self.target.name, role = self.role.as_str(), %error, "the node keeps failing");
        }
        ejected
    }
}

struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A borrowed connection. Dropping it gives it back: as it is, or to be cleaned first.
pub(super) struct Lease<'a> {
    connection: Pooled<NodeManager>,
    _counted: Counted<'a>,
}

impl Deref for Lease<'_> {
    type Target = dyn Connection;

    fn deref(&self) -> &Self::Target {
        &**self.connection
    }
}

impl DerefMut for Lease<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut **self.connection
    }
}

/// Opens a backend's connections for a pool.
pub(super) struct NodeManager {
    backend: Arc<dyn Backend>,
    target: Target,
}

impl Manager for NodeManager {
    type Connection = Box<dyn Connection>;

    async fn connect(&self) -> Result<Box<dyn Connection>> {
        self.backend.connect(&self.target).await
    }

    async fn check(&self, connection: &mut Box<dyn Connection>) -> Result<()> {
        connection.ping().await
    }

    fn verdict(&self, connection: &mut Box<dyn Connection>) -> Verdict {
        (**connection).verdict()
    }

    async fn clean(&self, mut connection: Box<dyn Connection>) -> Option<Box<dyn Connection>> {
        match connection.clean().await {
            Ok(()) => Some(connection),
            Err(error) => {
                tracing::debug!(node = %self.target.name, %error, "a connection could not be cleaned");
                None
            }
        }
    }

    async fn close(&self, connection: Box<dyn Connection>) {
        connection.close().await;
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("name", &self.target.name)
            .field("role", &self.role)
            .field("ejected", &self.health.is_ejected())
            .finish_non_exhaustive()
    }
}
