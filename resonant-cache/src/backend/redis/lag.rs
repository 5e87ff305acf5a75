//! Which replica may answer for a key. A pure core: times are passed in.
//!
//! A replica has caught up to an instant if it has applied everything its primary had at that instant. A key that changed
//! later than that, as far as this process has heard, is read from the primary; so nobody reads from a replica what was
//! there before a change he knows of, and no old value gets into the process behind an announcement.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::target::Address;

/// A replica that was not seen to catch up for this long is not read from.
pub(super) const MAX_LAG: Duration = Duration::from_secs(2);
/// Changes remembered; more make all keys count as changed.
const MAX_MARKS: usize = 65_536;

#[derive(Debug, Default)]
pub(super) struct Lag {
    /// When a key, by hash, was last heard to change.
    marks: HashMap<u64, Instant>,
    /// Up to when everything counts as changed.
    floor: Option<Instant>,
    caught_up: HashMap<Address, Instant>,
}

impl Lag {
    /// A key changed, as heard at `now`.
    pub(super) fn changed(&mut self, key: u64, now: Instant) {
        if self.marks.len() >= MAX_MARKS && !self.marks.contains_key(&key) {
            self.all_changed(now);
        } else {
            self.marks.insert(key, now);
        }
    }

    /// Anything may have changed.
    pub(super) fn all_changed(&mut self, now: Instant) {
        self.marks.clear();
        self.floor = Some(now);
    }

    /// Whether `replica` may answer for a key at `now`.
    pub(super) fn may_answer(&self, replica: &Address, key: u64, now: Instant) -> bool {
        let changed = self.marks.get(&key).copied().max(self.floor);
        self.caught_up.get(replica).is_some_and(|caught_up| {
            now.saturating_duration_since(*caught_up) <= MAX_LAG
                && changed.is_none_or(|changed| changed < *caught_up)
        })
    }

    /// `replica` has everything its primary had at `instant`.
    pub(super) fn caught_up(&mut self, replica: &Address, instant: Instant) {
        self.caught_up.insert(replica.clone(), instant);
    }

    /// A round of looking at all replicas in use is over: forgets what none of them can still lack.
    pub(super) fn prune(&mut self, in_use: impl Fn(&Address) -> bool) {
        self.caught_up.retain(|replica, _| in_use(replica));
        let Some(all) = self.caught_up.values().min().copied() else { return };
        self.marks.retain(|_, changed| *changed >= all);
        self.floor = self.floor.filter(|floor| *floor >= all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(100);

    fn replica(port: u16) -> Address {
        Address { host: "r".into(), port }
    }

    #[test]
    fn a_replica_answers_for_what_it_has_caught_up_with() {
        let t = Instant::now();
        let (mut lag, r) = (Lag::default(), replica(1));
        assert!(!lag.may_answer(&r, 7, t), "nobody has looked at it");
        lag.caught_up(&r, t);
        assert!(lag.may_answer(&r, 7, t + STEP));
        lag.changed(7, t + STEP);
        assert!(!lag.may_answer(&r, 7, t + STEP * 2), "it may lack the change");
        assert!(lag.may_answer(&r, 8, t + STEP * 2));
        lag.caught_up(&r, t + STEP);
        assert!(!lag.may_answer(&r, 7, t + STEP * 2), "at the same instant is not after it");
        lag.caught_up(&r, t + STEP * 2);
        assert!(lag.may_answer(&r, 7, t + STEP * 3));
        assert!(!lag.may_answer(&r, 8, t + MAX_LAG + STEP * 3), "not looked at for too long");
    }

    #[test]
    fn what_some_replica_may_lack_is_remembered() {
        let t = Instant::now();
        let mut lag = Lag::default();
        let (fast, slow) = (replica(1), replica(2));
        lag.changed(7, t);
        lag.caught_up(&fast, t + STEP);
        lag.caught_up(&slow, t - STEP);
        lag.prune(|_| true);
        assert!(lag.may_answer(&fast, 7, t + STEP) && !lag.may_answer(&slow, 7, t + STEP));
        lag.caught_up(&slow, t + STEP);
        lag.prune(|_| true);
        assert!(lag.marks.is_empty());
        lag.prune(|used| *used == fast);
        assert!(!lag.may_answer(&slow, 7, t + STEP), "it is not in use");
    }

    #[test]
    fn too_many_changes_count_as_all() {
        let t = Instant::now();
        let (mut lag, r) = (Lag::default(), replica(1));
        lag.caught_up(&r, t);
        for key in 0..=MAX_MARKS as u64 {
            lag.changed(key, t + STEP);
        }
        assert!(lag.marks.len() <= MAX_MARKS);
        assert!(!lag.may_answer(&r, u64::MAX, t + STEP * 2));
        lag.caught_up(&r, t + STEP * 2);
        lag.prune(|_| true);
        assert!(lag.may_answer(&r, u64::MAX, t + STEP * 2));
    }
}
