//! Tags and clears by counting, not by clocks.
//!
//! Each namespace has one counter, its *epoch*. Invalidating a tag raises the epoch and notes it beside the tag;
//! clearing the namespace raises it and notes it for everything. A value carries the epoch that held when its load
//! began, and is valid as long as nothing that concerns it was noted later. So an invalidation costs the same however
//! many values it hits, and clocks play no part.
//!
//! The table of tags is bounded. Forgetting a tag moves a floor up to the epoch it stood at: a tag that is not in the
//! table counts as invalidated there. That can cost a miss; it cannot serve a value that was invalidated.

use std::collections::{BTreeSet, HashMap};

use crate::envelope::TagId;

/// What a namespace knows of its epochs.
#[derive(Debug)]
pub(crate) struct EpochTable {
    latest: u64,
    cleared: u64,
    floor: u64,
    losses: u64,
    tags: HashMap<TagId, u64>,
    /// The same by epoch, oldest first, to know what to forget.
    order: BTreeSet<(u64, TagId)>,
    max_tags: usize,
}

/// Whether a value is still good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Valid,
    Invalid,
    /// A tag is not in the table and the value is older than the floor: the store must be asked.
    Unknown,
}

impl EpochTable {
    pub(crate) fn new(max_tags: usize) -> Self {
        Self {
            latest: 0,
            cleared: 0,
            floor: 0,
            losses: 0,
            tags: HashMap::new(),
            order: BTreeSet::new(),
            max_tags,
        }
    }

    pub(crate) fn latest(&self) -> u64 {
        self.latest
    }

    pub(crate) fn cleared(&self) -> u64 {
        self.cleared
    }

    /// The epoch at which `tag` was last invalidated, as far as the table knows; never too low.
    pub(crate) fn tag(&self, tag: TagId) -> u64 {
        self.tags.get(&tag).copied().unwrap_or(self.floor)
    }

    /// Raises the epoch for `tags`; returns it.
    pub(crate) fn invalidate(&mut self, tags: &[TagId]) -> u64 {
        let epoch = self.latest + 1;
        for tag in tags {
            self.note_tag(*tag, epoch);
        }
        epoch
    }

    /// Raises the epoch for everything; returns it. Older tags need not be remembered after it.
    pub(crate) fn clear(&mut self) -> u64 {
        let epoch = self.latest + 1;
        self.note_clear(epoch);
        epoch
    }

    /// Notes that `tag` was invalidated at `epoch`. Late and repeated news change nothing.
    pub(crate) fn note_tag(&mut self, tag: TagId, epoch: u64) {
        self.latest = self.latest.max(epoch);
        self.learn(tag, epoch);
    }

    /// Notes that everything was cleared at `epoch`.
    pub(crate) fn note_clear(&mut self, epoch: u64) {
        self.latest = self.latest.max(epoch);
        self.cleared = self.cleared.max(epoch);
        let kept = self.order.split_off(&(self.cleared + 1, TagId(0)));
        for (_, tag) in std::mem::replace(&mut self.order, kept) {
            self.tags.remove(&tag);
        }
    }

    /// Takes over what the store says: its epochs now, before which this table knows of no tags.
    pub(crate) fn adopt(&mut self, latest: u64, cleared: u64) {
        self.floor = self.floor.max(latest);
        self.latest = self.latest.max(latest);
        self.note_clear(cleared);
    }

    /// Drops what may be outdated: tags not in the table count as invalidated up to here.
    pub(crate) fn forget(&mut self) {
        self.tags.clear();
        self.order.clear();
        self.losses += 1;
        self.floor = self.floor.max(self.latest);
    }

    /// How often something was forgotten.
    pub(crate) fn losses(&self) -> u64 {
        self.losses
    }

    /// Takes over what the store says of one tag. What it said before the table forgot something may be older than
    /// what was forgotten, so compare the [losses](EpochTable::losses) with those from before the store was asked.
    pub(crate) fn learn(&mut self, tag: TagId, epoch: u64) {
        let known = self.tags.get(&tag).copied();
        if known.is_some_and(|known| known >= epoch) {
            return;
        }
        if let Some(known) = known {
            self.order.remove(&(known, tag));
        }
        self.tags.insert(tag, epoch);
        self.order.insert((epoch, tag));
        while self.tags.len() > self.max_tags {
            let Some((epoch, tag)) = self.order.pop_first() else { break };
            self.tags.remove(&tag);
            self.losses += 1;
            self.floor = self.floor.max(epoch);
        }
    }

    /// Judges a value loaded at `epoch` that carries `tags`.
    pub(crate) fn judge(&self, epoch: u64, tags: &[TagId]) -> Standing {
        if epoch < self.cleared {
            return Standing::Invalid;
        }
        let mut standing = Standing::Valid;
        for tag in tags {
            match self.tags.get(tag) {
                Some(noted) if epoch < *noted => return Standing::Invalid,
                Some(_) => {}
                None if epoch < self.floor => standing = Standing::Unknown,
                None => {}
            }
        }
        standing
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: TagId = TagId(1);
    const B: TagId = TagId(2);

    #[test]
    fn an_invalidation_hits_what_is_older_and_carries_the_tag() {
        let mut table = EpochTable::new(8);
        let before = table.latest();
        let epoch = table.invalidate(&[A]);
        assert_eq!(table.judge(before, &[A, B]), Standing::Invalid);
        assert_eq!(table.judge(before, &[B]), Standing::Valid);
        assert_eq!(table.judge(epoch, &[A]), Standing::Valid, "loaded after it began");
    }

    #[test]
    fn a_clear_hits_everything_older_and_forgets_the_tags() {
        let mut table = EpochTable::new(8);
        table.invalidate(&[A]);
        let epoch = table.clear();
        assert_eq!(table.judge(epoch - 1, &[]), Standing::Invalid);
        assert_eq!(table.judge(epoch, &[A]), Standing::Valid);
        assert!(table.tags.is_empty() && table.order.is_empty());
    }

    #[test]
    fn a_table_that_starts_late_does_not_vouch_for_older_values() {
        let mut table = EpochTable::new(8);
        table.adopt(7, 3);
        assert_eq!(table.judge(5, &[A]), Standing::Unknown);
        assert_eq!(table.judge(5, &[]), Standing::Valid, "without tags only a clear matters");
        assert_eq!(table.judge(2, &[]), Standing::Invalid);
        assert_eq!(table.judge(7, &[A]), Standing::Valid);
        table.learn(A, 4);
        assert_eq!(table.judge(5, &[A]), Standing::Valid);
        assert_eq!(table.judge(3, &[A]), Standing::Invalid);
    }

    proptest! {
        /// Against a table that forgets nothing: a bounded one never calls an invalidated value valid.
        #[test]
        fn forgetting_never_revives(
            steps in prop::collection::vec((0u64..12, any::<bool>()), 1..60),
            tags in prop::collection::vec(0u64..12, 0..3),
        ) {
            let (mut small, mut whole) = (EpochTable::new(3), EpochTable::new(1000));
            for (tag, clear) in steps {
                if clear && tag == 0 {
                    prop_assert_eq!(small.clear(), whole.clear());
                } else {
                    prop_assert_eq!(small.invalidate(&[TagId(tag)]), whole.invalidate(&[TagId(tag)]));
                }
                prop_assert!(small.tags.len() <= 3 && small.order.len() == small.tags.len());
            }
            let tags: Vec<_> = tags.into_iter().map(TagId).collect();
            for epoch in 0..=whole.latest() {
                match (small.judge(epoch, &tags), whole.judge(epoch, &tags)) {
                    (Standing::Valid, truth) => prop_assert_eq!(truth, Standing::Valid),
                    (Standing::Invalid, truth) => prop_assert_eq!(truth, Standing::Invalid),
                    (Standing::Unknown, _) => {}
                }
                for tag in &tags {
                    prop_assert!(small.tag(*tag) >= whole.tag(*tag).min(small.floor));
                }
            }
        }
    }
}
