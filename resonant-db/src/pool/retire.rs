//! Which connections are to go although nothing is wrong with them: those to a demoted node, those with old credentials.

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use super::core::Grant;
use super::manager::Manager;
use super::shared::{PoolCore, Shared, lock};

type Condemns<C> = Arc<dyn Fn(&C) -> bool + Send + Sync>;

/// As many rounds are remembered for connections that are out. Older ones go without being asked about.
const REMEMBERED: usize = 32;

/// Begins a round: looks at the idle connections now; the others are looked at as they come back.
pub(super) fn retire<M: Manager>(shared: &Arc<Shared<M>>, condemns: Condemns<M::Connection>) {
    // The round is known before anything can be asked to pass it.
    let mut retirements = lock(&shared.retirements);
    let mut core = shared.core();
    let aside = core.set_aside();
    let (epoch, passed_by_all) = (core.epoch(), core.oldest_epoch());
    drop(core);
    retirements.add(epoch, passed_by_all, Arc::clone(&condemns));
    drop(retirements);
    let mut aside = Aside { shared, rest: aside };
    while let Some(grant) = aside.rest.pop() {
        let mut one = Aside { shared, rest: vec![grant] };
        if one.rest.first().is_some_and(|grant| condemns(&grant.connection))
            && let Some(grant) = one.rest.pop()
        {
            shared.discard(grant);
        }
    }
}

/// Idle connections that are being looked at. They go back even if that panics.
struct Aside<'a, M: Manager> {
    shared: &'a Arc<Shared<M>>,
    rest: Vec<Grant<M::Connection>>,
}

impl<M: Manager> Drop for Aside<'_, M> {
    fn drop(&mut self) {
        for grant in self.rest.drain(..) {
            self.shared.put(grant, Instant::now(), PoolCore::<M>::put_back);
        }
    }
}

/// The rounds of retirement that some connection has yet to pass.
pub(super) struct Retirements<C> {
    rounds: Vec<(u64, Condemns<C>)>,
    /// Rounds up to this one are remembered no more though somebody may have to pass them.
    lost: u64,
}

impl<C> Default for Retirements<C> {
    fn default() -> Self {
        Self { rounds: Vec::new(), lost: 0 }
    }
}

impl<C> fmt::Debug for Retirements<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retirements").field("rounds", &self.rounds.len()).finish()
    }
}

impl<C> Retirements<C> {
    /// Adds round `epoch`; every connection has passed the rounds up to `passed_by_all`.
    pub(super) fn add(&mut self, epoch: u64, passed_by_all: u64, condemns: Condemns<C>) {
        self.rounds.retain(|(epoch, _)| *epoch > passed_by_all);
        self.rounds.push((epoch, condemns));
        if self.rounds.len() > REMEMBERED {
            self.lost = self.rounds.remove(0).0;
        }
    }

    /// The rounds after one and up to another, to be asked without holding a lock.
    pub(super) fn snapshot(&self, after: u64, to: u64) -> Judgement<C> {
        let rounds = self.rounds.iter().filter(|(epoch, _)| (after + 1..=to).contains(epoch));
        Judgement {
            rounds: rounds.map(|(_, condemns)| Arc::clone(condemns)).collect(),
            lost: after < self.lost,
        }
    }
}

pub(super) struct Judgement<C> {
    rounds: Vec<Condemns<C>>,
    lost: bool,
}

impl<C> Judgement<C> {
    pub(super) fn condemns(&self, connection: &C) -> bool {
        self.lost || self.rounds.iter().any(|condemns| condemns(connection))
    }
}
