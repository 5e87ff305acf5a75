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
        // Never lowered: from one that comes back to what is added next may be far.
        if self.places.is_empty() && sequence >= self.first {
            self.first = sequence;
        }
        match self.place(sequence) {
            None => drop(self.early.insert(sequence, item)),
            Some(place) if place < self.places.len() => {
                self.taken += usize::from(self.places[place].replace(item).is_none());
            }
            Some(place) => {
                if place - self.places.len() > self.most() {
                    self.set_aside(sequence);
                } else {
                    self.places.resize_with(place, || None);
                }
                self.places.push_back(Some(item));
                self.taken += 1;
                self.tidy();
            }
        }
    }

    /// How many places are worth keeping.
    fn most(&self) -> usize {
        FEW.max(4 * self.taken)
    }

    /// Moves all that has a place, so that the first place is that of a sequence after all of them.
    fn set_aside(&mut self, first: u64) {
        for (sequence, item) in (self.first..).zip(self.places.drain(..)) {
            if let Some(item) = item {
                self.early.insert(sequence, item);
            }
        }
        (self.first, self.taken) = (first, 0);
    }

    pub(super) fn remove(&mut self, sequence: u64) -> Option<T> {
        let Some(place) = self.place(sequence) else { return self.early.remove(&sequence) };
        let item = self.places.get_mut(place)?.take()?;
        self.taken -= 1;
        self.tidy();
        Some(item)
    }

    /// Drops holes at the front, moves what is among many of them, and gives room back.
    fn tidy(&mut self) {
        while let Some(front) = self.places.front() {
            let sparse = self.places.len() > self.most();
            if front.is_some() && !sparse {
                break;
            }
            if let Some(item) = self.places.pop_front().flatten() {
                self.taken -= 1;
                self.early.insert(self.first, item);
            }
            self.first += 1;
        }
        let used = self.places.len().max(FEW);
        if self.places.capacity() > 8 * used {
            self.places.shrink_to(2 * used);
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

    /// What comes back after long is not a reason to keep room for all that has passed since.
    #[test]
    fn what_comes_back_after_long_takes_no_more_room_than_its_own() {
        let mut ring = Ring::default();
        for sequence in 1..=10 {
            ring.insert(sequence, sequence);
        }
        for sequence in 1..=10 {
            assert_eq!(ring.remove(sequence), Some(sequence));
        }
        // Put aside, and millions came and went meanwhile.
        ring.insert(10, 10);
        ring.insert(5_000_010, 5_000_010);
        assert!(ring.places.capacity() <= 4 * FEW, "{}", ring.places.capacity());
        assert_eq!(ring.after(0, u64::MAX).collect::<Vec<_>>(), [&10, &5_000_010]);
    }

    #[test]
    fn a_ring_that_was_full_gives_its_room_back() {
        let mut ring = Ring::default();
        for sequence in 1..=100_000 {
            ring.insert(sequence, sequence);
        }
        for sequence in 1..=99_999 {
            assert_eq!(ring.remove(sequence), Some(sequence));
        }
        assert!(ring.places.capacity() <= 8 * FEW, "{}", ring.places.capacity());
        assert_eq!(ring.front(), Some(&100_000));
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
                        last += match a % 40 {
                            0 => 1 + b,
                            1 => 1_000 * (1 + b),
                            _ => 1,
                        };
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
                prop_assert!(ring.places.capacity() <= 8 * FEW.max(4 * ring.taken));
                prop_assert_eq!(ring.front(), map.values().next());
            }
        }
    }
}
