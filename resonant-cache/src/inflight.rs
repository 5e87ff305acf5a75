//! What is under way for a key: reads of the shared tier and loads, and whether the key changed meanwhile.
//!
//! Whoever reads a value from outside begins here and gets a ticket. A change of the key makes all tickets of the key
//! void and detaches its load, in the same step that removes the key from the in-process tier; so what was read
//! before the change cannot be put there after it, and whoever asks after it starts a load of its own. A pure state
//! machine: it holds no clock and waits for nothing.

use std::collections::HashMap;

use crate::key::LocalKey;

/// The keys of one stripe. `L` is a handle to a load.
#[derive(Debug)]
pub(crate) struct InFlight<L> {
    pending: HashMap<LocalKey, Pending<L>>,
    next: u64,
}

/// Valid until the key changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

#[derive(Debug)]
struct Pending<L> {
    ticket: Ticket,
    holders: usize,
    load: Option<L>,
}

/// What [`InFlight::join_or_start`] found.
#[derive(Debug)]
pub(crate) enum Entered<L> {
    /// A load is under way.
    Joined(L),
    /// The caller's is now; it must [`end`](InFlight::end) it with this ticket.
    Started(L, Ticket),
}

impl<L> Default for InFlight<L> {
    fn default() -> Self {
        Self { pending: HashMap::new(), next: 0 }
    }
}

impl<L: Clone> InFlight<L> {
    /// Begins a read. Every begin is ended once.
    pub(crate) fn begin(&mut self, key: LocalKey) -> Ticket {
        let next = &mut self.next;
        let pending = self.pending.entry(key).or_insert_with(|| {
            *next += 1;
            Pending { ticket: Ticket(*next), holders: 0, load: None }
        });
        pending.holders += 1;
        pending.ticket
    }

    /// Joins the key's load, or starts the one `make` makes.
    pub(crate) fn join_or_start(&mut self, key: LocalKey, make: impl FnOnce() -> L) -> Entered<L> {
        if let Some(load) = self.pending.get(&key).and_then(|pending| pending.load.clone()) {
            return Entered::Joined(load);
        }
        let load = make();
        let ticket = self.begin(key.clone());
        if let Some(pending) = self.pending.get_mut(&key) {
            pending.load = Some(load.clone());
        }
        Entered::Started(load, ticket)
    }

    /// Whether the key has not changed since the ticket was given.
    pub(crate) fn is_valid(&self, key: &LocalKey, ticket: Ticket) -> bool {
        self.pending.get(key).is_some_and(|pending| pending.ticket == ticket)
    }

    /// Ends a read, or a load if `load`.
    pub(crate) fn end(&mut self, key: &LocalKey, ticket: Ticket, load: bool) {
        let Some(pending) = self.pending.get_mut(key) else { return };
        if load && pending.ticket == ticket {
            pending.load = None;
        }
        pending.holders -= 1;
        if pending.holders == 0 {
            self.pending.remove(key);
        }
    }

    /// The key changed.
    pub(crate) fn invalidate(&mut self, key: &LocalKey) {
        if let Some(pending) = self.pending.get_mut(key) {
            self.next += 1;
            pending.ticket = Ticket(self.next);
            pending.load = None;
        }
    }

    /// All keys that `concerns` names changed.
    pub(crate) fn invalidate_all(&mut self, concerns: impl Fn(&LocalKey) -> bool) {
        for (key, pending) in &mut self.pending {
            if concerns(key) {
                self.next += 1;
                pending.ticket = Ticket(self.next);
                pending.load = None;
            }
        }
    }

    /// How many keys are under way.
    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> LocalKey {
        LocalKey { namespace: 1, key: name.into() }
    }

    #[test]
    fn one_load_per_key_and_everybody_joins_it() {
        let mut table = InFlight::default();
        let Entered::Started(1, ticket) = table.join_or_start(key("a"), || 1) else {
            panic!("nothing was under way")
        };
        assert!(matches!(table.join_or_start(key("a"), || 2), Entered::Joined(1)));
        assert!(matches!(table.join_or_start(key("b"), || 3), Entered::Started(3, _)));
        table.end(&key("a"), ticket, true);
        assert!(matches!(table.join_or_start(key("a"), || 4), Entered::Started(4, _)));
    }

    #[test]
    fn a_change_voids_tickets_and_detaches_the_load() {
        let mut table = InFlight::default();
        let read = table.begin(key("a"));
        let Entered::Started(_, load) = table.join_or_start(key("a"), || 1) else {
            panic!("nothing was under way")
        };
        table.invalidate(&key("a"));
        assert!(!table.is_valid(&key("a"), read) && !table.is_valid(&key("a"), load));
        let Entered::Started(2, second) = table.join_or_start(key("a"), || 2) else {
            panic!("the load from before the change was joined")
        };
        // The detached load ends: it must not take the new one with it.
        table.end(&key("a"), load, true);
        assert!(matches!(table.join_or_start(key("a"), || 3), Entered::Joined(2)));
        assert!(table.is_valid(&key("a"), second));
        table.end(&key("a"), second, true);
        table.end(&key("a"), read, false);
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn a_ticket_of_an_earlier_time_is_not_valid_again() {
        let mut table = InFlight::<u8>::default();
        let first = table.begin(key("a"));
        table.end(&key("a"), first, false);
        let second = table.begin(key("a"));
        assert_ne!(first, second);
        table.invalidate_all(|key| key.namespace == 1);
        assert!(!table.is_valid(&key("a"), second));
    }
}
