//! What is sent, and what becomes of it where it arrives.

use super::*;

impl World {
    pub(super) fn client(&mut self, manager: usize, incarnation: u64) {
        if self.managers[manager].incarnation != incarnation {
            return;
        }
        let pause = SECOND / 5 + self.chance.under(SECOND / 10);
        self.at(self.now + pause, Due::Client(manager, incarnation));
        let stopped = self.managers[manager].stopped_until > self.now;
        if let Some((_, primary)) = self.managers[manager].told.filter(|_| !stopped) {
            self.writes += 1;
            // A few clients look for whoever takes writes.
            let strays = !matches!(self.plan, Plan::LosePrimary) && self.chance.percent(10);
            let at = if strays { self.chance.under(SIDE as u64) as usize } else { primary };
            let message = Message::Write { id: self.writes };
            self.send(At::Manager(manager), At::Region(at), 0, message);
        }
    }

    pub(super) fn pull(&mut self, region: usize) {
        let server = &self.servers[region];
        if !server.works() || server.primary {
            return;
        }
        let Some(upstream) = server.upstream else { return };
        let (have, link) = server.tail();
        self.send(At::Region(region), At::Region(upstream), 0, Message::Pull { have, link });
    }

    pub(super) fn deliver(&mut self, from: At, to: At, incarnation: u64, message: Message) {
        match to {
            At::Manager(manager) => {
                if self.managers[manager].stopped_until > self.now {
                    let until = self.managers[manager].stopped_until;
                    return self.at(until, Due::Deliver { from, to, incarnation, message });
                }
                if self.managers[manager].incarnation == incarnation {
                    self.reach_manager(manager, from, message);
                }
            }
            At::Voter(voter) => {
                let (cell, up, rate) = &mut self.voters[voter];
                if let (true, Message::Cast { round, ballot }) = (*up, message) {
                    let now = Duration::from_micros((self.now as f64 * *rate) as u64);
                    let before = cell.stamp();
                    let vote = cell.cast_flawed(now, ballot, self.flaws);
                    let after = cell.stamp();
                    if after < before {
                        self.laws.breaks(Law::RecordRises, self.now, || {
                            format!("voter {voter} had record {before:?} and took {after:?}")
                        });
                    }
                    self.send(to, from, incarnation, Message::Vote { round, vote });
                }
            }
            At::Region(region) => {
                if self.server_stopped[region] > self.now {
                    let until = self.server_stopped[region];
                    return self.at(until, Due::Deliver { from, to, incarnation, message });
                }
                self.reach_region(region, from, incarnation, message);
            }
            At::Power(region) => {
                if let (At::Manager(manager), Message::Act { id, order, verb, peer }) =
                    (from, message)
                {
                    self.by_power(region, manager, incarnation, id, &order, verb, peer);
                }
            }
        }
    }

    pub(super) fn reach_manager(&mut self, manager: usize, from: At, message: Message) {
        let input = match (from, message) {
            (At::Voter(voter), Message::Vote { round, vote }) => {
                Input::Vote { voter, round, vote: Some(vote) }
            }
            (At::Region(region), Message::Seen { probe, seen }) => {
                if self.managers[manager].probes.get(&region) != Some(&probe) {
                    return;
                }
                self.managers[manager].probes.remove(&region);
                self.managers[manager].seen[region] = Some(seen.hears_primary);
                Input::Seen { region: self.names[region].clone(), seen: Ok(seen) }
            }
            (_, Message::Done { id, result }) => Input::Done { id, result },
            _ => return,
        };
        self.step(manager, input);
    }

    pub(super) fn reach_region(
        &mut self,
        region: usize,
        from: At,
        incarnation: u64,
        message: Message,
    ) {
        if !self.servers[region].works() {
            // A host that is up refuses connections to a server that is down.
            if let Message::Act { id, .. } = message {
                let result = Err(Balk::Unreachable("connection refused".to_owned()));
                self.send(At::Region(region), from, incarnation, Message::Done { id, result });
            }
            return;
        }
        match (from, message) {
            (_, Message::Probe { probe }) => {
                let recent = self.config.health_check_interval.as_micros() as u64;
                let seen = self.servers[region].observe(self.now, recent);
                self.send(At::Region(region), from, incarnation, Message::Seen { probe, seen });
            }
            (At::Manager(manager), Message::Act { id, order, verb, peer }) => {
                if let Some(result) =
                    self.obey(region, manager, incarnation, id, &order, verb, peer)
                {
                    self.send(At::Region(region), from, incarnation, Message::Done { id, result });
                }
                self.flush(region);
            }
            (At::Region(standby), Message::Pull { have, link }) => {
                if !self.servers[region].primary {
                    return;
                }
                let Some(entries) = self.servers[region].pulled(standby, have, link) else {
                    return;
                };
                let message = Message::Entries { base: have, entries };
                self.send(At::Region(region), from, 0, message);
                self.flush(region);
            }
            (At::Region(upstream), Message::Entries { base, entries }) => {
                let server = &mut self.servers[region];
                if server.primary || server.upstream != Some(upstream) || server.log.len() != base {
                    return;
                }
                server.heard_at = Some(self.now);
                if server.receive(entries) {
                    self.pull(region);
                }
            }
            (_, Message::Follow { id, order, upstream, lost }) => {
                let server = &mut self.servers[region];
                let result = match server.admit(&order) {
                    Ok(()) if server.primary => Err(Balk::Failed("it is a primary".to_owned())),
                    Ok(()) => {
                        server.follow(upstream);
                        Ok(Done::Rejoined(Some(lost)))
                    }
                    Err(pledge) => Err(Balk::Pledged(pledge)),
                };
                self.send(At::Region(region), from, incarnation, Message::Done { id, result });
            }
            (_, Message::Write { id }) if self.servers[region].takes_writes() => {
                self.servers[region].append(Item::Write(id), Waiter::Client { id });
                self.flush(region);
            }
            _ => {}
        }
    }

    #[expect(clippy::too_many_arguments, reason = "an order and where its answer goes")]
    pub(super) fn obey(
        &mut self,
        region: usize,
        manager: usize,
        incarnation: u64,
        id: u64,
        order: &Pledge,
        verb: Verb,
        peer: Option<usize>,
    ) -> Option<Result<Done, Balk>> {
        let furthest = self.further_recruit(region, order);
        let now = self.now;
        let server = &mut self.servers[region];
        if let Err(pledge) = server.admit(order) {
            return Some(Err(Balk::Pledged(pledge)));
        }
        let failed = |why: &str| Some(Err(Balk::Failed(why.to_owned())));
        match (verb, peer) {
            (Verb::Freeze, _) => Some(server.freeze().map(Done::Frozen).map_err(Balk::Unsettled)),
            (Verb::Demote, Some(heir)) => {
                if !server.primary {
                    return failed("it is no primary");
                }
                server.read_only = true;
                server.leaving = Some(Leaving { heir, manager, incarnation, id });
                None
            }
            (Verb::Promote, _) => {
                if server.sick {
                    return failed("it is sick");
                }
                if server.promote(order.epoch) {
                    let reach = server.reach();
                    self.laws.promoted(now, order.epoch, region);
                    if let Some(other) = furthest.filter(|_| self.config.synchronous_standbys > 0) {
                        self.laws.breaks(Law::FurthestIsPromoted, now, || {
                            format!("region {region} at {reach:?}, though region {other} has more")
                        });
                    }
                }
                Some(Ok(Done::Promoted(0)))
            }
            (Verb::Repoint, Some(upstream)) => {
                if server.primary {
                    return failed("it is a primary");
                }
                server.follow(upstream);
                Some(Ok(Done::Ok))
            }
            (Verb::Confirm, _) => {
                if !server.primary || server.sick {
                    return failed("it takes no writes");
                }
                let waiter = Waiter::Confirm { manager, incarnation, id };
                match server.lineage() == order.epoch {
                    true => server.wait_for_last(waiter),
                    false => server.append(Item::Row(order.epoch), waiter),
                }
                None
            }
            _ => Some(Err(Balk::Unsupported)),
        }
    }

    pub(super) fn further_recruit(&self, region: usize, order: &Pledge) -> Option<usize> {
        let reach = self.servers[region].reach();
        (0..SIDE).find(|other| {
            let server = &self.servers[*other];
            *other != region && server.pledge == *order && !server.primary && server.reach() > reach
        })
    }

    /// Answers those whose entries enough standbys have.
    pub(super) fn flush(&mut self, region: usize) {
        if !self.servers[region].primary {
            return;
        }
        let lineage = self.servers[region].lineage();
        for waiter in self.servers[region].acknowledged() {
            match waiter {
                Waiter::Client { id } => {
                    let servers = &self.servers;
                    let kept = || {
                        let newest = servers.iter().max_by_key(|server| server.lineage());
                        newest.is_some_and(|newest| newest.holds(id))
                    };
                    self.laws.acknowledged(self.now, region, lineage, id, kept);
                    let lost = self.lost_at.is_some_and(|(_, lost)| lost != region);
                    if lost && self.recovered_at.is_none() {
                        self.recovered_at = Some(self.now);
                    }
                }
                Waiter::Confirm { manager, incarnation, id } => {
                    let (from, to) = (At::Region(region), At::Manager(manager));
                    self.send(from, to, incarnation, Message::Done { id, result: Ok(Done::Ok) });
                }
            }
        }
        let server = &mut self.servers[region];
        if let Some(leaving) = server.leaving.clone()
            && server.has(leaving.heir) >= server.log.len()
        {
            let result = Ok(Done::Demoted(server.reach(), None));
            server.leaving = None;
            let to = At::Manager(leaving.manager);
            let message = Message::Done { id: leaving.id, result };
            self.send(At::Region(region), to, leaving.incarnation, message);
        }
    }
}
