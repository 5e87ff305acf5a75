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
mod operate;
mod record;
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
                view.probe_at = now.mono + interval;
                out.push(Output::Probe { region: region.clone() });
            }
        }
        self.resend(now, out);
    }

    fn voted(
        &mut self,
        now: Now,
        voter: usize,
        round: u64,
        vote: Option<Vote>,
        out: &mut Vec<Output>,
    ) {
        if self.writing.as_ref().is_some_and(|writing| writing.round == round) {
            return self.written(now, voter, vote, out);
        }
        let (setup, election) = (&self.setup, &mut self.election);
        let outcome =
            election.vote(now.mono, (voter, round), vote, &setup.config, &mut self.chance, out);
        match outcome {
            Some(Outcome::Granted(newest)) => self.granted(now, newest, out),
            Some(Outcome::Lost) => self.lose(now, out),
            Some(Outcome::Surveyed(Some(settled))) => {
                if self.is_newer(&settled) && self.read(now, &settled, out) {
                    self.publish(out);
                }
            }
            Some(Outcome::Surveyed(None)) | None => {}
        }
    }

    /// Whether a settled record is newer than what is known. Terms fall where voters were restored from older states, but
    /// epochs do not.
    fn is_newer(&self, stored: &Stored) -> bool {
        let known = self.record.as_ref().map_or(0, |record| record.epoch);
        let epoch =
            || serde_json::from_str::<Record>(&stored.value).map_or(0, |record| record.epoch);
        stored.stamp() > self.stamp || (stored.stamp() != self.stamp && epoch() > known)
    }

    fn read(&mut self, now: Now, stored: &Stored, out: &mut Vec<Output>) -> bool {
        match serde_json::from_str::<Record>(&stored.value) {
            Ok(record) => {
                let ours = self.own_regions();
                self.foreign = !record.regions.is_empty() && record.regions != ours;
                self.election.barred = self.foreign;
                if self.foreign {
                    let theirs = &record.regions;
                    tracing::error!(?ours, ?theirs, "{}", Reason::OtherRegions);
                    self.refuse(now, Kind::Adopt, &[Reason::OtherRegions], out);
                    return false;
                }
                self.forgive(Kind::Adopt);
                self.record = Some(record);
                self.stamp = stored.stamp();
                true
            }
            Err(error) => {
                tracing::error!(%error, "the record at the voters cannot be read; it is left alone");
                false
            }
        }
    }

    fn own_regions(&self) -> Vec<RegionName> {
        let mut regions = self.setup.regions.clone();
        regions.sort_unstable();
        regions
    }

    /// A new holder takes the record over: nobody else can write it from here on.
    fn granted(&mut self, now: Now, newest: Option<Stored>, out: &mut Vec<Output>) {
        let Some(term) = self.election.term(now.mono) else { return };
        self.forget_wishes(now, out);
        self.run = Run::default();
        self.flights.clear();
        self.adopted = None;
        for view in self.views.values_mut() {
            view.astray = 0;
        }
        if let Some(stored) = &newest
            && !self.read(now, stored, out)
        {
            self.election.drop_lease(true, out);
            return;
        }
        if newest.is_none() {
            self.record = None;
        }
        // Somebody else's failover is not to be finished by one who may not promote.
        let begun = self.record.as_ref().is_some_and(|record| record.intent.is_some());
        if begun && !self.config().allow_promotion {
            self.election.drop_lease(true, out);
            return;
        }
        self.tell(now, EventKind::LeaseTaken { term }, out);
        self.stamp = (term, self.stamp.1);
        match self.record.clone() {
            None => self.adopted = Some(term),
            Some(mut record) => {
                if self.flawed(Flaw::ForgetIntent) {
                    record.intent = None;
                } else if record.intent.is_some() {
                    record = self.begun_again(record);
                }
                self.write(now, record, out);
            }
        }
    }

    /// Writes the record; what follows happens once a majority has it.
    fn write(&mut self, now: Now, record: Record, out: &mut Vec<Output>) {
        self.write_and_tell(now, record, Vec::new(), out);
    }

    /// Writes the record, and tells of it once a majority has it: what is lost with the lease has not happened.
    fn write_and_tell(
        &mut self,
        now: Now,
        mut record: Record,
        events: Vec<EventKind>,
        out: &mut Vec<Output>,
    ) {
        let Some(term) = self.election.term(now.mono) else { return };
        record.regions = self.own_regions();
        let Ok(value) = serde_json::to_string(&record) else { return };
        let version = self.stamp.1 + 1;
        let stored = Stored { term, version, value: value.into() };
        self.stamp = stored.stamp();
        let votes = vec![None; self.setup.voters];
        self.writing = Some(Writing { round: 0, stored, record, votes, sent: now.mono, events });
        self.send_write(now, out);
    }

    fn send_write(&mut self, now: Now, out: &mut Vec<Output>) {
        let round = self.election.next_round();
        let owner = self.setup.owner.clone();
        let Some(writing) = &mut self.writing else { return };
        (writing.round, writing.sent) = (round, now.mono);
        writing.votes.fill(None);
        let ballot = Ballot::Write { owner, record: writing.stored.clone() };
        for voter in 0..writing.votes.len() {
            out.push(Output::Cast { voter, round, ballot: ballot.clone() });
        }
    }

    /// Sends a write again that no majority has answered.
    fn resend(&mut self, now: Now, out: &mut Vec<Output>) {
        let patience = (self.config().lease_ttl / 10).min(Duration::from_secs(1));
        let stuck =
            self.writing.as_ref().is_some_and(|writing| now.mono >= writing.sent + patience);
        if stuck {
            self.send_write(now, out);
        }
    }

    fn written(&mut self, now: Now, voter: usize, vote: Option<Vote>, out: &mut Vec<Output>) {
        let majority = self.election.majority();
        let Some(writing) = &mut self.writing else { return };
        let Some(slot) = writing.votes.get_mut(voter) else { return };
        *slot = Some(vote.map(|vote| vote.done));
        let count =
            |wanted| writing.votes.iter().filter(|vote| **vote == Some(Some(wanted))).count();
        let (done, refused) = (count(true), count(false));
        if done >= majority {
            let Some(writing) = self.writing.take() else { return };
            self.record = Some(writing.record);
            self.adopted = Some(writing.stored.term);
            self.publish(out);
            for kind in writing.events {
                self.tell(now, kind, out);
            }
        } else if refused > self.setup.voters - majority {
            self.election.drop_lease(true, out);
            self.lose(now, out);
        }
    }

    fn publish(&mut self, out: &mut Vec<Output>) {
        let Some(record) = &self.record else { return };
        let Some(primary) = record.primary.clone() else { return };
        let newer = record.published > self.told;
        if newer || (self.flawed(Flaw::TellLowerEpochs) && record.published != self.told) {
            self.told = record.published;
            out.push(Output::Publish { epoch: record.published, primary });
        }
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
        let (id, region, peer) = (self.flight, region.clone(), peer.cloned());
        out.push(Output::Act { id, region, order, verb, peer });
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

    pub(crate) fn regions(&self) -> &[RegionName] {
        &self.setup.regions
    }

    pub(crate) fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    pub(crate) fn views(&self) -> &BTreeMap<RegionName, View> {
        &self.views
    }

    /// Whether the record at the voters belongs to managers of other regions.
    pub(crate) fn is_foreign(&self) -> bool {
        self.foreign
    }

    pub(crate) fn lease_remaining(&self, now: Now) -> Duration {
        if self.leads(now) { self.election.remaining(now.mono) } else { Duration::ZERO }
    }

    pub(crate) fn well_for(&self, now: Now) -> Option<Duration> {
        self.well_since.map(|since| now.mono.saturating_sub(since))
    }

    /// The term under which this manager may act now.
    #[cfg(feature = "simulation")]
    pub(crate) fn leading_term(&self, now: Now) -> Option<u64> {
        self.adopted.filter(|_| self.leads(now))
    }

    /// Whether this manager believes that it holds the lease.
    #[cfg(feature = "simulation")]
    pub(crate) fn holds(&self, now: Now) -> bool {
        self.election.term(now.mono).is_some()
    }

    /// The epoch of the record that is being written.
    #[cfg(feature = "simulation")]
    pub(crate) fn writing_epoch(&self) -> Option<u64> {
        self.writing
            .as_ref()
            .map(|writing| writing.record.epoch)
            .or_else(|| Some(self.record.as_ref()?.epoch))
    }

    /// Gives the lease back, so that another manager need not wait for its end.
    pub(crate) fn retire(&mut self, out: &mut Vec<Output>) {
        self.election.drop_lease(true, out);
        self.adopted = None;
    }
}
