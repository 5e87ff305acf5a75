//! What the handles, the picks and the background of a set share: the view of the nodes and who decides on it.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use futures::future::BoxFuture;
use resonant_common::budget::RetryBudget;
use resonant_common::error::BoxError;
use resonant_common::join;
use resonant_common::telemetry::{Counter, Gauge, names};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Result;

use super::Role;
use super::clock::LagClock;
use super::config::RoutingConfig;
use super::node::{Node, Observation};
use super::roles::{self, Fence, Word};
use super::strategy::{Candidate, ReadStrategy};

pub(super) type Probe<P> =
    Arc<dyn Fn(P) -> BoxFuture<'static, Result<Observation, BoxError>> + Send + Sync>;
pub(super) type Open<P> = Arc<dyn Fn(&join::Node) -> Result<P> + Send + Sync>;
pub(super) type OnRole<P> = Arc<dyn Fn(&P, Role) + Send + Sync>;
pub(super) type Label<P> = Arc<dyn Fn(&Node<P>) -> String + Send + Sync>;
pub(super) type Custom = Arc<dyn Fn(&[Candidate<'_>]) -> Option<usize> + Send + Sync>;

/// The nodes at one moment.
pub(super) struct View<P> {
    /// Rises with every change.
    pub(super) epoch: u64,
    pub(super) nodes: Vec<Arc<Node<P>>>,
    pub(super) primary: Option<usize>,
}

impl<P> View<P> {
    pub(super) fn primary(&self) -> Option<&Arc<Node<P>>> {
        self.nodes.get(self.primary?)
    }
}

/// Who decides, and on what.
#[derive(Debug, Default)]
pub(super) struct Authority {
    pub(super) clock: LagClock,
    pub(super) fence: Fence,
    /// The node that was made primary by hand.
    pub(super) forced: Option<u64>,
    /// The epoch that is followed, and the node it names.
    pub(super) told: Option<(u64, Option<u64>)>,
}

pub(super) struct Meters {
    pub(super) primary: Counter,
    pub(super) replica: Counter,
    pub(super) retries: Counter,
    pub(super) ejections: Counter,
}

pub(crate) struct Shared<P> {
    pub(super) name: String,
    pub(super) config: RoutingConfig,
    pub(super) strategy: ReadStrategy,
    pub(super) custom: Option<Custom>,
    pub(super) probe: Option<Probe<P>>,
    pub(super) open: Option<Open<P>>,
    pub(super) on_role: Option<OnRole<P>>,
    pub(super) label: Label<P>,
    pub(super) turn: AtomicUsize,
    pub(super) budget: RetryBudget,
    pub(super) meters: Meters,
    view: RwLock<Arc<View<P>>>,
    authority: Mutex<Authority>,
    /// The epoch of the view.
    pub(super) changes: watch::Sender<u64>,
    /// Counts reasons to ask the nodes at once.
    pub(super) kicks: watch::Sender<u64>,
    /// Counts answers of the primary, after which a replica's answer says the most.
    pub(super) samples: watch::Sender<u64>,
    /// Counts answers to probes, and probes without one.
    pub(super) probed: watch::Sender<u64>,
    pub(super) started: AtomicBool,
    /// Every node has been asked what it is.
    pub(super) ready: AtomicBool,
    pub(super) tasks: Mutex<JoinSet<()>>,
}

/// What a set is made from.
pub(super) struct Parts<P> {
    pub(super) name: String,
    pub(super) config: RoutingConfig,
    pub(super) strategy: ReadStrategy,
    pub(super) custom: Option<Custom>,
    pub(super) probe: Option<Probe<P>>,
    pub(super) open: Option<Open<P>>,
    pub(super) on_role: Option<OnRole<P>>,
    pub(super) label: Label<P>,
}

impl<P> Shared<P> {
    pub(super) fn new(parts: Parts<P>, nodes: Vec<Arc<Node<P>>>) -> Self {
        let Parts { name, config, strategy, custom, probe, open, on_role, label } = parts;
        let routed = |role: Role| {
            Counter::new(&names::DB_ROUTED, &[("database", &name), ("role", role.as_str())])
        };
        let meters = Meters {
            primary: routed(Role::Primary),
            replica: routed(Role::Replica),
            retries: Counter::new(
                &names::DB_RETRIES,
                &[("database", &name), ("reason", "other_node")],
            ),
            ejections: Counter::new(&names::DB_EJECTIONS, &[("database", &name)]),
        };
        let primary = nodes.iter().position(|node| node.role() == Role::Primary);
        Self {
            name,
            config,
            strategy,
            custom,
            probe,
            open,
            on_role,
            label,
            turn: AtomicUsize::new(0),
            // So that an outage does not make a tenth more attempts of the calls, what is saved up included.
            budget: RetryBudget::new(0.08, 20, 100),
            meters,
            view: RwLock::new(Arc::new(View { epoch: 0, nodes, primary })),
            authority: Mutex::default(),
            changes: watch::Sender::new(0),
            kicks: watch::Sender::new(0),
            samples: watch::Sender::new(0),
            probed: watch::Sender::new(0),
            started: AtomicBool::new(false),
            ready: AtomicBool::new(false),
            tasks: Mutex::default(),
        }
    }

    pub(super) fn view(&self) -> Arc<View<P>> {
        Arc::clone(&self.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn authority(&self) -> MutexGuard<'_, Authority> {
        self.authority.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the nodes at once what they are.
    pub(super) fn kick(&self) {
        self.kicks.send_modify(|kicks| *kicks += 1);
    }

    /// Whether somebody keeps the roles up to date, so that it makes sense to wait for another primary.
    pub(super) fn may_move(&self) -> bool {
        self.view().nodes.len() > 1 && (self.probe.is_some() || self.authority().told.is_some())
    }

    /// A node answered a probe that was sent at `asked`.
    pub(super) fn observed(&self, node: &Arc<Node<P>>, asked: Instant, said: Observation) {
        self.answered(node, Instant::now());
        let mut authority = self.authority();
        node.seen().sighting = roles::Sighting { role: said.role, position: said.position };
        let change = self.settle(&mut authority);
        let is_primary = self.view().primary().is_some_and(|primary| primary.id == node.id);
        if is_primary {
            if let (Some(position), true) = (said.position, said.role != Some(Role::Replica)) {
                authority.clock.sample(asked, position);
            }
        } else {
            let fresh = match (said.position, said.lag) {
                (Some(position), _) => authority.clock.fresh_as_of(&position),
                (None, Some(lag)) => asked.checked_sub(lag),
                (None, None) => None,
            };
            let mut seen = node.seen();
            seen.fresh_as_of = fresh;
            seen.behind = fresh.map(|fresh| asked.saturating_duration_since(fresh));
        }
        drop(authority);
        let behind = if is_primary { Some(Duration::ZERO) } else { node.seen().behind };
        self.publish_lag(node, behind);
        node.asked.store(true, Ordering::Release);
        self.announce(change);
        if is_primary {
            self.samples.send_modify(|samples| *samples += 1);
        }
        self.probed.send_modify(|probed| *probed += 1);
    }

    /// A node did not answer a probe that was sent at `asked`.
    pub(super) fn missed(&self, node: &Arc<Node<P>>, asked: Instant, cause: &dyn fmt::Display) {
        // Calls that it has answered meanwhile prove that it works; the probe was unlucky.
        let answers = node.latency().last().is_some_and(|last| last > asked);
        if !answers {
            if node.health.lost(Instant::now()) {
                self.ejected(node, cause);
            }
            let mut authority = self.authority();
            node.seen().sighting.role = None;
            let change = self.settle(&mut authority);
            drop(authority);
            self.announce(change);
        }
        // It falls further behind as long as it does not say otherwise. The primary has nobody to be behind.
        let behind = node.staleness(Instant::now()).filter(|_| node.role() == Role::Replica);
        self.publish_lag(node, behind);
        node.asked.store(true, Ordering::Release);
        self.probed.send_modify(|probed| *probed += 1);
    }

    /// Says how far a node is behind, where that is known.
    pub(super) fn publish_lag(&self, node: &Node<P>, behind: Option<Duration>) {
        let gauge = node.lag.get_or_init(|| {
            let labels = [("database", self.name.as_str()), ("node", &(self.label)(node))];
            Gauge::new(&names::DB_REPLICA_LAG, &labels)
        });
        gauge.set(behind.map_or(f64::NAN, |behind| behind.as_secs_f64()));
    }

    /// A node answered.
    pub(super) fn answered(&self, node: &Node<P>, now: Instant) {
        if node.health.succeeded(now) {
            tracing::info!(node = %node.name, role = node.role().as_str(), "the node answers again");
        }
    }

    /// An attempt on a node failed, and it is to blame.
    pub(super) fn failed(&self, node: &Node<P>, cause: &dyn fmt::Display) {
        if node.health.failed(Instant::now()) {
            self.ejected(node, cause);
        }
        if node.role() == Role::Primary {
            self.kick();
        }
    }

    fn ejected(&self, node: &Node<P>, cause: &dyn fmt::Display) {
        if node.role() == Role::Replica {
            self.meters.ejections.increment(1);
        }
        tracing::warn!(node = %node.name, role = node.role().as_str(), %cause, "the node keeps failing");
    }

    /// Decides anew who the primary is. What changed is announced once the lock is gone.
    #[must_use]
    pub(super) fn settle(&self, authority: &mut Authority) -> Option<Change<P>> {
        let view = self.view();
        let place = |id: u64| view.nodes.iter().position(|node| node.id == id);
        let word = match (authority.forced, authority.told) {
            (Some(forced), _) => Word::Told(place(forced)),
            (None, Some((_, told))) => Word::Told(told.and_then(place)),
            (None, None) => Word::None,
        };
        let seen: Vec<_> = view.nodes.iter().map(|node| node.seen().sighting).collect();
        let (primary, fence) = roles::decide(view.primary, word, &seen, authority.fence);
        authority.fence = fence;
        let parted =
            if word == Word::None { roles::pretenders(primary, &seen) } else { Vec::new() };
        for (place, node) in view.nodes.iter().enumerate() {
            let parted = parted.contains(&place);
            if node.parted.swap(parted, Ordering::AcqRel) != parted && parted {
                tracing::warn!(node = %node.name, "the node takes writes, but is not the primary: it is sent nothing");
            }
        }
        (primary != view.primary)
            .then(|| self.publish(view.nodes.clone(), primary, view.epoch + 1, &view))
    }

    /// Puts another view in place; with the authority's lock held, so that views do not cross.
    #[must_use]
    pub(super) fn publish(
        &self,
        nodes: Vec<Arc<Node<P>>>,
        primary: Option<usize>,
        epoch: u64,
        before: &View<P>,
    ) -> Change<P> {
        let mut turned = Vec::new();
        for (place, node) in nodes.iter().enumerate() {
            let role = if Some(place) == primary { Role::Primary } else { Role::Replica };
            if node.role() != role {
                node.set_role(role);
                // What was known of its age was known of another role.
                let mut seen = node.seen();
                (seen.fresh_as_of, seen.behind) = (None, None);
                turned.push((Arc::clone(node), role));
            }
        }
        let change = Change {
            from: before.primary().map(|node| Arc::clone(&node.name)),
            to: primary.and_then(|place| nodes.get(place)).map(|node| Arc::clone(&node.name)),
            epoch,
            turned,
        };
        let view = Arc::new(View { epoch, nodes, primary });
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = view;
        change
    }

    /// Tells everybody what has changed; without a lock, as users are called.
    pub(super) fn announce(&self, change: Option<Change<P>>) {
        let Some(change) = change else { return };
        if let Some(on_role) = &self.on_role {
            for (node, role) in &change.turned {
                on_role(&node.handle, *role);
            }
        }
        let name = |node: &Option<Arc<str>>| node.as_deref().unwrap_or("none").to_owned();
        if change.from != change.to {
            tracing::warn!(
                database = %self.name, epoch = change.epoch, from = name(&change.from), to = name(&change.to),
                "the primary is another one now"
            );
        }
        self.changes.send_modify(|epoch| *epoch = (*epoch).max(change.epoch));
    }

    /// Resolves once the primary is another node than `id`.
    pub(super) fn left(self: &Arc<Self>, id: u64) -> impl Future<Output = ()> + Send + use<P>
    where
        P: Send + Sync + 'static,
    {
        let (shared, mut changes) = (Arc::clone(self), self.changes.subscribe());
        async move {
            loop {
                if shared.view().primary().is_some_and(|primary| primary.id != id) {
                    return;
                }
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    pub(super) fn count_routed(&self, role: Role) {
        match role {
            Role::Primary => self.meters.primary.increment(1),
            Role::Replica => self.meters.replica.increment(1),
        }
    }

    pub(super) fn next_turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }
}

/// What has changed from one view to the next.
pub(super) struct Change<P> {
    from: Option<Arc<str>>,
    to: Option<Arc<str>>,
    epoch: u64,
    turned: Vec<(Arc<Node<P>>, Role)>,
}
