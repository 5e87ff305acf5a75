//! The queue and its decisions: which item joins which batch, which batch may run now, who has to wait at the door.
//!
//! Pure: it takes the time and returns what to do; it never waits, wakes, spawns or locks. Every operation costs the same
//! however many keys are active. The shell (`desk`, `worker`) calls it under one lock.
//!
//! Invariants, checked by the property tests beside this file:
//!
//! - no batch exceeds a cap, and one batch holds items of one key only;
//! - a key stands in `ready` exactly if its oldest batch may be dispatched and the key may have one more in flight;
//! - a key stands in `timed` exactly if its youngest batch waits for its time;
//! - somebody waits at the door only while the queue is full, so nobody overtakes the line.

mod batch;
mod epochs;
mod flights;
mod keys;
mod list;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

pub(crate) use self::batch::{Places, Request, Seat, Taken, Ticket, Trigger};
pub(crate) use self::flights::{ByIdentity, Flights};

use self::batch::Batch;
use self::epochs::Epochs;
use self::keys::Keys;
use self::list::List;

use crate::key::Key;

/// Where the outcomes of one batch are collected. A clone is the same lot.
pub(crate) trait Lot: Clone {
    /// A new one, for about `hint` items. `waker` is whom the outcome of the first one wakes.
    fn open(hint: usize, waker: Option<Waker>) -> Self;
}

/// Somebody who waits at the door because the queue is full.
pub(crate) trait Guest<C> {
    /// One more of the guest's items was accepted.
    fn seat(&self, seat: Seat<C>);
}

/// The caps. All hard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) items: usize,
    pub(crate) weight: u64,
    pub(crate) queued: usize,
    pub(crate) in_flight: usize,
    pub(crate) in_flight_per_key: usize,
}

#[derive(Debug)]
struct Waiting<K, I, G> {
    requests: VecDeque<Request<K, I>>,
    guest: G,
}

#[derive(Debug)]
pub(crate) struct Core<K, I, C, G> {
    limits: Limits,
    /// How long a batch waits for company; `None` is `Policy::Idle`.
    linger: Option<Duration>,
    keys: Keys<K, I, C>,
    ready: List,
    timed: List,
    epochs: Epochs,
    waiting: BTreeMap<u64, Waiting<K, I, G>>,
    flights: Option<Box<dyn Flights<K, I, C>>>,
    queued: usize,
    running: usize,
    closed: bool,
    next_batch: u64,
    next_guest: u64,
    /// Items of the last batch: what the next one reserves.
    hint: usize,
    /// Items that joined an equal one since somebody asked.
    shared: u64,
}

impl<K: Key, I, C: Lot, G: Guest<C>> Core<K, I, C, G> {
    pub(crate) fn new(
        limits: Limits,
        linger: Option<Duration>,
        flights: Option<Box<dyn Flights<K, I, C>>>,
    ) -> Self {
        Self {
            limits,
            linger,
            keys: Keys::new(),
            ready: List::new(),
            timed: List::new(),
            epochs: Epochs::new(),
            waiting: BTreeMap::new(),
            flights,
            queued: 0,
            running: 0,
            closed: false,
            next_batch: 0,
            next_guest: 0,
            hint: 0,
            shared: 0,
        }
    }

    /// Accepts an item, or hands it back because the queue is full or others wait already. The caller has checked that
    /// the queue is open and that the item is not too heavy for any batch.
    #[inline]
    pub(crate) fn offer(
        &mut self,
        request: Request<K, I>,
        clock: impl Fn() -> Instant,
    ) -> Result<Seat<C>, Request<K, I>> {
        if let Some(seat) = self.join(&request) {
            return Ok(seat);
        }
        if self.queued >= self.limits.queued {
            return Err(request);
        }
        Ok(self.enter(request, clock))
    }

    /// Puts a guest with its items at the end of the line; they come in as soon as there is room, whoever polls.
    pub(crate) fn wait(&mut self, requests: VecDeque<Request<K, I>>, guest: G) -> u64 {
        let ticket = self.next_guest;
        self.next_guest += 1;
        self.waiting.insert(ticket, Waiting { requests, guest });
        ticket
    }

    /// A guest goes; what had not come in yet is handed back.
    pub(crate) fn unwait(&mut self, ticket: u64) -> VecDeque<Request<K, I>> {
        self.waiting.remove(&ticket).map(|waiting| waiting.requests).unwrap_or_default()
    }

    /// The submitter of a seat is gone. Items nobody waits for any more are handed back through `removed`.
    pub(crate) fn leave(
        &mut self,
        seat: &Seat<C>,
        removed: &mut Vec<I>,
        clock: impl Fn() -> Instant,
    ) {
        let Some(queue) = self.keys.get_mut(seat.slot) else { return };
        let Ok(position) = queue.batches.binary_search_by_key(&seat.batch, |batch| batch.id) else {
            return;
        };
        let batch = &mut queue.batches[position];
        for place in seat.start..seat.start + seat.len {
            let Some(left) = batch.leave(place) else { continue };
            self.queued -= 1;
            removed.push(left.item);
            if let (Some(flight), Some(flights)) = (left.flight, &mut self.flights) {
                flights.end(flight);
            }
        }
        if batch.live == 0 {
            let epoch = batch.epoch;
            if position + 1 == queue.batches.len() {
                self.timed.remove(seat.slot);
            }
            queue.batches.remove(position);
            self.epochs.ended(epoch);
        }
        self.list(seat.slot);
        self.keys.rest_if_idle(seat.slot);
        self.admit(clock);
    }

    /// The next batch to process, if one may run now. Keys take turns.
    #[inline]
    pub(crate) fn take(&mut self, clock: impl Fn() -> Instant) -> Option<Taken<K, I, C>> {
        if self.running >= self.limits.in_flight {
            return None;
        }
        if !self.timed.is_empty() {
            self.tick(clock());
        }
        let slot = self.ready.first()?;
        self.ready.remove(slot);
        let queue = self.keys.get_mut(slot)?;
        let batch = queue.batches.pop_front()?;
        queue.running += 1;
        if queue.batches.is_empty() {
            self.timed.remove(slot);
        }
        let key = queue.key.clone();
        self.running += 1;
        self.queued -= batch.live;
        self.hint = batch.len();
        let current = self.epochs.current();
        let trigger = batch.trigger.unwrap_or(match batch.epoch {
            _ if self.closed => Trigger::Drain,
            epoch if epoch < current => Trigger::Flush,
            _ => Trigger::Idle,
        });
        self.list(slot);
        self.admit(clock);
        Some(batch.into_taken(key, slot, trigger))
    }

    /// A batch is done and its slot free.
    #[inline]
    pub(crate) fn finish(&mut self, ticket: Ticket) {
        self.running -= 1;
        if let Some(queue) = self.keys.get_mut(ticket.slot) {
            queue.running -= 1;
        }
        self.epochs.ended(ticket.epoch);
        if let Some(flights) = &mut self.flights {
            ticket.flights.iter().flatten().for_each(|flight| flights.end(*flight));
        }
        self.list(ticket.slot);
        self.keys.rest_if_idle(ticket.slot);
    }

    /// Whether a batch may run now, as far as known without looking at the time.
    #[inline]
    pub(crate) fn has_ready(&self) -> bool {
        self.running < self.limits.in_flight && !self.ready.is_empty()
    }

    /// Whether one item stands alone, and the one before did too: nobody else seems to be around.
    #[inline]
    pub(crate) fn is_lone(&self) -> bool {
        self.queued == 1 && self.hint <= 1
    }

    /// When the next batch is due, if one waits for its time.
    #[inline]
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.keys.get(self.timed.first()?)?.batches.back()?.due
    }

    /// Makes everything accepted so far due. Returns what to wait for, or nothing if there is nothing.
    pub(crate) fn flush(&mut self, now: Instant) -> Option<u64> {
        let epoch = self.epochs.flush();
        self.tick(now);
        epoch
    }

    /// Whether a flush is complete.
    pub(crate) fn settled(&self, epoch: u64) -> bool {
        self.epochs.settled(epoch)
    }

    /// Closes the door: everything accepted becomes due, those in line are sent home.
    pub(crate) fn close(&mut self, now: Instant) -> Vec<(G, VecDeque<Request<K, I>>)> {
        self.closed = true;
        self.tick(now);
        let waiting = std::mem::take(&mut self.waiting);
        waiting.into_values().map(|waiting| (waiting.guest, waiting.requests)).collect()
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Throws out everything that is not running yet.
    pub(crate) fn abandon(&mut self) -> Vec<Abandoned<I, C>> {
        let mut abandoned = Vec::new();
        for slot in self.keys.active() {
            let Some(queue) = self.keys.get_mut(slot) else { continue };
            for batch in std::mem::take(&mut queue.batches) {
                self.epochs.ended(batch.epoch);
                self.queued -= batch.live;
                let Taken { items, lot, ticket, .. } = batch.into_taken((), slot, Trigger::Drain);
                if let Some(flights) = &mut self.flights {
                    ticket.flights.iter().flatten().for_each(|flight| flights.end(*flight));
                }
                abandoned.push(Abandoned { lot, items });
            }
            self.timed.remove(slot);
            self.list(slot);
            self.keys.rest_if_idle(slot);
        }
        abandoned
    }

    /// Nothing queued, nothing running.
    pub(crate) fn is_empty(&self) -> bool {
        self.epochs.is_empty()
    }

    /// How many items joined an equal one since the last call.
    #[inline]
    pub(crate) fn take_shared(&mut self) -> u64 {
        std::mem::take(&mut self.shared)
    }

    /// Batches being processed.
    #[inline]
    pub(crate) fn running(&self) -> usize {
        self.running
    }

    pub(crate) fn level(&self) -> Level {
        Level {
            queued: self.queued,
            waiting: self.waiting.len(),
            running: self.running,
            keys: self.keys.len(),
            closed: self.closed,
        }
    }

    /// A seat at an equal item that is on its way already, if there is one.
    #[inline]
    fn join(&mut self, request: &Request<K, I>) -> Option<Seat<C>> {
        let flights = self.flights.as_mut()?;
        let seat = flights.find(&request.key, &request.item)?;
        // It may have left the queue; then it is running, and nothing is to be counted.
        if let Some(queue) = self.keys.get_mut(seat.slot)
            && let Ok(position) = queue.batches.binary_search_by_key(&seat.batch, |batch| batch.id)
        {
            queue.batches[position].join(seat.start);
        }
        self.shared += 1;
        Some(seat)
    }

    /// Puts an item into the youngest batch of its key, or opens the next.
    #[inline]
    fn enter(&mut self, request: Request<K, I>, clock: impl Fn() -> Instant) -> Seat<C> {
        let Request { key, item, weight, caller, waker } = request;
        let limits = self.limits;
        let current = self.epochs.current();
        let (slot, queue) = self.keys.queue(key);
        let (mut changed, mut told) = (false, false);

        let fits = |batch: &Batch<I, C>| {
            batch.epoch == current
                && batch.len() < limits.items
                && batch.weight().saturating_add(weight) <= limits.weight
        };
        if !queue.batches.back().is_some_and(fits) {
            if let Some(sealed) = queue.batches.back_mut() {
                sealed.trigger =
                    sealed.trigger.or((sealed.epoch == current).then_some(Trigger::Weight));
            }
            let now = clock();
            let due = self.linger.map(|linger| now + linger);
            told = waker.is_some();
            queue.batches.push_back(Batch::open(
                self.next_batch,
                self.epochs.opened(),
                now,
                due,
                self.hint,
                waker,
            ));
            self.next_batch += 1;
            self.timed.remove(slot);
            if due.is_some() {
                self.timed.push(slot);
            }
            changed = true;
        }
        let youngest = queue.batches.len() - 1;
        let batch = &mut queue.batches[youngest];
        let (lot, start) = (batch.lot.clone(), batch.len());
        let seat = Seat { lot, slot, batch: batch.id, start, len: 1, told };
        let flight = self.flights.as_mut().map(|flights| flights.start(&queue.key, &item, &seat));
        batch.push(item, weight, flight, caller);
        if batch.len() == limits.items || batch.weight() == limits.weight {
            let trigger = if batch.len() == limits.items { Trigger::Full } else { Trigger::Weight };
            batch.trigger = batch.trigger.or(Some(trigger));
            self.timed.remove(slot);
            changed = true;
        }
        self.queued += 1;
        if changed {
            self.list(slot);
        }
        seat
    }

    /// Lets those in line come in, oldest first, while there is room.
    #[inline]
    fn admit(&mut self, clock: impl Fn() -> Instant) {
        while self.queued < self.limits.queued {
            let Some(mut first) = self.waiting.first_entry() else { return };
            let Some(request) = first.get_mut().requests.pop_front() else {
                first.remove();
                continue;
            };
            let ticket = *first.key();
            let seat = match self.join(&request) {
                Some(seat) => seat,
                None => self.enter(request, &clock),
            };
            if let Some(waiting) = self.waiting.get(&ticket) {
                waiting.guest.seat(seat);
                if waiting.requests.is_empty() {
                    self.waiting.remove(&ticket);
                }
            }
        }
    }

    /// Marks the batches whose time has come.
    pub(crate) fn tick(&mut self, now: Instant) {
        let current = self.epochs.current();
        while let Some(slot) = self.timed.first() {
            if let Some(batch) = self.keys.get_mut(slot).and_then(|queue| queue.batches.back_mut())
            {
                let trigger = if self.closed {
                    Trigger::Drain
                } else if batch.epoch < current {
                    Trigger::Flush
                } else if batch.due.is_none_or(|due| due <= now) {
                    Trigger::Linger
                } else {
                    return;
                };
                batch.trigger = batch.trigger.or(Some(trigger));
            }
            self.timed.remove(slot);
            self.list(slot);
        }
    }

    /// Keeps the first invariant of `ready` for one key.
    #[inline]
    fn list(&mut self, slot: usize) {
        let may_run = self.keys.get(slot).is_some_and(|queue| {
            // A batch with another behind it has its trigger: it was full, too heavy, or flushed.
            let dispatchable =
                |batch: &Batch<I, C>| self.linger.is_none() || batch.trigger.is_some();
            queue.running < self.limits.in_flight_per_key
                && queue.batches.front().is_some_and(dispatchable)
        });
        if may_run { self.ready.push(slot) } else { self.ready.remove(slot) }
    }
}

/// A batch thrown out before it ran.
#[derive(Debug)]
pub(crate) struct Abandoned<I, C> {
    pub(crate) lot: C,
    pub(crate) items: Vec<I>,
}

/// How full it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Level {
    pub(crate) queued: usize,
    pub(crate) waiting: usize,
    pub(crate) running: usize,
    pub(crate) keys: usize,
    pub(crate) closed: bool,
}
