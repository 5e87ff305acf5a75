//! The budget of series: labels whose values are names given in code take a limited number of them.
//!
//! Every value of a label makes new series in everything that stores them, so a name made from input, by mistake or by
//! somebody hostile, costs memory here and in Prometheus without end. Values past the limit become [`OTHER`]; that it
//! happened is counted. Labels not listed here are closed sets by the code that writes them.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use metrics::{Key, Label};

use super::handle::{METADATA, is_real};
use super::names;

/// What a value past the limit is replaced by.
pub(crate) const OTHER: &str = "other";

/// The open labels and how many values each may have in a process.
const OPEN: &[(&str, usize)] = &[
    ("batch", 64),
    ("cache", 64),
    ("check", 256),
    ("database", 64),
    ("db_client_connection_pool_name", 64),
    ("endpoint", 128),
    ("queue", 64),
    ("service", 64),
    ("shard", 256),
    ("target", 64),
];

/// The longest value taken as it is.
const LONGEST: usize = 128;

static SEEN: Mutex<BTreeMap<&'static str, Seen>> = Mutex::new(BTreeMap::new());

#[derive(Default)]
struct Seen {
    values: HashSet<Box<str>>,
    /// Replacements nobody was told of yet.
    untold: u64,
}

/// Whether the label may have this value; if not it becomes [`OTHER`]. A value once admitted stays so.
pub(crate) fn admits(label: &'static str, value: &str) -> bool {
    let Some((_, limit)) = OPEN.iter().find(|(open, _)| *open == label) else { return true };
    if value == OTHER {
        return true;
    }
    let mut all = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    let seen = all.entry(label).or_default();
    if seen.values.contains(value) {
        return true;
    }
    if seen.values.len() < *limit && value.len() <= LONGEST {
        seen.values.insert(value.into());
        return true;
    }
    seen.untold += 1;
    // Not under the lock: a recorder is somebody else's code.
    let untold = seen.untold;
    drop(all);
    metrics::with_recorder(|recorder| {
        if !is_real(recorder) {
            return;
        }
        let key = Key::from_parts(names::OVERFLOW.name, vec![Label::new("label", label)]);
        recorder.register_counter(&key, &METADATA).increment(untold);
        let mut all = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = all.get_mut(label) {
            seen.untold = seen.untold.saturating_sub(untold);
        }
    });
    false
}

#[cfg(test)]
mod tests {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    use super::super::{Counter, names};
    use super::*;

    #[test]
    fn names_past_the_limit_are_other_and_counted() {
        let recorder = DebuggingRecorder::new();
        let snapshots = recorder.snapshotter();
        metrics::with_local_recorder(&recorder, || {
            for n in 0..1000 {
                // `database` is used by no other test of this crate.
                Counter::new(
                    &names::DB_RETRIES,
                    &[("database", &format!("hostile-{n}")), ("reason", "conflict")],
                )
                .increment(1);
            }
        });
        let all = snapshots.snapshot().into_vec();
        let of =
            |name: &str| all.iter().filter(|row| row.0.key().name() == name).collect::<Vec<_>>();
        let retries = of(names::DB_RETRIES.name);
        assert_eq!(retries.len(), 65, "64 names and other");
        let total: u64 = retries
            .iter()
            .map(|row| if let DebugValue::Counter(count) = row.3 { count } else { 0 })
            .sum();
        assert_eq!(total, 1000, "nothing is lost");
        let overflow = of(names::OVERFLOW.name);
        assert_eq!(overflow.len(), 1);
        assert_eq!(overflow[0].3, DebugValue::Counter(1000 - 64));
    }

    #[test]
    fn closed_labels_and_known_values_pass() {
        assert!(admits("outcome", "whatever the code says"));
        assert!(admits("batch", "orders"));
        assert!(admits("batch", "orders"));
        assert!(!admits("batch", &"x".repeat(LONGEST + 1)));
        assert!(admits("batch", OTHER));
    }
}
