//! The decisions of a pool, without tasks, clocks or I/O.
//!
//! Every method takes `now` and says what is to be done; the shell in `shared.rs` does it after it has let go of the
//! lock. `C` is a connection and `W` whatever wakes a waiter, so tests use numbers for both.
//!
//! ```text
//!          reserve            connected             take
//!   Free ───────────▶ Connecting ─────────▶ Idle ─────────▶ Busy
//!    ▲                   │ failed            ▲ │ ▲            │ put, or forget (detached)
//!    │◀──────────────────┘      probed, back │ │ └────────────┤
//!    │                                       │ ▼              ▼
//!    │                          Probing, Aside       Cleaning ─▶ (put)
//!    │  forget                       │ failed
//!    └────────── Closing ◀───────────┴── retired, worn out, idle too long, over the limit, discarded
//! ```
//!
//! Whatever becomes available goes to the oldest waiter before it can be idle, so there is never a waiter while a
//! connection is idle, and nobody overtakes.

mod connects;
mod report;
mod slots;
mod upkeep;
mod waiters;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::Instant;

pub(crate) use self::connects::{Outage, after};
pub use self::report::{Holder, PoolStatus};
pub(crate) use self::slots::Site;
pub(crate) use self::upkeep::Chore;

use self::slots::{Slots, State};
use self::waiters::Waiters;
use super::config::PoolConfig;
use crate::Error;

/// A connection and the slot it lives in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Grant<C> {
    pub(crate) slot: u32,
    pub(crate) connection: C,
}

/// Why a caller gets no connection.
#[derive(Debug, Clone)]
pub(crate) enum Refusal {
    Closed,
    /// As many wait as may.
    Full,
    /// Nothing is open and nothing can be opened.
    Down {
        cause: Error,
        next_attempt: Instant,
    },
}

/// What a waiter ends with: a connection, its since the instant, or the reason why not.
pub(crate) type Outcome<C> = Result<(Grant<C>, Instant), Refusal>;

/// What became of a caller who did not find an idle connection at once.
#[derive(Debug)]
pub(crate) enum Enqueued<C> {
    /// There was one after all.
    Taken(Grant<C>),
    Queued(u32),
    Refused(Refusal),
}

/// What became of a connection that came back.
#[derive(Debug)]
#[must_use]
pub(crate) enum Put<C, W> {
    Parked,
    /// The oldest waiter has it: wake it.
    Handed(W),
    /// Close it, then [`Core::forget`] the slot.
    Close(Grant<C>),
    /// There have been rounds of retirement after this one while it was out: look at it, then say so with
    /// [`Core::passed`] and try again, or [`Core::begin_closing`].
    Look {
        grant: Grant<C>,
        after: u64,
        to: u64,
    },
}

pub(crate) struct Core<C, W> {
    config: PoolConfig,
    slots: Slots,
    /// Idle connections, the most recently used last.
    idle: Vec<Grant<C>>,
    waiters: Waiters<Outcome<C>, W>,
    outage: Option<Outage>,
    closed: bool,
    /// How many rounds of retirement there have been.
    epoch: u64,
    /// No connection is retired for its age before this.
    next_retirement: Instant,
    /// An idle connection failed its check at this time: the others are checked too.
    suspicion: Option<Instant>,
    chance: StdRng,
    opened: u64,
    closings: u64,
    timeouts: u64,
    connect_failures: u64,
    /// A task looks after what is due. Kept here because it is read under the same lock anyway.
    pub(crate) tended: bool,
}

impl<C, W> Core<C, W> {
    pub(crate) fn new(config: PoolConfig, now: Instant, seed: u64) -> Self {
        Self {
            config,
            slots: Slots::default(),
            idle: Vec::new(),
            waiters: Waiters::new(),
            outage: None,
            closed: false,
            epoch: 0,
            next_retirement: now,
            suspicion: None,
            chance: StdRng::seed_from_u64(seed),
            opened: 0,
            closings: 0,
            timeouts: 0,
            connect_failures: 0,
            tended: false,
        }
    }

    pub(crate) fn config(&self) -> &PoolConfig {
        &self.config
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Lends the most recently used idle connection, unless somebody waits already.
    #[inline]
    pub(crate) fn take(&mut self, now: Instant, site: Site) -> Option<Grant<C>> {
        if !self.waiters.is_empty() {
            return None;
        }
        let grant = self.idle.pop()?;
        self.lend(grant.slot, now, site);
        Some(grant)
    }

    #[inline]
    fn lend(&mut self, slot: u32, now: Instant, site: Site) {
        let epoch = self.epoch;
        let slot = self.slots.set(slot, State::Busy);
        slot.since = now;
        slot.site = Some(site);
        slot.epoch = epoch;
        slot.warned = false;
    }

    /// Lends an idle connection or joins the queue.
    pub(crate) fn enqueue(
        &mut self,
        now: Instant,
        site: Site,
        waker: impl FnOnce() -> W,
    ) -> Enqueued<C> {
        if self.closed {
            return Enqueued::Refused(Refusal::Closed);
        }
        if let Some(grant) = self.take(now, site) {
            return Enqueued::Taken(grant);
        }
        if self.waiters.len() >= self.config.max_waiting {
            return Enqueued::Refused(Refusal::Full);
        }
        match self.refusal_while_down(now) {
            Some(refusal) => Enqueued::Refused(refusal),
            None => Enqueued::Queued(self.waiters.push(now, site, waker())),
        }
    }

    /// The outcome of a wait, which ends it. While there is none, `refresh` may replace the waker.
    pub(crate) fn poll(&mut self, key: u32, refresh: impl FnOnce(&mut W)) -> Option<Outcome<C>> {
        self.waiters.poll(key, refresh)
    }

    /// Ends a wait early. A connection that had been handed over meanwhile is given back to be passed on.
    pub(crate) fn leave(&mut self, key: u32) -> Option<Grant<C>> {
        Some(self.waiters.remove(key)?.ok()?.0)
    }

    /// Takes back a connection that is fit for use.
    #[inline]
    pub(crate) fn put(&mut self, grant: Grant<C>, now: Instant) -> Put<C, W> {
        if self.must_go(grant.slot, now) {
            return Put::Close(self.begin_closing(grant));
        }
        let (after, to) = (self.slots.get(grant.slot).epoch, self.epoch);
        if after != to {
            return Put::Look { grant, after, to };
        }
        if let Some(turn) = self.waiters.pop() {
            self.lend(grant.slot, now, turn.site);
            self.waiters.resolve(turn.key, Ok((grant, now)));
            return Put::Handed(turn.waker);
        }
        self.slots.set(grant.slot, State::Idle).since = now;
        self.idle.push(grant);
        Put::Parked
    }

    /// Takes back a connection that was looked at while idle: its idle time goes on.
    pub(crate) fn put_back(&mut self, grant: Grant<C>, now: Instant) -> Put<C, W> {
        if !self.waiters.is_empty() || self.must_go(grant.slot, now) {
            return self.put(grant, now);
        }
        let (after, to) = (self.slots.get(grant.slot).epoch, self.epoch);
        if after != to {
            return Put::Look { grant, after, to };
        }
        let since = self.slots.set(grant.slot, State::Idle).since;
        let place = self.idle.partition_point(|other| self.slots.get(other.slot).since <= since);
        self.idle.insert(place, grant);
        Put::Parked
    }

    #[inline]
    fn must_go(&mut self, slot: u32, now: Instant) -> bool {
        let too_many = self.slots.staying() > self.config.max_size;
        let slot = self.slots.get(slot);
        if self.closed || slot.retire || too_many {
            return true;
        }
        slot.expires <= now && self.may_retire_unreplaced(now)
    }

    /// Marks a connection as going away. [`Core::forget`] its slot once that is confirmed.
    pub(crate) fn begin_closing(&mut self, grant: Grant<C>) -> Grant<C> {
        self.slots.set(grant.slot, State::Closing);
        self.closings += 1;
        grant
    }

    /// Marks a connection as being cleaned.
    pub(crate) fn begin_cleaning(&mut self, slot: u32, now: Instant) {
        self.slots.set(slot, State::Cleaning).since = now;
    }

    /// The connection of the slot has been looked at and may stay.
    pub(crate) fn passed(&mut self, slot: u32, epoch: u64) {
        self.slots.get_mut(slot).epoch = epoch;
    }

    /// The connection of the slot exists no more, or is no longer the pool's.
    pub(crate) fn forget(&mut self, slot: u32) {
        self.slots.free(slot);
    }

    /// Takes all idle connections out to be looked at, and begins a round of retirement: whatever is out now has to be
    /// looked at when it comes back. Give each back to [`Core::put_back`] or [`Core::begin_closing`].
    pub(crate) fn set_aside(&mut self) -> Vec<Grant<C>> {
        self.epoch += 1;
        let epoch = self.epoch;
        for grant in &self.idle {
            self.slots.set(grant.slot, State::Aside).epoch = epoch;
        }
        std::mem::take(&mut self.idle)
    }

    /// The latest round of retirement.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The oldest round of retirement that a connection has yet to pass.
    pub(crate) fn oldest_epoch(&self) -> u64 {
        let out = self
            .slots
            .iter()
            .filter(|(_, slot)| !matches!(slot.state, State::Idle | State::Aside | State::Closing));
        out.map(|(_, slot)| slot.epoch).min().unwrap_or(self.epoch)
    }

    /// Uses new settings from now on. What is above a lowered `max_size` goes as it comes back, or when
    /// [`Core::chore`] is next asked.
    pub(crate) fn reconfigure(&mut self, config: PoolConfig) {
        self.config = config;
    }

    /// Lets nobody in any more. Wake the waiters; close the idle connections.
    pub(crate) fn close(&mut self) -> (Vec<W>, Vec<Grant<C>>) {
        self.closed = true;
        let wakers = self.waiters.resolve_where(|_| Some(Err(Refusal::Closed)));
        let idle = std::mem::take(&mut self.idle);
        (wakers, idle.into_iter().map(|grant| self.begin_closing(grant)).collect())
    }

    pub(crate) fn count_timeout(&mut self) {
        self.timeouts += 1;
    }
}
