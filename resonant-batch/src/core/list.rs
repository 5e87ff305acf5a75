//! A first-in first-out list of key slots from which any slot leaves in constant time.

const NONE: usize = usize::MAX;

#[derive(Debug, Clone, Copy)]
struct Link {
    before: usize,
    after: usize,
    listed: bool,
}

/// The list. A slot stands in it at most once. Memory is one link for each slot ever used, and slots are reused.
#[derive(Debug)]
pub(crate) struct List {
    first: usize,
    last: usize,
    links: Vec<Link>,
}

impl List {
    pub(crate) fn new() -> Self {
        Self { first: NONE, last: NONE, links: Vec::new() }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.first == NONE
    }

    #[inline]
    pub(crate) fn first(&self) -> Option<usize> {
        (self.first != NONE).then_some(self.first)
    }

    /// Appends `slot` unless it is listed already.
    #[inline]
    pub(crate) fn push(&mut self, slot: usize) {
        if slot >= self.links.len() {
            self.links.resize(slot + 1, Link { before: NONE, after: NONE, listed: false });
        }
        if self.links[slot].listed {
            return;
        }
        self.links[slot] = Link { before: self.last, after: NONE, listed: true };
        match self.last {
            NONE => self.first = slot,
            last => self.links[last].after = slot,
        }
        self.last = slot;
    }

    /// Takes `slot` out if it is listed.
    #[inline]
    pub(crate) fn remove(&mut self, slot: usize) {
        let Some(link) = self.links.get_mut(slot) else { return };
        if !std::mem::take(&mut link.listed) {
            return;
        }
        let Link { before, after, .. } = *link;
        match before {
            NONE => self.first = after,
            before => self.links[before].after = after,
        }
        match after {
            NONE => self.last = before,
            after => self.links[after].before = before,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_queue_without_duplicates(steps in prop::collection::vec((any::<bool>(), 0_usize..6), 0..200)) {
            let (mut list, mut model) = (List::new(), VecDeque::new());
            for (push, slot) in steps {
                if push {
                    list.push(slot);
                    if !model.contains(&slot) {
                        model.push_back(slot);
                    }
                } else {
                    list.remove(slot);
                    model.retain(|&other| other != slot);
                }
                prop_assert_eq!(list.first(), model.front().copied());
                prop_assert_eq!(list.is_empty(), model.is_empty());
            }
            while let Some(slot) = list.first() {
                prop_assert_eq!(Some(slot), model.pop_front());
                list.remove(slot);
            }
            prop_assert!(model.is_empty());
        }
    }
}
