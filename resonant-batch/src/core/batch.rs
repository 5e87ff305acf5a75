//! One batch while it is queued, and what leaves the queue.

use std::collections::VecDeque;
use std::task::Waker;

use tokio::time::Instant;

use super::Lot;
use crate::output::Outcomes;
use crate::trace::{Caller, Callers};

/// An item on its way in.
#[derive(Debug)]
pub(crate) struct Request<K, I> {
    pub(crate) key: K,
    pub(crate) item: I,
    pub(crate) weight: u64,
    /// Who submits it, where somebody traces.
    pub(crate) caller: Caller,
    /// Whom to wake, where that is known already: a lot that is opened for the item takes it along.
    pub(crate) waker: Option<Waker>,
}

/// Where an accepted item (or several in a row) is: the lot that will hold its outcome, and how to find it in the queue.
#[derive(Debug)]
pub(crate) struct Seat<C> {
    pub(crate) lot: C,
    pub(crate) slot: usize,
    pub(crate) batch: u64,
    pub(crate) start: usize,
    pub(crate) len: usize,
    /// The lot was opened with the submitter's waker.
    pub(crate) told: bool,
}

impl<C: Lot> Seat<C> {
    /// The same seat, for somebody else.
    pub(crate) fn again(&self) -> Self {
        Self { lot: self.lot.clone(), told: false, ..*self }
    }

    /// Takes over `next` if it follows directly in the same batch.
    pub(crate) fn extend(&mut self, next: Seat<C>) -> Option<Seat<C>> {
        if self.batch == next.batch && self.start + self.len == next.start {
            self.len += next.len;
            return None;
        }
        Some(next)
    }
}

/// What set a batch off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Trigger {
    Full,
    Weight,
    Linger,
    Idle,
    Flush,
    Drain,
}

/// An item that waits.
#[derive(Debug)]
pub(super) struct Entry<I> {
    item: I,
    weight: u64,
    /// How many submitters wait for it: more than one only when equal items share a flight.
    interest: usize,
    flight: Option<u64>,
    caller: Caller,
}

/// What `leave` took out of a batch.
pub(super) struct Left<I> {
    pub(super) item: I,
    pub(super) flight: Option<u64>,
}

/// A queued batch. Items that left before dispatch leave a hole, so that the others keep their places.
#[derive(Debug)]
pub(super) struct Batch<I, C> {
    pub(super) id: u64,
    pub(super) epoch: u64,
    pub(super) opened: Instant,
    /// When it is due although not full; only under `Policy::Fixed`.
    pub(super) due: Option<Instant>,
    /// Set once it may be dispatched although the policy would let it wait.
    pub(super) trigger: Option<Trigger>,
    pub(super) lot: C,
    pub(super) live: usize,
    entries: Vec<Option<Entry<I>>>,
    weight: u64,
    has_flights: bool,
    has_callers: bool,
}

impl<I, C: Lot> Batch<I, C> {
    #[inline]
    pub(super) fn open(
        id: u64,
        epoch: u64,
        opened: Instant,
        due: Option<Instant>,
        hint: usize,
        waker: Option<Waker>,
    ) -> Self {
        Self {
            id,
            epoch,
            opened,
            due,
            trigger: None,
            lot: C::open(hint, waker),
            live: 0,
            entries: Vec::with_capacity(hint),
            weight: 0,
            has_flights: false,
            has_callers: false,
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    #[inline]
    pub(super) fn weight(&self) -> u64 {
        self.weight
    }

    /// Adds an item; its place is the length before.
    #[inline]
    pub(super) fn push(&mut self, item: I, weight: u64, flight: Option<u64>, caller: Caller) {
        self.has_flights |= flight.is_some();
        self.has_callers |= caller.is_some();
        self.entries.push(Some(Entry { item, weight, interest: 1, flight, caller }));
        self.live += 1;
        self.weight += weight;
    }

    /// One more submitter waits for the item at `place`.
    pub(super) fn join(&mut self, place: usize) {
        if let Some(Some(entry)) = self.entries.get_mut(place) {
            entry.interest += 1;
        }
    }

    /// A submitter of the item at `place` is gone; the last one takes the item out.
    pub(super) fn leave(&mut self, place: usize) -> Option<Left<I>> {
        let entry = self.entries.get_mut(place)?;
        let waiting = entry.as_mut()?;
        waiting.interest -= 1;
        if waiting.interest > 0 {
            return None;
        }
        let Entry { item, weight, flight, .. } = entry.take()?;
        self.live -= 1;
        self.weight -= weight;
        // Places at the end are free again, so that a caller who comes and goes cannot fill the batch with holes.
        while let Some(None) = self.entries.last() {
            self.entries.pop();
        }
        Some(Left { item, flight })
    }

    #[inline]
    pub(super) fn into_taken<K>(mut self, key: K, slot: usize, trigger: Trigger) -> Taken<K, I, C> {
        let len = self.entries.len();
        let places = (self.live < len).then(|| {
            let present =
                |(place, entry): (usize, &Option<Entry<I>>)| entry.as_ref().map(|_| place);
            let places = self.entries.iter().enumerate().filter_map(present).collect();
            Box::new(Holes { len, places })
        });
        let flights = self
            .has_flights
            .then(|| self.entries.iter().flatten().filter_map(|entry| entry.flight).collect());
        let callers = self.has_callers.then(|| {
            let mut callers = Box::<Callers>::default();
            let entries = self.entries.iter_mut().flatten();
            entries.filter_map(|entry| entry.caller.take()).for_each(|caller| callers.add(*caller));
            callers
        });
        // Collects in place, which `flatten` would not: for most items no allocation and no second copy.
        let items = self.entries.into_iter().filter_map(|entry| Some(entry?.item)).collect();
        Taken {
            key,
            items,
            lot: self.lot,
            trigger,
            at_once: false,
            opened: self.opened,
            weight: self.weight,
            callers,
            ticket: Ticket { slot, epoch: self.epoch, flights },
            places: Places(places),
        }
    }
}

/// A batch that left the queue to be processed. Give its ticket back to [`Core::finish`](super::Core::finish).
#[derive(Debug)]
pub(crate) struct Taken<K, I, C> {
    pub(crate) key: K,
    pub(crate) items: Vec<I>,
    pub(crate) lot: C,
    pub(crate) trigger: Trigger,
    /// Somebody who had nothing to do came for it at once: it did not wait.
    pub(crate) at_once: bool,
    pub(crate) opened: Instant,
    pub(crate) weight: u64,
    /// Those who submit, where somebody traces.
    pub(crate) callers: Option<Box<Callers>>,
    pub(crate) ticket: Ticket,
    pub(crate) places: Places,
}

/// The slot in flight that a batch occupies.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(super) slot: usize,
    pub(super) epoch: u64,
    pub(super) flights: Option<Box<[u64]>>,
}

/// Which places of the lot the items of a batch have; `None` where nobody left: item n has place n.
#[derive(Debug)]
pub(crate) struct Places(Option<Box<Holes>>);

/// Places that were left, among those of items.
#[derive(Debug)]
struct Holes {
    len: usize,
    /// Those of items.
    places: Vec<usize>,
}

impl Places {
    /// Moves the outcome of each item to its place.
    #[inline]
    pub(crate) fn spread<O>(self, outcomes: Outcomes<O>) -> Outcomes<O> {
        let Some(holes) = self.0 else { return outcomes };
        let mut spread: Vec<_> = (0..holes.len).map(|_| None).collect();
        for (place, outcome) in holes.places.into_iter().zip(outcomes.into_vec()) {
            spread[place] = outcome;
        }
        Outcomes::Many(spread)
    }
}

/// Batches of one key, oldest first.
pub(super) type Batches<I, C> = VecDeque<Batch<I, C>>;
