//! The manager without I/O: it is told the time and what was heard, and says what to do.
//!
//! Order of an operation: intent, fence, freeze, choose, promote, re-point, commit, publish, rejoin. Each step is written
//! to the record at a majority of voters before its first order goes out, so whoever holds the lease next goes on from
//! there: at a higher epoch and from the freeze on, because what its predecessor ordered may still arrive. Orders are
//! given again until they are obeyed; regions refuse those of an epoch below their pledge. So the lease only keeps
//! managers from working against each other; what prevents two primaries are the pledges and the proof.

mod chance;
mod election;
mod event;
pub(crate) mod flaw;
mod judge;
mod keeping;
mod operate;
mod record;
mod state;
mod steady;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

pub(crate) use self::chance::Chance;
use self::election::{Election, Outcome};
pub use self::event::{Event, EventKind, Reason};
use self::flaw::{Flaw, Flaws};
pub(crate) use self::judge::Wish;
use self::operate::Run;
pub(crate) use self::record::Record;
pub use self::record::{Intent, Kind, Step};
pub(crate) use self::view::View;
use crate::config::FailoverConfig;
use crate::region::{Balk, Done, Observation, Pledge, RegionName, Verb};
use crate::voter::{Ballot, Stored, Vote};

/// A moment: on this manager's own clock, which goes on during suspend, and on its wall clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) mono: Duration,
    pub(crate) wall: u64,
}

/// What was heard.
#[derive(Debug)]
pub(crate) enum Input {
    Tick,
    Vote {
        voter: usize,
        round: u64,
        vote: Option<Vote>,
    },
    Seen {
        region: RegionName,
        seen: Result<Observation, String>,
    },
    Done {
        id: u64,
        result: Result<Done, Balk>,
    },
    /// An observer's word on whether it hears the primary.
    Heard {
        observer: usize,
        primary: RegionName,
        heard: bool,
    },
    Switchover(RegionName),
    Pause(String),
    Resume,
}

/// What to do.
#[derive(Debug, Clone)]
pub(crate) enum Output {
    Cast {
        voter: usize,
        round: u64,
        ballot: Ballot,
    },
    Probe {
        region: RegionName,
    },
    /// Ask the observers about this region.
    Ask {
        primary: RegionName,
    },
    Act {
        id: u64,
        region: RegionName,
        order: Pledge,
        verb: Verb,
        peer: Option<RegionName>,
        /// After how long without an answer the order counts as not heard.
        limit: Duration,
    },
    Publish {
        epoch: u64,
        primary: RegionName,
    },
    Event(Event),
}

/// What stays the same for the life of a manager.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) config: Arc<FailoverConfig>,
    /// Unique per incarnation.
    pub(crate) owner: String,
    /// In order of preference; the first is the primary region.
    pub(crate) regions: Vec<RegionName>,
    /// Which can be fenced although they do not answer.
    pub(crate) fenceable: BTreeSet<RegionName>,
    /// The names by which commits wait for the regions.
    pub(crate) standbys: Vec<String>,
    pub(crate) voters: usize,
    pub(crate) observers: usize,
    pub(crate) seed: u64,
    pub(crate) flaws: Flaws,
}

#[derive(Debug)]
struct Flight {
    region: RegionName,
    verb: Verb,
    epoch: u64,
}

#[derive(Debug)]
struct Writing {
    round: u64,
    stored: Stored,
    record: Record,
    votes: Vec<Option<Option<bool>>>,
    sent: Duration,
    /// What is told once a majority has it.
    events: Vec<EventKind>,
}

/// The state machine.
#[derive(Debug)]
pub(crate) struct Core {
    setup: Setup,
    chance: Chance,
    election: Election,
    last: Option<Duration>,
    /// Until when nothing is begun, after a gap.
    hold: Duration,
    record: Option<Record>,
    stamp: (u64, u64),
    /// The term under which the record was taken over.
    adopted: Option<u64>,
    /// Whether the record last read belongs to other regions.
    foreign: bool,
    writing: Option<Writing>,
    views: BTreeMap<RegionName, View>,
    heard: Vec<Option<(RegionName, bool)>>,
    run: Run,
    flights: BTreeMap<u64, Flight>,
    flight: u64,
    told: u64,
    wanted: Option<RegionName>,
    pausing: Option<Option<String>>,
    well_since: Option<Duration>,
    refused: BTreeSet<(Kind, Reason)>,
    several: bool,
    /// Whether several were seen taking writes, if at different times.
    suspects: bool,
    weak: bool,
    balks: BTreeMap<(RegionName, Verb), String>,
}

impl Core {
    pub(crate) fn new(setup: Setup) -> Self {
        let election = Election::new(setup.owner.clone(), setup.voters, setup.flaws);
        let views = setup.regions.iter().map(|region| (region.clone(), View::default())).collect();
        Self {
            chance: Chance::new(setup.seed),
            election,
            last: None,
            hold: Duration::ZERO,
            record: None,
            stamp: (0, 0),
            adopted: None,
            foreign: false,
            writing: None,
            views,
            heard: vec![None; setup.observers],
            run: Run::default(),
            flights: BTreeMap::new(),
            flight: 0,
            told: 0,
            wanted: None,
            pausing: None,
            well_since: None,
            refused: BTreeSet::new(),
            several: false,
            suspects: false,
            weak: false,
            balks: BTreeMap::new(),
            setup,
        }
    }

    pub(crate) fn step(&mut self, now: Now, input: Input, out: &mut Vec<Output>) {
        self.notice_gap(now, out);
        if self.election.expire(now.mono) {
            self.lose(now, out);
        }
        match input {
            Input::Tick => self.tick(now, out),
            Input::Vote { voter, round, vote } => self.voted(now, voter, round, vote, out),
            Input::Seen { region, seen } => self.seen(now, &region, seen, out),
            Input::Done { id, result } => self.done(now, id, result, out),
            Input::Heard { observer, primary, heard } => {
                if let Some(slot) = self.heard.get_mut(observer) {
                    *slot = Some((primary, heard));
                }
            }
            // What is asked of one that may not act is not kept for the day when it may.
            Input::Switchover(to) => {
                self.wanted = Some(to);
                if !self.leads(now) {
                    self.forget_wishes(now, out);
                }
            }
            Input::Pause(by) => self.pausing = Some(Some(by)).filter(|_| self.leads(now)),
            Input::Resume => self.pausing = Some(None).filter(|_| self.leads(now)),
        }
        self.advance(now, out);
    }

    /// A long gap between two looks at the clock: a pause of the process or of the machine.
    fn notice_gap(&mut self, now: Now, out: &mut Vec<Output>) {
        let gap = self.last.map_or(Duration::ZERO, |last| now.mono.saturating_sub(last));
        self.last = Some(now.mono);
        if gap <= self.config().longest_gap() {
            return;
        }
        self.hold = now.mono + self.config().health_check_interval;
        self.election.drop_lease(false, out);
        self.lose(now, out);
        for view in self.views.values_mut() {
            view.forget();
        }
        self.heard.fill(None);
        self.well_since = None;
        self.tell(now, EventKind::Woke { after: gap }, out);
    }

    /// What a person asked for holds for the lease it was asked under.
    fn forget_wishes(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.flawed(Flaw::KeepWishes) {
            return;
        }
        self.pausing = None;
        if self.wanted.take().is_some() {
            let (kind, reason) = (Kind::Switchover, Reason::NoLease);
            self.tell(now, EventKind::Refused { kind, reason }, out);
        }
    }

    fn lose(&mut self, now: Now, out: &mut Vec<Output>) {
        self.forget_wishes(now, out);
        self.writing = None;
        self.run = Run::default();
        self.flights.clear();
        self.well_since = None;
        if self.adopted.take().is_some() {
            self.tell(now, EventKind::LeaseLost, out);
        }
    }

    fn tick(&mut self, now: Now, out: &mut Vec<Output>) {
        let (setup, election) = (&self.setup, &mut self.election);
        election.tick(now.mono, &setup.config, &mut self.chance, out);
        let interval = self.setup.config.health_check_interval;
        for (region, view) in &mut self.views {
            if now.mono >= view.probe_at && !view.probing {
                view.probing = true;
                view.sent = now.mono;
                view.probe_at = now.mono + interval;
                out.push(Output::Probe { region: region.clone() });
            }
        }
        self.resend(now, out);
    }

    fn seen(
        &mut self,
        now: Now,
        region: &RegionName,
        seen: Result<Observation, String>,
        out: &mut Vec<Output>,
    ) {
        let Some(view) = self.views.get_mut(region) else { return };
        let kind = match view.see(now.mono, seen) {
            Some(true) => EventKind::RegionUp { region: region.clone() },
            Some(false) => {
                let why = view.why.clone().unwrap_or_default();
                EventKind::RegionDown { region: region.clone(), why }
            }
            None => return self.look(now, region, out),
        };
        self.tell(now, kind, out);
        self.look(now, region, out);
    }

    fn done(&mut self, now: Now, id: u64, result: Result<Done, Balk>, out: &mut Vec<Output>) {
        let Some(flight) = self.flights.remove(&id) else { return };
        let pause = (self.config().health_check_interval / 4)
            .clamp(Duration::from_millis(50), Duration::from_millis(500));
        self.run.retry.insert((flight.region.clone(), flight.verb), now.mono + pause);
        if self.record.as_ref().map(|record| record.epoch) != Some(flight.epoch) {
            return;
        }
        match result {
            Ok(done) => {
                self.balks.remove(&(flight.region.clone(), flight.verb));
                self.obeyed(now, flight.region, flight.verb, done, out);
            }
            Err(balk) => {
                self.say_balk(now, &flight.region, flight.verb, &balk, out);
                self.balked(now, flight.region, flight.verb, balk, out);
            }
        }
    }

    fn say_balk(
        &mut self,
        now: Now,
        region: &RegionName,
        verb: Verb,
        balk: &Balk,
        out: &mut Vec<Output>,
    ) {
        let why = match balk {
            Balk::Pledged(pledge) => format!("it is pledged to epoch {}", pledge.epoch),
            Balk::Failed(why) | Balk::Unreachable(why) => why.clone(),
            Balk::Unsettled(why) => why.to_string(),
            Balk::Unsupported => "the backend cannot do that".to_owned(),
        };
        let known = self.balks.insert((region.clone(), verb), why.clone());
        if known.as_ref() != Some(&why) {
            let order = format!("{verb:?}").to_lowercase();
            self.tell(now, EventKind::Balked { region: region.clone(), order, why }, out);
        }
    }

    /// Decides what is next, where this manager may.
    fn advance(&mut self, now: Now, out: &mut Vec<Output>) {
        if !self.leads(now) || self.writing.is_some() {
            return;
        }
        match self.record.clone() {
            None => self.bootstrap(now, out),
            Some(record) => match record.intent.clone() {
                Some(intent) if self.config().allow_promotion => {
                    self.operate(now, &record, &intent, out);
                }
                Some(_) => {}
                None => self.steady(now, &record, out),
            },
        }
    }

    /// Whether this manager may act now: it holds the lease and has taken the record over.
    pub(crate) fn leads(&self, now: Now) -> bool {
        let term = self.election.term(now.mono);
        term.is_some() && term == self.adopted
    }

    /// Gives an order, unless the same one is out or was answered a moment ago.
    fn order(
        &mut self,
        now: Now,
        region: &RegionName,
        verb: Verb,
        peer: Option<&RegionName>,
        out: &mut Vec<Output>,
    ) {
        let Some(record) = &self.record else { return };
        let key = (region.clone(), verb);
        let out_already = |flight: &Flight| {
            flight.region == *region && flight.verb == verb && flight.epoch == record.epoch
        };
        if self.run.retry.get(&key).is_some_and(|at| now.mono < *at)
            || self.flights.values().any(out_already)
        {
            return;
        }
        let operation = match &record.intent {
            Some(intent) => intent.operation.clone(),
            None => record.operation.clone(),
        };
        let order = Pledge { epoch: record.epoch, operation };
        self.flight += 1;
        let flight = Flight { region: region.clone(), verb, epoch: record.epoch };
        self.flights.insert(self.flight, flight);
        let limit = self.limit(region, verb);
        let (id, region, peer) = (self.flight, region.clone(), peer.cloned());
        out.push(Output::Act { id, region, order, verb, peer, limit });
    }

    /// How long an order may take. To be frozen takes a region many more questions than to be probed, so one that answers its
    /// probes gets more time for it; one that does not is not waited for.
    fn limit(&self, region: &RegionName, verb: Verb) -> Duration {
        let (probe, step) = (self.config().probe_timeout, self.config().step_timeout);
        match verb {
            Verb::Freeze if self.views.get(region).is_some_and(View::is_up) => probe.max(step / 2),
            Verb::Freeze => probe,
            Verb::Rejoin => step * 6,
            _ => step,
        }
    }

    fn tell(&self, now: Now, kind: EventKind, out: &mut Vec<Output>) {
        let epoch = self.record.as_ref().map_or(0, |record| record.epoch);
        out.push(Output::Event(Event { at: now.wall, epoch, kind }));
    }

    fn config(&self) -> &FailoverConfig {
        &self.setup.config
    }

    fn flawed(&self, flaw: Flaw) -> bool {
        self.setup.flaws.has(flaw)
    }

    /// For how many regions the commits of what was seen wait.
    fn commits_wait(&self, seen: &Observation) -> u32 {
        match self.flawed(Flaw::CountStrangers) {
            true => seen.commits.count,
            false => seen.commits.among(self.setup.standbys.iter().map(String::as_str)),
        }
    }

    /// An epoch above everything this manager has heard of.
    fn fresh_epoch(&self, record: &Record) -> u64 {
        let seen = self.views.values().filter_map(|view| view.last.as_ref());
        let seen = seen.map(|last| last.pledge.epoch.max(last.reach.lineage)).max().unwrap_or(0);
        let highest = record.epoch.max(seen).max(self.run.pledged);
        if self.flawed(Flaw::KeepEpoch) { highest.max(1) } else { highest + 1 }
    }

    /// Gives the lease back, so that another manager need not wait for its end.
    pub(crate) fn retire(&mut self, out: &mut Vec<Output>) {
        self.election.drop_lease(true, out);
        self.adopted = None;
    }
}
