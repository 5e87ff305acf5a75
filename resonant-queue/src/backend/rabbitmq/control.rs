//! What all processes of a queue must agree on, as the fold of a log. Pure.
//!
//! The log is a stream: every process reads all of it in the one order the broker gave it, so that all come to the same
//! state, and whoever appends a record learns from the fold what became of it.

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::key::Key;

/// For how long a claimed id that was not stored keeps others from claiming it, in milliseconds.
pub(super) const CLAIM: u64 = 60_000;

/// A record of either log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Record {
    /// Somebody uses the queue with so many partitions. The first one decides.
    Queue { partitions: u32 },
    /// A partition has an owner of this epoch.
    Open { partition: u32, epoch: u64 },
    /// The queue is paused, or no longer.
    Pause { paused: bool },
    /// A key is parked.
    Park { partition: u32, key: String, sequence: u64, since: u64, error: String },
    /// A parked key is to be served again.
    Resume { partition: u32, key: String },
    /// Everything that was put aside for a key has been handled.
    Drained { partition: u32, key: String },
    /// Somebody is about to store a message of this id.
    Claim { id: String, partition: u32, at: u64, window: u64, limit: u64 },
    /// A message of this id is stored; `claim` is the number of its claim.
    Stored { id: String, claim: String },
    /// It was not stored.
    Released { id: String, claim: String },
}

/// A key that is parked or being resumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parked {
    pub(super) sequence: u64,
    pub(super) since: u64,
    pub(super) error: String,
    pub(super) resuming: bool,
}

/// An id that was claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claimed {
    /// The number of the record that claimed it.
    pub(super) claim: String,
    pub(super) partition: u32,
    pub(super) at: u64,
    pub(super) window: u64,
    pub(super) stored: bool,
}

/// The state.
#[derive(Debug, Default)]
pub(super) struct Control {
    pub(super) partitions: Option<u32>,
    pub(super) paused: bool,
    pub(super) epochs: HashMap<u32, u64>,
    pub(super) parked: BTreeMap<(u32, Key), Parked>,
    pub(super) ids: HashMap<String, Claimed>,
    order: VecDeque<(u64, String)>,
}

impl Control {
    /// Applies a record, `number` being its own.
    pub(super) fn apply(&mut self, record: Record, number: &str) {
        match record {
            Record::Queue { partitions } => {
                self.partitions.get_or_insert(partitions);
            }
            Record::Open { partition, epoch } => {
                let current = self.epochs.entry(partition).or_default();
                *current = epoch.max(*current);
            }
            Record::Pause { paused } => self.paused = paused,
            Record::Park { partition, key, sequence, since, error } => {
                let parked = Parked { sequence, since, error, resuming: false };
                self.parked.insert((partition, Key::from(key)), parked);
            }
            Record::Resume { partition, key } => {
                if let Some(parked) = self.parked.get_mut(&(partition, Key::from(key))) {
                    parked.resuming = true;
                }
            }
            Record::Drained { partition, key } => {
                let place = (partition, Key::from(key));
                if self.parked.get(&place).is_some_and(|parked| parked.resuming) {
                    self.parked.remove(&place);
                }
            }
            Record::Claim { id, partition, at, window, limit } => {
                self.forget(at, limit);
                let free = self.ids.get(&id).is_none_or(|claimed| {
                    let keeps = if claimed.stored { claimed.window } else { CLAIM };
                    at >= claimed.at.saturating_add(keeps)
                });
                if free {
                    let claim = number.to_owned();
                    self.order.push_back((at, id.clone()));
                    self.ids.insert(id, Claimed { claim, partition, at, window, stored: false });
                }
            }
            Record::Stored { id, claim } => {
                if let Some(claimed) = self.ids.get_mut(&id)
                    && claimed.claim == claim
                {
                    claimed.stored = true;
                }
            }
            Record::Released { id, claim } => {
                if self.ids.get(&id).is_some_and(|claimed| claimed.claim == claim) {
                    self.ids.remove(&id);
                }
            }
        }
    }

    /// Forgets ids whose window has passed, and the oldest above the limit.
    fn forget(&mut self, now: u64, limit: u64) {
        while let Some((at, id)) = self.order.front() {
            let known = self.ids.get(id).filter(|claimed| claimed.at == *at);
            let keeps = known
                .is_some_and(|claimed| now < claimed.at.saturating_add(claimed.window.max(CLAIM)));
            if keeps && self.order.len() as u64 <= limit {
                break;
            }
            if known.is_some() {
                let id = id.clone();
                self.ids.remove(&id);
            }
            self.order.pop_front();
        }
    }

    /// The epoch a partition was last opened with.
    pub(super) fn epoch(&self, partition: u32) -> u64 {
        self.epochs.get(&partition).copied().unwrap_or_default()
    }

    /// The keys of a partition that are parked, or being resumed.
    pub(super) fn keys(&self, partition: u32, resuming: bool) -> Vec<Key> {
        let of = self
            .parked
            .iter()
            .filter(|((number, _), parked)| *number == partition && parked.resuming == resuming);
        of.map(|((_, key), _)| key.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn park(key: &str) -> Record {
        Record::Park { partition: 1, key: key.into(), sequence: 7, since: 5, error: "no".into() }
    }

    fn claim(at: u64) -> Record {
        Record::Claim { id: "job".into(), partition: 0, at, window: 300_000, limit: 10 }
    }

    #[test]
    fn the_first_number_of_partitions_decides_and_epochs_only_rise() {
        let mut control = Control::default();
        for (partitions, epoch) in [(4, 3), (8, 5), (2, 4)] {
            control.apply(Record::Queue { partitions }, "");
            control.apply(Record::Open { partition: 1, epoch }, "");
        }
        assert_eq!((control.partitions, control.epoch(1), control.epoch(0)), (Some(4), 5, 0));
    }

    #[test]
    fn a_parked_key_is_resumed_drained_and_parked_again() {
        let mut control = Control::default();
        let place = || (1, "a".to_owned());
        let ((partition, key), drained) =
            (place(), Record::Drained { partition: 1, key: "a".into() });
        control.apply(park("a"), "");
        control.apply(drained.clone(), "");
        assert_eq!(control.keys(1, false), [Key::from("a")], "drained only after a resume");
        control.apply(Record::Resume { partition, key }, "");
        assert_eq!((control.keys(1, false), control.keys(1, true)), (vec![], vec![Key::from("a")]));
        control.apply(park("a"), "");
        assert_eq!(control.keys(1, false), [Key::from("a")]);
        control.apply(Record::Resume { partition: 1, key: "a".into() }, "");
        control.apply(drained, "");
        assert!(control.parked.is_empty());
    }

    #[test]
    fn one_claim_wins_until_its_window_has_passed() {
        let mut control = Control::default();
        control.apply(claim(1_000), "one");
        control.apply(claim(1_001), "two");
        assert_eq!(control.ids["job"].claim, "one");
        control.apply(Record::Stored { id: "job".into(), claim: "two".into() }, "");
        assert!(!control.ids["job"].stored, "only by its own claim");
        // A claimer that died does not block the id for ever.
        control.apply(claim(1_000 + CLAIM), "three");
        assert_eq!(control.ids["job"].claim, "three");
        control.apply(Record::Stored { id: "job".into(), claim: "three".into() }, "");
        control.apply(claim(200_000), "four");
        assert_eq!(control.ids["job"].claim, "three");
        control.apply(claim(400_000), "five");
        assert_eq!(control.ids["job"].claim, "five");
        control.apply(Record::Released { id: "job".into(), claim: "five".into() }, "");
        assert!(control.ids.is_empty());
    }

    #[test]
    fn remembered_ids_are_bounded() {
        let mut control = Control::default();
        for number in 0..100_u64 {
            let id = number.to_string();
            control.apply(
                Record::Claim { id, partition: 0, at: number, window: 1000, limit: 10 },
                "n",
            );
        }
        assert!(control.ids.len() <= 11, "{}", control.ids.len());
        assert!(control.ids.contains_key("99"));
    }
}
