//! The scheduler: everything that happens in a run, in order.

mod checks;
mod faults;
mod network;

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
                Output::Act { id, region, order, verb, peer, limit } => {
                    let region = self.number(&region);
                    let peer = peer.map(|peer| self.number(&peer));
                    let to = match verb {
                        Verb::Fence | Verb::Rejoin => At::Power(region),
                        _ => At::Region(region),
                    };
                    let message = Message::Act { id, order, verb, peer };
                    self.send(At::Manager(number), to, incarnation, message);
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
}
