//! The gates before an intent. The same code answers `plan()`.

use super::{Core, Flaw, Kind, Now, Reason, Record};
use crate::config::FencePolicy;
use crate::region::{Observation, Reach, RegionName, Role};

/// What somebody would like to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wish {
    Failover,
    Switchover(RegionName),
    Failback,
}

impl Wish {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Wish::Failover => Kind::Failover,
            Wish::Switchover(_) => Kind::Switchover,
            Wish::Failback => Kind::Failback,
        }
    }
}

impl Core {
    /// Every reason against it now; none means that it begins. And who would be the primary, as far as can be told.
    pub(crate) fn judge(&self, now: Now, wish: &Wish) -> (Vec<Reason>, Option<RegionName>) {
        let mut against = Vec::new();
        let mut gate = |closed: bool, reason: Reason| {
            if closed {
                against.push(reason);
            }
        };
        let config = self.config();
        gate(
            !self.leads(now)
                || self.election.remaining(now.mono) < config.lease_guard
                    && !self.flawed(Flaw::IgnoreDeadline),
            Reason::NoLease,
        );
        gate(now.mono < self.hold, Reason::JustWoke);
        gate(!config.allow_promotion, Reason::PromotionNotAllowed);
        gate(self.foreign, Reason::OtherRegions);
        let Some(record) = &self.record else {
            gate(true, Reason::NoRecord);
            return (against, None);
        };
        let Some(primary) = record.primary.as_ref() else {
            gate(true, Reason::NoRecord);
            return (against, None);
        };
        gate(record.paused.is_some() && !self.flawed(Flaw::IgnorePause), Reason::Paused);
        gate(record.intent.is_some(), Reason::Busy);
        gate(self.went_back(record), Reason::RecordWentBack);
        let reckless = self.flawed(Flaw::ActAlone);
        let others_well = self.standbys(record).count();
        let best = match wish {
            Wish::Failover => {
                let view = self.views.get(primary);
                let failures = view.map_or(0, |view| view.failures);
                gate(failures < config.failover_threshold, Reason::BelowThreshold);
                let silent = view.is_none_or(|view| !view.is_up());
                gate(silent && self.primary_heard(primary) && !reckless, Reason::PrimaryHeard);
                let alone =
                    !self.views.iter().any(|(region, view)| region != primary && view.is_up());
                gate(alone && !reckless, Reason::Alone);
                gate(
                    self.budget_spent(record, now) && !self.flawed(Flaw::NoBudget),
                    Reason::BudgetSpent,
                );
                let best = self.best(record);
                gate(best.is_none(), Reason::NoCandidate);
                if let Some((_, reach)) = &best
                    && self.cohort_waits(record) == 0
                {
                    gate(self.lag(primary, reach) > config.max_lag, Reason::LagTooHigh);
                }
                best.map(|(region, _)| region)
            }
            Wish::Switchover(to) => {
                gate(to == primary, Reason::AlreadyPrimary);
                gate(!self.may_take_over(record, to), Reason::NotReady);
                let well = self.views.get(primary).is_some_and(super::View::is_well);
                gate(!well, Reason::NotReady);
                Some(to.clone())
            }
            Wish::Failback => {
                let to = &self.setup.regions[0];
                gate(to == primary, Reason::AlreadyPrimary);
                let ready = self.may_take_over(record, to) && self.held_long_enough(record, now);
                gate(!ready && !self.flawed(Flaw::NoHold), Reason::NotReady);
                Some(to.clone())
            }
        };
        let needed = self.recruits_needed(record);
        // Power over the primary proves nothing where standbys may acknowledge for somebody who has been forgotten.
        let provable = match self.cohort_waits(record) {
            0 => self.setup.fenceable.contains(primary),
            _ => others_well >= needed,
        } || (config.fence == FencePolicy::AllowUnfenced
            && !wish.kind().is_planned());
        gate(!provable && !self.flawed(Flaw::SkipProof), Reason::NoProof);
        against.sort_unstable();
        against.dedup();
        (against, best)
    }

    /// For how many regions commits wait, by the settings and by what was seen.
    pub(super) fn cohort_waits(&self, record: &Record) -> usize {
        record.synchronous.min(self.config().synchronous_standbys) as usize
    }

    /// How many regions must have stopped receiving, so that no commit anywhere finds enough.
    pub(super) fn recruits_needed(&self, record: &Record) -> usize {
        let needed = self.setup.regions.len() - self.cohort_waits(record);
        if self.flawed(Flaw::RecruitTooFew) { needed.saturating_sub(1) } else { needed }
    }

    /// Well regions other than the primary that hold the same data.
    fn standbys<'a>(
        &'a self,
        record: &'a Record,
    ) -> impl Iterator<Item = (&'a RegionName, &'a Observation)> {
        self.setup.regions.iter().filter_map(move |region| {
            let last = self.views.get(region)?.last.as_ref()?;
            let fits = Some(region) != record.primary.as_ref()
                && last.sick.is_none()
                && last.role != Role::Primary
                && (last.role == Role::Service || last.system == record.system);
            fits.then_some((region, last))
        })
    }

    fn best(&self, record: &Record) -> Option<(RegionName, Reach)> {
        let mut best: Option<(&RegionName, Reach)> = None;
        for (region, last) in self.standbys(record) {
            if best.is_none_or(|(_, reach)| last.reach > reach) {
                best = Some((region, last.reach));
            }
        }
        best.map(|(region, reach)| (region.clone(), reach))
    }

    fn may_take_over(&self, record: &Record, to: &RegionName) -> bool {
        self.standbys(record).any(|(region, last)| {
            region == to
                && (last.role == Role::Service || last.hears_primary)
                && self.lag_of(record, last.reach) <= self.config().max_lag
        })
    }

    fn lag_of(&self, record: &Record, reach: Reach) -> u64 {
        match &record.primary {
            Some(primary) => self.lag(primary, &reach),
            None => u64::MAX,
        }
    }

    /// Bytes that `reach` lacks of what the primary was last seen to have written.
    pub(super) fn lag(&self, primary: &RegionName, reach: &Reach) -> u64 {
        let written = self.views.get(primary).and_then(|view| view.written);
        match written {
            Some(written) if written.lineage > reach.lineage => u64::MAX,
            Some(written) => written.offset.saturating_sub(reach.offset),
            None => 0,
        }
    }

    /// Whether somebody other than this manager hears the primary.
    fn primary_heard(&self, primary: &RegionName) -> bool {
        let by_region = self.views.iter().any(|(region, view)| {
            region != primary && view.last.as_ref().is_some_and(|last| last.hears_primary)
        });
        let by_observer =
            self.heard.iter().flatten().any(|(region, heard)| region == primary && *heard);
        by_region || by_observer
    }

    fn budget_spent(&self, record: &Record, now: Now) -> bool {
        let window = self.config().failover_window.as_secs();
        let recent = record.failovers.iter().filter(|at| at.saturating_add(window) > now.wall);
        recent.count() >= self.config().failover_budget as usize
    }

    /// Whether regions know of epochs the record does not: the voters were restored from an older state.
    pub(super) fn went_back(&self, record: &Record) -> bool {
        record.intent.is_none()
            && self
                .views
                .values()
                .filter_map(|view| view.last.as_ref())
                .any(|last| last.pledge.epoch.max(last.reach.lineage) > record.epoch)
    }

    /// Whether the primary region has been well for its hold without a break.
    fn held_long_enough(&self, record: &Record, now: Now) -> bool {
        self.well_for(now).is_some_and(|well| well >= self.failback_hold(record))
    }

    pub(crate) fn failback_hold(&self, record: &Record) -> std::time::Duration {
        self.config().failback_delay * 2u32.pow(record.relapses.min(4))
    }

    /// Whether the primary region could take over now; asked at every sighting.
    pub(super) fn is_well_for_failback(&self, record: &Record) -> bool {
        let to = &self.setup.regions[0];
        record.intent.is_none()
            && record.primary.as_ref().is_some_and(|primary| {
                primary != to && self.views.get(primary).is_some_and(super::View::is_well)
            })
            && self.may_take_over(record, to)
    }
}
