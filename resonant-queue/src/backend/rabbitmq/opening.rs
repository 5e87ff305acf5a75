//! What one owner holds of a partition. Plain data under a mutex; the channel is elsewhere.
//!
//! The broker knows a message by the delivery tag of one channel; the dispatcher knows it by a sequence of one opening.
//! A channel may be lost while handlers run: what they hold is delivered again on the next one, and is recognised there
//! instead of being handed out twice.
//!
//! ```text
//!  delivered ─▶ ready ─▶ given ─▶ settled: acknowledged, or owed an acknowledgement until it is delivered again
//!      │
//!      └─ its key is being resumed ─▶ held back until what was put aside for the key was given
//! ```

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use super::names::PREFETCH;
use super::wire::Content;
use crate::backend::{Fetch, Fetched};
use crate::key::Key;
use crate::message::Message;

/// Keys whose last sequence is remembered.
const KEYS: usize = 100_000;

/// Settled messages that are recognised should their acknowledgement have been lost.
const RECENT: usize = 4 * PREFETCH as usize;

/// How a message is recognised when it is delivered again: by the number its publisher gave it, else by what it says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Identity {
    Number(String),
    Content(Option<Key>, bytes::Bytes),
}

/// Where a message came from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// The partition's queue.
    Partition,
    /// The queue of what was put aside for a key.
    Parked(Key),
}

/// A delivery on a channel.
#[derive(Debug, Clone)]
pub(super) struct Arrival {
    pub(super) source: Source,
    pub(super) identity: Identity,
    pub(super) tag: u64,
    pub(super) content: Content,
    pub(super) published: u64,
}

/// A message of this opening.
#[derive(Debug)]
struct Held {
    message: Message,
    source: Source,
    identity: Identity,
    /// Its tag on the channel of now, once it was delivered there.
    tag: Option<u64>,
    given: bool,
}

/// A key that is being resumed.
#[derive(Debug, Default)]
struct Replay {
    /// What the marker behind its put aside messages says.
    marker: String,
    /// Whether the marker was seen: all that was put aside was delivered.
    complete: bool,
    /// Messages given before the dispatcher knew of the resumption: it gives them back.
    expected: HashSet<u64>,
    /// Those it gave back.
    back: VecDeque<Arrival>,
    /// Later ones of the key.
    later: VecDeque<Arrival>,
}

/// What is to be done with an arrival.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Placed {
    Kept,
    /// It was settled before: acknowledge it.
    Acknowledge,
}

/// What a settlement needs to know of a message.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) message: Message,
    pub(super) source: Source,
}

/// The state of an opening.
#[derive(Debug)]
pub(super) struct Opening {
    base: u64,
    next: u64,
    held: BTreeMap<u64, Held>,
    by_identity: HashMap<Identity, VecDeque<u64>>,
    ready: VecDeque<u64>,
    owed: HashMap<Identity, usize>,
    recent: VecDeque<Identity>,
    recent_set: HashMap<Identity, usize>,
    last_of: HashMap<Key, u64>,
    replays: HashMap<Key, Replay>,
    resumed: Vec<Key>,
    /// Several queues deliver on the channel, so that tags do not arrive in order.
    mixed: bool,
    /// The channel is to be lost soon, with messages on it that are no longer known here.
    cycling: bool,
}

impl Opening {
    pub(super) fn new(epoch: u64) -> Self {
        Self {
            // Sequences rise over openings, too, as far as epochs fit.
            base: epoch << 40,
            next: 0,
            held: BTreeMap::new(),
            by_identity: HashMap::new(),
            ready: VecDeque::new(),
            owed: HashMap::new(),
            recent: VecDeque::new(),
            recent_set: HashMap::new(),
            last_of: HashMap::new(),
            replays: HashMap::new(),
            resumed: Vec::new(),
            mixed: false,
            cycling: false,
        }
    }

    /// The channel is gone, and with it all tags. What was not given is delivered again as if for the first time.
    pub(super) fn disconnected(&mut self) {
        (self.mixed, self.cycling) = (false, false);
        for sequence in std::mem::take(&mut self.ready) {
            let removed = self.remove(sequence);
            // Its number was never seen: an unknown predecessor invents no gap.
            if let Some(key) = removed.and_then(|held| held.message.key) {
                self.last_of.remove(&key);
            }
        }
        for held in self.held.values_mut() {
            held.tag = None;
        }
        for replay in self.replays.values_mut() {
            replay.later.clear();
            replay.complete = false;
            // Delivered again with the rest of the partition, before everything later.
            replay.back.clear();
        }
    }

    /// Takes what was delivered.
    pub(super) fn arrived(&mut self, arrival: Arrival) -> Placed {
        if let Some(sequences) = self.by_identity.get(&arrival.identity) {
            let unbound = sequences.iter().find_map(|sequence| {
                let held = self.held.get(sequence)?;
                (held.tag.is_none() && held.source == arrival.source).then_some(*sequence)
            });
            if let Some(sequence) = unbound
                && let Some(held) = self.held.get_mut(&sequence)
            {
                held.tag = Some(arrival.tag);
                return Placed::Kept;
            }
        }
        if take(&mut self.owed, &arrival.identity) {
            self.remember(arrival.identity);
            return Placed::Acknowledge;
        }
        if matches!(arrival.identity, Identity::Number(_))
            && self.recent_set.contains_key(&arrival.identity)
        {
            return Placed::Acknowledge;
        }
        if arrival.source == Source::Partition
            && let Some(key) = &arrival.content.key
            && let Some(replay) = self.replays.get_mut(key)
            && !replay.is_over()
        {
            replay.later.push_back(arrival);
            return Placed::Kept;
        }
        self.make_ready(arrival);
        Placed::Kept
    }

    fn make_ready(&mut self, arrival: Arrival) {
        self.next += 1;
        let sequence = self.base + self.next;
        let Arrival { source, identity, tag, content, published } = arrival;
        let mut message = Message::new(sequence, content.key, content.body);
        message.headers = content.headers;
        message.published = published;
        if let Some(key) = &message.key {
            if self.last_of.len() >= KEYS && !self.last_of.contains_key(key) {
                self.last_of.clear();
            }
            message.previous = self.last_of.insert(key.clone(), sequence);
        }
        self.by_identity.entry(identity.clone()).or_default().push_back(sequence);
        let held = Held { message, source, identity, tag: Some(tag), given: false };
        self.held.insert(sequence, held);
        self.ready.push_back(sequence);
    }

    /// What the dispatcher may have now.
    pub(super) fn give(&mut self, fetch: Fetch) -> Option<Fetched> {
        let resumed = std::mem::take(&mut self.resumed);
        if !resumed.is_empty() {
            // Alone, so that what comes with the next answer comes after it for certain.
            let resumed = resumed.into_iter().map(|key| (key, 0)).collect();
            return Some(Fetched { messages: Vec::new(), resumed, more: !self.ready.is_empty() });
        }
        if self.ready.is_empty() {
            return None;
        }
        let sizes = self
            .ready
            .iter()
            .map(|sequence| self.held.get(sequence).map_or(0, |held| held.message.body.len()));
        let count = fetch.fitting(sizes);
        let taken: Vec<u64> = self.ready.drain(..count).collect();
        let mut messages = Vec::with_capacity(taken.len());
        for sequence in taken {
            if let Some(held) = self.held.get_mut(&sequence) {
                held.given = true;
                messages.push(held.message.clone());
            }
        }
        Some(Fetched { messages, resumed: Vec::new(), more: !self.ready.is_empty() })
    }

    /// What is known of a message that was given and not settled yet.
    pub(super) fn known(&self, sequence: u64) -> Option<Known> {
        let held = self.held.get(&sequence).filter(|held| held.given)?;
        Some(Known { message: held.message.clone(), source: held.source.clone() })
    }

    /// A message is finished here: returns its tag, if it has one on this channel; else it is acknowledged when it comes
    /// again.
    pub(super) fn settle(&mut self, sequence: u64) -> Option<u64> {
        let held = self.remove(sequence)?;
        match held.tag {
            Some(tag) => {
                self.remember(held.identity);
                Some(tag)
            }
            None => {
                *self.owed.entry(held.identity).or_default() += 1;
                None
            }
        }
    }

    fn remember(&mut self, identity: Identity) {
        *self.recent_set.entry(identity.clone()).or_default() += 1;
        self.recent.push_back(identity);
        if self.recent.len() > RECENT
            && let Some(oldest) = self.recent.pop_front()
        {
            take(&mut self.recent_set, &oldest);
        }
    }

    fn remove(&mut self, sequence: u64) -> Option<Held> {
        let held = self.held.remove(&sequence)?;
        if let Some(sequences) = self.by_identity.get_mut(&held.identity) {
            sequences.retain(|other| *other != sequence);
            if sequences.is_empty() {
                self.by_identity.remove(&held.identity);
            }
        }
        Some(held)
    }

    /// Begins to give what was put aside for a key; `marker` follows behind it. `known` says whether the dispatcher
    /// believes the key parked and must be told.
    pub(super) fn replay(&mut self, key: &Key, marker: String, parked: bool) {
        self.mixed = true;
        let replay = self.replays.entry(key.clone()).or_default();
        replay.marker = marker;
        replay.complete = false;
        if !parked {
            return;
        }
        let of_key = |held: &&mut Held| {
            held.source == Source::Partition && held.message.key.as_ref() == Some(key)
        };
        let given = self.held.values_mut().filter(of_key).filter(|held| held.given);
        replay.expected = given.map(|held| held.message.sequence).collect();
        // What was not given yet waits its turn.
        let (mut back, mut kept) = (Vec::new(), VecDeque::new());
        for sequence in std::mem::take(&mut self.ready) {
            let is_of_key = self.held.get(&sequence).is_some_and(|held| {
                held.source == Source::Partition && held.message.key.as_ref() == Some(key)
            });
            if is_of_key { back.push(sequence) } else { kept.push_back(sequence) }
        }
        self.ready = kept;
        let later: Vec<Arrival> = back.into_iter().filter_map(|s| self.unplace(s)).collect();
        if let Some(replay) = self.replays.get_mut(key) {
            replay.later.extend(later);
        }
        self.resumed.push(key.clone());
    }

    /// Turns a message into an arrival again.
    fn unplace(&mut self, sequence: u64) -> Option<Arrival> {
        let held = self.remove(sequence)?;
        if let Some(key) = &held.message.key {
            self.last_of.remove(key);
        }
        let content = Content::of(&held.message);
        let (source, identity, published) = (held.source, held.identity, held.message.published);
        // Without a tag it is delivered again by itself.
        Some(Arrival { source, identity, tag: held.tag?, content, published })
    }

    /// Whether a key is being resumed.
    pub(super) fn replays(&self, key: &Key) -> bool {
        self.replays.contains_key(key)
    }

    /// The keys that are being resumed.
    pub(super) fn replaying(&self) -> Vec<Key> {
        self.replays.keys().cloned().collect()
    }

    /// The dispatcher gives back a message of a key that is being resumed: it gets it again in its turn.
    pub(super) fn give_back(&mut self, key: &Key, sequence: u64) {
        let arrival = self.unplace(sequence);
        let Some(replay) = self.replays.get_mut(key) else { return };
        replay.expected.remove(&sequence);
        replay.back.extend(arrival);
        self.release(key);
    }

    /// A marker came by: if it is the one that was waited for, all that was put aside is here.
    pub(super) fn marked(&mut self, key: &Key, marker: &str) {
        let Some(replay) = self.replays.get_mut(key) else { return };
        if replay.marker == marker {
            replay.complete = true;
            self.release(key);
        }
    }

    /// Lets go what was held back once nothing comes before it any more.
    fn release(&mut self, key: &Key) {
        let Some(replay) = self.replays.get_mut(key) else { return };
        if !replay.is_over() {
            return;
        }
        let waiting: Vec<_> = replay.back.drain(..).chain(replay.later.drain(..)).collect();
        for arrival in waiting {
            self.make_ready(arrival);
        }
    }

    /// Keys all of whose put aside messages are settled.
    pub(super) fn drained(&self) -> Vec<Key> {
        let over = self.replays.iter().filter(|(_, replay)| replay.is_over());
        over.map(|(key, _)| key.clone()).filter(|key| self.held_of(key) == 0).collect()
    }

    /// How many put aside messages of a key are here.
    fn held_of(&self, key: &Key) -> usize {
        let of = |held: &&Held| matches!(&held.source, Source::Parked(of) if of == key);
        self.held.values().filter(of).count()
    }

    /// A replay is over.
    pub(super) fn forget_replay(&mut self, key: &Key) {
        self.replays.remove(key);
        self.mixed = self.cycling || !self.replays.is_empty();
    }

    /// A key is parked again while it was being resumed. Says whether messages of its queue must be returned to it, which
    /// takes the loss of the channel.
    pub(super) fn park_again(&mut self, key: &Key) -> bool {
        if let Some(replay) = self.replays.remove(key) {
            // The dispatcher puts them aside.
            for arrival in replay.back.into_iter().chain(replay.later) {
                self.make_ready(arrival);
            }
        }
        let of = |held: &Held| matches!(&held.source, Source::Parked(of) if of == key);
        let theirs: Vec<u64> =
            self.held.iter().filter(|(_, held)| of(held)).map(|(sequence, _)| *sequence).collect();
        for sequence in &theirs {
            self.remove(*sequence);
        }
        self.ready.retain(|sequence| self.held.contains_key(sequence));
        self.cycling |= !theirs.is_empty();
        !theirs.is_empty()
    }

    /// Whether all up to a tag can be acknowledged at once, if none of them is held.
    pub(super) fn in_order(&self) -> bool {
        !self.mixed && !self.cycling
    }

    /// The lowest tag that is not settled.
    pub(super) fn lowest_tag(&self) -> Option<u64> {
        let waiting = self.replays.values().flat_map(|r| r.back.iter().chain(&r.later));
        let held = self.held.values().filter_map(|held| held.tag);
        held.chain(waiting.map(|arrival| arrival.tag)).min()
    }

    /// How many messages are here, and since when the oldest of them is in the queue.
    pub(super) fn here(&self) -> (u64, Option<u64>) {
        let replays = self.replays.values();
        let waiting = replays.flat_map(|replay| replay.back.iter().chain(&replay.later));
        let (mut count, mut oldest) = (self.held.len() as u64, None::<u64>);
        let mut see = |published: u64| {
            oldest = Some(oldest.map_or(published, |oldest| oldest.min(published)));
        };
        self.held.values().for_each(|held| see(held.message.published));
        for arrival in waiting {
            count += 1;
            see(arrival.published);
        }
        (count, oldest)
    }
}

impl Replay {
    fn is_over(&self) -> bool {
        self.complete && self.expected.is_empty()
    }
}

/// Takes one from a count.
fn take(counts: &mut HashMap<Identity, usize>, identity: &Identity) -> bool {
    let Some(count) = counts.get_mut(identity) else { return false };
    *count -= 1;
    if *count == 0 {
        counts.remove(identity);
    }
    true
}
