//! Proves the order of deliveries while they happen.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use resonant_common::telemetry::Counter;
use resonant_common::telemetry::names::QUEUE_SEQUENCE_FAULTS;

use crate::delivery::Delivery;
use crate::key::Key;

/// What a [`SequenceCheck`] has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SequenceReport {
    /// Deliveries looked at.
    pub seen: u64,
    /// Messages that came although their predecessor had not.
    pub gaps: u64,
    /// Messages that had come before: retries, and what was not settled when an owner ended. Not a fault.
    pub repeats: u64,
    /// Messages that came for the first time after a later one of their key.
    pub inversions: u64,
}

impl SequenceReport {
    /// Whether every key was in order.
    pub fn in_order(&self) -> bool {
        self.gaps == 0 && self.inversions == 0
    }
}

/// Watches deliveries and counts gaps, repeats and inversions per key.
///
/// Every message carries the sequence of the key's message before it, so a missing one is noticed without any list of
/// what was published. Call [`observe`](SequenceCheck::observe) at the start of a handler. Cheap to clone; clones share
/// what they saw. Faults are also counted as `resonant_queue_sequence_faults_total`.
///
/// It remembers the last 100,000 keys; what an older key did is forgotten, which can hide a fault but never invents
/// one. Dead letters that were redriven come under new sequences and are in order.
#[derive(Debug, Clone)]
pub struct SequenceCheck {
    state: Arc<Mutex<State>>,
    faults: Arc<[Counter; 3]>,
}

#[derive(Debug)]
struct State {
    limit: usize,
    keys: HashMap<Key, Seen>,
    /// Keys by when they were first seen, to forget the oldest.
    order: VecDeque<Key>,
    report: SequenceReport,
}

#[derive(Debug, Default)]
struct Seen {
    highest: u64,
    /// Predecessors that were missing when their successor came; at most 64 are remembered.
    missing: BTreeSet<u64>,
}

impl SequenceCheck {
    /// A check that has seen nothing, for the queue of this name.
    pub fn new(queue: &str) -> Self {
        Self::with_limit(queue, 100_000)
    }

    /// The same, remembering another number of keys.
    pub fn with_limit(queue: &str, keys: usize) -> Self {
        let counter =
            |fault| Counter::new(&QUEUE_SEQUENCE_FAULTS, &[("queue", queue), ("fault", fault)]);
        let state = State {
            limit: keys.max(1),
            keys: HashMap::new(),
            order: VecDeque::new(),
            report: SequenceReport::default(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            faults: Arc::new([counter("gap"), counter("repeat"), counter("inversion")]),
        }
    }

    /// Looks at a delivery. Messages without a key are in no order and only counted.
    pub fn observe<T>(&self, delivery: &Delivery<T>) {
        self.look(delivery.key(), delivery.sequence(), delivery.previous());
    }

    /// What was seen so far.
    pub fn report(&self) -> SequenceReport {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).report
    }

    fn look(&self, key: Option<&str>, sequence: u64, previous: Option<u64>) {
        let fault = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.look(key, sequence, previous)
        };
        if let Some(fault) = fault {
            self.faults[fault as usize].increment(1);
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    Gap = 0,
    Repeat = 1,
    Inversion = 2,
}

impl State {
    fn look(&mut self, key: Option<&str>, sequence: u64, previous: Option<u64>) -> Option<Fault> {
        self.report.seen += 1;
        let key = key?;
        let Some(seen) = self.keys.get_mut(key) else {
            if self.keys.len() >= self.limit
                && let Some(oldest) = self.order.pop_front()
            {
                self.keys.remove(&oldest);
            }
            let key = Key::from(key);
            self.order.push_back(key.clone());
            self.keys.insert(key, Seen { highest: sequence, missing: BTreeSet::new() });
            return None;
        };
        if sequence > seen.highest {
            let last = std::mem::replace(&mut seen.highest, sequence);
            let previous = previous.filter(|previous| *previous > last)?;
            if seen.missing.len() < 64 {
                seen.missing.insert(previous);
            }
            self.report.gaps += 1;
            return Some(Fault::Gap);
        }
        if seen.missing.remove(&sequence) {
            // It is here after all, only late.
            self.report.gaps -= 1;
            self.report.inversions += 1;
            return Some(Fault::Inversion);
        }
        self.report.repeats += 1;
        Some(Fault::Repeat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(deliveries: &[(&str, u64, Option<u64>)]) -> SequenceReport {
        let check = SequenceCheck::with_limit("q", 2);
        for (key, sequence, previous) in deliveries {
            check.look(Some(key), *sequence, *previous);
        }
        check.report()
    }

    #[test]
    fn order_gaps_repeats_and_inversions_are_told_apart() {
        let a = |sequence, previous| ("a", sequence, Some(previous));
        assert!(
            report(&[("a", 1, None), ("b", 2, None), a(3, 1), ("b", 4, Some(2)), a(9, 3)])
                .in_order()
        );

        let gap = report(&[("a", 1, None), a(5, 3)]);
        assert_eq!((gap.gaps, gap.inversions, gap.in_order()), (1, 0, false));

        let late = report(&[("a", 1, None), a(5, 3), a(3, 1)]);
        assert_eq!((late.gaps, late.inversions, late.in_order()), (0, 1, false));

        let again = report(&[("a", 1, None), a(3, 1), ("a", 1, None), a(3, 1), a(5, 3)]);
        assert_eq!((again.repeats, again.in_order()), (2, true));

        assert!(
            report(&[("a", 1, None), ("a", 7, None)]).in_order(),
            "an unknown predecessor is no gap"
        );
    }

    #[test]
    fn forgetting_a_key_invents_no_fault() {
        let seen = report(&[("a", 1, None), ("b", 2, None), ("c", 3, None), ("a", 9, Some(5))]);
        assert!(seen.in_order());
        assert_eq!(seen.seen, 4);
    }
}
