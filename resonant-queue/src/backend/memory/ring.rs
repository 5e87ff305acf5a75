//! Messages by sequence: those at the end are added, those near the front removed.

use std::collections::{BTreeMap, VecDeque};

/// A map from rising sequences, mostly dense, as an array with holes. What stays for long at the front, or comes back, is kept
/// in a tree beside it, so that the holes stay fewer than what is stored by far.
#[derive(Debug)]
pub(super) struct Ring<T> {
    /// The sequence of the first place.
    first: u64,
    places: VecDeque<Option<T>>,
    /// How many places are taken.
    taken: usize,
    /// What has a sequence before the first place.
    early: BTreeMap<u64, T>,
}

impl<T> Default for Ring<T> {
    fn default() -> Self {
        Self { first: 0, places: VecDeque::new(), taken: 0, early: BTreeMap::new() }
    }
}

/// Fewer places than this are never worth a move.
const FEW: usize = 64;

impl<T> Ring<T> {
    pub(super) fn len(&self) -> usize {
        self.taken + self.early.len()
    }

    fn place(&self, sequence: u64) -> Option<usize> {
        usize::try_from(sequence.checked_sub(self.first)?).ok()
    }

    pub(super) fn get(&self, sequence: u64) -> Option<&T> {
        match self.place(sequence) {
            Some(place) => self.places.get(place)?.as_ref(),
            None => self.early.get(&sequence),
        }
    }

    pub(super) fn get_mut(&mut self, sequence: u64) -> Option<&mut T> {
        match self.place(sequence) {
            Some(place) => self.places.get_mut(place)?.as_mut(),
            None => self.early.get_mut(&sequence),
        }
    }

    /// Adds one that is not there.
    pub(super) fn insert(&mut self, sequence: u64, item: T) {
        if self.places.is_empty()
            && self.early.keys().next_back().is_none_or(|last| *last < sequence)
        {
            self.first = sequence;
        }
        match self.place(sequence) {
            None => drop(self.early.insert(sequence, item)),
            Some(place) if place < self.places.len() => {
                self.taken += usize::from(self.places[place].replace(item).is_none());
            }
            Some(place) => {
                self.places.resize_with(place, || None);
                self.places.push_back(Some(item));
                self.taken += 1;
                self.tidy();
            }
        }
    }

    pub(super) fn remove(&mut self, sequence: u64) -> Option<T> {
        let Some(place) = self.place(sequence) else { return self.early.remove(&sequence) };
        let item = self.places.get_mut(place)?.take()?;
        self.taken -= 1;
        self.tidy();
        Some(item)
    }

    /// Drops holes at the front, and moves what is among many of them.
    fn tidy(&mut self) {
        while let Some(front) = self.places.front() {
            let sparse = self.places.len() > FEW.max(4 * self.taken);
            if front.is_some() && !sparse {
                break;
            }
            if let Some(item) = self.places.pop_front().flatten() {
                self.taken -= 1;
                self.early.insert(self.first, item);
            }
            self.first += 1;
        }
    }

    /// The first of all.
    pub(super) fn front(&self) -> Option<&T> {
        self.after(0, u64::MAX).next()
    }

    /// Those after a sequence up to another one, in order.
    pub(super) fn after(&self, after: u64, until: u64) -> impl Iterator<Item = &T> + Clone {
        let from = after.saturating_add(1);
        let early = (from <= until).then(|| self.early.range(from..=until).map(|(_, item)| item));
        let end = until.checked_add(1).and_then(|end| self.place(end));
        let end = match end {
            Some(end) => end.min(self.places.len()),
            // Before the first place, or after all of them.
            None if until < self.first => 0,
            None => self.places.len(),
        };
        let begin = self.place(from).unwrap_or(0).min(end);
        early.into_iter().flatten().chain(self.places.range(begin..end).flatten())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_stays_for_long_keeps_no_room_for_what_is_gone() {
        let mut ring = Ring::default();
        for sequence in 1..=100_000 {
            ring.insert(sequence, sequence);
            if sequence % 1000 != 7 {
                assert_eq!(ring.remove(sequence), Some(sequence));
            }
        }
        assert_eq!(ring.len(), 100);
        assert!(ring.places.len() <= FEW, "{}", ring.places.len());
        assert_eq!(ring.front(), Some(&7));
    }

    proptest! {
        /// It is a map, whatever is done with it.
        #[test]
        fn a_ring_is_a_map(steps in prop::collection::vec((0..5_u8, 0..300_u64, 0..300_u64), 1..600)) {
            let (mut ring, mut map, mut last) = (Ring::default(), BTreeMap::new(), 0);
            for (step, a, b) in steps {
                match step {
                    0 | 1 => {
                        // Numbers may be missing.
                        last += 1 + u64::from(a % 40 == 0) * b;
                        ring.insert(last, last);
                        map.insert(last, last);
                    }
                    2 => prop_assert_eq!(ring.remove(a), map.remove(&a)),
                    3 if a > 0 && a <= last && !map.contains_key(&a) => {
                        ring.insert(a, a);
                        map.insert(a, a);
                    }
                    _ => {
                        prop_assert_eq!(ring.get(a), map.get(&a));
                        let until = if b > 250 { u64::MAX } else { b };
                        let some: Vec<_> = ring.after(a, until).copied().collect();
                        let range = map.iter().filter(|(n, _)| **n > a && **n <= until);
                        prop_assert_eq!(some, range.map(|(_, n)| *n).collect::<Vec<_>>());
                    }
                }
                prop_assert_eq!(ring.len(), map.len());
                prop_assert_eq!(ring.front(), map.values().next());
            }
        }
    }
}
