//! [`ReplicaSet`]: which node answers, for handles of any kind.

mod builder;
mod clock;
mod config;
mod follow;
mod health;
mod latency;
mod node;
mod pick;
pub(crate) mod postgres;
mod probe;
mod roles;
mod session;
mod shared;
mod strategy;
mod switches;
mod tour;
mod written;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use resonant_common::budget::RetryBudget;
use resonant_common::error::BoxError;
use resonant_common::join::{self, Finding, Severity, Topology};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::{Error, ErrorKind, Result};

use self::shared::Shared;

pub use self::builder::ReplicaSetBuilder;
pub use self::config::{PrimaryReads, RoutingConfig};
pub use self::node::{NodeState, Observation, Role};
pub use self::pick::Pick;
pub use self::postgres::POSTGRES_PROBE;
pub use self::session::PickSession;
pub use self::strategy::{Candidate, ReadStrategy};
pub use self::tour::Tour;

pub(crate) use self::node::Node;
pub(crate) use self::pick::Wish;
pub(crate) use self::written::Written;

/// The routing of a [`Database`](crate::Database), for those who keep their driver: picks the node a call goes to, over any
/// handle that can be cloned, such as a pool.
///
/// It asks the nodes in the background what they are, by a closure of yours, and follows a failover by itself: the node
/// that says it is the primary, with the newest history, gets the writes. A node that answers neither calls nor probes is
/// left out until it answers, and comes back with a growing share.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> resonant_db::Result<()> {
/// use resonant_db::replica_set::{Observation, ReadStrategy, ReplicaSet, Role};
///
/// # #[derive(Clone)] struct MyPool(&'static str);
/// # impl MyPool {
/// #     async fn is_in_recovery(&self) -> std::io::Result<bool> { Ok(self.0 != "a") }
/// #     async fn fetch(&self) -> std::io::Result<u32> { Ok(7) }
/// # }
/// # let (pool_a, pool_b) = (MyPool("a"), MyPool("b"));
/// let set = ReplicaSet::builder()
///     .primary("a", pool_a)
///     .replica("b", pool_b)
///     .read_strategy(ReadStrategy::PeakEwma)
///     .probe(|pool: MyPool| async move {
///         let role = if pool.is_in_recovery().await? { Role::Replica } else { Role::Primary };
///         Ok::<_, std::io::Error>(Observation::alive().role(role))
///     })
///     .build()?;
///
/// let node = set.read()?;
/// match node.fetch().await {
///     Ok(_row) => node.succeeded(),
///     Err(error) => node.failed(&error),
/// }
/// # Ok(())
/// # }
/// ```
///
/// Clones are cheap and share everything. When the last one goes, the background ends.
pub struct ReplicaSet<P> {
    owner: Arc<Owner<P>>,
}

/// What the handles share, as against the background: its end is the background's end.
struct Owner<P> {
    shared: Arc<Shared<P>>,
}

impl<P> Drop for Owner<P> {
    fn drop(&mut self) {
        self.shared.tasks().abort_all();
    }
}

impl<P> Clone for ReplicaSet<P> {
    fn clone(&self) -> Self {
        Self { owner: Arc::clone(&self.owner) }
    }
}

impl<P: Clone + Send + Sync + 'static> ReplicaSet<P> {
    /// A builder.
    pub fn builder() -> ReplicaSetBuilder<P> {
        ReplicaSetBuilder::new()
    }

    fn from_shared(shared: Arc<Shared<P>>) -> Self {
        probe::start(&shared);
        Self { owner: Arc::new(Owner { shared }) }
    }

    /// A node for a read.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`] when nobody may answer: the strategy wants the primary and there is none.
    pub fn read(&self) -> Result<Pick<P>> {
        pick::choose(self.shared(), &Wish::default(), &pick::Tried::default()).ok_or_else(nobody)
    }

    /// A node for a read that shows everything up to `limit` ago: a replica that is known to, else the primary.
    ///
    /// The age of a replica is measured by the clock of this process, from what the probes have seen; the bound counts from
    /// the moment the node is picked. A replica of unknown age is not picked. Between two probes nothing is known, so
    /// with limits below the probe interval the primary answers most of the time.
    ///
    /// # Errors
    ///
    /// As [`read`](ReplicaSet::read).
    pub fn read_within(&self, limit: Duration) -> Result<Pick<P>> {
        let wish = Wish { max_staleness: Some(limit), ..Wish::default() };
        pick::choose(self.shared(), &wish, &pick::Tried::default()).ok_or_else(nobody)
    }

    /// The primary.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`] while no node is known to take writes.
    pub fn write(&self) -> Result<Pick<P>> {
        let wish = Wish { only_primary: true, ..Wish::default() };
        pick::choose(self.shared(), &wish, &pick::Tried::default()).ok_or_else(|| {
            self.shared().kick();
            let names: Vec<_> =
                self.shared().view().nodes.iter().map(|node| node.name.to_string()).collect();
            let message = format!(
                "no node takes writes now; asked were {}. They are asked again",
                names.join(", ")
            );
            Error::new(ErrorKind::Unavailable, "write", message)
        })
    }

    /// The nodes for a read that goes on to another one where one fails.
    pub fn tour(&self) -> Tour<P> {
        self.shared().budget.deposit();
        self.tour_with(Wish::default())
    }

    pub(crate) fn tour_with(&self, wish: Wish) -> Tour<P> {
        Tour::new(self.shared(), wish)
    }

    /// A session that reads what it has written.
    pub fn session(&self) -> PickSession<P> {
        PickSession::new(self.shared(), Written::default())
    }

    /// A session that goes on from another one's [`token`](PickSession::token), which may come from another process.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when the text is no token.
    pub fn session_from(&self, token: &str) -> Result<PickSession<P>> {
        Ok(PickSession::new(self.shared(), Written::from_token(token)?))
    }

    /// Follows a topology from now on: it decides who the primary is and which nodes there are, instead of what the nodes
    /// say of themselves. Nodes are known by name or URL. One whose epoch is not above the last one's is left alone. Needs a
    /// Tokio runtime.
    pub fn follow(&self, topologies: watch::Receiver<Topology>) {
        follow::stream(self.shared(), topologies);
    }

    /// The same for a topology that has to be asked for: at the interval, and sooner after a write has failed.
    pub fn follow_with<F, Fut, E>(&self, every: Duration, ask: F)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Topology, E>> + Send + 'static,
        E: Into<BoxError> + Send + 'static,
    {
        follow::ask(self.shared(), every, ask);
    }

    /// Resolves once the primary is another node than the one picked.
    pub fn left(&self, pick: &Pick<P>) -> impl Future<Output = ()> + Send + use<P> {
        self.shared().left(pick.id())
    }

    /// Waits until another node than `id` is the primary, as long as the settings allow; false when that did not happen.
    pub(crate) async fn moves_on_from(&self, id: Option<u64>) -> bool {
        let shared = self.shared();
        let wait = shared.config.failover_wait;
        if wait.is_zero() || !shared.may_move() {
            return false;
        }
        shared.kick();
        let moved = shared.left(id.unwrap_or(u64::MAX));
        timeout_at(Instant::now() + wait, moved).await.is_ok() && shared.budget.withdraw()
    }

    /// Waits until every node has been asked once what it is, which takes the probe timeout at most. Before that the roles are
    /// those that were set: write after it, and nothing is written to a primary that was replaced while nobody looked. Free
    /// from then on.
    pub async fn ready(&self) {
        let shared = self.shared();
        if shared.ready.load(Ordering::Acquire) {
            return;
        }
        probe::start(shared);
        if !shared.started.load(Ordering::Acquire) {
            return;
        }
        let mut probed = shared.probed.subscribe();
        let deadline = Instant::now() + shared.config.probe_timeout * 2;
        while !shared.view().nodes.iter().all(|node| node.asked.load(Ordering::Acquire)) {
            if timeout_at(deadline, probed.changed()).await.is_err() {
                break;
            }
        }
        shared.ready.store(true, Ordering::Release);
    }
}

impl<P> ReplicaSet<P> {
    fn shared(&self) -> &Arc<Shared<P>> {
        &self.owner.shared
    }

    pub(crate) fn budget(&self) -> &RetryBudget {
        &self.shared().budget
    }

    /// Whether a token of `written` can be of this database, as far as that is known.
    #[cfg(feature = "tower")]
    pub(crate) fn may_be_of(&self, written: &Written) -> bool {
        let Some(wanted) = written.position else { return true };
        let view = self.shared().view();
        let known = view.nodes.iter().find_map(|node| node.seen().sighting.position);
        known.is_none_or(|known| known.system == wanted.system)
    }

    pub(crate) fn nodes(&self) -> Vec<Arc<Node<P>>> {
        self.shared().view().nodes.clone()
    }

    /// A snapshot of every node, as they were given.
    pub fn status(&self) -> Vec<NodeState> {
        let now = Instant::now();
        self.shared().view().nodes.iter().map(|node| node.status(now)).collect()
    }

    /// What the set says of its own health, without asking anybody: `db.replica.ejected` and `db.replica.held` for a
    /// replica out of rotation, `db.replica.stale` for one that is further behind than
    /// [`stale_after`](RoutingConfig::stale_after), `db.primary.none` while no node takes writes.
    pub fn findings(&self) -> Vec<Finding> {
        self.findings_as(|node| node.name.to_string())
    }

    /// The same, with the nodes under names of the caller's.
    pub(crate) fn findings_as(&self, name: impl Fn(&Node<P>) -> String) -> Vec<Finding> {
        let (view, now) = (self.shared().view(), Instant::now());
        let mut findings = Vec::new();
        if view.primary.is_none() {
            findings.push(Finding::new(
                self.shared().name.clone(),
                Severity::Fail,
                "db.primary.none",
            ));
        }
        for node in view.nodes.iter().filter(|node| node.role() == Role::Replica) {
            let stale =
                node.staleness(now).is_some_and(|age| age > self.shared().config.stale_after);
            let facts = [
                (stale, "db.replica.stale"),
                (node.health.is_ejected(), "db.replica.ejected"),
                (node.is_held(), "db.replica.held"),
            ];
            for (_, code) in facts.iter().filter(|(holds, _)| *holds) {
                findings.push(Finding::new(name(node), Severity::Warn, code));
            }
        }
        findings
    }

    /// The nodes and the primary by name, as of an epoch that rises with every change. URLs, which may hold passwords, are left
    /// out.
    pub fn topology(&self) -> Topology {
        let view = self.shared().view();
        let node =
            |node: &Arc<Node<P>>| join::Node { name: node.name.to_string(), url: String::new() };
        Topology {
            epoch: view.epoch,
            primary: view.primary().map(|node| node.name.to_string()),
            nodes: view.nodes.iter().map(node).collect(),
        }
    }

    /// Reports the epoch whenever the nodes or the primary change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared().changes.subscribe()
    }

    /// Takes a node out of the reads by hand, until [`restore`](ReplicaSet::restore). Writes go on to the primary.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when no node has this name, or it is the last one in rotation.
    pub fn eject(&self, node: &str) -> Result<()> {
        switches::hold(self.shared(), node, true)
    }

    /// Puts a node back into rotation that was taken out by hand.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when no node has this name.
    pub fn restore(&self, node: &str) -> Result<()> {
        switches::hold(self.shared(), node, false)
    }

    /// Makes a node the primary by hand, whatever it or a topology says, until
    /// [`release_primary`](ReplicaSet::release_primary). A node that is a replica all the same refuses the writes itself.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when no node has this name.
    pub fn force_primary(&self, node: &str) -> Result<()> {
        switches::force(self.shared(), Some(node))
    }

    /// Lets the nodes, or the topology that is followed, decide again who the primary is.
    pub fn release_primary(&self) {
        let _ = switches::force(self.shared(), None);
    }

    /// Ends the background: roles stay as they are, nobody is followed any more.
    pub(crate) fn stop(&self) {
        self.shared().tasks().abort_all();
    }
}

fn nobody() -> Error {
    let message = "no node may answer the read: the strategy rules out those that there are";
    Error::new(ErrorKind::Unavailable, "read", message)
}

impl<P> fmt::Debug for ReplicaSet<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let view = self.shared().view();
        f.debug_struct("ReplicaSet")
            .field("name", &self.shared().name)
            .field("epoch", &view.epoch)
            .field("nodes", &view.nodes)
            .finish_non_exhaustive()
    }
}
