//! What goes wrong, and how it ends.

use super::*;

impl World {
    pub(super) fn fault(&mut self, fault: Fault) {
        let tell = |world: &mut Self, manager: usize, input: Input| {
            if world.managers[manager].stopped_until <= world.now {
                world.step(manager, input);
            }
        };
        match fault {
            Fault::CrashRegion(region) => self.servers[region].up = false,
            Fault::CrashPrimary => {
                if let Some(region) = (0..SIDE).find(|region| self.servers[*region].takes_writes())
                {
                    self.servers[region].up = false;
                    self.lost_at.get_or_insert((self.now, region));
                }
            }
            Fault::StartRegion(region) => {
                if !self.servers[region].up {
                    self.servers[region].restart(self.now);
                }
            }
            Fault::StopRegionFor(region, long) => self.server_stopped[region] = self.now + long,
            Fault::Sick(region, sick) => self.servers[region].sick = sick,
            Fault::Hold(region, held) => self.servers[region].hold(held),
            Fault::CrashManager(manager) => {
                self.managers[manager].core = None;
                self.managers[manager].incarnation += 1;
            }
            Fault::StartManager(manager) => self.start_manager(manager),
            Fault::StopManagerFor(manager, long) => {
                self.managers[manager].stopped_until = self.now + long;
            }
            Fault::CrashVoter(voter, down) => self.voters[voter].1 = !down,
            Fault::SaveVoter(voter) => {
                self.saved.insert(voter, self.voters[voter].0.clone());
            }
            Fault::RestoreVoter(voter) => {
                if let Some(old) = self.saved.remove(&voter) {
                    self.voters[voter].0 = old;
                    self.restored = true;
                }
            }
            Fault::Cut(left, right) => self.cut(left, right, true),
            Fault::Mend(left, right) => self.cut(left, right, false),
            Fault::Loss(percent) => self.loss = percent,
            Fault::Switchover(manager, to) => {
                let to = self.names[to].clone();
                if self.managers[manager].stopped_until <= self.now {
                    let moment = self.moment(manager);
                    let core = self.managers[manager].core.as_ref();
                    self.managers[manager].asked = core.and_then(|core| core.leading_term(moment));
                }
                tell(self, manager, Input::Switchover(to));
            }
            Fault::Pause(manager, true) => tell(self, manager, Input::Pause("a person".to_owned())),
            Fault::Pause(manager, false) => tell(self, manager, Input::Resume),
        }
    }

    pub(super) fn cut(&mut self, left: u32, right: u32, cut: bool) {
        for from in (0..PLACES).filter(|n| left & (1 << n) != 0) {
            for to in (0..PLACES).filter(|n| right & (1 << n) != 0 && *n != from) {
                let count = &mut self.cuts[from][to];
                *count = if cut { count.saturating_add(1) } else { count.saturating_sub(1) };
            }
        }
    }

    /// Every fault ends, and the operator lets the managers act.
    pub(super) fn calm(&mut self) {
        if matches!(self.plan, Plan::LosePrimary) {
            return self.at(self.now, Due::Look);
        }
        // Faults still to come would not be calm.
        self.queue.retain(|_, due| !matches!(due, Due::Fault(_)));
        self.cuts = [[0; PLACES]; PLACES];
        self.loss = 0;
        for number in 0..SIDE {
            self.voters[number].1 = true;
            self.servers[number].sick = false;
            self.servers[number].hold(false);
            self.server_stopped[number] = self.server_stopped[number].min(self.now);
            if !self.servers[number].up {
                self.servers[number].restart(self.now);
            }
            self.managers[number].stopped_until = self.managers[number].stopped_until.min(self.now);
            self.start_manager(number);
        }
        // Whoever leads is told, and who leads may change.
        for (manager, second) in (0..SIDE).flat_map(|manager| (1..40).map(move |n| (manager, n))) {
            self.at(self.now + second * SECOND, Due::Fault(Fault::Pause(manager, false)));
        }
        self.calm_at = Some(self.now);
        self.at(self.now + SECOND, Due::Look);
    }
}
