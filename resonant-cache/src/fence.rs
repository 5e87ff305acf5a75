//! Keeping old replica reads out.
//!
//! A fence is the newest [`Position`] known for a key: that of an invalidation, or of a value stored with one. A fill
//! that was read at an older position is refused until the fence lapses.
//!
//! Positions of the same system and timeline compare by offset. A later timeline of the same system has replayed
//! everything that survived the switch before it began, so it passes; an earlier one does not. Another system's history
//! says nothing about this one's, so it is refused while the fence stands: a refused fill costs a miss, an admitted one
//! could be wrong.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::time::Duration;

use resonant_common::duration::after;
use resonant_common::join::Position;
use tokio::time::Instant;

/// Whether a read at `read` includes everything up to `fence`.
pub fn has_reached(read: &Position, fence: &Position) -> bool {
    read.system == fence.system
        && match read.timeline.cmp(&fence.timeline) {
            Ordering::Greater => true,
            Ordering::Equal => read.offset >= fence.offset,
            Ordering::Less => false,
        }
}

/// The fences of some keys, bounded. A fence pushed out of a full table raises a floor that holds for every key of the
/// table, so that nothing it kept out gets in.
#[derive(Debug)]
pub(crate) struct Fences<K> {
    fences: HashMap<K, Fence>,
    floor: Option<Fence>,
    max: usize,
}

#[derive(Debug, Clone, Copy)]
struct Fence {
    position: Position,
    until: Instant,
}

impl<K: std::hash::Hash + Eq + Clone> Fences<K> {
    pub(crate) fn new(max: usize) -> Self {
        Self { fences: HashMap::new(), floor: None, max }
    }

    /// Whether a fill of `key` read at `position` may be stored at `now`.
    pub(crate) fn admits(&self, key: &K, position: &Position, now: Instant) -> bool {
        let reached = |fence: &Fence| fence.until <= now || has_reached(position, &fence.position);
        self.fences.get(key).is_none_or(reached) && self.floor.as_ref().is_none_or(reached)
    }

    /// Raises the fence of `key` to `position` until `now + ttl`. Of two that compare, the higher position stays, for as
    /// long as either would: the order in which they come must not cut one short. One that does not compare replaces it.
    pub(crate) fn raise(&mut self, key: &K, position: Position, ttl: Duration, now: Instant) {
        let fence = Fence { position, until: after(now, ttl) };
        if let Some(held) = self.fences.get_mut(key) {
            let compares = now < held.until && position.system == held.position.system;
            *held = if compares { merge(Some(*held), fence) } else { fence };
            return;
        }
        if self.fences.len() >= self.max {
            self.make_room(now);
        }
        self.fences.insert(key.clone(), fence);
    }

    /// Drops what lapsed; if that is not enough, the half that lapses first moves into the floor. Either way the next
    /// calls find room, so the cost is shared by many.
    fn make_room(&mut self, now: Instant) {
        self.fences.retain(|_, fence| now < fence.until);
        if self.fences.len() < self.max {
            return;
        }
        let mut ends: Vec<_> = self.fences.values().map(|fence| fence.until).collect();
        let middle = ends.len() / 2;
        let (_, median, _) = ends.select_nth_unstable(middle);
        let (median, mut floor) = (*median, self.floor.filter(|floor| now < floor.until));
        self.fences.retain(|_, fence| {
            if fence.until <= median {
                floor = Some(merge(floor, *fence));
            }
            fence.until > median
        });
        self.floor = floor;
    }
}

/// A fence that keeps out whatever either keeps out.
fn merge(floor: Option<Fence>, pushed: Fence) -> Fence {
    let Some(floor) = floor else { return pushed };
    let covers = has_reached(&floor.position, &pushed.position);
    Fence {
        position: if covers { floor.position } else { pushed.position },
        until: floor.until.max(pushed.until),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: Position = Position { system: 1, timeline: 1, offset: 100 };
    const TTL: Duration = Duration::from_secs(60);

    #[test]
    fn only_reads_that_include_the_fence_pass() {
        let cases = [
            (Position { offset: 99, ..P }, false),
            (P, true),
            (Position { offset: 101, ..P }, true),
            (Position { timeline: 2, offset: 50, ..P }, true),
            (Position { timeline: 0, offset: 500, ..P }, false),
            (Position { system: 2, ..P }, false),
        ];
        for (read, passes) in cases {
            assert_eq!(has_reached(&read, &P), passes, "{read}");
        }
    }

    #[test]
    fn a_fence_rises_and_lapses() {
        let now = Instant::now();
        let mut fences = Fences::new(8);
        fences.raise(&"k", P, TTL, now);
        fences.raise(&"k", Position { offset: 50, ..P }, TTL, now + TTL / 2);
        let old = Position { offset: 99, ..P };
        let lapses = now + TTL / 2 + TTL;
        assert!(!fences.admits(&"k", &old, lapses - Duration::from_millis(1)));
        assert!(fences.admits(&"k", &old, lapses), "it lapsed");
        assert!(fences.admits(&"other", &old, now));
    }

    #[test]
    fn neither_of_two_fences_is_cut_short_by_the_other() {
        let now = Instant::now();
        let (low, high) = (P, Position { offset: 200, ..P });
        for (first, second) in [((low, TTL), (high, TTL / 4)), ((high, TTL / 4), (low, TTL))] {
            let mut fences = Fences::new(8);
            fences.raise(&"k", first.0, first.1, now);
            fences.raise(&"k", second.0, second.1, now);
            let below_both = Position { offset: 99, ..P };
            assert!(!fences.admits(&"k", &below_both, now + TTL / 2), "{first:?} {second:?}");
        }
    }

    #[test]
    fn a_full_table_forgets_no_fence() {
        let now = Instant::now();
        let mut fences = Fences::new(2);
        for n in 0..10u64 {
            fences.raise(&n, Position { offset: 100 + n, ..P }, TTL, now);
        }
        assert!(fences.fences.len() <= 2);
        for n in 0..10u64 {
            assert!(!fences.admits(&n, &Position { offset: 99 + n, ..P }, now), "{n}");
        }
        assert!(fences.admits(&3, &Position { offset: 200, ..P }, now));
    }
}
