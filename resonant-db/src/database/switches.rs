//! Following a topology, and switches for an incident.

use std::future::Future;
use std::time::Duration;

use resonant_common::error::BoxError;
use resonant_common::join::Topology;
use tokio::sync::watch;

use crate::backend::Lanes;
use crate::{Error, ErrorKind, Result};

use super::Database;

impl Database {
    /// Follows a topology from now on, such as a failover manager publishes: it says which nodes there are and which one takes
    /// the writes, instead of the nodes themselves.
    ///
    /// Nodes are known by URL or name; a new one gets pools of its own, one that has left is asked no more. A topology
    /// whose epoch is not above the last one's is left alone. Needs a Tokio runtime; ends with the stream or the database.
    ///
    /// Where nodes do not change roles ([`roles_change`](crate::backend::Capabilities::roles_change)), it is left alone.
    pub fn follow(&self, topologies: watch::Receiver<Topology>) {
        if self.may_follow() {
            self.inner.set.follow(topologies);
        }
    }

    /// The same for a topology that has to be asked for: at the interval, and sooner after a write has failed.
    ///
    /// ```no_run
    /// # use resonant_db::Database;
    /// # async fn ask_my_registry() -> std::io::Result<resonant_common::join::Topology> { unreachable!() }
    /// # fn example(db: &Database) {
    /// db.follow_with(std::time::Duration::from_secs(1), || async { ask_my_registry().await });
    /// # }
    /// ```
    pub fn follow_with<F, Fut, E>(&self, every: Duration, ask: F)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Topology, E>> + Send + 'static,
        E: Into<BoxError> + Send + 'static,
    {
        if self.may_follow() {
            self.inner.set.follow_with(every, ask);
        }
    }

    fn may_follow(&self) -> bool {
        let may = self.capabilities().roles_change;
        if !may {
            let system = self.inner.backend.system();
            tracing::warn!(
                system,
                "the nodes of this engine do not change roles: no topology is followed"
            );
        }
        may
    }

    /// The nodes and the primary by name, as of an epoch that rises with every change.
    pub fn topology(&self) -> Topology {
        self.inner.set.topology()
    }

    /// Reports the epoch whenever the nodes or the primary change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.set.changes()
    }

    /// Takes a node out of the reads by hand, until [`restore`](Database::restore). Writes go on to the primary. `node` is a
    /// name as [`status`](Database::status) shows it, or a URL.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when no node has this name, or it is the last one in rotation.
    pub fn eject(&self, node: &str) -> Result<()> {
        self.inner.set.eject(node)
    }

    /// Puts a node back into rotation that was taken out by hand.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when no node has this name.
    pub fn restore(&self, node: &str) -> Result<()> {
        self.inner.set.restore(node)
    }

    /// Makes a node the primary by hand, whatever it or a topology says, until
    /// [`release_primary`](Database::release_primary). A node that is a replica all the same refuses the writes itself.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when no node has this name.
    pub fn force_primary(&self, node: &str) -> Result<()> {
        self.inner.set.force_primary(node)
    }

    /// Lets the nodes, or the topology that is followed, decide again who the primary is.
    pub fn release_primary(&self) {
        self.inner.set.release_primary();
    }

    /// Turns the sharing of connections off, or on again, at once and for all nodes. Shared connections are closed; reads that
    /// are under way on them run again on connections of their own.
    ///
    /// ```no_run
    /// # fn example(db: &resonant_db::Database) {
    /// db.set_lanes(resonant_db::backend::Lanes::Off);
    /// # }
    /// ```
    pub fn set_lanes(&self, lanes: Lanes) {
        self.inner.lanes.set(lanes);
        for node in self.inner.set.nodes() {
            node.handle.switch_lanes(lanes != Lanes::Off);
        }
    }

    /// Changes the sizes of a node's pool, live, also for the role it may have later.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when no node has this name, or the sizes break a rule.
    pub fn resize(&self, node: &str, min_size: u32, max_size: u32) -> Result<()> {
        let nodes = self.inner.set.nodes();
        let named = |name: &str, url: &str| name == node || url == node;
        let found = nodes.iter().find(|known| named(&known.name, &known.handle.target.url));
        match found {
            Some(found) => found.handle.resize(found.role(), min_size, max_size),
            None => Err(Error::new(ErrorKind::Config, "resize", "there is no node of this name")),
        }
    }
}
