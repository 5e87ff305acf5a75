//! What falls due as time passes: idle connections to close or check, holders to name.

use std::time::Duration;

use tokio::time::Instant;

use super::connects::after;
use super::report::Holder;
use super::slots::{Slot, State};
use super::{Core, Grant};

/// The most idle connections checked at once.
const PARALLEL_PROBES: u32 = 8;

/// What is due but cannot be done yet is looked at again after this.
const SHORTEST_NAP: Duration = Duration::from_millis(5);

/// One thing to do.
#[derive(Debug)]
pub(crate) enum Chore<C> {
    /// Close it, then [`Core::forget`] the slot.
    Close(Grant<C>),
    /// Check it, then [`Core::probed`] or [`Core::probe_failed`].
    Probe(Grant<C>),
    /// Somebody has held a connection for too long.
    Leak(Holder),
}

impl<C, W> Core<C, W> {
    /// The next thing that is due. Ask until there is none, then [`Core::reserve`], then sleep until
    /// [`Core::next_due`].
    pub(crate) fn chore(&mut self, now: Instant) -> Option<Chore<C>> {
        if let Some(key) = self.idle_to_close(now) {
            let grant = self.take_idle(key)?;
            return Some(Chore::Close(self.begin_closing(grant)));
        }
        if self.slots.count(State::Probing) < PARALLEL_PROBES
            && let Some(key) = self.idle_to_probe(now)
        {
            self.slots.set(key, State::Probing);
            return self.take_idle(key).map(Chore::Probe);
        }
        self.leak(now).map(Chore::Leak)
    }

    fn idle_to_close(&mut self, now: Instant) -> Option<u32> {
        let oldest = self.idle.first()?.slot;
        if self.slots.staying() > self.config.max_size {
            return Some(oldest);
        }
        let idle_until = after(self.slots.get(oldest).since, self.config.max_idle_time);
        if idle_until <= now && self.slots.open() > self.config.min_size {
            return Some(oldest);
        }
        let worn = self.idle.iter().find(|grant| self.slots.get(grant.slot).expires <= now)?.slot;
        self.may_retire_unreplaced(now).then_some(worn)
    }

    fn idle_to_probe(&self, now: Instant) -> Option<u32> {
        let mut idle = self.idle.iter().map(|grant| grant.slot);
        idle.find(|key| self.probe_due(self.slots.get(*key)) <= now)
    }

    fn probe_due(&self, slot: &Slot) -> Instant {
        let proven = slot.since.max(slot.checked);
        match self.suspicion {
            Some(suspicion) if proven < suspicion => suspicion,
            _ => after(proven, slot.probe_after),
        }
    }

    fn leak(&mut self, now: Instant) -> Option<Holder> {
        let (limit, busy) = (self.config.leak_warning_after, State::Busy);
        let leaked =
            |slot: &Slot| slot.state == busy && !slot.warned && after(slot.since, limit) <= now;
        let key = self.slots.iter().find(|(_, slot)| leaked(slot))?.0;
        let slot = self.slots.get_mut(key);
        slot.warned = true;
        Holder::of(slot, now)
    }

    /// An idle connection has been checked and works.
    pub(crate) fn probed(&mut self, grant: Grant<C>, now: Instant) -> super::Put<C, W> {
        self.slots.get_mut(grant.slot).checked = now;
        self.put_back(grant, now)
    }

    /// An idle connection has failed its check. Close it, then [`Core::forget`] the slot. The others are due for a
    /// check at once: what broke one has often broken all.
    pub(crate) fn probe_failed(&mut self, grant: Grant<C>, now: Instant) -> Grant<C> {
        self.suspicion = Some(now);
        self.begin_closing(grant)
    }

    /// When [`Core::chore`] or [`Core::reserve`] next has something to say that no other event will bring up; at the
    /// latest after `most`.
    pub(crate) fn next_due(&self, now: Instant, most: Duration) -> Instant {
        let mut due = after(now, most);
        if let Some(outage) = &self.outage
            && outage.next_attempt > now
        {
            due = due.min(outage.next_attempt);
        }
        if let Some(oldest) = self.idle.first()
            && self.slots.open() > self.config.min_size
        {
            let since = self.slots.get(oldest.slot).since;
            due = due.min(after(since, self.config.max_idle_time));
        }
        let room = self.slots.total() < self.config.max_size;
        for (_, slot) in self.slots.iter() {
            let ages = slot.state == State::Idle || (slot.state == State::Busy && room);
            if ages && !slot.succeeded && !slot.retire {
                due = due.min(slot.expires.max(self.next_retirement));
            }
            if slot.state == State::Idle && self.slots.count(State::Probing) < PARALLEL_PROBES {
                due = due.min(self.probe_due(slot));
            }
            if slot.state == State::Busy && !slot.warned {
                due = due.min(after(slot.since, self.config.leak_warning_after));
            }
        }
        due.max(now + SHORTEST_NAP)
    }
}
