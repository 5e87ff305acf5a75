//! What a scaler remembers between rounds.

use std::collections::{HashSet, VecDeque};
use std::time::SystemTime;

use resonant_common::wall;
use tokio::time::Instant;

use super::pause::PausedBy;
use super::status::{Decided, LastChange};
use crate::decision::Decision;
use crate::policy::Rules;
use crate::target::TargetState;

pub(super) struct State {
    pub(super) rules: Rules,
    /// Rises with every change of the number, of a pause and of a hold.
    pub(super) generation: u64,
    pub(super) paused_by: Option<PausedBy>,
    pub(super) held_until: Option<Instant>,
    pub(super) manual_at: Option<Instant>,
    /// A change that was begun; its end is not known until the target is read again.
    pub(super) pending: Option<Pending>,
    pub(super) seen: Option<TargetState>,
    pub(super) decided: Option<(SystemTime, Decision)>,
    pub(super) history: VecDeque<LastChange>,
    /// What was decided, those that say the same in a row as one.
    pub(super) decisions: VecDeque<Decided>,
    pub(super) longest: usize,
    pub(super) next_at: Option<Instant>,
    /// What failed when it was last tried, to warn of the change only: the operation, and of what.
    pub(super) failing: HashSet<(&'static str, String)>,
}

pub(super) struct Pending {
    pub(super) from: u32,
    pub(super) change: LastChange,
}

impl State {
    pub(super) fn new(rules: Rules, longest: usize) -> Self {
        Self {
            rules,
            generation: 1,
            paused_by: None,
            held_until: None,
            manual_at: None,
            pending: None,
            seen: None,
            decided: None,
            history: VecDeque::new(),
            decisions: VecDeque::new(),
            longest,
            next_at: None,
            failing: HashSet::new(),
        }
    }

    pub(super) fn pause(&mut self, by: Option<PausedBy>) {
        self.paused_by = by;
        self.generation += 1;
    }

    /// A round came to this.
    pub(super) fn decided(&mut self, decision: Decision) {
        let now = wall::now();
        let decided = Decided::new(wall::rfc3339(now), &decision);
        match self.decisions.back_mut().filter(|last| last.says_the_same_as(&decided)) {
            Some(last) => last.again(decided),
            None => {
                if self.decisions.len() >= self.longest {
                    self.decisions.pop_front();
                }
                self.decisions.push_back(decided);
            }
        }
        self.decided = Some((now, decision));
    }

    pub(super) fn held(&self, now: Instant) -> bool {
        self.held_until.is_some_and(|until| until > now)
    }

    pub(super) fn begin(&mut self, from: u32, change: LastChange) {
        self.pending = Some(Pending { from, change });
    }

    /// The target has taken the change that was begun.
    pub(super) fn finish(&mut self, now: Instant) {
        let Some(Pending { from, change }) = self.pending.take() else { return };
        self.rules.scaled(from, change.to, now);
        self.generation += 1;
        if let Some(seen) = &mut self.seen {
            seen.scale.wanted = change.to;
        }
        if self.history.len() >= self.longest {
            self.history.pop_front();
        }
        self.history.push_back(change);
    }

    /// The target was read: a change whose end was lost is now known, and so is what somebody else did.
    pub(super) fn read(&mut self, read: TargetState, now: Instant) {
        if let Some(pending) = &mut self.pending {
            if read.scale.wanted == pending.from {
                self.pending = None;
            } else {
                // It may have come to a part of it only.
                pending.change.to = read.scale.wanted;
                self.finish(now);
            }
        }
        self.seen = Some(read);
    }
}
