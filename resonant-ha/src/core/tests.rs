//! The state machine alone, with invented time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::flaw::Flaws;
use super::{Core, Event, EventKind, Input, Kind, Now, Output, Reason, Setup};
use crate::config::FailoverConfig;
use crate::region::{
    CommitsWaitFor, Done, Frozen, Observation, Pledge, Reach, RegionName, Role, Verb,
};
use crate::voter::{Ballot, Cell};

/// One manager, one voter, and regions that are well and say what they are told to.
struct Bench {
    core: Core,
    voter: Cell,
    now: Duration,
    /// Whether the voter is heard, and the order after which it is not.
    heard: bool,
    deaf_after: Option<Verb>,
    commits: CommitsWaitFor,
    primary: RegionName,
    /// One that takes writes beside the primary.
    second: Option<RegionName>,
    events: Vec<EventKind>,
    published: Vec<u64>,
}

fn manager(regions: &[&str], owner: &str) -> Core {
    let config = FailoverConfig {
        allow_promotion: true,
        synchronous_standbys: 1,
        ..FailoverConfig::default()
    };
    Core::new(Setup {
        config: Arc::new(config),
        owner: owner.to_owned(),
        regions: regions.iter().map(RegionName::from).collect(),
        fenceable: BTreeSet::new(),
        standbys: regions.iter().map(|region| (*region).to_owned()).collect(),
        voters: 1,
        observers: 0,
        seed: 1,
        flaws: Flaws::default(),
    })
}

impl Bench {
    fn new(regions: &[&str]) -> Self {
        Self {
            core: manager(regions, "one"),
            voter: Cell::default(),
            now: Duration::ZERO,
            heard: true,
            deaf_after: None,
            commits: CommitsWaitFor { count: 1, names: vec!["west".to_owned(), "east".to_owned()] },
            primary: "east".into(),
            second: None,
            events: Vec::new(),
            published: Vec::new(),
        }
    }

    fn seen(&self, region: &RegionName) -> Observation {
        let primary = *region == self.primary || self.second.as_ref() == Some(region);
        let record = self.core.record();
        let epoch = record.map_or(0, |record| record.published);
        let operation = record.map(|record| record.operation.clone()).unwrap_or_default();
        Observation {
            role: if primary { Role::Primary } else { Role::Standby },
            sick: None,
            read_only: false,
            system: 7,
            reach: Reach { lineage: epoch, timeline: 0, offset: 100 },
            pledge: Pledge { epoch, operation },
            started: 1,
            hears_primary: !primary,
            commits: if primary { self.commits.clone() } else { CommitsWaitFor::nobody() },
        }
    }

    fn step(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let mut out = Vec::new();
            let now = Now { mono: self.now, wall: 1_000_000 + self.now.as_secs() };
            self.core.step(now, input, &mut out);
            for output in out {
                match output {
                    Output::Cast { voter, round, ballot } if self.heard => {
                        let vote = Some(self.voter.cast(self.now, ballot));
                        inputs.insert(0, Input::Vote { voter, round, vote });
                    }
                    Output::Probe { region } => {
                        let seen = Ok(self.seen(&region));
                        inputs.insert(0, Input::Seen { region, seen });
                    }
                    Output::Act { id, verb, region, .. } => {
                        self.heard &= self.deaf_after != Some(verb);
                        let seen = self.seen(&region);
                        let done = match verb {
                            Verb::Promote => {
                                self.primary = region;
                                Done::Promoted(1)
                            }
                            Verb::Demote => Done::Demoted(seen.reach, None),
                            Verb::Freeze => Done::Frozen(Frozen {
                                role: seen.role,
                                sick: None,
                                system: seen.system,
                                reach: seen.reach,
                            }),
                            _ => Done::Ok,
                        };
                        inputs.insert(0, Input::Done { id, result: Ok(done) });
                    }
                    Output::Publish { epoch, .. } => self.published.push(epoch),
                    Output::Event(Event { kind, .. }) => self.events.push(kind),
                    Output::Cast { .. } | Output::Ask { .. } => {}
                }
            }
        }
    }

    fn run(&mut self, seconds: u64) {
        for _ in 0..seconds * 4 {
            self.now += Duration::from_millis(250);
            self.step(Input::Tick);
        }
    }

    fn told(&self, wanted: impl Fn(&EventKind) -> bool) -> bool {
        self.events.iter().any(wanted)
    }
}

fn is_published(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Published { .. })
}

#[test]
fn nothing_is_told_as_done_before_a_majority_has_it() {
    let mut bench = Bench::new(&["east", "west", "north"]);
    // The voter falls silent when the last order has been obeyed and the record of it is on its way.
    bench.deaf_after = Some(Verb::Confirm);
    bench.run(5);
    assert!(!bench.heard, "it never came so far");
    assert!(!bench.told(is_published), "{:?}", bench.events);
    assert!(bench.published.is_empty());
    (bench.heard, bench.deaf_after) = (true, None);
    bench.run(60);
    assert!(bench.told(is_published), "{:?}", bench.events);
    assert_eq!(bench.published, [bench.core.record().unwrap().epoch]);
}

#[test]
fn a_wish_ends_with_the_lease_it_was_made_under() {
    let mut bench = Bench::new(&["east", "west", "north"]);
    bench.run(30);
    assert!(bench.told(is_published));
    // Asked for while a write is out that nobody answers; then the lease is lost.
    bench.heard = false;
    bench.events.clear();
    bench.step(Input::Pause("me".to_owned()));
    bench.step(Input::Pause("me again".to_owned()));
    bench.step(Input::Switchover("west".into()));
    assert!(bench.events.is_empty(), "{:?}", bench.events);
    bench.run(30);
    assert!(bench.told(|kind| *kind == EventKind::LeaseLost));
    let refused = EventKind::Refused { kind: Kind::Switchover, reason: Reason::NoLease };
    assert!(bench.told(|kind| *kind == refused), "{:?}", bench.events);
    bench.events.clear();
    bench.heard = true;
    bench.run(60);
    assert!(bench.told(|kind| matches!(kind, EventKind::LeaseTaken { .. })), "{:?}", bench.events);
    assert!(
        !bench.told(|kind| matches!(kind, EventKind::Intent { .. } | EventKind::Paused { .. }))
    );
    assert!(bench.core.record().unwrap().paused.is_none());
    // And what is asked of one that does not lead is refused at once.
    bench.heard = false;
    bench.run(60);
    bench.events.clear();
    bench.step(Input::Switchover("west".into()));
    assert!(bench.told(|kind| *kind == refused), "{:?}", bench.events);
}

#[test]
fn a_switchover_is_not_taken_for_a_second_primary() {
    let mut bench = Bench::new(&["east", "west", "north"]);
    bench.commits.names = ["east", "west", "north"].map(str::to_owned).to_vec();
    bench.run(30);
    bench.events.clear();
    // The old primary was last seen taking writes, and its heir is looked at the moment it is told.
    bench.step(Input::Switchover("west".into()));
    bench.run(30);
    let switched = |kind: &EventKind| matches!(kind, EventKind::Published { kind: Kind::Switchover, primary, .. } if *primary == "west");
    assert!(bench.told(switched), "{:?}", bench.events);
    assert!(!bench.told(is_several), "{:?}", bench.events);
}

fn is_several(kind: &EventKind) -> bool {
    matches!(kind, EventKind::TwoPrimaries { .. })
}

#[test]
fn an_old_look_at_the_last_primary_is_no_second_one() {
    let regions = ["east", "west", "north"];
    let mut bench = Bench::new(&regions);
    bench.run(30);
    bench.events.clear();
    // Somebody else hands over between two looks; the heir is looked at first.
    let (old, heir) = (RegionName::from("east"), RegionName::from("west"));
    bench.primary = heir.clone();
    let seen = Ok(bench.seen(&heir));
    bench.step(Input::Seen { region: heir, seen });
    bench.run(60);
    assert!(!bench.told(is_several), "{:?}", bench.events);

    // A question that was under way while the manager itself handed over is answered after it.
    let mut bench = Bench::new(&regions);
    bench.commits.names = regions.map(str::to_owned).to_vec();
    bench.run(30);
    let late = Ok(bench.seen(&old));
    bench.step(Input::Switchover("west".into()));
    bench.step(Input::Seen { region: old, seen: late });
    bench.run(60);
    assert_eq!(bench.primary, "west");
    assert!(!bench.told(is_several), "{:?}", bench.events);
    assert_eq!(bench.core.writable(), 1);
}

#[test]
fn two_that_take_writes_at_the_same_time_are_told_within_two_intervals() {
    let mut bench = Bench::new(&["east", "west", "north"]);
    bench.run(30);
    assert_eq!(bench.core.writable(), 1);
    bench.second = Some("west".into());
    bench.run(20);
    assert!(bench.told(is_several), "{:?}", bench.events);
    assert_eq!(bench.core.writable(), 2);
    bench.second = None;
    bench.run(10);
    assert!(bench.told(|kind| *kind == EventKind::OnePrimary), "{:?}", bench.events);
    assert_eq!(bench.core.writable(), 1);
}

#[test]
fn strangers_among_the_standbys_are_not_counted() {
    let mut bench = Bench::new(&["east", "west", "north"]);
    bench.run(30);
    let waits = |bench: &Bench| bench.core.record().unwrap().synchronous;
    assert_eq!(waits(&bench), 1);
    for names in [vec!["*"], vec!["west", "reports"], vec!["nobody"]] {
        bench.commits.names = names.into_iter().map(str::to_owned).collect();
        bench.run(30);
        assert_eq!(waits(&bench), 0, "{:?}", bench.commits);
        bench.commits.names = vec!["WEST".to_owned(), "north".to_owned()];
        bench.run(30);
        assert_eq!(waits(&bench), 1);
    }
    assert!(bench.told(|kind| *kind == EventKind::SyncWeaker { seen: 0 }));
}

#[test]
fn a_manager_of_other_regions_leaves_the_record_and_the_lease_alone() {
    let mut bench = Bench::new(&["east", "west", "north"]);
    bench.run(30);
    let before = bench.core.record().cloned();
    // The first one ends; one with other regions comes.
    let mut out = Vec::new();
    bench.core.retire(&mut out);
    for output in out {
        if let Output::Cast { ballot, .. } = output {
            bench.voter.cast(bench.now, ballot);
        }
    }
    bench.core = manager(&["east", "west"], "two");
    bench.events.clear();
    bench.run(120);
    assert!(bench.core.is_foreign());
    let refused = EventKind::Refused { kind: Kind::Adopt, reason: Reason::OtherRegions };
    assert_eq!(bench.events.iter().filter(|kind| **kind == refused).count(), 1);
    assert!(
        !bench.told(|kind| matches!(kind, EventKind::LeaseTaken { .. } | EventKind::Intent { .. }))
    );
    let now = Now { mono: bench.now, wall: 0 };
    assert!(bench.core.judge(now, &super::Wish::Failover).0.contains(&Reason::OtherRegions));
    let left = bench.voter.cast(bench.now, Ballot::Read);
    assert!(left.remaining.is_zero(), "it holds the lease");
    // One with the same regions in another order goes on.
    bench.core = manager(&["north", "east", "west"], "three");
    bench.run(60);
    assert!(!bench.core.is_foreign());
    let after = bench.core.record().cloned();
    assert_eq!(after.map(|record| record.epoch), before.map(|record| record.epoch));
    assert!(bench.told(|kind| matches!(kind, EventKind::LeaseTaken { .. })));
}

#[test]
fn no_term_is_asked_for_twice() {
    let mut bench = Bench::new(&["east", "west", "north"]);
    let mut asked = BTreeSet::new();
    for _ in 0..400 {
        bench.now += Duration::from_millis(250);
        let mut out = Vec::new();
        let now = Now { mono: bench.now, wall: 1_000_000 };
        bench.core.step(now, Input::Tick, &mut out);
        while let Some(output) = out.pop() {
            match output {
                // It hears surveys, and never of the grants.
                Output::Cast { voter, round, ballot: Ballot::Read } => {
                    let vote = Some(Cell::default().cast(bench.now, Ballot::Read));
                    bench.core.step(now, Input::Vote { voter, round, vote }, &mut out);
                }
                Output::Cast { ballot: Ballot::Grant { term, .. }, .. } => {
                    assert!(asked.insert(term), "term {term} was asked for twice");
                }
                _ => {}
            }
        }
    }
    assert!(asked.len() > 5, "{asked:?}");
}
