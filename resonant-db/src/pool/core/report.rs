//! What a pool says about itself.

use std::fmt;
use std::panic::Location;
use std::time::Duration;

use tokio::time::Instant;

use super::Core;
use super::slots::{Slot, State};

/// A snapshot of a pool, taken under its lock: the numbers belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStatus {
    /// Open and free.
    pub idle: u32,
    /// Lent to callers.
    pub busy: u32,
    /// Being opened.
    pub connecting: u32,
    /// Being checked in the background.
    pub checking: u32,
    /// Being made fit for the next caller.
    pub cleaning: u32,
    /// Going away.
    pub closing: u32,
    /// Callers in the queue.
    pub waiting: u32,
    /// How long the first of them has been waiting.
    pub oldest_wait: Option<Duration>,
    /// The present setting.
    pub min_size: u32,
    /// The present setting.
    pub max_size: u32,
    /// Connections opened so far.
    pub opened: u64,
    /// Connections the pool has closed so far.
    pub closed: u64,
    /// Connects that failed so far.
    pub connect_failures: u64,
    /// Callers that waited too long so far.
    pub timeouts: u64,
    /// Why connecting fails, while it does.
    pub outage: Option<String>,
    /// Whether the pool has been closed.
    pub is_closed: bool,
}

impl PoolStatus {
    /// Connections that are open and are not going away.
    pub fn open(&self) -> u32 {
        self.idle + self.busy + self.checking + self.cleaning
    }

    /// Everything that counts against `max_size`.
    pub fn total(&self) -> u32 {
        self.idle + self.busy + self.connecting + self.checking + self.cleaning + self.closing
    }
}

/// Somebody who holds a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// Where in the code it was taken.
    pub site: &'static Location<'static>,
    /// For how long it has been held.
    pub held: Duration,
}

impl Holder {
    pub(super) fn of(slot: &Slot, now: Instant) -> Option<Self> {
        Some(Self { site: slot.site?, held: now.saturating_duration_since(slot.since) })
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {:.1?}", self.site, self.held)
    }
}

impl<C, W> Core<C, W> {
    pub(crate) fn status(&self, now: Instant) -> PoolStatus {
        let oldest = self.waiters.oldest();
        PoolStatus {
            idle: self.slots.count(State::Idle),
            busy: self.slots.count(State::Busy),
            connecting: self.slots.count(State::Connecting),
            checking: self.slots.count(State::Probing) + self.slots.count(State::Aside),
            cleaning: self.slots.count(State::Cleaning),
            closing: self.slots.count(State::Closing),
            waiting: self.waiters.len(),
            oldest_wait: oldest.map(|since| now.saturating_duration_since(since)),
            min_size: self.config.min_size,
            max_size: self.config.max_size,
            opened: self.opened,
            closed: self.closings,
            connect_failures: self.connect_failures,
            timeouts: self.timeouts,
            outage: self.outage.as_ref().map(|outage| outage.cause.to_string()),
            is_closed: self.closed,
        }
    }

    /// Who holds connections, the longest first.
    pub(crate) fn holders(&self, now: Instant) -> Vec<Holder> {
        let busy = self.slots.iter().filter(|(_, slot)| slot.state == State::Busy);
        let mut holders: Vec<_> = busy.filter_map(|(_, slot)| Holder::of(slot, now)).collect();
        holders.sort_by_key(|holder| std::cmp::Reverse(holder.held));
        holders
    }
}
