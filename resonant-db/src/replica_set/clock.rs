//! How old what a node shows is: a clock that counts in the primary's positions. Pure.
//!
//! Each time the primary says how far it is, that is kept with the instant of the question. Whatever was committed before
//! the question lies before that position. So a replica that has come as far shows everything up to that instant, measured
//! by the clock of this process alone: no two clocks are compared, and an idle primary makes nobody look late. Between two
//! questions nothing is known, so what is reported is the upper bound.

use std::collections::VecDeque;

use resonant_common::join::Position;
use tokio::time::Instant;

/// As many answers are kept. When there are more, every other one of the older half goes.
const KEPT: usize = 512;

#[derive(Debug, Default)]
pub(super) struct LagClock {
    /// The oldest first; positions rise.
    samples: VecDeque<(Instant, Position)>,
}

impl LagClock {
    /// The primary, asked at `asked`, was at `position`.
    pub(super) fn sample(&mut self, asked: Instant, position: Position) {
        match self.samples.back_mut() {
            Some((at, last)) if *last == position => *at = (*at).max(asked),
            Some((_, last)) if position.has_reached(last) == Some(true) => {
                self.samples.push_back((asked, position));
            }
            Some((_, last)) if position.has_reached(last) == Some(false) => {}
            // Another history: what was known says nothing about it.
            _ => self.samples = VecDeque::from([(asked, position)]),
        }
        if self.samples.len() > KEPT {
            let mut place = 0;
            self.samples.retain(|_| {
                place += 1;
                place > KEPT / 2 || place % 2 == 1
            });
        }
    }

    /// The instant up to which a node at `position` certainly shows everything; `None` where that is not known.
    pub(super) fn fresh_as_of(&self, position: &Position) -> Option<Instant> {
        // Positions rise, so those that were reached come first.
        let reached =
            self.samples.partition_point(|(_, sample)| position.has_reached(sample) == Some(true));
        reached.checked_sub(1).and_then(|last| self.samples.get(last)).map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn at(offset: u64) -> Position {
        Position { system: 1, timeline: 1, offset }
    }

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[tokio::test]
    async fn a_replica_is_as_old_as_the_newest_sample_it_has_reached() {
        let t0 = Instant::now();
        let mut clock = LagClock::default();
        assert_eq!(clock.fresh_as_of(&at(10)), None, "nothing is known");
        for n in 0..5 {
            clock.sample(t0 + secs(n), at(10 * n));
        }
        assert_eq!(clock.fresh_as_of(&at(25)), Some(t0 + secs(2)));
        assert_eq!(clock.fresh_as_of(&at(1000)), Some(t0 + secs(4)));
        // The primary is idle: who has come as far is up to date.
        clock.sample(t0 + secs(60), at(40));
        assert_eq!(clock.fresh_as_of(&at(40)), Some(t0 + secs(60)));
        assert_eq!(clock.fresh_as_of(&at(39)), Some(t0 + secs(3)), "and who has not is not");
    }

    #[tokio::test]
    async fn another_history_begins_anew() {
        let t0 = Instant::now();
        let mut clock = LagClock::default();
        clock.sample(t0, at(100));
        clock.sample(t0 + secs(1), Position { timeline: 2, ..at(90) });
        assert_eq!(clock.fresh_as_of(&at(100)), None, "the old history does not compare");
        let new = Position { timeline: 2, ..at(95) };
        assert_eq!(clock.fresh_as_of(&new), Some(t0 + secs(1)));
    }

    #[tokio::test]
    async fn long_histories_are_thinned_and_keep_their_ends() {
        let t0 = Instant::now();
        let mut clock = LagClock::default();
        for n in 0..100_000 {
            clock.sample(t0 + secs(n), at(n));
        }
        assert!(clock.samples.len() <= KEPT);
        assert_eq!(clock.fresh_as_of(&at(0)), Some(t0));
        assert_eq!(clock.fresh_as_of(&at(99_999)), Some(t0 + secs(99_999)));
    }

    proptest! {
        /// Never a promise: whatever was committed before the instant is there.
        #[test]
        fn it_never_says_too_new(steps in proptest::collection::vec((0_u64..5, 0_u64..5), 1..800), shown in 0_u64..3000) {
            let t0 = Instant::now();
            let (mut clock, mut now, mut offset) = (LagClock::default(), t0, 0);
            let mut history = Vec::new();
            for (wait, written) in steps {
                now += secs(wait);
                clock.sample(now, at(offset));
                history.push((now, offset));
                offset += written;
            }
            if let Some(fresh) = clock.fresh_as_of(&at(shown)) {
                for (when, committed) in history {
                    prop_assert!(when >= fresh || committed <= shown);
                }
            }
        }
    }
}
