//! The dispatcher against a model: an engine in a few lines and handlers that fail at random.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use resonant_common::backoff::Backoff;
use tokio::time::Instant;

use super::{Failure, Job, Lanes, Outcome, Rules, Verdict};
use crate::backend::{Fetch, Fetched, Settlement};
use crate::message::Message;
use crate::{Key, Poison};

/// What an engine would hold.
#[derive(Debug, Default)]
struct Engine {
    messages: BTreeMap<u64, Message>,
    parked: BTreeMap<Key, BTreeMap<u64, Message>>,
    resumed: Vec<(Key, u64)>,
    done: BTreeSet<u64>,
    dead: BTreeSet<u64>,
    /// Of one that pushes: what it has given, and what it gives again.
    given: u64,
    again: VecDeque<u64>,
}

impl Engine {
    /// What an engine that seeks answers.
    fn read(&self, fetch: Fetch) -> Fetched {
        let until = fetch.until.unwrap_or(u64::MAX);
        if fetch.after >= until {
            return Fetched::default();
        }
        let range = self.messages.range(fetch.after + 1..=until);
        let fitting = fetch.fitting(range.clone().map(|(_, message)| message.body.len()));
        let more = range.clone().nth(fitting).is_some();
        let messages = range.take(fitting).map(|(_, message)| message.clone()).collect();
        Fetched { messages, resumed: Vec::new(), more }
    }

    /// What one that pushes gives.
    fn push(&mut self, fetch: Fetch) -> Fetched {
        assert!(fetch.until.is_none(), "it cannot read again");
        self.again.retain(|sequence| self.messages.contains_key(sequence));
        let again = self.again.iter().filter_map(|sequence| self.messages.get(sequence));
        let fitting = fetch.fitting(again.clone().map(|message| message.body.len()));
        let mut messages: Vec<_> = again.take(fitting).cloned().collect();
        self.again.drain(..fitting);
        if messages.is_empty() && self.again.is_empty() {
            messages = self.read(Fetch { after: self.given, ..fetch }).messages;
            self.given = messages.last().map_or(self.given, |message| message.sequence);
        }
        Fetched { messages, resumed: std::mem::take(&mut self.resumed), more: false }
    }

    fn settle(&mut self, settlement: &Settlement) {
        let sequence = settlement.sequence();
        match settlement {
            Settlement::Done { .. } => {
                assert!(self.messages.remove(&sequence).is_some(), "{sequence} was finished twice");
                self.done.insert(sequence);
            }
            Settlement::Retry { failures, .. } => {
                if let Some(message) = self.messages.get_mut(&sequence) {
                    message.failures = *failures;
                }
            }
            Settlement::Park { .. } => {
                let message = self.messages.remove(&sequence).unwrap();
                let key = message.key.clone().unwrap();
                self.parked.entry(key).or_default().insert(sequence, message);
            }
            Settlement::ParkBehind { .. } => {
                if let Some(key) =
                    self.messages.get(&sequence).and_then(|message| message.key.clone())
                    && let Some(parked) = self.parked.get_mut(&key)
                {
                    let message = self.messages.remove(&sequence).unwrap();
                    parked.insert(sequence, message);
                }
            }
            Settlement::Dead { .. } => {
                self.messages.remove(&sequence);
                self.dead.insert(sequence);
            }
        }
    }

    fn resume(&mut self, key: &Key) {
        let Some(parked) = self.parked.remove(key) else { return };
        if let Some(first) = parked.keys().next() {
            self.resumed.push((key.clone(), *first));
        }
        let moved = parked.into_iter().map(|(sequence, mut message)| {
            message.failures = 0;
            (sequence, message)
        });
        self.messages.extend(moved);
        let of_key = |sequence: &u64| {
            self.messages.get(sequence).map(|message| &message.key) == Some(&Some(key.clone()))
        };
        self.again.retain(|sequence| !of_key(sequence));
        let again: Vec<_> = self
            .messages
            .range(..=self.given)
            .map(|(sequence, _)| *sequence)
            .filter(of_key)
            .collect();
        self.again.extend(again);
    }
}

#[derive(Debug, Clone)]
struct World {
    seed: u64,
    keys: u64,
    messages: u64,
    prefetch: usize,
    prefetch_bytes: usize,
    largest: usize,
    seek: bool,
    max_run: usize,
    handlers: usize,
    failing: u32,
}

fn worlds() -> impl Strategy<Value = World> {
    let sizes = (1024..8192usize, 0..4096usize, any::<bool>());
    (any::<u64>(), 1..12u64, 1..300u64, 16..64usize, 1..20usize, 1..6usize, 0..40u32, sizes)
        .prop_map(
            |(
                seed,
                keys,
                messages,
                prefetch,
                max_run,
                handlers,
                failing,
                (prefetch_bytes, largest, seek),
            )| World {
                prefetch_bytes,
                largest,
                seek,
                seed,
                keys,
                messages,
                prefetch: prefetch.max(8 * max_run),
                max_run,
                handlers,
                failing,
            },
        )
}

fn run(world: &World) {
    let mut rng = StdRng::seed_from_u64(world.seed);
    let rules = Rules {
        prefetch: world.prefetch,
        prefetch_bytes: world.prefetch_bytes,
        max_run: world.max_run,
        seek: world.seek,
        max_attempts: 3,
        backoff: Backoff {
            initial: Duration::from_millis(5),
            max: Duration::from_millis(50),
            factor: 2.0,
        },
        poison: if rng.random_bool(0.7) { Poison::Park } else { Poison::DeadLetter },
    };
    let mut now = Instant::now();
    let (mut lanes, mut engine) = (Lanes::new(rules, Vec::new()), Engine::default());
    let (mut published, mut jobs): (u64, Vec<Job>) = (0, Vec::new());
    // Reads and settlements on their way: what they saw is what the engine held when they began.
    let mut reads: Vec<(super::Want, Fetched)> = Vec::new();
    let mut settling: Option<Vec<Settlement>> = None;
    // The last message of each key that was taken for the first time.
    let mut seen: HashMap<Key, u64> = HashMap::new();
    let mut steps = 0;
    loop {
        steps += 1;
        assert!(steps < 200_000, "it does not come to an end: {world:?} {lanes:?}");
        match rng.random_range(0..8) {
            0 if published < world.messages => {
                for _ in 0..rng.random_range(1..20) {
                    published += 1;
                    let number = rng.random_range(0..=world.keys);
                    // Half of all belong to one key; a few to none.
                    let number = if rng.random_bool(0.5) { 1 } else { number };
                    let key = (number > 0).then(|| Key::from(number));
                    let body = Bytes::from(vec![0; rng.random_range(0..=world.largest)]);
                    engine.messages.insert(published, Message::new(published, key, body));
                }
            }
            1 => {
                while let Some(want) = lanes.want(now) {
                    let seen =
                        if world.seek { engine.read(want.fetch) } else { Fetched::default() };
                    reads.push((want, seen));
                }
            }
            2 if !reads.is_empty() => {
                let index = rng.random_range(0..reads.len());
                let waits = reads[index].0.fetch.until.is_none();
                if !world.seek {
                    // It gives what it has when it answers, and again what the dispatcher did not get.
                    let (want, _) = reads.remove(index);
                    if rng.random_bool(0.05) {
                        lanes.fetch_failed(&want);
                    } else {
                        lanes.fetched(&want, engine.push(want.fetch), now);
                    }
                } else if waits && reads[index].1.messages.is_empty() && engine.resumed.is_empty() {
                    // A read forward answers only once it has something: look again.
                    reads[index].1 = engine.read(reads[index].0.fetch);
                } else {
                    let (want, mut fetched) = reads.remove(index);
                    if waits {
                        fetched.resumed = std::mem::take(&mut engine.resumed);
                    }
                    if rng.random_bool(0.05) && fetched.resumed.is_empty() {
                        lanes.fetch_failed(&want);
                    } else {
                        lanes.fetched(&want, fetched, now);
                    }
                }
            }
            3 if jobs.len() < world.handlers && lanes.has_ready(now) => {
                let job = lanes.take(now).unwrap();
                assert!(!job.messages.is_empty() && job.messages.len() <= world.max_run);
                for message in &job.messages {
                    let Some(key) = &message.key else { continue };
                    let others = jobs.iter().flat_map(|job| &job.messages);
                    assert!(
                        others.into_iter().all(|other| other.key.as_ref() != Some(key)),
                        "{key} runs twice"
                    );
                    let last = seen.entry(key.clone()).or_default();
                    // Everything of the key before it is finished, dead, or before it in this very run.
                    assert!(
                        !engine.messages.range(..message.sequence).any(|(sequence, before)| {
                            before.key.as_ref() == Some(key)
                                && !job.messages.iter().any(|this| this.sequence == *sequence)
                                && !settled(&lanes, settling.as_ref(), *sequence)
                        }),
                        "{} came before its turn",
                        message.sequence
                    );
                    *last = (*last).max(message.sequence);
                }
                assert!(
                    job.messages.windows(2).all(|pair| pair[0].sequence < pair[1].sequence)
                        || job.messages[0].key.is_none()
                );
                jobs.push(job);
            }
            4 if !jobs.is_empty() => {
                let job = jobs.remove(rng.random_range(0..jobs.len()));
                let count = job.messages.len();
                let failure = rng.random_bool(f64::from(world.failing) / 100.0).then(|| Failure {
                    verdict: match rng.random_range(0..8) {
                        0 => Verdict::Reject,
                        1 => Verdict::Poison,
                        2 => Verdict::Retry(Some(Duration::from_millis(20))),
                        3 => Verdict::Later,
                        _ => Verdict::Retry(None),
                    },
                    error: String::new(),
                });
                let done = if failure.is_some() { rng.random_range(0..count) } else { count };
                lanes.finish(job, Outcome { done, failure }, now, &mut rng);
            }
            5 => match settling.take() {
                Some(batch) => {
                    batch.iter().for_each(|settlement| engine.settle(settlement));
                    lanes.settled(batch.len());
                }
                None if lanes.has_settlements() => settling = Some(lanes.settlements()),
                None => {}
            },
            6 => now += Duration::from_millis(rng.random_range(0..30)),
            7 if rng.random_bool(0.1) => {
                if let Some(key) = engine.parked.keys().next().cloned() {
                    engine.resume(&key);
                }
            }
            _ => {}
        }
        let held = lanes.held.messages + lanes.unsettled;
        assert!(held <= 6 * world.prefetch, "{held} held");
        // What waits counts four times less, and two reads under way may each bring one that is too large.
        let most = 6 * world.prefetch_bytes + 2 * world.largest;
        assert!(lanes.held.bytes <= most, "{} bytes held of {most}", lanes.held.bytes);
        let idle = published >= world.messages && jobs.is_empty() && settling.is_none();
        if idle && engine.messages.is_empty() && engine.parked.is_empty() {
            break;
        }
    }
    assert_eq!(engine.done.len() + engine.dead.len(), usize::try_from(published).unwrap());
    assert!(engine.done.is_disjoint(&engine.dead));
    assert!(!lanes.has_settlements());
    let (held, idle) = (lanes.held, lanes.idle);
    assert_eq!((held.messages, held.bytes, idle.messages, idle.bytes), (0, 0, 0, 0));
}

/// Whether what became of a message is decided but not yet known to the engine.
fn settled(lanes: &Lanes, settling: Option<&Vec<Settlement>>, sequence: u64) -> bool {
    let on_its_way = settling.into_iter().flatten();
    lanes.settlements.iter().chain(on_its_way).any(|settlement| {
        settlement.sequence() == sequence && !matches!(settlement, Settlement::Retry { .. })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is published, fails, is parked and resumed: a key's messages are handed out in order, one run at a
    /// time, each is finished once, memory stays bounded, and it comes to an end.
    #[test]
    fn every_key_is_served_in_order_and_to_the_end(world in worlds()) {
        run(&world);
    }
}
