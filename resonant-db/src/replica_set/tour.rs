//! From node to node, until one answers.

use std::fmt;
use std::sync::Arc;

use super::pick::{Pick, Tried, Wish, choose};
use super::shared::Shared;

/// The nodes a read is sent to, one after the other: each at most once, as the strategy chooses, and after a failure
/// within the retry budget (8 % of the calls, twenty in reserve). Made by [`ReplicaSet::tour`](crate::ReplicaSet::tour).
pub struct Tour<P> {
    shared: Arc<Shared<P>>,
    wish: Wish,
    tried: Tried,
    retries: bool,
}

impl<P> Tour<P> {
    pub(super) fn new(shared: &Arc<Shared<P>>, wish: Wish) -> Self {
        Self { shared: Arc::clone(shared), wish, tried: Tried::default(), retries: false }
    }

    /// The node to ask, or `None` when no more are asked.
    pub fn next_node(&mut self) -> Option<Pick<P>> {
        let pick = choose(&self.shared, &self.wish, &self.tried)?;
        if std::mem::take(&mut self.retries) {
            if !self.shared.budget.withdraw() {
                return None;
            }
            self.shared.meters.retries.increment(1);
        }
        self.tried.add(pick.id());
        Some(pick)
    }

    /// The node could not answer; the next one is asked at the cost of the budget.
    pub fn failed(&mut self, pick: &Pick<P>, cause: &dyn fmt::Display) {
        pick.failed(cause);
        self.moves_on();
    }

    /// The next node is asked at the cost of the budget.
    pub(crate) fn moves_on(&mut self) {
        self.retries = true;
    }

    /// How many nodes were asked.
    pub fn asked(&self) -> usize {
        self.tried.len()
    }
}

impl<P> fmt::Debug for Tour<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tour").field("asked", &self.tried.len()).finish_non_exhaustive()
    }
}
