//! What a shard has said last, and whether that holds.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::Session;

/// What a shard has said last.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// When it was asked that, in nanoseconds since the beginning. 0: never, or its word is in doubt. Written under `doubts`.
    pub(super) asked: AtomicU64,
    /// How often its word was called into doubt.
    doubts: Mutex<u64>,
    pub(super) phase: AtomicI64,
    pub(super) departed: AtomicI64,
    pub(super) arrived: AtomicI64,
    pub(super) landing: AtomicBool,
    /// One asks at a time.
    pub(super) turn: tokio::sync::Mutex<Heard>,
    pub(super) floor: Mutex<Option<Session>>,
    /// How often that has changed.
    pub(super) floors: AtomicU64,
}

/// Which of its words was heard last.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) version: i64,
    pub(super) floor: Option<String>,
}

impl Known {
    pub(super) fn doubts(&self) -> MutexGuard<'_, u64> {
        self.doubts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it has said, or is saying just now, does not hold.
    pub(super) fn doubt(&self) {
        let mut doubts = self.doubts();
        *doubts += 1;
        self.asked.store(0, Ordering::Release);
    }

    /// What it was asked at `sent` holds, unless it has been doubted since there were so many doubts.
    pub(super) fn believe(&self, sent: u64, doubts: u64) -> bool {
        let now = self.doubts();
        let believed = *now == doubts;
        if believed {
            self.asked.store(sent, Ordering::Release);
        }
        believed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_doubted_before_it_has_come_does_not_hold() {
        let known = Known::default();
        let asked = || known.asked.load(Ordering::Acquire);
        let before = *known.doubts();
        assert!(known.believe(7, before));
        assert_eq!(asked(), 7);
        // On its way when somebody else says that buckets have come.
        let before = *known.doubts();
        known.doubt();
        assert!(!known.believe(9, before));
        assert_eq!(asked(), 0);
        let before = *known.doubts();
        known.doubt();
        assert!(!known.believe(11, before), "also where it was in doubt already");
        let before = *known.doubts();
        assert!(known.believe(12, before));
        assert_eq!(asked(), 12);
    }
}
