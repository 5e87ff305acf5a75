//! Single flight: equal items that are on their way share one run.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;

use super::Lot;
use super::batch::Seat;

use crate::key::Key;

/// Finds the flight of an equal item. The type of the identity is hidden behind it.
pub(crate) trait Flights<K, I, C>: Send {
    /// The seat of an equal item that is queued or running.
    fn find(&self, key: &K, item: &I) -> Option<Seat<C>>;
    /// A flight begins; returns its number.
    fn start(&mut self, key: &K, item: &I, seat: &Seat<C>) -> u64;
    /// It is over.
    fn end(&mut self, flight: u64);
}

impl<K, I, C> fmt::Debug for dyn Flights<K, I, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Flights")
    }
}

/// Items of one key are equal if `identify` gives the same for both.
pub(crate) struct ByIdentity<K, D, C, F> {
    identify: F,
    seats: HashMap<(K, D), Seat<C>>,
    identities: HashMap<u64, (K, D)>,
    next: u64,
}

impl<K, D, C, F> ByIdentity<K, D, C, F> {
    pub(crate) fn new(identify: F) -> Self {
        Self { identify, seats: HashMap::new(), identities: HashMap::new(), next: 0 }
    }
}

impl<K, D, I, C, F> Flights<K, I, C> for ByIdentity<K, D, C, F>
where
    K: Key,
    D: Hash + Eq + Clone + Send,
    C: Lot + Send,
    F: Fn(&I) -> D + Send,
{
    fn find(&self, key: &K, item: &I) -> Option<Seat<C>> {
        self.seats.get(&(key.clone(), (self.identify)(item))).map(Seat::again)
    }

    fn start(&mut self, key: &K, item: &I, seat: &Seat<C>) -> u64 {
        let identity = (key.clone(), (self.identify)(item));
        let flight = self.next;
        self.next += 1;
        self.seats.insert(identity.clone(), seat.again());
        self.identities.insert(flight, identity);
        flight
    }

    fn end(&mut self, flight: u64) {
        if let Some(identity) = self.identities.remove(&flight) {
            self.seats.remove(&identity);
        }
    }
}
