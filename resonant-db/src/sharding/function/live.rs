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
    /// It has come back.
    Here,
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
        for bucket in (0..BUCKETS).filter(|bucket| self.shard(*bucket) == Some(shard)) {
            self.mark(bucket, false);
        }
        for Said { bucket, state, epoch } in said {
            let Some(known) = epochs.buckets.get_mut(*bucket as usize) else { continue };
            match state {
                Whereabouts::Leaving if self.shard(*bucket) == Some(shard) => {
                    self.mark(*bucket, true);
                }
                Whereabouts::Away(owner) if *epoch > *known => {
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
        gained
    }

    fn mark(&self, bucket: u32, leaving: bool) {
        let Some(word) = self.leaving.get(bucket as usize / 64) else { return };
        match leaving {
            true => word.fetch_or(bit(bucket), Ordering::AcqRel),
            false => word.fetch_and(!bit(bucket), Ordering::AcqRel),
        };
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

#[cfg(test)]
mod tests {
    use super::*;

    fn said(bucket: u32, state: Whereabouts, epoch: u64) -> Said {
        Said { bucket, state, epoch }
    }

    #[test]
    fn the_newest_word_counts_whoever_says_it_first() {
        use Whereabouts::{Away, Here};
        // Bucket 6 went from shard 0 to 1, on to 2, and back to 0.
        let words = [
            (0, said(6, Here, 3)),
            (0, said(6, Away(Some(1)), 1)),
            (1, said(6, Away(Some(2)), 2)),
            (2, said(6, Away(Some(0)), 3)),
        ];
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 3, 0, 1], [1, 3, 2, 0]] {
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
        let mut map = BucketMap::dealt(2).expect("a map");
        let plan = map.plan(&[0, 1, 2]).expect("a plan");
        map = map.apply(&plan).expect("applied");
        let first = plan.moves[0];
        let live = LiveMap::new(&map);
        let old = said(first.bucket, Whereabouts::Away(Some(first.from)), 1);
        assert!(live.learn(first.to, &[old]).is_empty());
        assert_eq!(live.shard(first.bucket), Some(first.to));
        assert_eq!(live.snapshot(), map);
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
