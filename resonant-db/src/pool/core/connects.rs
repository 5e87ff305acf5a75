//! When to open a connection, and what a failure to open one means for those who wait.

use std::time::Duration;

use rand::RngExt;
use tokio::time::Instant;

use super::slots::State;
use super::{Core, Grant, Refusal};
use crate::Error;

/// How long callers are spared a transient connect failure while nothing is open. After it, failures are reported at
/// once: a server that restarts within it is never noticed, one that is gone is named in well under a second.
const PATIENCE: Duration = Duration::from_millis(500);

/// No connect has succeeded since.
#[derive(Debug, Clone)]
pub(crate) struct Outage {
    pub(crate) since: Instant,
    pub(crate) failures: u32,
    pub(crate) next_attempt: Instant,
    pub(crate) cause: Error,
}

impl Outage {
    /// Whether waiting any longer is pointless.
    fn is_certain(&self, now: Instant) -> bool {
        !self.cause.is_transient() || now.saturating_duration_since(self.since) >= PATIENCE
    }
}

/// What else a connect that has succeeded means.
#[derive(Debug)]
#[must_use]
pub(crate) struct Connected<C> {
    /// The idle connection it replaces, to be closed.
    pub(crate) replaced: Option<Grant<C>>,
    /// The outage it ends.
    pub(crate) ended: Option<Outage>,
}

/// What a failed connect means.
#[derive(Debug)]
#[must_use]
pub(crate) struct ConnectFailed<W> {
    /// Waiters who have been told.
    pub(crate) wakers: Vec<W>,
    /// This is the first failure in a row.
    pub(crate) began: bool,
}

impl<C, W> Core<C, W> {
    /// Whether a connection should be opened right now, and the slot reserved for it. Ask until it says no.
    pub(crate) fn reserve(&mut self, now: Instant) -> Option<u32> {
        let total = self.slots.total();
        let connecting = self.slots.count(State::Connecting);
        if self.closed || total >= self.config.max_size {
            return None;
        }
        match &self.outage {
            // While the server refuses, one attempt at a time asks whether it still does.
            Some(outage) if connecting > 0 || now < outage.next_attempt => return None,
            _ if connecting >= self.config.max_parallel_connects => return None,
            _ => {}
        }
        let coming = connecting + self.slots.count(State::Aside);
        if self.waiters.len() > coming || self.slots.open() + connecting < self.config.min_size {
            return Some(self.slots.reserve(now, self.epoch));
        }
        self.reserve_replacement(now)
    }

    /// Opens the successor of a connection that is past its age.
    fn reserve_replacement(&mut self, now: Instant) -> Option<u32> {
        if now < self.next_retirement {
            return None;
        }
        let worn = |state| matches!(state, State::Idle | State::Busy);
        let (old, id) = self
            .slots
            .iter()
            .filter(|(_, slot)| worn(slot.state) && !slot.succeeded && !slot.retire)
            .filter(|(_, slot)| slot.expires <= now)
            .min_by_key(|(_, slot)| slot.expires)
            .map(|(key, slot)| (key, slot.id))?;
        self.space_retirements(now);
        self.slots.get_mut(old).succeeded = true;
        let new = self.slots.reserve(now, self.epoch);
        self.slots.get_mut(new).replaces = Some((old, id));
        Some(new)
    }

    /// At `max_size` there is no room for a successor, so a connection past its age just goes, one at a time.
    pub(super) fn may_retire_unreplaced(&mut self, now: Instant) -> bool {
        let due = self.slots.total() >= self.config.max_size && now >= self.next_retirement;
        if due {
            self.space_retirements(now);
        }
        due
    }

    /// Spreads retirements, so that connections opened together do not go together.
    fn space_retirements(&mut self, now: Instant) {
        let gap = self.config.max_lifetime / 5 / self.slots.open().max(1);
        self.next_retirement = after(now, gap);
    }

    /// A connection has been opened for a reserved slot: it is to be [put](Core::put).
    pub(crate) fn connected(&mut self, slot: u32, now: Instant) -> Connected<C> {
        self.opened += 1;
        let life = self.config.max_lifetime.mul_f64(self.chance.random_range(0.75..1.0));
        let probe = self.config.health_check_interval.mul_f64(self.chance.random_range(0.8..1.0));
        let entry = self.slots.get_mut(slot);
        entry.expires = after(now, life);
        entry.checked = now;
        entry.probe_after = probe;
        let replaces = entry.replaces.take();
        let replaced = replaces.and_then(|(old, id)| self.retire_slot(old, id));
        Connected { replaced, ended: self.outage.take() }
    }

    fn retire_slot(&mut self, key: u32, id: u64) -> Option<Grant<C>> {
        let slot = self.slots.get_mut(key);
        if slot.id != id || slot.state == State::Free {
            return None;
        }
        slot.retire = true;
        self.take_idle(key).map(|grant| self.begin_closing(grant))
    }

    /// Takes a chosen idle connection out.
    pub(super) fn take_idle(&mut self, key: u32) -> Option<Grant<C>> {
        let place = self.idle.iter().position(|grant| grant.slot == key)?;
        Some(self.idle.remove(place))
    }

    /// Opening a connection for a reserved slot has failed. Those for whom waiting is pointless are told; nobody is
    /// while there are open connections that may come back.
    pub(crate) fn connect_failed(
        &mut self,
        slot: u32,
        cause: Error,
        now: Instant,
    ) -> ConnectFailed<W> {
        self.connect_failures += 1;
        if let Some((old, id)) = self.slots.get_mut(slot).replaces.take() {
            let old = self.slots.get_mut(old);
            if old.id == id {
                old.succeeded = false;
                self.next_retirement = now;
            }
        }
        self.slots.free(slot);
        let began = self.outage.is_none();
        let failures = self.outage.as_ref().map_or(0, |outage| outage.failures);
        let since = self.outage.as_ref().map_or(now, |outage| outage.since);
        let ceiling = self.config.connect_backoff.ceiling(failures);
        let mut wait = ceiling.mul_f64(self.chance.random_range(0.5..=1.0));
        let patience = (since + PATIENCE).saturating_duration_since(now);
        if !patience.is_zero() {
            // The attempt that makes the outage certain must not be late: callers wait for its verdict.
            wait = wait.min(patience);
        }
        let next_attempt = after(now, wait);
        let outage = Outage { since, failures: failures.saturating_add(1), next_attempt, cause };
        let certain = outage.is_certain(now);
        let cause = outage.cause.clone();
        self.outage = Some(outage);
        if self.slots.open() > 0 {
            return ConnectFailed { wakers: Vec::new(), began };
        }
        let wakers = self.waiters.resolve_where(|since| {
            let told = certain || now.saturating_duration_since(since) >= PATIENCE;
            told.then(|| Err(Refusal::Down { cause: cause.clone(), next_attempt }))
        });
        ConnectFailed { wakers, began }
    }

    /// Why nobody should wait now: nothing is open, and the next attempt to change that is still to come.
    pub(crate) fn refusal_while_down(&self, now: Instant) -> Option<Refusal> {
        let nothing = self.slots.open() == 0 && self.slots.count(State::Connecting) == 0;
        if nothing { self.certain_outage(now) } else { None }
    }

    pub(crate) fn outage(&self) -> Option<&Outage> {
        self.outage.as_ref()
    }

    /// Why nobody should wait for a new connection before the next attempt, whatever is open already.
    pub(crate) fn certain_outage(&self, now: Instant) -> Option<Refusal> {
        let outage = self.outage.as_ref()?;
        let (cause, next_attempt) = (outage.cause.clone(), outage.next_attempt);
        if now >= next_attempt || !outage.is_certain(now) {
            return None;
        }
        Some(Refusal::Down { cause, next_attempt })
    }

    /// Whether `min_size` connections are open.
    pub(crate) fn is_warm(&self) -> bool {
        self.slots.open() >= self.config.min_size
    }
}

/// `now + wait`, or so far off that it does not matter.
pub(crate) fn after(now: Instant, wait: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(60 * 60 * 24 * 365);
    now + wait.min(FAR)
}
