//! A node that was chosen for one call.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use resonant_common::join::Position;
use tokio::time::Instant;

use super::Role;
use super::config::PrimaryReads;
use super::node::Node;
use super::shared::{Shared, View};
use super::strategy::{Candidate, Draw, ReadStrategy};

/// What a read asks of the node that answers it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wish {
    /// The primary or nobody.
    pub(crate) only_primary: bool,
    /// It is at most so far behind.
    pub(crate) max_staleness: Option<Duration>,
    /// It is known to have come as far.
    pub(crate) reached: Option<Position>,
    /// Asking it makes no sense if it was far behind at this instant already.
    pub(crate) written_at: Option<Instant>,
    /// It is a session's: the primary answers in the end, also where it answers no reads otherwise.
    pub(crate) own_writes: bool,
}

/// A node that was chosen for one call: it derefs to the handle. While it lives the call counts as in flight.
///
/// Say how the call went by [`succeeded`](Pick::succeeded) or [`failed`](Pick::failed): ejection and latency are learned
/// from it. Dropping it without a word says nothing.
pub struct Pick<P> {
    shared: Arc<Shared<P>>,
    node: Arc<Node<P>>,
    role: Role,
    began: Instant,
}

impl<P> Pick<P> {
    pub(super) fn new(shared: &Arc<Shared<P>>, node: &Arc<Node<P>>, now: Instant) -> Self {
        node.in_flight.fetch_add(1, Ordering::Relaxed);
        node.health.asked(now);
        let role = node.role();
        shared.count_routed(role);
        Self { shared: Arc::clone(shared), node: Arc::clone(node), role, began: now }
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.node.name
    }

    /// What the node was when it was chosen.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The handle.
    pub fn handle(&self) -> &P {
        &self.node.handle
    }

    /// Whether the node still is what it was chosen as. Look before you send a write that has waited.
    pub fn is_current(&self) -> bool {
        self.node.role() == self.role && !self.node.gone.load(Ordering::Acquire)
    }

    /// The node answered, if not what was hoped for: a statement it refuses counts as an answer.
    pub fn succeeded(&self) {
        let now = Instant::now();
        self.shared.answered(&self.node, now);
        self.node.latency().observe(now.saturating_duration_since(self.began), now);
    }

    /// The node did not answer, or cannot do its work. Five such failures in a row eject it. A failed primary is asked at
    /// once whether it still is one.
    pub fn failed(&self, cause: &dyn fmt::Display) {
        self.shared.failed(&self.node, cause);
    }

    /// Says how the call went by its result, and hands that on: an error counts against the node if `is_down` says so of it,
    /// else as an answer.
    ///
    /// ```
    /// # use resonant_db::replica_set::Pick;
    /// # fn example(node: &Pick<()>, answer: Result<u32, std::io::Error>) -> Result<u32, std::io::Error> {
    /// let row = node.judge(answer, |error| error.kind() == std::io::ErrorKind::ConnectionRefused)?;
    /// # Ok(row) }
    /// ```
    ///
    /// # Errors
    ///
    /// The one that is handed on.
    pub fn judge<T, E: fmt::Display>(
        &self,
        answer: Result<T, E>,
        is_down: impl FnOnce(&E) -> bool,
    ) -> Result<T, E> {
        match &answer {
            Err(error) if is_down(error) => self.failed(error),
            _ => self.succeeded(),
        }
        answer
    }

    pub(crate) fn id(&self) -> u64 {
        self.node.id
    }
}

impl<P> Deref for Pick<P> {
    type Target = P;

    fn deref(&self) -> &P {
        &self.node.handle
    }
}

impl<P> Drop for Pick<P> {
    fn drop(&mut self) {
        self.node.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<P> fmt::Debug for Pick<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pick").field("node", &self.node.name).field("role", &self.role).finish()
    }
}

/// Who is asked, from the strictest to whoever is left.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// In rotation; who has just come back only for its share.
    Share,
    /// In rotation.
    Usable,
    /// Everybody: better a node that kept failing than none.
    Any,
}

/// The nodes a read was sent to already. Mostly it is one.
#[derive(Debug, Default)]
pub(super) struct Tried {
    first: Option<u64>,
    others: Vec<u64>,
}

impl Tried {
    pub(super) fn add(&mut self, id: u64) {
        match self.first {
            None => self.first = Some(id),
            Some(_) => self.others.push(id),
        }
    }

    fn contains(&self, id: u64) -> bool {
        self.first == Some(id) || self.others.contains(&id)
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.others.len()
    }
}

/// The node for a read that was not tried yet.
pub(super) fn choose<P>(shared: &Arc<Shared<P>>, wish: &Wish, tried: &Tried) -> Option<Pick<P>> {
    let (now, view) = (Instant::now(), shared.view());
    if wish.only_primary {
        let primary = view.primary().filter(|node| !tried.contains(node.id))?;
        return Some(Pick::new(shared, primary, now));
    }
    let mut luck = None;
    for pass in [Pass::Share, Pass::Usable, Pass::Any] {
        let mut fit = view
            .nodes
            .iter()
            .filter(|node| !tried.contains(node.id) && is_fit(shared, node, wish, pass, now));
        let Some(first) = fit.next() else { continue };
        let node = match fit.next() {
            // There is nothing to choose.
            None if shared.custom.is_none() => {
                let wanted =
                    shared.strategy != ReadStrategy::Primary || first.role() == Role::Primary;
                wanted.then_some(first)
            }
            second => {
                let nodes: Vec<_> = std::iter::once(first).chain(second).chain(fit).collect();
                let field: Vec<_> = nodes.iter().map(|node| node.candidate(now)).collect();
                let luck = *luck.get_or_insert_with(|| (shared.next_turn(), rand::random()));
                spread(shared, &field, luck).and_then(|place| nodes.get(place).copied())
            }
        };
        if let Some(node) = node {
            return Some(Pick::new(shared, node, now));
        }
    }
    last_resort(shared, &view, wish, tried, now)
}

fn spread<P>(
    shared: &Shared<P>,
    field: &[Candidate<'_>],
    (turn, chance): (usize, u64),
) -> Option<usize> {
    let own = shared.custom.as_ref().and_then(|custom| custom(field));
    own.filter(|place| *place < field.len()).or_else(|| {
        let draw = Draw {
            turn,
            chance,
            zone: shared.config.zone.as_deref(),
            primary_included: shared.config.primary_reads == PrimaryReads::Included,
        };
        shared.strategy.choose(field, draw)
    })
}

/// Whether a node may be asked in a pass.
fn is_fit<P>(shared: &Shared<P>, node: &Node<P>, wish: &Wish, pass: Pass, now: Instant) -> bool {
    if node.is_held() || node.parted.load(Ordering::Acquire) {
        return false;
    }
    if node.role() == Role::Primary {
        let asks_for_it =
            matches!(shared.strategy, ReadStrategy::Primary | ReadStrategy::PreferPrimary);
        return match shared.config.primary_reads {
            _ if asks_for_it => {
                shared.strategy == ReadStrategy::Primary
                    || pass == Pass::Any
                    || node.health.is_usable(now)
            }
            PrimaryReads::Never => false,
            PrimaryReads::Included => pass == Pass::Any || node.health.is_usable(now),
            // It is asked when nobody else is fit, however it is.
            PrimaryReads::Fallback => true,
        };
    }
    let healthy = match pass {
        Pass::Any => true,
        Pass::Usable => node.health.is_usable(now),
        Pass::Share => {
            let share = node.health.share(now, shared.config.slow_start);
            node.health.is_usable(now) && (share >= 1.0 || rand::random::<f64>() < share)
        }
    };
    healthy && is_fresh(shared, node, wish, now)
}

fn is_fresh<P>(shared: &Shared<P>, node: &Node<P>, wish: &Wish, now: Instant) -> bool {
    if let Some(limit) = wish.max_staleness
        && node.staleness(now).is_none_or(|staleness| staleness > limit)
    {
        return false;
    }
    if wish.reached.is_none() && wish.written_at.is_none() {
        return true;
    }
    let seen = *node.seen();
    let reached = |after: Position| {
        seen.sighting.position.is_some_and(|position| position.has_reached(&after) == Some(true))
    };
    // Who was far behind when it was asked is thought to be as far behind now. Less than two rounds of questions is not far.
    let slack = shared.config.probe_interval * 2;
    let hopeless = |at: Instant| {
        seen.behind.is_some_and(|behind| now.saturating_duration_since(at) + slack < behind)
    };
    wish.reached.is_none_or(reached) && !wish.written_at.is_some_and(hopeless)
}

/// What a session has written is read on the primary in the end.
fn last_resort<P>(
    shared: &Arc<Shared<P>>,
    view: &View<P>,
    wish: &Wish,
    tried: &Tried,
    now: Instant,
) -> Option<Pick<P>> {
    let primary = view.primary().filter(|node| wish.own_writes && !tried.contains(node.id))?;
    Some(Pick::new(shared, primary, now))
}
