//! No operation under way: begin one, bring regions back, watch for a second primary.

use super::{Core, EventKind, Flaw, Intent, Kind, Now, Output, Reason, Record, Step, View, Wish};
use crate::region::{Proof, RegionName, Role, Verb};

/// Sightings in a row before a region that is out of line is brought back.
const ASTRAY: u32 = 2;

impl Core {
    /// The first record: the one primary that every region agrees with is taken as it is.
    pub(super) fn bootstrap(&mut self, now: Now, out: &mut Vec<Output>) {
        if now.mono < self.hold || !self.views.values().all(View::is_up) {
            return;
        }
        let lasts =
            || self.views.iter().filter_map(|(region, view)| Some((region, view.last.as_ref()?)));
        let mut primaries = lasts().filter(|(_, last)| last.is_writable());
        let services = lasts().all(|(_, last)| last.role == Role::Service);
        let (primary, system, synchronous) = match (primaries.next(), primaries.next()) {
            (Some((region, last)), None) => (region.clone(), last.system, self.commits_wait(last)),
            (None, None) if services => (self.setup.regions[0].clone(), 0, 0),
            _ => return,
        };
        if lasts().any(|(_, last)| last.role != Role::Service && last.system != system) {
            return;
        }
        let mut record = Record { system, synchronous, ..Record::default() };
        record.epoch = self.fresh_epoch(&record);
        if self.config().allow_promotion {
            let to = Some(primary.clone());
            let to_be = to.clone();
            let proof = Some(Proof::SamePrimary { region: primary });
            let mut intent = self.intent(&record, Kind::Adopt, to, now);
            // If it is lost before this is done, it is one that may have taken writes.
            intent.from = to_be;
            (intent.step, intent.proof) = (Step::Promoting, proof);
            self.begin(now, record, intent, out);
        } else {
            (record.published, record.primary) = (record.epoch, Some(primary));
            self.write(now, record, out);
        }
    }

    fn intent(&self, record: &Record, kind: Kind, to: Option<RegionName>, now: Now) -> Intent {
        let operation = format!("{}/{}/{}", self.setup.owner, now.mono.as_micros(), record.epoch);
        let from = record.primary.clone();
        let step = if kind.is_planned() { Step::Demoting } else { Step::Fencing };
        Intent { operation, kind, from, to, step, end: None, tried: Vec::new(), proof: None }
    }

    pub(super) fn begin(
        &mut self,
        now: Now,
        mut record: Record,
        intent: Intent,
        out: &mut Vec<Output>,
    ) {
        let failing = intent.from.as_ref().and_then(|from| self.views.get(from)?.failing_since);
        let detection = failing
            .filter(|_| intent.kind == Kind::Failover)
            .map(|since| now.mono.saturating_sub(since));
        let (kind, from, to) = (intent.kind, intent.from.clone(), intent.to.clone());
        record.intent = Some(intent);
        self.run = super::Run { began: now.mono, intended: Some(now.mono), ..Default::default() };
        self.refused.clear();
        self.well_since = None;
        self.tell(now, EventKind::Intent { kind, from, to, detection }, out);
        self.write(now, record, out);
    }

    pub(super) fn steady(&mut self, now: Now, record: &Record, out: &mut Vec<Output>) {
        if let Some(paused) = self.pausing.take() {
            return self.pause(now, record, paused, out);
        }
        if let Some(primary) = &record.primary {
            let seen = self.views.get(primary).and_then(|view| view.last.as_ref());
            let seen = seen.filter(|last| last.is_writable()).map(|last| self.commits_wait(last));
            if let Some(synchronous) = seen.filter(|seen| *seen != record.synchronous) {
                return self.write(now, Record { synchronous, ..record.clone() }, out);
            }
        }
        if self.went_back(record) {
            self.refuse(now, Kind::Failover, &[Reason::RecordWentBack], out);
            if self.config().allow_promotion && record.paused.is_none() {
                let intent = self.intent(record, Kind::Adopt, None, now);
                let epoch = self.fresh_epoch(record);
                return self.begin(now, Record { epoch, ..record.clone() }, intent, out);
            }
            return;
        }
        if let Some(to) = self.wanted.take() {
            return self.try_to(now, record, &Wish::Switchover(to), out);
        }
        let failing = record.primary.as_ref().and_then(|primary| self.views.get(primary));
        if failing.is_some_and(|view| view.failures >= self.config().failover_threshold) {
            return self.try_to(now, record, &Wish::Failover, out);
        }
        self.forgive(Kind::Failover);
        let away = record.primary.as_ref() != self.setup.regions.first();
        let due = self.well_for(now).is_some_and(|well| well >= self.failback_hold(record));
        let rash = self.flawed(Flaw::NoHold) && self.is_well_for_failback(record);
        if self.config().auto_failback && away && (due || rash) {
            return self.try_to(now, record, &Wish::Failback, out);
        }
        self.bring_back(now, record, out);
    }

    fn pause(&mut self, now: Now, record: &Record, paused: Option<String>, out: &mut Vec<Output>) {
        let mut record = record.clone();
        let event = match &paused {
            Some(by) => EventKind::Paused { by: by.clone() },
            None => {
                record.failovers.clear();
                EventKind::Resumed
            }
        };
        record.paused = paused;
        self.write_and_tell(now, record, vec![event], out);
    }

    fn try_to(&mut self, now: Now, record: &Record, wish: &Wish, out: &mut Vec<Output>) {
        let kind = wish.kind();
        let (against, _) = self.judge(now, wish);
        if !against.is_empty() {
            return self.refuse(now, kind, &against, out);
        }
        let mut record = record.clone();
        let to = match wish {
            Wish::Failover => {
                self.count_failover(&mut record, now);
                None
            }
            Wish::Switchover(to) => Some(to.clone()),
            Wish::Failback => self.setup.regions.first().cloned(),
        };
        record.epoch = self.fresh_epoch(&record);
        let intent = self.intent(&record, kind, to, now);
        self.begin(now, record, intent, out);
    }

    fn count_failover(&self, record: &mut Record, now: Now) {
        let window = self.config().failover_window.as_secs();
        record.failovers.retain(|at| at.saturating_add(window) > now.wall);
        record.failovers.push(now.wall);
        if record.primary.as_ref() == self.setup.regions.first() && record.failed_back > 0 {
            let since = now.wall.saturating_sub(record.failed_back);
            let soon = since < self.failback_hold(record).as_secs().max(1) * 4;
            record.relapses = if soon { (record.relapses + 1).min(4) } else { 0 };
        }
    }

    pub(super) fn refuse(
        &mut self,
        now: Now,
        kind: Kind,
        against: &[Reason],
        out: &mut Vec<Output>,
    ) {
        for reason in against {
            if self.refused.insert((kind, *reason)) {
                self.tell(now, EventKind::Refused { kind, reason: *reason }, out);
            }
        }
        self.refused.retain(|(known, reason)| *known != kind || against.contains(reason));
    }

    pub(super) fn forgive(&mut self, kind: Kind) {
        self.refused.retain(|(known, _)| *known != kind);
    }

    fn bring_back(&mut self, now: Now, record: &Record, out: &mut Vec<Output>) {
        let Some(primary) = record.primary.clone() else { return };
        let may = self.config().allow_promotion
            && record.paused.is_none()
            && self.views.get(&primary).is_some_and(View::is_well);
        if !may {
            return;
        }
        let astray = self.views.iter().filter(|(_, view)| view.astray >= ASTRAY);
        // What was seen of the primary before it was that must not bring it back behind itself.
        let astray = astray.map(|(region, _)| region).filter(|region| **region != primary);
        let mut astray: Vec<RegionName> = astray.cloned().collect();
        // What was stopped by a fence does not come back by itself.
        let threshold = self.config().failover_threshold;
        let down =
            self.views.iter().filter(|(_, view)| !view.is_up() && view.failures >= threshold);
        let down = down.map(|(region, _)| region).filter(|region| **region != primary);
        astray.extend(down.filter(|region| self.setup.fenceable.contains(region)).cloned());
        for region in astray {
            self.order(now, &region, Verb::Rejoin, Some(&primary), out);
        }
    }

    /// What a sighting changes besides the view: the failback's hold, regions out of line, a second primary.
    pub(super) fn look(&mut self, now: Now, region: &RegionName, out: &mut Vec<Output>) {
        self.look_for_several(now, out);
        let Some(record) = self.record.clone() else { return };
        let preferred = self.setup.regions.first();
        let restarted =
            preferred == Some(region) && self.views.get(region).is_some_and(|view| view.restarted);
        let well = self.leads(now) && self.is_well_for_failback(&record) && !restarted;
        match (well, self.well_since) {
            (true, None) => self.well_since = Some(now.mono),
            (false, Some(_)) => self.well_since = None,
            _ => {}
        }
        if record.primary.as_ref() == Some(region) {
            self.check_synchronous(now, region, out);
            let view = self.views.get(region);
            if let Some(view) = view
                && view.failures > 0
            {
                out.push(Output::Ask { primary: region.clone() });
            }
        }
        let Some(view) = self.views.get_mut(region) else { return };
        let Some(last) = view.last.as_ref().filter(|_| record.intent.is_none()) else {
            view.astray = 0;
            return;
        };
        let pledged =
            last.pledge.epoch == record.published && last.pledge.operation == record.operation;
        let astray = record.primary.as_ref() != Some(region)
            && last.pledge.epoch <= record.epoch
            && match last.role {
                Role::Primary => true,
                Role::Standby => !pledged || !last.hears_primary,
                Role::Service => false,
            };
        view.astray = if astray { view.astray.saturating_add(1) } else { 0 };
    }

    /// Two regions that were seen taking writes, one after the other, may be one that handed over to the other in between; so
    /// both are asked again at once, and what counts is that both took writes at the same moment.
    fn look_for_several(&mut self, now: Now, out: &mut Vec<Output>) {
        let views = &self.views;
        let beside = |(name, view): (&RegionName, &View)| {
            views.iter().any(|(other, beside)| other != name && view.is_open_beside(beside))
        };
        let open: Vec<RegionName> = views
            .iter()
            .filter(|(name, view)| beside((name, view)))
            .map(|(name, _)| name.clone())
            .collect();
        let several = !open.is_empty();
        if several != std::mem::replace(&mut self.several, several) {
            let kind = match several {
                true => EventKind::TwoPrimaries { regions: open },
                false => EventKind::OnePrimary,
            };
            self.tell(now, kind, out);
        }
        let writable = |view: &View| view.last.as_ref().is_some_and(|last| last.is_writable());
        let suspects = self.views.values().filter(|view| writable(view)).count() > 1;
        if suspects && !std::mem::replace(&mut self.suspects, suspects) {
            for view in self.views.values_mut().filter(|view| writable(view)) {
                view.probe_at = now.mono;
            }
        }
        self.suspects = suspects;
    }

    fn check_synchronous(&mut self, now: Now, primary: &RegionName, out: &mut Vec<Output>) {
        let last = self.views.get(primary).and_then(|view| view.last.as_ref());
        let seen = last.filter(|last| last.is_writable()).map(|last| self.commits_wait(last));
        let Some(seen) = seen else { return };
        let weak = seen < self.config().synchronous_standbys;
        if weak && !self.weak {
            self.tell(now, EventKind::SyncWeaker { seen }, out);
        }
        self.weak = weak;
    }
}
