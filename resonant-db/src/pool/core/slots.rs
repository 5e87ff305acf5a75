//! The places connections live in: what state each is in, since when, and who holds it.

use std::panic::Location;
use std::time::Duration;

use tokio::time::Instant;

pub(crate) type Site = &'static Location<'static>;

/// What a slot is occupied by. All but `Free` count against `max_size`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Free,
    /// Reserved; somebody is opening a connection for it.
    Connecting,
    Idle,
    /// Lent, or handed to a waiter that has not picked it up yet.
    Busy,
    /// Taken out for a moment to be looked at; comes back at once.
    Aside,
    /// Being checked in the background.
    Probing,
    /// Being made fit for the next caller.
    Cleaning,
    /// Going away; the other side has not confirmed yet.
    Closing,
}

const STATES: usize = State::Closing as usize + 1;

#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) state: State,
    /// Tells the connections apart that a slot has had.
    pub(crate) id: u64,
    /// When the present state began. An idle connection that is probed or set aside keeps its idle time.
    pub(crate) since: Instant,
    /// Who holds it.
    pub(crate) site: Option<Site>,
    pub(crate) expires: Instant,
    /// When it last proved to work without being lent.
    pub(crate) checked: Instant,
    pub(crate) probe_after: Duration,
    /// The round of retirement it has passed.
    pub(crate) epoch: u64,
    /// Closed on its next way through the core.
    pub(crate) retire: bool,
    /// The leak warning has been given.
    pub(crate) warned: bool,
    /// A replacement is being opened.
    pub(crate) succeeded: bool,
    /// The connection this one is to replace.
    pub(crate) replaces: Option<(u32, u64)>,
}

#[derive(Debug, Default)]
pub(crate) struct Slots {
    all: Vec<Slot>,
    free: Vec<u32>,
    counts: [u32; STATES],
    next_id: u64,
}

impl Slots {
    /// Takes a free slot for a connection that is about to be opened.
    pub(crate) fn reserve(&mut self, now: Instant, epoch: u64) -> u32 {
        self.next_id += 1;
        let slot = Slot {
            state: State::Connecting,
            id: self.next_id,
            since: now,
            site: None,
            expires: now,
            checked: now,
            probe_after: Duration::ZERO,
            epoch,
            retire: false,
            warned: false,
            succeeded: false,
            replaces: None,
        };
        self.counts[State::Connecting as usize] += 1;
        if let Some(key) = self.free.pop() {
            self.counts[State::Free as usize] -= 1;
            self.all[key as usize] = slot;
            key
        } else {
            self.all.push(slot);
            u32::try_from(self.all.len() - 1).unwrap_or(u32::MAX)
        }
    }

    pub(crate) fn free(&mut self, key: u32) {
        if self.all[key as usize].state != State::Free {
            self.set(key, State::Free);
            self.free.push(key);
        }
    }

    pub(crate) fn set(&mut self, key: u32, state: State) -> &mut Slot {
        let slot = &mut self.all[key as usize];
        self.counts[slot.state as usize] -= 1;
        self.counts[state as usize] += 1;
        slot.state = state;
        slot
    }

    pub(crate) fn get(&self, key: u32) -> &Slot {
        &self.all[key as usize]
    }

    pub(crate) fn get_mut(&mut self, key: u32) -> &mut Slot {
        &mut self.all[key as usize]
    }

    pub(crate) fn count(&self, state: State) -> u32 {
        self.counts[state as usize]
    }

    /// All that count against `max_size`.
    pub(crate) fn total(&self) -> u32 {
        let all = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        all - self.count(State::Free)
    }

    /// All that are not going away.
    pub(crate) fn staying(&self) -> u32 {
        self.total() - self.count(State::Closing)
    }

    /// Connections that are open and are not going away.
    pub(crate) fn open(&self) -> u32 {
        self.staying() - self.count(State::Connecting)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Slot)> {
        (0..).zip(&self.all).filter(|(_, slot)| slot.state != State::Free)
    }
}
