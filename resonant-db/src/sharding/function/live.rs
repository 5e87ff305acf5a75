//! The owners of the buckets as they are now: read without a lock, also while they change.

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::buckets::{BUCKETS, BucketMap};

/// The owner is a shard that is not declared here.
const UNKNOWN: u16 = u16::MAX;

/// A [`BucketMap`] that follows what the shards say.
#[derive(Debug)]
pub(crate) struct LiveMap {
    owners: Box<[AtomicU16]>,
    /// A bit for each bucket that is about to change its owner.
    leaving: Box<[AtomicU64]>,
    epochs: Mutex<Epochs>,
}

#[derive(Debug)]
struct Epochs {
    /// Since when each owner is known.
    buckets: Box<[u64]>,
    highest: u64,
}

/// What a shard says of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) bucket: u32,
    pub(crate) state: Whereabouts,
    pub(crate) epoch: u64,
}

/// Where a bucket is, in the eyes of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whereabouts {
    /// It is there and will go.
    Leaving,
    /// It has gone to this shard; `None` for one that is not declared here.
    Away(Option<u32>),
}

impl LiveMap {
    pub(crate) fn new(map: &BucketMap) -> Self {
        let owner = |bucket| map.shard(bucket).and_then(|owner| u16::try_from(owner).ok());
        let buckets = vec![map.epoch(); BUCKETS as usize].into();
        Self {
            owners: (0..BUCKETS).map(|b| AtomicU16::new(owner(b).unwrap_or(UNKNOWN))).collect(),
            leaving: (0..BUCKETS / 64).map(|_| AtomicU64::new(0)).collect(),
            epochs: Mutex::new(Epochs { buckets, highest: map.epoch() }),
        }
    }

    /// The owner of a bucket; `None` past the last one, and where the owner is not declared here.
    pub(crate) fn shard(&self, bucket: u32) -> Option<u32> {
        let owner = self.owners.get(bucket as usize)?.load(Ordering::Acquire);
        (owner != UNKNOWN).then(|| u32::from(owner))
    }

    pub(crate) fn is_leaving(&self, bucket: u32) -> bool {
        let word = self.leaving.get(bucket as usize / 64);
        word.is_some_and(|word| word.load(Ordering::Acquire) & bit(bucket) != 0)
    }

    /// Takes in all that `shard` says. Answers the shards that have got a bucket which this map did not know to be theirs.
    pub(crate) fn learn(&self, shard: u32, said: &[Said]) -> Vec<u32> {
        let mut epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut gained = Vec::new();
        let mut leaving: Vec<u64> =
            self.leaving.iter().map(|word| word.load(Ordering::Acquire)).collect();
        // What it says of its own replaces what it said before.
        for bucket in (0..BUCKETS).filter(|bucket| self.shard(*bucket) == Some(shard)) {
            mark(&mut leaving, bucket, false);
        }
        for Said { bucket, state, epoch } in said {
            let Some(known) = epochs.buckets.get_mut(*bucket as usize) else { continue };
            let is_its_own = self.shard(*bucket) == Some(shard);
            match state {
                Whereabouts::Leaving if is_its_own => mark(&mut leaving, *bucket, true),
                // A map that was taken while buckets moved has the epoch of that move for all of them, and those that went later
                // have the same: what their owner says then is newer.
                Whereabouts::Away(owner) if *epoch > *known || (*epoch == *known && is_its_own) => {
                    *known = *epoch;
                    epochs.highest = epochs.highest.max(*epoch);
                    let index = owner.and_then(|owner| u16::try_from(owner).ok());
                    if let Some(slot) = self.owners.get(*bucket as usize) {
                        slot.store(index.unwrap_or(UNKNOWN), Ordering::Release);
                    }
                    gained.extend(owner.filter(|owner| !gained.contains(owner)));
                }
                _ => {}
            }
        }
        // After the owners, and each bit at once: whoever does not see that a bucket leaves sees where it has gone.
        for (word, bits) in self.leaving.iter().zip(leaving) {
            word.store(bits, Ordering::Release);
        }
        gained
    }

    /// The map as it is now. A bucket whose owner is not declared here has the owner 65535.
    pub(crate) fn snapshot(&self) -> BucketMap {
        let epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        let owners = self.owners.iter().map(|owner| owner.load(Ordering::Acquire)).collect();
        BucketMap::of(epochs.highest, owners)
    }
}

fn bit(bucket: u32) -> u64 {
    1 << (bucket % 64)
}

fn mark(words: &mut [u64], bucket: u32, leaving: bool) {
    let Some(word) = words.get_mut(bucket as usize / 64) else { return };
    match leaving {
        true => *word |= bit(bucket),
        false => *word &= !bit(bucket),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(bucket: u32, state: Whereabouts, epoch: u64) -> Said {
        Said { bucket, state, epoch }
    }

    #[test]
    fn the_newest_word_counts_whoever_says_it_first() {
        use Whereabouts::Away;
        // Bucket 6 went from shard 0 to 1, on to 2, and back to 0, which has not heard of its end yet.
        let words = [
            (0, said(6, Away(Some(1)), 1)),
            (1, said(6, Away(Some(2)), 2)),
            (2, said(6, Away(Some(0)), 3)),
        ];
        for order in [[0, 1, 2, 0], [2, 1, 0, 2], [1, 2, 0, 1], [0, 2, 1, 0]] {
            let map = LiveMap::new(&BucketMap::dealt(3).expect("a map"));
            for at in order {
                let (shard, word) = words[at];
                map.learn(shard, &[word]);
            }
            assert_eq!((map.shard(6), map.snapshot().epoch()), (Some(0), 3), "{order:?}");
            assert_eq!(map.shard(7), Some(1));
        }
    }

    #[test]
    fn what_a_given_map_knows_already_is_not_undone() {
        let two = BucketMap::dealt(2).expect("a map");
        let there = two.plan(&[0, 1, 2]).expect("a plan");
        let three = two.apply(&there).expect("applied");
        let back = three.plan(&[0, 1]).expect("a plan");
        let map = three.apply(&back).expect("applied");
        let live = LiveMap::new(&map);
        // Each has an older word about buckets that have come back, and that of who has had them meanwhile is not news.
        for step in &there.moves {
            let old = said(step.bucket, Whereabouts::Away(Some(step.to)), 1);
            assert!(live.learn(step.from, &[old]).is_empty());
        }
        for step in &back.moves {
            let known = said(step.bucket, Whereabouts::Away(Some(step.to)), 2);
            assert!(live.learn(step.from, &[known]).is_empty());
        }
        assert_eq!(live.snapshot(), map);
    }

    #[test]
    fn a_map_taken_during_a_move_learns_the_rest_of_it() {
        let first = LiveMap::new(&BucketMap::dealt(2).expect("a map"));
        let gone = |bucket| said(bucket, Whereabouts::Away(Some(2)), 1);
        first.learn(0, &[gone(0), said(2, Whereabouts::Leaving, 1)]);
        let taken = first.snapshot();
        assert_eq!((taken.epoch(), taken.shard(0), taken.shard(2)), (1, Some(2), Some(0)));
        let live = LiveMap::new(&taken);
        assert_eq!(live.learn(0, &[gone(0), gone(2)]), [2]);
        assert_eq!((live.shard(0), live.shard(2)), (Some(2), Some(2)));
        assert!(live.learn(0, &[gone(0), gone(2)]).is_empty());
    }

    #[test]
    fn what_leaves_is_seen_to_leave_while_the_same_is_said_again() {
        let live = LiveMap::new(&BucketMap::dealt(2).expect("a map"));
        let leaving: Vec<Said> =
            (0..BUCKETS).map(|bucket| said(bucket, Whereabouts::Leaving, 1)).collect();
        live.learn(0, &leaving);
        std::thread::scope(|scope| {
            let speaking = scope.spawn(|| (0..300).for_each(|_| drop(live.learn(0, &leaving))));
            while !speaking.is_finished() {
                assert!(live.is_leaving(0) && live.is_leaving(64));
            }
        });
    }

    #[test]
    fn leaving_is_forgotten_with_the_next_word() {
        let live = LiveMap::new(&BucketMap::dealt(2).expect("a map"));
        let leaving = |bucket| said(bucket, Whereabouts::Leaving, 1);
        // Bucket 1 is not shard 0's to give away.
        assert!(live.learn(0, &[leaving(0), leaving(1), leaving(64)]).is_empty());
        assert!(live.is_leaving(0) && !live.is_leaving(1) && live.is_leaving(64));
        let gone = said(0, Whereabouts::Away(Some(1)), 1);
        assert_eq!(live.learn(0, &[gone, leaving(64)]), [1]);
        assert!(!live.is_leaving(0) && live.is_leaving(64));
        assert!(live.learn(0, &[gone]).is_empty());
        assert!(!live.is_leaving(64));
        let lost = said(2, Whereabouts::Away(None), 2);
        live.learn(0, &[lost]);
        assert_eq!(live.shard(2), None);
    }
}
