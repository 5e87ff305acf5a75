//! The bucket map: 4096 buckets, each owned by a shard, and the planner that changes owners.
//!
//! A key's bucket never changes; only the owner of a bucket does, and only by a plan. So adding a shard moves the share
//! the new shard takes and nothing else.

use serde::{Deserialize, Serialize};

/// The number of buckets. A power of two, and part of the format: it never changes.
pub const BUCKETS: u32 = 4096;

/// Which shard owns each of the 4096 buckets, stamped with an epoch that rises with every change.
///
/// It serializes as `{ "epoch": 0, "owners": [0, 1, 2, …] }`. After a first change keep it where every process reads it,
/// and give it to the builder: a fresh map is right only for a database that never changed its shards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored")]
pub struct BucketMap {
    epoch: u64,
    owners: Box<[u16]>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    epoch: u64,
    owners: Vec<u16>,
}

impl TryFrom<Stored> for BucketMap {
    type Error = String;

    fn try_from(stored: Stored) -> Result<Self, String> {
        if stored.owners.len() != BUCKETS as usize {
            return Err(format!("a bucket map has {BUCKETS} owners, not {}", stored.owners.len()));
        }
        Ok(Self { epoch: stored.epoch, owners: stored.owners.into() })
    }
}

/// One bucket that changes its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BucketMove {
    /// The bucket.
    pub bucket: u32,
    /// The index of the shard that owns it now.
    pub from: u32,
    /// The index of the shard that will.
    pub to: u32,
}

/// What to move so that the buckets are spread evenly over a set of shards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketPlan {
    /// The epoch of the map the plan was made from. It applies to no other.
    pub epoch: u64,
    /// The moves, in ascending order of buckets.
    pub moves: Vec<BucketMove>,
}

impl BucketMap {
    /// The map of a new database: bucket `b` belongs to shard `b % shards`, at epoch 0.
    ///
    /// # Errors
    ///
    /// When there are no shards, or more than buckets.
    pub fn dealt(shards: u32) -> Result<Self, String> {
        if shards == 0 || shards > BUCKETS {
            return Err(format!("there must be between 1 and {BUCKETS} shards, not {shards}"));
        }
        // Below `shards`, which is at most 4096.
        let owners = (0..BUCKETS).map(|bucket| (bucket % shards) as u16).collect();
        Ok(Self { epoch: 0, owners })
    }

    pub(super) fn of(epoch: u64, owners: Box<[u16]>) -> Self {
        Self { epoch, owners }
    }

    /// The epoch: rises by one with each applied plan.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The index of the shard that owns a bucket; `None` past the last bucket.
    pub fn shard(&self, bucket: u32) -> Option<u32> {
        self.owners.get(bucket as usize).map(|owner| u32::from(*owner))
    }

    pub(super) fn highest_shard(&self) -> u32 {
        self.owners.iter().copied().max().map_or(0, u32::from)
    }

    /// The moves that spread the buckets evenly over `shards` (indices of shards), and no more than that needs.
    ///
    /// Deterministic: the same map and set give the same plan in every process. Going from four shards to five moves
    /// the new shard's fifth; going back moves only what the removed one owned.
    ///
    /// # Errors
    ///
    /// When `shards` is empty, names a shard twice, or has more than 4096 entries.
    pub fn plan(&self, shards: &[u32]) -> Result<BucketPlan, String> {
        let mut targets: Vec<u16> = Vec::with_capacity(shards.len());
        for shard in shards {
            let shard = u16::try_from(*shard).ok().filter(|shard| u32::from(*shard) < BUCKETS);
            let shard = shard.ok_or_else(|| format!("shard indices are below {BUCKETS}"))?;
            targets.push(shard);
        }
        targets.sort_unstable();
        targets.dedup();
        if targets.is_empty() || targets.len() != shards.len() {
            return Err("name at least one shard, and none twice".to_owned());
        }

        let mut held = vec![0usize; BUCKETS as usize];
        for owner in &self.owners {
            if let Some(count) = held.get_mut(usize::from(*owner)) {
                *count += 1;
            }
        }
        let held_by = |shard: u16| held.get(usize::from(shard)).copied().unwrap_or(0);

        // Whoever holds most keeps the larger share, so that the remainder of the division moves nothing.
        let (share, larger) =
            (self.owners.len() / targets.len(), self.owners.len() % targets.len());
        let mut by_holding = targets.clone();
        by_holding.sort_by_key(|shard| (std::cmp::Reverse(held_by(*shard)), *shard));
        let mut quota = vec![0usize; BUCKETS as usize];
        for (rank, shard) in by_holding.iter().enumerate() {
            if let Some(quota) = quota.get_mut(usize::from(*shard)) {
                *quota = share + usize::from(rank < larger);
            }
        }

        // First everybody keeps up to the quota; what is left over goes to whoever has room, in order.
        let mut leftover = Vec::new();
        for (bucket, owner) in self.owners.iter().enumerate() {
            match quota.get_mut(usize::from(*owner)) {
                Some(room) if *room > 0 => *room -= 1,
                _ => leftover.push((bucket, *owner)),
            }
        }
        let mut moves = Vec::with_capacity(leftover.len());
        let mut takers = targets.iter().copied();
        let mut taker = takers.next();
        for (bucket, from) in leftover {
            while let Some(to) = taker {
                match quota.get_mut(usize::from(to)) {
                    Some(room) if *room > 0 => {
                        *room -= 1;
                        let bucket = u32::try_from(bucket).unwrap_or(BUCKETS);
                        moves.push(BucketMove { bucket, from: from.into(), to: to.into() });
                        break;
                    }
                    _ => taker = takers.next(),
                }
            }
        }
        Ok(BucketPlan { epoch: self.epoch, moves })
    }

    /// The map after a plan, one epoch later.
    ///
    /// # Errors
    ///
    /// When the plan was made from another epoch, or does not fit the map.
    pub fn apply(&self, plan: &BucketPlan) -> Result<Self, String> {
        if plan.epoch != self.epoch {
            return Err(format!(
                "the plan was made at epoch {} and the map is at {}: plan again",
                plan.epoch, self.epoch
            ));
        }
        let mut owners = self.owners.clone();
        for step in &plan.moves {
            let to = u16::try_from(step.to).ok().filter(|to| u32::from(*to) < BUCKETS);
            match (owners.get_mut(step.bucket as usize), to) {
                (Some(owner), Some(to)) if u32::from(*owner) == step.from => *owner = to,
                _ => return Err(format!("bucket {} does not fit the map", step.bucket)),
            }
        }
        Ok(Self { epoch: self.epoch + 1, owners })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(map: &BucketMap, shards: usize) -> Vec<usize> {
        let mut counts = vec![0; shards];
        for bucket in 0..BUCKETS {
            counts[map.shard(bucket).unwrap() as usize] += 1;
        }
        counts
    }

    #[test]
    fn a_fifth_shard_takes_a_fifth_and_nothing_else_moves() {
        let four = BucketMap::dealt(4).unwrap();
        let plan = four.plan(&[0, 1, 2, 3, 4]).unwrap();
        assert!(plan.moves.len() <= (BUCKETS as usize).div_ceil(5) + 1, "{}", plan.moves.len());
        assert!(plan.moves.iter().all(|step| step.to == 4));
        let five = four.apply(&plan).unwrap();
        assert_eq!(five.epoch(), 1);
        assert!(counts(&five, 5).iter().all(|count| (819..=820).contains(count)));
    }

    #[test]
    fn removing_a_shard_moves_only_its_own() {
        let five = BucketMap::dealt(5).unwrap();
        for removed in 0..5u32 {
            let rest: Vec<u32> = (0..5).filter(|shard| *shard != removed).collect();
            let plan = five.plan(&rest).unwrap();
            assert!(plan.moves.iter().all(|step| step.from == removed));
            let four = five.apply(&plan).unwrap();
            let counts = counts(&four, 5);
            assert_eq!(counts[removed as usize], 0);
            assert!(rest.iter().all(|shard| counts[*shard as usize] == 1024), "{counts:?}");
        }
    }

    #[test]
    fn any_growth_and_shrinkage_moves_the_least_and_is_deterministic() {
        for from in 1..=24u32 {
            for to in 1..=24u32 {
                let map = BucketMap::dealt(from).unwrap();
                let shards: Vec<u32> = (0..to).collect();
                let plan = map.plan(&shards).unwrap();
                assert_eq!(plan, map.plan(&shards).unwrap());
                let after = counts(&map.apply(&plan).unwrap(), from.max(to) as usize);
                let least = (0..to as usize).map(|shard| after[shard]).min().unwrap();
                let most = (0..to as usize).map(|shard| after[shard]).max().unwrap();
                assert!(most - least <= 1, "{from} -> {to}: {after:?}");
                let share =
                    u64::from(BUCKETS) * u64::from(from.abs_diff(to)) / u64::from(from.max(to));
                assert!(
                    plan.moves.len() as u64 <= share + u64::from(from.max(to)),
                    "{from} -> {to}"
                );
            }
        }
    }

    #[test]
    fn a_plan_applies_to_its_own_epoch_only() {
        let map = BucketMap::dealt(2).unwrap();
        let plan = map.plan(&[0, 1, 2]).unwrap();
        let next = map.apply(&plan).unwrap();
        assert!(next.apply(&plan).unwrap_err().contains("plan again"));
        assert!(map.plan(&[]).is_err());
        assert!(map.plan(&[1, 1]).is_err());
        assert!(BucketMap::dealt(0).is_err());
    }

    #[test]
    fn it_survives_storage_and_refuses_nonsense() {
        let map = BucketMap::dealt(3).unwrap();
        let text = serde_json::to_string(&map).unwrap();
        assert_eq!(serde_json::from_str::<BucketMap>(&text).unwrap(), map);
        assert!(serde_json::from_str::<BucketMap>(r#"{"epoch":1,"owners":[0,1]}"#).is_err());
    }
}
