//! The dispatcher: which message of a partition may run next. Pure; it takes `now` and does no I/O.
//!
//! Every key has a lane: its messages in order, of which one run at a time is out with a handler. A lane whose message
//! failed waits until it is due and holds nobody but itself; a parked key's messages are put aside. Messages without a
//! key are loose: each waits for nobody.
//!
//! ```text
//!              message read                     taken                     finished, more to do
//!   (no lane) ─────────────▶ Ready ───────────────────────▶ Running ───────────────────────────▶ Ready
//!                              ▲                               │ failed            │ failed for good
//!                              └────────── due ── Waiting ◀────┘                   └─────▶ (parked, or dead letter)
//! ```
//!
//! Memory is bounded by `prefetch`. A hot, slow key would fill it, so a lane holds only so much; what it may not hold is
//! *spilled*: remembered as one number, the sequence to read that key's messages from again. The main cursor goes
//! on to other keys, and a *refill* reads the spilled ones once their lane runs dry. What other keys published in
//! between is finished and gone by then, so refills read little that is of no use.

mod fetching;
mod finishing;
mod lane;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use resonant_common::backoff::Backoff;
use tokio::time::Instant;

pub(crate) use self::fetching::Want;
pub(crate) use self::finishing::{Failure, Fate, Outcome, Verdict};
use self::lane::{Lane, State};
use crate::Poison;
use crate::backend::Settlement;
use crate::key::Key;
use crate::message::Message;

/// For how long nothing may be ready while memory is full before blocked lanes give up their tails.
const STARVED: Duration = Duration::from_millis(20);

/// What the dispatcher goes by.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// Messages held in memory.
    pub(crate) prefetch: usize,
    /// Bytes of their bodies held in memory.
    pub(crate) prefetch_bytes: usize,
    /// The most messages of one run.
    pub(crate) max_run: usize,
    /// Whether the engine reads from any sequence again.
    pub(crate) seek: bool,
    pub(crate) max_attempts: u32,
    pub(crate) backoff: Backoff,
    pub(crate) poison: Poison,
}

/// How much is held.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    messages: usize,
    bytes: usize,
}

impl Held {
    fn add(&mut self, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes;
    }

    fn remove(&mut self, bytes: usize) {
        self.messages -= 1;
        self.bytes -= bytes;
    }
}

/// Messages to hand to a handler: a run of one key in order, or unkeyed ones.
#[derive(Debug)]
pub(crate) struct Job {
    lane: Option<usize>,
    pub(crate) messages: Vec<Message>,
}

/// The dispatcher of one partition.
#[derive(Debug)]
pub(crate) struct Lanes {
    rules: Rules,
    lanes: Vec<Lane>,
    free: Vec<usize>,
    by_key: HashMap<Key, usize>,
    /// Lanes with something to run, the longest waiting first.
    ready: VecDeque<usize>,
    /// Lanes whose first message is not due yet.
    waiting: BTreeSet<(Instant, usize)>,
    /// Messages without a key that may run.
    loose: VecDeque<Message>,
    /// Messages without a key that are not due yet.
    loose_waiting: BTreeMap<(Instant, u64), Message>,
    /// Whether a loose message is next when a lane is ready too.
    loose_next: bool,
    parked: HashSet<Key>,
    /// Spilled lanes that could hold more, by the sequence to read from.
    hungry: BTreeSet<(u64, usize)>,
    /// Everything up to here was read once.
    cursor: u64,
    /// Messages held: in lanes, loose, or out with a handler.
    held: Held,
    /// Those of `held` that come first in a lane that waits, or are loose and wait.
    idle: Held,
    /// Settlements not yet confirmed by the engine, those in `settlements` included.
    unsettled: usize,
    settlements: Vec<Settlement>,
    /// Counts refills, so that a spill is served only by one that began after it.
    stamp: u64,
    forwarding: bool,
    refilling: bool,
    /// Since when nothing is ready although memory is full.
    starved: Option<Instant>,
}

impl Lanes {
    /// A dispatcher at the beginning of a partition with these parked keys.
    pub(crate) fn new(rules: Rules, parked: Vec<Key>) -> Self {
        Self {
            rules,
            lanes: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::new(),
            ready: VecDeque::new(),
            waiting: BTreeSet::new(),
            loose: VecDeque::new(),
            loose_waiting: BTreeMap::new(),
            loose_next: false,
            parked: parked.into_iter().collect(),
            hungry: BTreeSet::new(),
            cursor: 0,
            held: Held::default(),
            idle: Held::default(),
            unsettled: 0,
            settlements: Vec::new(),
            stamp: 0,
            forwarding: false,
            refilling: false,
            starved: None,
        }
    }

    /// Whether something may run at `now`.
    pub(crate) fn has_ready(&mut self, now: Instant) -> bool {
        self.wake(now);
        !self.ready.is_empty() || !self.loose.is_empty()
    }

    /// The next messages to run.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Job> {
        self.wake(now);
        if !self.loose.is_empty() && (self.loose_next || self.ready.is_empty()) {
            self.loose_next = false;
            let count = self.loose.len().min(self.rules.max_run);
            return Some(Job { lane: None, messages: self.loose.drain(..count).collect() });
        }
        self.loose_next = true;
        let id = self.ready.pop_front()?;
        let lane = &mut self.lanes[id];
        let messages = lane.run(self.rules.max_run, now);
        lane.state = State::Running;
        self.update_hunger(id);
        Some(Job { lane: Some(id), messages })
    }

    /// When to look again although nothing happened.
    pub(crate) fn next_wake(&self) -> Option<Instant> {
        let lanes = self.waiting.first().map(|(due, _)| *due);
        let loose = self.loose_waiting.first_key_value().map(|((due, _), _)| *due);
        let starved = self.starved.map(|since| since + STARVED);
        [lanes, loose, starved].into_iter().flatten().min()
    }

    /// Takes what became of messages, for the engine.
    pub(crate) fn settlements(&mut self) -> Vec<Settlement> {
        std::mem::take(&mut self.settlements)
    }

    /// Whether there is something for the engine.
    pub(crate) fn has_settlements(&self) -> bool {
        !self.settlements.is_empty()
    }

    /// The engine has confirmed so many settlements.
    pub(crate) fn settled(&mut self, count: usize) {
        self.unsettled = self.unsettled.saturating_sub(count);
    }

    /// Makes what fell due ready.
    fn wake(&mut self, now: Instant) {
        while let Some(&(due, id)) = self.waiting.first() {
            if due > now {
                break;
            }
            self.waiting.pop_first();
            self.idle.remove(self.lanes[id].first_size());
            self.lanes[id].state = State::Ready;
            self.ready.push_back(id);
            self.update_hunger(id);
        }
        while let Some(entry) = self.loose_waiting.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let message = entry.remove();
            self.idle.remove(message.body.len());
            self.loose.push_back(message);
        }
    }

    /// Puts a lane that is not running into the state its first message asks for, or removes it.
    fn rest(&mut self, id: usize, now: Instant) {
        let lane = &mut self.lanes[id];
        match lane.first_due() {
            Some(Some(due)) if due > now => {
                lane.state = State::Waiting(due);
                self.idle.add(lane.first_size());
                self.waiting.insert((due, id));
            }
            Some(_) => {
                lane.state = State::Ready;
                self.ready.push_back(id);
            }
            None if lane.spilled.is_some() => lane.state = State::Empty,
            None => return self.remove(id),
        }
        self.update_hunger(id);
    }

    fn lane_of(&mut self, key: &Key) -> usize {
        if let Some(&id) = self.by_key.get(key) {
            return id;
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.lanes.push(Lane::default());
            self.lanes.len() - 1
        });
        let (limit, bytes) = if self.rules.seek {
            ((self.rules.prefetch / 2).max(2 * self.rules.max_run), self.rules.prefetch_bytes / 2)
        } else {
            (usize::MAX, usize::MAX)
        };
        self.lanes[id].begin(key.clone(), limit, bytes);
        self.by_key.insert(key.clone(), id);
        id
    }

    fn remove(&mut self, id: usize) {
        self.forget_hunger(id);
        if let Some(key) = self.lanes[id].end() {
            self.by_key.remove(&key);
        }
        self.free.push(id);
    }

    /// Lists or unlists a lane among those a refill would serve.
    fn update_hunger(&mut self, id: usize) {
        self.forget_hunger(id);
        let lane = &mut self.lanes[id];
        let low = (lane.limit / 4).max(self.rules.max_run / 2);
        if let Some(spill) = lane.spilled
            && !matches!(lane.state, State::Waiting(_))
            && lane.queue.len() <= low
            && lane.bytes <= lane.byte_limit / 4
        {
            self.lanes[id].hungry_at = Some(spill.from);
            self.hungry.insert((spill.from, id));
        }
    }

    fn forget_hunger(&mut self, id: usize) {
        if let Some(from) = self.lanes[id].hungry_at.take() {
            self.hungry.remove(&(from, id));
        }
    }

    fn settle(&mut self, settlement: Settlement) {
        self.unsettled += 1;
        self.settlements.push(settlement);
    }
}
