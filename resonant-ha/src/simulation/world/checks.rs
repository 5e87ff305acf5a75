//! The laws that need to see the whole world, and when a run is over.

use super::*;

impl World {
    pub(super) fn told(&mut self, manager: usize, epoch: u64, primary: &RegionName) {
        let primary = self.number(primary);
        if let Some(trace) = &mut self.trace {
            let _ = writeln!(
                trace,
                "{} PUBLISH by {manager}: epoch {epoch}, region {primary}",
                self.now
            );
        }
        let before = self.managers[manager].told.replace((epoch, primary));
        if let Some((before, _)) = before
            && before > epoch
        {
            self.laws.breaks(Law::EpochNeverFalls, self.now, || {
                format!("manager {manager} told clients of epoch {epoch} after {before}")
            });
        }
        self.laws.published(self.now, epoch, primary);
        self.published += 1;
        // Somebody newer may have taken it away again by now.
        let newer = self.servers.iter().any(|server| server.pledge.epoch > epoch);
        let rows = self.servers.iter().filter(|server| server.has_row(epoch)).count();
        let stranger = self.servers[primary].stranger;
        let needed = if stranger { 1 } else { 1 + self.config.synchronous_standbys as usize };
        if !newer && rows < needed {
            self.laws.breaks(Law::CommittedFirst, self.now, || {
                format!("epoch {epoch} of region {primary} is published, {rows} have its row")
            });
        }
        self.check_nothing_lost(primary, epoch);
    }

    pub(super) fn check_nothing_lost(&mut self, primary: usize, epoch: u64) {
        let server = &self.servers[primary];
        // Somebody newer may have rewound it by now.
        if self.config.synchronous_standbys == 0 || server.lineage() != epoch || !server.primary {
            return;
        }
        let has: BTreeSet<u64> = server
            .log
            .iter()
            .filter_map(|entry| match entry.item {
                Item::Write(id) => Some(id),
                Item::Row(_) => None,
            })
            .collect();
        // What somebody newer acknowledged is not for this one to have.
        let mut due = self.laws.acked.iter().filter(|(_, lineage)| *lineage <= epoch);
        if let Some(lost) = due.find(|(id, _)| !has.contains(id)).map(|(id, _)| *id) {
            self.laws.breaks(Law::NothingLost, self.now, || {
                format!("write {lost} was acknowledged, region {primary} has it not")
            });
        }
    }

    pub(super) fn heard(&mut self, number: usize, event: &EventKind, epoch: u64) {
        if let Some(trace) = &mut self.trace {
            let _ = writeln!(trace, "{} EVENT of {number} at epoch {epoch}: {event:?}", self.now);
        }
        match event {
            EventKind::LeaseTaken { .. } if !self.restored => {
                let other = (0..SIDE).filter(|other| *other != number).find(|other| {
                    let moment = self.moment(*other);
                    self.managers[*other].core.as_ref().is_some_and(|core| core.holds(moment))
                });
                if let Some(other) = other {
                    self.laws.breaks(Law::OneHolder, self.now, || {
                        format!("manager {number} was granted the lease that {other} holds")
                    });
                }
            }
            EventKind::Step { step: Step::Promoting, proof: Some(proof), .. } => {
                let intended = self.managers[number].core.as_ref().and_then(Core::writing_epoch);
                if let Some(epoch) = intended {
                    self.laws.proven(epoch, proof.clone());
                }
            }
            EventKind::Intent { kind, from, .. } => self.begun(number, *kind, from.as_ref()),
            _ => {}
        }
    }

    pub(super) fn begun(&mut self, number: usize, kind: Kind, from: Option<&RegionName>) {
        let (now, manager) = (self.now, &self.managers[number]);
        let paused =
            manager.core.as_ref().and_then(Core::record).is_some_and(|r| r.paused.is_some());
        if paused {
            self.laws.breaks(Law::HeldBack, now, || format!("{kind:?} began while paused"));
        }
        match kind {
            Kind::Failover => {
                self.failovers += 1;
                let from = from.map(|from| self.number(from));
                let others = || (0..SIDE).filter(|region| Some(*region) != from);
                let manager = &self.managers[number];
                let silent = from.is_some_and(|from| manager.seen[from].is_none());
                let heard = others().any(|region| manager.seen[region] == Some(true));
                let alone = others().all(|region| manager.seen[region].is_none());
                if alone || (silent && heard) {
                    self.laws.breaks(Law::HeldBack, now, || {
                        format!(
                            "a failover began; alone: {alone}, primary heard by others: {heard}"
                        )
                    });
                }
            }
            Kind::Failback => {
                let well = now - self.servers[0].up_since;
                let hold = self.config.failback_delay.mul_f64(0.95).as_micros() as u64;
                if well < hold {
                    self.laws.breaks(Law::FailbackWaits, now, || {
                        format!("a failback began {well} us after the region came back")
                    });
                }
            }
            Kind::Adopt => {
                if let Some(to) = from {
                    // The first one: it is kept as it is.
                    let proof = Proof::SamePrimary { region: to.clone() };
                    let epoch = self.managers[number].core.as_ref().and_then(Core::writing_epoch);
                    self.laws.proven(epoch.unwrap_or(1), proof);
                }
            }
            Kind::Switchover => {
                let moment = self.moment(number);
                let manager = &self.managers[number];
                let leads = manager.core.as_ref().and_then(|core| core.leading_term(moment));
                let asked = manager.asked;
                if asked.is_none() || asked != leads {
                    self.laws.breaks(Law::WishesEnd, now, || {
                        format!("a switchover asked for in {asked:?} began in term {leads:?}")
                    });
                }
            }
        }
    }

    pub(super) fn check_budget(&mut self, number: usize, now: Now) {
        let Some(record) = self.managers[number].core.as_ref().and_then(Core::record) else {
            return;
        };
        let window = self.config.failover_window.as_secs();
        let recent = record.failovers.iter().filter(|at| **at + window > now.wall).count();
        if recent > self.config.failover_budget as usize {
            self.laws
                .breaks(Law::HeldBack, self.now, || format!("{recent} failovers in the window"));
        }
    }

    /// Whether the run is over.
    pub(super) fn look(&mut self) -> bool {
        if matches!(self.plan, Plan::LosePrimary) {
            return self.recovered_at.is_some() || self.now > 300 * SECOND;
        }
        let Some(calm_at) = self.calm_at else { return false };
        let writing: Vec<usize> =
            (0..SIDE).filter(|region| self.servers[*region].takes_writes()).collect();
        let agreed = |primary: usize| {
            self.managers.iter().all(|manager| {
                manager.told.is_some_and(|(epoch, told)| {
                    told == primary && epoch == self.servers[primary].lineage()
                })
            })
        };
        let follow = |primary: usize| {
            self.servers.iter().enumerate().all(|(number, server)| {
                number == primary || (server.works() && server.upstream == Some(primary))
            })
        };
        if let [primary] = writing[..]
            && agreed(primary)
            && follow(primary)
            && self.servers[primary].waiting.is_empty()
        {
            self.check_nothing_lost(primary, self.servers[primary].lineage());
            return true;
        }
        if self.now > calm_at + PATIENCE {
            let states: Vec<String> = self
                .servers
                .iter()
                .map(|server| {
                    format!(
                        "up {} primary {} read-only {} stopped {} pledge {} upstream {:?} at {:?}",
                        server.up,
                        server.primary,
                        server.read_only,
                        server.stopped,
                        server.pledge.epoch,
                        server.upstream,
                        server.reach()
                    )
                })
                .collect();
            let told: Vec<_> = self.managers.iter().map(|manager| manager.told).collect();
            self.laws.breaks(Law::Recovers, self.now, || format!("{states:#?}, told {told:?}"));
        }
        false
    }
}
