//! What a move is made of, without a server: its record, the order of its steps, and which buckets go together.

use std::collections::BTreeMap;
use std::fmt;

use super::tables::Table;
use crate::sharding::{BucketMap, BucketPlan};

/// How far a move has come, as its record on the source says. In this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum MoveState {
    /// Tables for it are being made; nothing is captured yet.
    Preparing,
    /// Changes are written down, and the rows of so many tables are copied.
    Copying {
        /// Tables that are copied.
        tables: u32,
    },
    /// All rows are copied and changes are brought after them.
    Following,
    /// Groups of buckets change their owner.
    Switching,
    /// All buckets have changed their owner; what the move needed is taken away.
    Clearing,
}

impl fmt::Display for MoveState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MoveState::Preparing => f.write_str("preparing"),
            MoveState::Copying { tables } => write!(f, "copying {tables}"),
            MoveState::Following => f.write_str("following"),
            MoveState::Switching => f.write_str("switching"),
            MoveState::Clearing => f.write_str("clearing"),
        }
    }
}

impl MoveState {
    pub(super) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "preparing" => MoveState::Preparing,
            "following" => MoveState::Following,
            "switching" => MoveState::Switching,
            "clearing" => MoveState::Clearing,
            _ => MoveState::Copying { tables: text.strip_prefix("copying ")?.parse().ok()? },
        })
    }

    /// What comes after this one, of a move of so many tables.
    pub(super) fn next(self, tables: usize) -> Option<Self> {
        let tables = u32::try_from(tables).unwrap_or(u32::MAX);
        let copied = |done| match done >= tables {
            true => MoveState::Following,
            false => MoveState::Copying { tables: done },
        };
        match self {
            MoveState::Preparing => Some(copied(0)),
            MoveState::Copying { tables } => Some(copied(tables.saturating_add(1))),
            MoveState::Following => Some(MoveState::Switching),
            MoveState::Switching => Some(MoveState::Clearing),
            MoveState::Clearing => None,
        }
    }
}

/// The buckets that go from one shard to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) buckets: Vec<u32>,
}

/// The pairs of a plan, in order, without what is done already and without buckets that stay for their pinned keys; or the
/// bucket that does not fit the map.
pub(super) fn pairs(plan: &BucketPlan, map: &BucketMap, pinned: &[u32]) -> Result<Vec<Pair>, u32> {
    let mut pairs: BTreeMap<(u32, u32), Vec<u32>> = BTreeMap::new();
    for step in &plan.moves {
        let owner = map.shard(step.bucket);
        if owner == Some(step.to) || step.from == step.to || pinned.contains(&step.bucket) {
            continue;
        }
        if owner != Some(step.from) {
            return Err(step.bucket);
        }
        pairs.entry((step.from, step.to)).or_default().push(step.bucket);
    }
    Ok(pairs.into_iter().map(|((from, to), buckets)| Pair { from, to, buckets }).collect())
}

/// The most buckets that go at once: each is a lock on the server.
const MOST: usize = 64;

/// Which buckets go together: as many as have no more than `rows` rows, but one at least. `buckets` holds the number of rows
/// of each.
pub(super) fn groups(buckets: &BTreeMap<u32, u64>, rows: u64) -> Vec<Vec<u32>> {
    let mut groups: Vec<Vec<u32>> = Vec::new();
    let mut held = 0;
    for (bucket, count) in buckets {
        match groups.last_mut() {
            Some(group) if group.len() < MOST && held + count <= rows => {
                held += count;
                group.push(*bucket);
            }
            _ => {
                held = *count;
                groups.push(vec![*bucket]);
            }
        }
    }
    groups
}

/// The tables in an order in which each comes after what it refers to; or one that is part of a circle.
pub(super) fn ordered(tables: Vec<Table>) -> Result<Vec<Table>, String> {
    let mut waiting = tables;
    let mut done: Vec<Table> = Vec::with_capacity(waiting.len());
    while !waiting.is_empty() {
        let free = |table: &Table| {
            table.refers_to.iter().all(|other| {
                *other == table.name || !waiting.iter().any(|left| left.name == *other)
            })
        };
        match waiting.iter().position(free) {
            Some(at) => done.push(waiting.remove(at)),
            None => return Err(waiting.remove(0).name),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sharding::{BucketMove, KeyType};

    #[test]
    fn a_move_goes_through_every_step_and_its_record_can_be_read() {
        let mut state = MoveState::Preparing;
        let mut seen = vec![state];
        while let Some(next) = state.next(3) {
            assert!(next > state, "{state} -> {next}");
            assert_eq!(MoveState::parse(&next.to_string()), Some(next));
            seen.push(next);
            state = next;
        }
        assert_eq!(seen.len(), 7, "{seen:?}");
        assert_eq!(MoveState::Preparing.next(0), Some(MoveState::Following));
        assert_eq!(MoveState::parse("copying"), None);
        assert_eq!(MoveState::parse("idle"), None);
    }

    #[test]
    fn a_plan_becomes_pairs_without_what_is_done_or_pinned() {
        let map = BucketMap::dealt(4).unwrap();
        let plan = map.plan(&[0, 1, 2, 3, 4]).unwrap();
        let all = pairs(&plan, &map, &[]).unwrap();
        assert_eq!(
            all.iter().map(|pair| (pair.from, pair.to)).collect::<Vec<_>>(),
            [(0, 4), (1, 4), (2, 4), (3, 4)]
        );
        assert_eq!(all.iter().map(|pair| pair.buckets.len()).sum::<usize>(), plan.moves.len());
        let pinned = all[0].buckets[3];
        let fewer = pairs(&plan, &map, &[pinned]).unwrap();
        assert!(!fewer[0].buckets.contains(&pinned));
        let done = map.apply(&plan).unwrap();
        assert!(pairs(&plan, &done, &[]).unwrap().is_empty());
        let odd = BucketPlan { epoch: 0, moves: vec![BucketMove { bucket: 1, from: 0, to: 2 }] };
        assert_eq!(pairs(&odd, &map, &[]), Err(1));
    }

    #[test]
    fn groups_keep_to_their_rows_and_lose_no_bucket() {
        let buckets: BTreeMap<u32, u64> =
            (0..500).map(|b| (b, u64::from(b) * 37 % 1_000)).collect();
        let parts = groups(&buckets, 2_000);
        assert_eq!(parts.concat(), buckets.keys().copied().collect::<Vec<_>>());
        for group in &parts {
            let rows: u64 = group.iter().map(|bucket| buckets[bucket]).sum();
            assert!(rows <= 2_000 && group.len() <= MOST);
        }
        let large = BTreeMap::from([(1, 10), (2, 9_000), (3, 0), (4, 5)]);
        assert_eq!(groups(&large, 100), [vec![1], vec![2], vec![3, 4]]);
        let empty: BTreeMap<u32, u64> = (0..200).map(|b| (b, 0)).collect();
        assert_eq!(groups(&empty, 100).len(), 4);
    }

    #[test]
    fn tables_come_after_what_they_refer_to() {
        let table = |name: &str, refers_to: &[&str]| Table {
            name: name.into(),
            key: "k".into(),
            key_type: KeyType::Int,
            columns: Vec::new(),
            primary: Vec::new(),
            refers_to: refers_to.iter().map(|&name| name.to_owned()).collect(),
        };
        let tables = vec![table("c", &["b", "c"]), table("a", &[]), table("b", &["a", "gone"])];
        let names: Vec<_> = ordered(tables).unwrap().into_iter().map(|table| table.name).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(ordered(vec![table("a", &["b"]), table("b", &["a"])]), Err("a".into()));
    }
}
