//! What to read next, and where what was read goes.

use std::collections::HashSet;

use tokio::time::Instant;

use super::lane::{Spill, State};
use super::{Lanes, Rules, STARVED};
use crate::backend::{Fetch, Fetched, Settlement};
use crate::clock;
use crate::key::Key;
use crate::message::Message;

/// A read the dispatcher asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Want {
    pub(crate) fetch: Fetch,
    /// A refill reads again what was spilled; otherwise the main cursor goes on.
    pub(crate) refill: bool,
    stamp: u64,
}

impl Lanes {
    /// The next read to begin, if there is room for its result. At most one read forward and one refill run at a time.
    pub(crate) fn want(&mut self, now: Instant) -> Option<Want> {
        if self.forwarding && (self.refilling || self.hungry.is_empty()) {
            // Both run, or nothing is left to ask for.
            self.starved = None;
            return None;
        }
        let room = self.room(now)?;
        if !self.refilling
            && let Some(&(from, _)) = self.hungry.first()
        {
            self.refilling = true;
            self.stamp += 1;
            let (room, bytes) = room;
            let fetch = Fetch::between(from.saturating_sub(1), self.cursor, room).bytes(bytes);
            return Some(Want { fetch, refill: true, stamp: self.stamp });
        }
        if self.forwarding {
            return None;
        }
        self.forwarding = true;
        let (room, bytes) = room;
        let fetch = Fetch::after(self.cursor, room).bytes(bytes);
        Some(Want { fetch, refill: false, stamp: self.stamp })
    }

    /// A read ended without a result.
    pub(crate) fn fetch_failed(&mut self, want: &Want) {
        if want.refill {
            self.refilling = false;
        } else {
            self.forwarding = false;
        }
    }

    /// Sorts what was read into lanes.
    pub(crate) fn fetched(&mut self, want: &Want, mut fetched: Fetched, now: Instant) {
        self.fetch_failed(want);
        if !self.rules.seek {
            // Their messages come by themselves, maybe in this very read.
            for (key, _) in fetched.resumed.drain(..) {
                self.parked.remove(&key);
            }
        }
        if want.refill {
            let complete = !fetched.more && fetched.messages.len() < want.fetch.limit;
            self.refill(want, fetched.messages, complete, now);
        } else {
            for message in fetched.messages {
                self.cursor = self.cursor.max(message.sequence);
                self.place(message, now);
            }
        }
        for (key, from) in fetched.resumed {
            self.resume(&key, from);
        }
    }

    /// How many messages may be read, if it is worth a read. Where blocked lanes hold everything, they give up their
    /// tails after a while.
    fn room(&mut self, now: Instant) -> Option<(usize, usize)> {
        if let Some(room) = self.free_room() {
            self.starved = None;
            return Some(room);
        }
        if !self.rules.seek || !self.ready.is_empty() || !self.loose.is_empty() {
            self.starved = None;
            return None;
        }
        match self.starved {
            None => {
                self.starved = Some(now);
                None
            }
            Some(since) if now < since + STARVED => None,
            Some(_) => {
                self.starved = None;
                self.relieve();
                self.free_room()
            }
        }
    }

    /// How many messages and bytes may be read, if a quarter of both is free. What only waits is not counted up to four
    /// times the prefetch: its key would otherwise hold up others.
    fn free_room(&self) -> Option<(usize, usize)> {
        let Rules { prefetch, prefetch_bytes, .. } = self.rules;
        let counted = |held: usize, idle: usize, most: usize| held - idle.min(4 * most).min(held);
        let messages = counted(self.held.messages, self.idle.messages, prefetch) + self.unsettled;
        let bytes = counted(self.held.bytes, self.idle.bytes, prefetch_bytes);
        let room = prefetch.saturating_sub(messages);
        let byte_room = prefetch_bytes.saturating_sub(bytes);
        let enough = room >= (prefetch / 4).max(1) && byte_room >= (prefetch_bytes / 4).max(1);
        enough.then_some((room, byte_room))
    }

    /// Spills all but what runs or comes first, and keeps those lanes short from now on.
    fn relieve(&mut self) {
        let short = self.rules.max_run.max(16);
        for id in 0..self.lanes.len() {
            let lane = &mut self.lanes[id];
            let keep = match lane.state {
                State::Running => 0,
                State::Waiting(_) => 1,
                State::Ready | State::Empty => continue,
            };
            lane.limit = lane.limit.min(short);
            lane.byte_limit = lane.byte_limit.min(self.rules.prefetch_bytes / 16);
            if let Some(entry) = lane.queue.get(keep) {
                lane.spilled = Some(Spill { from: entry.message.sequence, stamp: self.stamp + 1 });
                let (messages, bytes) = lane.cut(keep);
                self.held.messages -= messages;
                self.held.bytes -= bytes;
                self.update_hunger(id);
            }
        }
    }

    /// Puts a message read for the first time where it belongs.
    fn place(&mut self, message: Message, now: Instant) {
        let due = message.wait.map(|wait| clock::after(now, wait));
        let Some(key) = &message.key else {
            self.held.add(message.body.len());
            match due {
                Some(due) => {
                    self.idle.add(message.body.len());
                    self.loose_waiting.insert((due, message.sequence), message);
                }
                None => self.loose.push_back(message),
            }
            return;
        };
        if self.parked.contains(key) {
            self.settle(Settlement::ParkBehind { sequence: message.sequence });
            return;
        }
        let id = self.lane_of(key);
        let lane = &mut self.lanes[id];
        if lane.spilled.is_some() {
            // In order behind what is spilled already: it is read with that.
        } else if lane.is_full() {
            lane.spilled = Some(Spill { from: message.sequence, stamp: self.stamp + 1 });
            self.update_hunger(id);
        } else {
            self.push(id, message, due, now);
        }
    }

    fn push(&mut self, id: usize, message: Message, due: Option<Instant>, now: Instant) {
        self.held.add(message.body.len());
        let lane = &mut self.lanes[id];
        lane.push(message, due);
        if lane.state == State::Empty {
            self.rest(id, now);
        }
    }

    fn refill(&mut self, want: &Want, messages: Vec<Message>, complete: bool, now: Instant) {
        let until = want.fetch.until.unwrap_or(self.cursor);
        let read_to = if complete {
            until
        } else {
            messages.last().map_or(until, |message| message.sequence).min(until)
        };
        // Lanes that could not take a message: they take none of the later ones either.
        let mut full = HashSet::new();
        for message in messages {
            let Some(key) = &message.key else { continue };
            let Some(&id) = self.by_key.get(key) else { continue };
            let Some(spill) = self.served(id, want) else { continue };
            if message.sequence < spill.from || full.contains(&id) {
                continue;
            }
            if self.parked.contains(key) {
                self.settle(Settlement::ParkBehind { sequence: message.sequence });
            } else if self.lanes[id].is_full() {
                self.spill_from(id, message.sequence);
                full.insert(id);
                continue;
            } else {
                let due = message.wait.map(|wait| clock::after(now, wait));
                let sequence = message.sequence;
                self.push(id, message, due, now);
                self.spill_from(id, sequence + 1);
                continue;
            }
            self.spill_from(id, message.sequence + 1);
        }
        self.advance(want, read_to, &full);
    }

    /// What a lane has spilled, if this refill began after that and reads it from its beginning.
    fn served(&self, id: usize, want: &Want) -> Option<Spill> {
        self.lanes[id]
            .spilled
            .filter(|spill| spill.stamp <= want.stamp && spill.from > want.fetch.after)
    }

    /// All lanes this refill served know now that nothing of theirs is up to `read_to` but what they took.
    fn advance(&mut self, want: &Want, read_to: u64, full: &HashSet<usize>) {
        for id in 0..self.lanes.len() {
            if full.contains(&id) {
                self.update_hunger(id);
                continue;
            }
            let Some(spill) = self.served(id, want) else { continue };
            if spill.from > read_to + 1 {
                continue;
            }
            if read_to >= self.cursor {
                self.lanes[id].spilled = None;
                if self.lanes[id].state == State::Empty {
                    self.remove(id);
                    continue;
                }
            } else {
                self.spill_from(id, read_to + 1);
            }
            self.update_hunger(id);
        }
    }

    fn spill_from(&mut self, id: usize, from: u64) {
        if let Some(spill) = &mut self.lanes[id].spilled {
            spill.from = from;
        }
        self.update_hunger(id);
    }

    /// A parked key is served again, from this sequence on.
    fn resume(&mut self, key: &Key, from: u64) {
        if !self.parked.remove(key) || from > self.cursor {
            return;
        }
        let id = self.lane_of(key);
        // Only a refill that begins from now on sees the messages that came back.
        self.lanes[id].spilled = Some(Spill { from, stamp: self.stamp + 1 });
        self.update_hunger(id);
    }
}
