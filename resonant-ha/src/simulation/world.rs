//! The scheduler: everything that happens in a run, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::Report;
use super::chaos::{self, At, Fault, PLACES, Plan, SIDE};
use super::laws::{Law, Laws};
use super::power::Rejoin;
use super::server::{Entry, Item, Leaving, Server, Waiter};
use crate::config::FailoverConfig;
use crate::core::flaw::Flaws;
use crate::core::{Chance, Core, EventKind, Input, Kind, Now, Output, Setup, Step};
use crate::region::{Balk, Done, Observation, Pledge, Proof, RegionName, Verb};
use crate::voter::{Ballot, Cell, Vote};

pub(super) const SECOND: u64 = 1_000_000;
/// When the first fault may come.
const START: u64 = 6 * SECOND;
/// How long after the last fault writes must flow again.
const PATIENCE: u64 = 90 * SECOND;

#[derive(Debug, Clone)]
pub(super) enum Message {
    Cast {
        round: u64,
        ballot: Ballot,
    },
    Vote {
        round: u64,
        vote: Vote,
    },
    Probe {
        probe: u64,
    },
    Seen {
        probe: u64,
        seen: Observation,
    },
    Act {
        id: u64,
        order: Pledge,
        verb: Verb,
        peer: Option<usize>,
    },
    Done {
        id: u64,
        result: Result<Done, Balk>,
    },
    Pull {
        have: usize,
        link: u64,
    },
    Entries {
        base: usize,
        entries: Vec<Entry>,
    },
    Write {
        id: u64,
    },
    /// The end of a rejoin: the server that power brought back is made to receive.
    Follow {
        id: u64,
        order: Pledge,
        upstream: usize,
        lost: u64,
    },
}

#[derive(Debug, Clone)]
pub(super) enum Due {
    Tick(usize, u64),
    Client(usize, u64),
    Deliver { from: At, to: At, incarnation: u64, message: Message },
    NoAnswer { manager: usize, incarnation: u64, region: usize, probe: u64 },
    GiveUp { manager: usize, incarnation: u64, id: u64 },
    Pull(usize),
    Rejoin(Rejoin),
    Fault(Fault),
    Calm,
    Look,
}

#[derive(Debug)]
pub(super) struct Manager {
    pub(super) core: Option<Core>,
    pub(super) incarnation: u64,
    pub(super) stopped_until: u64,
    rate: f64,
    told: Option<(u64, usize)>,
    probes: BTreeMap<usize, u64>,
    /// Of the last probe of each region: whether it heard the primary; `None` when it failed.
    seen: Vec<Option<bool>>,
    /// The term under which a switchover was last asked for; `None` when it was asked while somebody else led.
    asked: Option<u64>,
}

#[derive(Debug)]
pub(super) struct World {
    /// Whether there is power over the hosts.
    pub(super) power: bool,
    config: Arc<FailoverConfig>,
    pub(super) flaws: Flaws,
    plan: Plan,
    seed: u64,
    pub(super) chance: Chance,
    pub(super) now: u64,
    queue: BTreeMap<(u64, u64), Due>,
    sequence: u64,
    pub(super) managers: Vec<Manager>,
    voters: Vec<(Cell, bool, f64)>,
    saved: BTreeMap<usize, Cell>,
    pub(super) servers: Vec<Server>,
    server_stopped: Vec<u64>,
    pub(super) cuts: [[u8; PLACES]; PLACES],
    loss: u64,
    restored: bool,
    pub(super) laws: Laws,
    pub(super) names: Vec<RegionName>,
    writes: u64,
    pub(super) calm_at: Option<u64>,
    lost_at: Option<(u64, usize)>,
    recovered_at: Option<u64>,
    fingerprint: u64,
    events: u64,
    published: u64,
    failovers: u64,
    trace: Option<String>,
}

impl World {
    pub(super) fn new(
        config: &FailoverConfig,
        seed: u64,
        flaws: Flaws,
        plan: Plan,
        trace: bool,
    ) -> Self {
        let mut chance = Chance::new(seed);
        let mut rate =
            || 1.0 + (chance.under(1000) as f64 - 500.0) / 500.0 * config.clock_drift / 2.0;
        let managers = (0..SIDE).map(|_| rate()).collect::<Vec<_>>();
        let voters = (0..SIDE).map(|_| (Cell::default(), true, rate())).collect();
        let waits = config.synchronous_standbys;
        let calm = matches!(plan, Plan::LosePrimary);
        // In some runs anybody may answer for a standby, which proves nothing.
        let stranger = waits > 0 && !calm && chance.percent(10);
        let power = waits == 0 || (!stranger && !calm && chance.percent(50));
        let mut world = Self {
            power,
            config: Arc::new(config.clone()),
            flaws,
            plan,
            seed,
            chance,
            now: 0,
            queue: BTreeMap::new(),
            sequence: 0,
            managers: managers
                .into_iter()
                .map(|rate| Manager {
                    core: None,
                    incarnation: 0,
                    stopped_until: 0,
                    rate,
                    told: None,
                    probes: BTreeMap::new(),
                    seen: vec![None; SIDE],
                    asked: None,
                })
                .collect(),
            voters,
            saved: BTreeMap::new(),
            servers: (0..SIDE).map(|n| Server::new(n == 0, waits, stranger, flaws)).collect(),
            server_stopped: vec![0; SIDE],
            cuts: [[0; PLACES]; PLACES],
            loss: 1,
            restored: false,
            laws: Laws::default(),
            names: ["east", "west", "north"].map(RegionName::from).to_vec(),
            writes: 0,
            calm_at: None,
            lost_at: None,
            recovered_at: None,
            fingerprint: seed,
            events: 0,
            published: 0,
            failovers: 0,
            trace: trace.then(String::new),
        };
        for manager in 0..SIDE {
            world.start_manager(manager);
            world.at(0, Due::Pull(manager));
        }
        let (faults, last) = chaos::draw(plan, &mut world.chance, START, waits > 0);
        for (at, fault) in faults {
            if at < last {
                world.at(at, Due::Fault(fault));
            }
        }
        world.at(last, Due::Calm);
        world
    }

    pub(super) fn run(mut self) -> (Report, String) {
        while self.laws.broken.is_none()
            && let Some(((at, sequence), due)) = self.queue.pop_first()
        {
            self.now = at;
            self.events += 1;
            self.mix(at ^ sequence.rotate_left(40));
            if let Some(trace) = &mut self.trace {
                let _ = writeln!(trace, "{at} {due:?}");
            }
            if matches!(due, Due::Look) && self.look() {
                break;
            }
            self.handle(due);
        }
        let recovery = self.recovered_at.zip(self.lost_at).map(|(to, (from, _))| to - from);
        let report = Report {
            seed: self.seed,
            violation: self.laws.broken,
            simulated: Duration::from_micros(self.now),
            events: self.events,
            acknowledged: self.laws.acked.len() as u64,
            published: self.published,
            failovers: self.failovers,
            recovery: recovery.map(Duration::from_micros),
            fingerprint: self.fingerprint,
        };
        (report, self.trace.unwrap_or_default())
    }

    fn mix(&mut self, value: u64) {
        self.fingerprint =
            (self.fingerprint.rotate_left(7) ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    pub(super) fn at(&mut self, at: u64, due: Due) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), due);
    }

    fn moment(&self, manager: usize) -> Now {
        let mono = self.now as f64 * self.managers[manager].rate;
        Now { mono: Duration::from_micros(mono as u64), wall: 1_000_000 + self.now / SECOND }
    }

    fn start_manager(&mut self, number: usize) {
        if self.managers[number].core.is_some() {
            return;
        }
        let incarnation = self.managers[number].incarnation + 1;
        let fenceable = match self.power {
            true => self.names.iter().cloned().collect(),
            false => BTreeSet::new(),
        };
        let setup = Setup {
            config: Arc::clone(&self.config),
            owner: format!("m{number}.{incarnation}"),
            regions: self.names.clone(),
            fenceable,
            standbys: self.names.iter().map(ToString::to_string).collect(),
            voters: SIDE,
            observers: 0,
            seed: self.chance.next(),
            flaws: self.flaws,
        };
        let manager = &mut self.managers[number];
        manager.core = Some(Core::new(setup));
        manager.incarnation = incarnation;
        manager.told = None;
        manager.probes.clear();
        manager.seen.fill(None);
        manager.asked = None;
        let offset = self.chance.under(SECOND / 10);
        self.at(self.now + offset, Due::Tick(number, incarnation));
        self.at(self.now + SECOND + offset, Due::Client(number, incarnation));
    }

    pub(super) fn send(&mut self, from: At, to: At, incarnation: u64, message: Message) {
        if self.cuts[from.number()][to.number()] > 0 || self.chance.percent(self.loss) {
            return;
        }
        let late = !matches!(self.plan, Plan::LosePrimary) && self.chance.percent(2);
        let delay = match late {
            true => SECOND / 20 + self.chance.under(4 * SECOND),
            false => SECOND / 1000 + self.chance.under(SECOND / 70),
        };
        self.at(self.now + delay, Due::Deliver { from, to, incarnation, message });
    }

    fn handle(&mut self, due: Due) {
        match due {
            Due::Tick(manager, incarnation) => {
                if let Some(due) = self.hold_for(manager, Due::Tick(manager, incarnation)) {
                    return self.at(self.managers[manager].stopped_until, due);
                }
                if self.managers[manager].incarnation == incarnation {
                    let tick = self.config.tick().as_micros() as u64;
                    self.at(self.now + tick, Due::Tick(manager, incarnation));
                    self.step(manager, Input::Tick);
                }
            }
            Due::Client(manager, incarnation) => self.client(manager, incarnation),
            Due::Deliver { from, to, incarnation, message } => {
                self.deliver(from, to, incarnation, message);
            }
            Due::NoAnswer { manager, incarnation, region, probe } => {
                let due = Due::NoAnswer { manager, incarnation, region, probe };
                if let Some(due) = self.hold_for(manager, due) {
                    return self.at(self.managers[manager].stopped_until, due);
                }
                let waits = self.managers[manager].probes.get(&region) == Some(&probe);
                if waits && self.managers[manager].incarnation == incarnation {
                    self.managers[manager].probes.remove(&region);
                    self.managers[manager].seen[region] = None;
                    let seen = Err("no answer".to_owned());
                    let region = self.names[region].clone();
                    self.step(manager, Input::Seen { region, seen });
                }
            }
            Due::GiveUp { manager, incarnation, id } => {
                let due = Due::GiveUp { manager, incarnation, id };
                if let Some(due) = self.hold_for(manager, due) {
                    return self.at(self.managers[manager].stopped_until, due);
                }
                if self.managers[manager].incarnation == incarnation {
                    let result = Err(Balk::Unreachable("no answer".to_owned()));
                    self.step(manager, Input::Done { id, result });
                }
            }
            Due::Pull(region) => {
                self.at(self.now + SECOND * 3 / 10, Due::Pull(region));
                if self.server_stopped[region] <= self.now {
                    self.pull(region);
                }
            }
            Due::Rejoin(rejoin) => self.rejoin(rejoin),
            Due::Fault(fault) => self.fault(fault),
            Due::Calm => self.calm(),
            Due::Look => self.at(self.now + SECOND / 2, Due::Look),
        }
    }

    /// What comes to a stopped process waits.
    fn hold_for(&self, manager: usize, due: Due) -> Option<Due> {
        (self.managers[manager].stopped_until > self.now).then_some(due)
    }

    fn client(&mut self, manager: usize, incarnation: u64) {
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

    fn pull(&mut self, region: usize) {
        let server = &self.servers[region];
        if !server.works() || server.primary {
            return;
        }
        let Some(upstream) = server.upstream else { return };
        let (have, link) = server.tail();
        self.send(At::Region(region), At::Region(upstream), 0, Message::Pull { have, link });
    }

    fn deliver(&mut self, from: At, to: At, incarnation: u64, message: Message) {
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

    fn reach_manager(&mut self, manager: usize, from: At, message: Message) {
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

    fn reach_region(&mut self, region: usize, from: At, incarnation: u64, message: Message) {
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
    fn obey(
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

    fn further_recruit(&self, region: usize, order: &Pledge) -> Option<usize> {
        let reach = self.servers[region].reach();
        (0..SIDE).find(|other| {
            let server = &self.servers[*other];
            *other != region && server.pledge == *order && !server.primary && server.reach() > reach
        })
    }

    /// Answers those whose entries enough standbys have.
    fn flush(&mut self, region: usize) {
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

    fn step(&mut self, number: usize, input: Input) {
        let now = self.moment(number);
        let manager = &mut self.managers[number];
        let Some(core) = &mut manager.core else { return };
        let mut out = Vec::new();
        core.step(now, input, &mut out);
        let incarnation = manager.incarnation;
        for output in out {
            self.mix(number as u64);
            match output {
                Output::Cast { voter, round, ballot } => {
                    let message = Message::Cast { round, ballot };
                    self.send(At::Manager(number), At::Voter(voter), incarnation, message);
                }
                Output::Probe { region } => {
                    let region = self.number(&region);
                    let probe = self.sequence;
                    self.managers[number].probes.insert(region, probe);
                    let to = At::Region(region);
                    self.send(At::Manager(number), to, incarnation, Message::Probe { probe });
                    let limit = self.config.probe_timeout.as_micros() as u64;
                    let due = Due::NoAnswer { manager: number, incarnation, region, probe };
                    self.at(self.now + limit, due);
                }
                Output::Act { id, region, order, verb, peer } => {
                    let region = self.number(&region);
                    let peer = peer.map(|peer| self.number(&peer));
                    let to = match verb {
                        Verb::Fence | Verb::Rejoin => At::Power(region),
                        _ => At::Region(region),
                    };
                    let message = Message::Act { id, order, verb, peer };
                    self.send(At::Manager(number), to, incarnation, message);
                    let limit = match verb {
                        Verb::Freeze => self.config.probe_timeout,
                        _ => self.config.step_timeout,
                    };
                    let due = Due::GiveUp { manager: number, incarnation, id };
                    self.at(self.now + limit.as_micros() as u64, due);
                }
                Output::Publish { epoch, primary } => self.told(number, epoch, &primary),
                Output::Event(event) => self.heard(number, &event.kind, event.epoch),
                Output::Ask { .. } => {}
            }
        }
        self.check_budget(number, now);
    }

    fn number(&self, region: &RegionName) -> usize {
        self.names.iter().position(|name| name == region).unwrap_or(0)
    }

    fn told(&mut self, manager: usize, epoch: u64, primary: &RegionName) {
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

    fn check_nothing_lost(&mut self, primary: usize, epoch: u64) {
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

    fn heard(&mut self, number: usize, event: &EventKind, epoch: u64) {
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

    fn begun(&mut self, number: usize, kind: Kind, from: Option<&RegionName>) {
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

    fn check_budget(&mut self, number: usize, now: Now) {
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

    fn fault(&mut self, fault: Fault) {
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

    fn cut(&mut self, left: u32, right: u32, cut: bool) {
        for from in (0..PLACES).filter(|n| left & (1 << n) != 0) {
            for to in (0..PLACES).filter(|n| right & (1 << n) != 0 && *n != from) {
                let count = &mut self.cuts[from][to];
                *count = if cut { count.saturating_add(1) } else { count.saturating_sub(1) };
            }
        }
    }

    /// Every fault ends, and the operator lets the managers act.
    fn calm(&mut self) {
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

    /// Whether the run is over.
    fn look(&mut self) -> bool {
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
