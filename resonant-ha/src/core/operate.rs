//! An operation under way, from its intent to the publication.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Core, EventKind, Flaw, Intent, Kind, Now, Output, Reason, Record, Step};
use crate::config::FencePolicy;
use crate::region::{Balk, Done, Frozen, Proof, RegionName, Role, Verb};

/// What is known of the running step and lost with the lease.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// When the step began.
    pub(super) began: Duration,
    /// When the operation began, where this manager began it.
    pub(super) intended: Option<Duration>,
    pub(super) frozen: BTreeMap<RegionName, Frozen>,
    pub(super) fenced: BTreeMap<RegionName, Proof>,
    /// Regions that failed an order of this epoch.
    pub(super) failed: BTreeSet<RegionName>,
    /// Regions that were ordered to be stopped at this epoch: the order may still come.
    pub(super) condemned: BTreeSet<RegionName>,
    /// Standbys that answer but cannot be weighed yet.
    pub(super) unsettled: BTreeSet<RegionName>,
    pub(super) repointed: BTreeSet<RegionName>,
    pub(super) retry: BTreeMap<(RegionName, Verb), Duration>,
    /// The highest pledge a region refused an order with.
    pub(super) pledged: u64,
}

impl Core {
    /// The record as a new holder, or a new attempt, goes on from it: a higher epoch, and everything from the freeze on.
    pub(super) fn begun_again(&self, mut record: Record) -> Record {
        let epoch = self.fresh_epoch(&record);
        if let Some(intent) = &mut record.intent {
            if matches!(intent.step, Step::Promoting | Step::Confirming)
                && let Some(to) = intent.to.clone()
                && !intent.tried.contains(&to)
            {
                intent.tried.push(to);
            }
            if !intent.kind.is_planned() {
                intent.to = None;
            }
            (intent.step, intent.proof) = (Step::Fencing, None);
        }
        record.epoch = epoch;
        record
    }

    fn again(&mut self, now: Now, record: &Record, out: &mut Vec<Output>) {
        let record = self.begun_again(record.clone());
        self.enter(now, record, out);
    }

    /// Writes the next step and forgets what belongs to the last one.
    fn enter(&mut self, now: Now, record: Record, out: &mut Vec<Output>) {
        let old = self.record.as_ref().map_or(0, |record| record.epoch);
        self.run.began = now.mono;
        self.run.retry.clear();
        if record.epoch != old {
            self.run.frozen.clear();
            self.run.failed.clear();
            self.run.unsettled.clear();
            self.run.condemned.clear();
            self.run.repointed.clear();
        }
        let step = record.intent.as_ref().map(|intent| {
            let (step, to, proof) = (intent.step, intent.to.clone(), intent.proof.clone());
            EventKind::Step { step, to, proof }
        });
        self.write_and_tell(now, record, step.into_iter().collect(), out);
    }

    pub(super) fn operate(
        &mut self,
        now: Now,
        record: &Record,
        intent: &Intent,
        out: &mut Vec<Output>,
    ) {
        if self.run.began.is_zero() {
            self.run.began = now.mono;
        }
        let waited = now.mono.saturating_sub(self.run.began);
        let limit = self.config().step_timeout;
        match intent.step {
            Step::Demoting => {
                if waited >= limit {
                    return self.call_off(now, record, out);
                }
                if let Some(from) = &intent.from {
                    self.order(now, from, Verb::Demote, intent.to.as_ref(), out);
                }
            }
            Step::Fencing => self.fence(now, record, intent, waited, out),
            Step::Promoting => {
                if waited >= limit {
                    return self.again(now, record, out);
                }
                if let Some(to) = &intent.to {
                    self.order(now, to, Verb::Promote, None, out);
                }
            }
            Step::Confirming => {
                if waited >= limit * 3 {
                    return self.again(now, record, out);
                }
                let Some(to) = &intent.to else { return };
                for region in self.setup.regions.clone() {
                    let receives = self.run.frozen.get(&region).map_or_else(
                        || self.is_standby(&region),
                        |frozen| frozen.role == Role::Standby,
                    );
                    if region != *to && receives && !self.run.repointed.contains(&region) {
                        self.order(now, &region, Verb::Repoint, Some(to), out);
                    }
                }
                self.order(now, to, Verb::Confirm, None, out);
            }
        }
    }

    fn is_standby(&self, region: &RegionName) -> bool {
        let last = self.views.get(region).and_then(|view| view.last.as_ref());
        last.is_some_and(|last| last.role == Role::Standby)
    }

    /// A planned operation that cannot be done: the old primary takes writes again, at a higher epoch.
    fn call_off(&mut self, now: Now, record: &Record, out: &mut Vec<Output>) {
        let mut record = self.begun_again(record.clone());
        if let Some(intent) = &mut record.intent {
            intent.to = intent.from.clone();
            intent.end = None;
        }
        self.enter(now, record, out);
    }

    fn fence(
        &mut self,
        now: Now,
        record: &Record,
        intent: &Intent,
        waited: Duration,
        out: &mut Vec<Output>,
    ) {
        for region in self.setup.regions.clone() {
            // A sick one is asked again, it may get well; and a primary, which may have gone on writing.
            let settled = self
                .run
                .frozen
                .get(&region)
                .is_some_and(|frozen| frozen.sick.is_none() && frozen.role != Role::Primary);
            if !settled && !self.run.fenced.contains_key(&region) {
                self.order(now, &region, Verb::Freeze, None, out);
            }
        }
        let choice = self.choose(record, intent, waited);
        for suspect in intent.from.iter().chain(&intent.tried) {
            if self.wants_fence(record, suspect, choice.as_ref()) {
                self.run.condemned.insert(suspect.clone());
                self.order(now, suspect, Verb::Fence, None, out);
            }
        }
        let unsettled = (!self.run.unsettled.is_empty()).then_some(Reason::Unsettled);
        let Some(to) = choice else {
            self.refuse(now, intent.kind, unsettled.as_slice(), out);
            // Only at a higher epoch is one not stopped by what was ordered at this one.
            let higher = self.run.pledged > record.epoch || !self.run.condemned.is_empty();
            if waited >= self.config().step_timeout && higher {
                self.again(now, record, out);
            }
            return;
        };
        let Some(proof) = self.proof(record, intent, &to, waited) else {
            let against: Vec<_> = unsettled.into_iter().chain([Reason::NoProof]).collect();
            self.refuse(now, intent.kind, &against, out);
            let planned = intent.kind.is_planned() && intent.from.as_ref() != Some(&to);
            if planned && intent.tried.is_empty() && waited >= self.config().step_timeout {
                self.call_off(now, record, out);
            }
            return;
        };
        let mut record = record.clone();
        if let Some(intent) = &mut record.intent {
            (intent.step, intent.to, intent.proof) = (Step::Promoting, Some(to), Some(proof));
        }
        self.enter(now, record, out);
    }

    /// Whether power over the host is to be used against `suspect`: somebody else takes over, and it is no
    /// frozen standby.
    fn wants_fence(
        &self,
        record: &Record,
        suspect: &RegionName,
        choice: Option<&RegionName>,
    ) -> bool {
        if !self.setup.fenceable.contains(suspect)
            || self.run.fenced.contains_key(suspect)
            || choice == Some(suspect)
            || self.cohort_waits(record) > 0
        {
            return false;
        }
        let stands =
            self.run.frozen.get(suspect).is_some_and(|frozen| frozen.role != Role::Primary);
        // Only once somebody else can take over: what is stopped serves nobody.
        choice.is_some() && !stands
    }

    /// The regions that acknowledge nothing of a lower epoch if `to` is promoted, and whose data are known. As many as a
    /// proof takes share one with every acknowledged write, too.
    fn recruits(&self, to: &RegionName) -> BTreeSet<RegionName> {
        let standing = self.run.frozen.iter().filter(|(_, frozen)| frozen.role != Role::Primary);
        let mut recruits: BTreeSet<_> = standing.map(|(region, _)| region.clone()).collect();
        recruits.insert(to.clone());
        recruits
    }

    fn fits(&self, record: &Record, region: &RegionName) -> bool {
        self.run.frozen.get(region).is_some_and(|frozen| {
            let same = frozen.role == Role::Service || frozen.system == record.system;
            frozen.sick.is_none() && same
        }) && !self.run.fenced.contains_key(region)
            && !self.run.condemned.contains(region)
    }

    fn choose(&self, record: &Record, intent: &Intent, waited: Duration) -> Option<RegionName> {
        let regions = &self.setup.regions;
        let answered = |region: &RegionName| {
            self.run.frozen.contains_key(region)
                || self.run.fenced.contains_key(region)
                || self.run.failed.contains(region)
        };
        let all = regions.iter().all(answered);
        let late = waited >= self.config().step_timeout;
        let furthest = self
            .run
            .frozen
            .iter()
            .filter(|(_, frozen)| frozen.role == Role::Standby)
            .map(|(_, frozen)| frozen.reach)
            .max();
        let ahead = |region: &RegionName| {
            let reach = self.run.frozen.get(region).map(|frozen| frozen.reach);
            reach >= furthest
        };
        if intent.kind.is_planned() && intent.tried.is_empty() {
            let to = intent.to.as_ref()?;
            let complete = intent.from.as_ref() == Some(to)
                || intent.end.is_some_and(|end| {
                    self.run.frozen.get(to).is_some_and(|frozen| frozen.reach >= end)
                });
            if complete && self.fits(record, to) && (ahead(to) || intent.from.as_ref() == Some(to))
            {
                return Some(to.clone());
            }
            let from = intent.from.as_ref()?;
            if (all || late) && self.fits(record, from) {
                return Some(from.clone());
            }
            if !late {
                return None;
            }
        }
        let waits = self.cohort_waits(record);
        let mut best: Option<&RegionName> = None;
        for region in regions.iter().filter(|region| self.fits(record, region)) {
            // Of two that reach as far, the one that takes writes already.
            let reach = |region: &RegionName| {
                let frozen = self.run.frozen.get(region);
                frozen.map(|frozen| (frozen.reach, frozen.role == Role::Primary))
            };
            if best.is_none_or(|best| reach(region) > reach(best)) {
                best = Some(region);
            }
            if self.flawed(Flaw::PromoteFirst) {
                break;
            }
        }
        let best = best.filter(|best| ahead(best) || self.flawed(Flaw::PromoteFirst))?;
        let enough = waits > 0 && self.recruits(best).len() >= self.recruits_needed(record);
        let in_reach = waits > 0
            || intent.from.as_ref().is_none_or(|from| {
                let reach = self.run.frozen.get(best).map(|frozen| frozen.reach);
                reach.is_some_and(|reach| self.lag(from, &reach) <= self.config().max_lag)
            });
        ((enough || all || late) && in_reach).then(|| best.clone())
    }

    fn proof(
        &self,
        record: &Record,
        intent: &Intent,
        to: &RegionName,
        waited: Duration,
    ) -> Option<Proof> {
        let mut suspects = intent.from.iter().chain(&intent.tried).filter(|region| *region != to);
        let same = || Proof::SamePrimary { region: to.clone() };
        let recruits = self.recruits(to);
        if self.cohort_waits(record) > 0 && recruits.len() >= self.recruits_needed(record) {
            let alone = intent.from.as_ref() == Some(to) && intent.tried.is_empty();
            let regions = recruits.into_iter().collect();
            return Some(if alone { same() } else { Proof::Recruited { regions } });
        }
        // With synchronous standbys somebody of an epoch this record has forgotten may be acknowledged by those that did
        // not answer; so only without them the suspects alone count.
        // A suspect that is a frozen standby now was not promoted, and will not be.
        let frozen = |suspect: &RegionName| {
            self.run.frozen.get(suspect).is_some_and(|frozen| frozen.role != Role::Primary)
        };
        let fenced = |suspect: &RegionName| self.run.fenced.get(suspect);
        if self.cohort_waits(record) == 0
            && suspects.clone().all(|suspect| fenced(suspect).is_some() || frozen(suspect))
        {
            let regions = suspects.clone().cloned().collect::<Vec<_>>();
            return Some(match suspects.find_map(fenced) {
                Some(proof) => proof.clone(),
                None if regions.is_empty() => same(),
                None => Proof::Recruited { regions },
            });
        }
        let allowed = self.config().fence == FencePolicy::AllowUnfenced
            && waited >= self.config().step_timeout;
        (allowed || self.flawed(Flaw::SkipProof)).then_some(Proof::Unfenced)
    }

    pub(super) fn obeyed(
        &mut self,
        now: Now,
        region: RegionName,
        verb: Verb,
        done: Done,
        out: &mut Vec<Output>,
    ) {
        let Some(record) = self.record.clone() else { return };
        if let Done::Rejoined(lost) = done {
            if let Some(view) = self.views.get_mut(&region) {
                view.astray = 0;
            }
            // Its probes show it before long.
            let pause = self.config().health_check_interval * self.config().failover_threshold;
            self.run.retry.insert((region.clone(), verb), now.mono + pause);
            return self.tell(now, EventKind::Rejoined { region, lost }, out);
        }
        let Some(intent) = record.intent.clone() else { return };
        let advances = self.leads(now) && self.writing.is_none();
        match (intent.step, done) {
            (Step::Demoting, Done::Demoted(end, proof)) if advances => {
                // What was seen of it before is no second primary beside its heir.
                if let Some(view) = self.views.get_mut(&region) {
                    view.open = None;
                    if let Some(last) = &mut view.last {
                        last.read_only = true;
                    }
                }
                if let Some(proof) = proof {
                    self.run.fenced.insert(region, proof);
                }
                let mut record = record;
                let intent = Intent { step: Step::Fencing, end: Some(end), ..intent };
                record.intent = Some(intent);
                self.enter(now, record, out);
            }
            (Step::Fencing, Done::Fenced(proof)) => {
                // Stopped: what it answered before no longer counts.
                self.run.frozen.remove(&region);
                self.run.failed.remove(&region);
                self.run.fenced.insert(region, proof);
            }
            (Step::Fencing, Done::Frozen(frozen)) if !self.run.fenced.contains_key(&region) => {
                self.run.failed.remove(&region);
                self.run.unsettled.remove(&region);
                self.run.frozen.insert(region, frozen);
            }
            (Step::Promoting, Done::Promoted(_)) if advances => {
                if self.flawed(Flaw::PublishBeforeCommit) {
                    self.finish(now, &record, &intent, out);
                    return;
                }
                let mut record = record;
                record.intent = Some(Intent { step: Step::Confirming, ..intent });
                self.enter(now, record, out);
            }
            (Step::Confirming, Done::Ok) if verb == Verb::Repoint => {
                self.run.repointed.insert(region);
            }
            (Step::Confirming, Done::Ok) if verb == Verb::Confirm && advances => {
                self.finish(now, &record, &intent, out);
            }
            _ => {}
        }
    }

    fn finish(&mut self, now: Now, record: &Record, intent: &Intent, out: &mut Vec<Output>) {
        let Some(primary) = intent.to.clone() else { return };
        let mut record = record.clone();
        (record.published, record.operation) = (record.epoch, intent.operation.clone());
        record.primary = Some(primary.clone());
        record.intent = None;
        if intent.kind == Kind::Failback && Some(&primary) == self.setup.regions.first() {
            record.failed_back = now.wall;
        }
        let took = self.run.intended.map(|intended| now.mono.saturating_sub(intended));
        self.run = Run { pledged: self.run.pledged, ..Run::default() };
        for view in self.views.values_mut() {
            view.astray = 0;
        }
        if let Some(view) = self.views.get_mut(&primary) {
            // It was seen to work a moment ago, as another thing than it is now.
            (view.failures, view.failing_since, view.probe_at) = (0, None, now.mono);
        }
        let published = EventKind::Published { kind: intent.kind, primary, took };
        self.write_and_tell(now, record, vec![published], out);
    }

    pub(super) fn balked(
        &mut self,
        now: Now,
        region: RegionName,
        verb: Verb,
        balk: Balk,
        out: &mut Vec<Output>,
    ) {
        if let Balk::Pledged(pledge) = &balk {
            self.run.pledged = self.run.pledged.max(pledge.epoch);
        }
        let Some(record) = self.record.clone() else { return };
        let Some(intent) = record.intent.clone() else {
            if let Some(view) = self.views.get_mut(&region).filter(|_| verb == Verb::Rejoin) {
                view.astray = 0;
            }
            return;
        };
        match balk {
            // Its data may reach further than the others': it is waited for.
            Balk::Unsettled(_) => self.run.unsettled.insert(region),
            _ => {
                self.run.unsettled.remove(&region);
                self.run.failed.insert(region)
            }
        };
        if !self.leads(now) || self.writing.is_some() {
            return;
        }
        // Somebody newer was here: go above, not against.
        let newer = self.run.pledged >= record.epoch && matches!(balk, Balk::Pledged(_));
        match (intent.step, balk) {
            (Step::Demoting, Balk::Unreachable(_)) => {}
            (Step::Demoting, _) => self.call_off(now, &record, out),
            (Step::Promoting | Step::Confirming, Balk::Pledged(_)) if newer => {
                self.again(now, &record, out);
            }
            (Step::Fencing, Balk::Pledged(_)) if newer => self.again(now, &record, out),
            (Step::Promoting, Balk::Failed(_)) => self.again(now, &record, out),
            _ => {}
        }
    }
}
