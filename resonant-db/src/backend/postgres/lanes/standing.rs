//! What is thought of a statement: whether it may share a connection. Pure.
//!
//! ```text
//!            runs short on a connection of its own        the catalogue agrees
//!   Watched ────────────────────────────────────▶ Asked ────────────────────▶ Trusted
//!    ▲   ▲                                          │ it does not                │ │
//!    │   └──────────────────────────────────────────┼───── a minute is over ─────┘ │
//!    └──────────── after a while ──────────────── Barred ◀──── it blocks others ───┘
//! ```

use std::time::Duration;

use tokio::time::Instant;

/// What a statement may take on a connection of its own, the way to the server and back aside.
const SHORT: Duration = Duration::from_millis(2);
/// What it may take on average among others, even if all do: a machine that has no time for anybody looks like that.
const LONG: Duration = Duration::from_millis(25);
/// Above the limit, so many times what the others take is too much.
const TIMES: u32 = 4;
/// One outlier does not count for more than this.
const LONGEST: Duration = Duration::from_millis(40);
/// How long a statement that blocked others is not thought of again: the first time, and at most.
const BARRED: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(600));
/// How long a judgement holds: tables grow, and what was a table may be a view by now.
const HOLDS: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Watched,
    Asked,
    Trusted { since: Instant },
    Barred { until: Instant },
}

#[derive(Debug)]
pub(super) struct Standing {
    stage: Stage,
    service: Duration,
    /// How often in a row it was barred.
    barred: u32,
}

impl Standing {
    pub(super) fn new() -> Self {
        Self { stage: Stage::Watched, service: Duration::ZERO, barred: 0 }
    }

    pub(super) fn is_trusted(&self) -> bool {
        matches!(self.stage, Stage::Trusted { .. })
    }

    /// Whether it is of interest what it takes on a connection of its own: else [`ran`](Standing::ran) changes nothing.
    pub(super) fn is_watched(&self) -> bool {
        matches!(self.stage, Stage::Watched | Stage::Barred { .. })
    }

    /// It ran on a connection of its own; `way` is the way to the server and back. Whether the catalogue is to be asked.
    pub(super) fn ran(&mut self, took: Duration, way: Duration, now: Instant) -> bool {
        if let Stage::Barred { until } = self.stage
            && now >= until
        {
            self.stage = Stage::Watched;
        }
        // One short run is enough: a long one may be the machine's fault, and the first also prepares.
        if self.stage != Stage::Watched || took.saturating_sub(way) > SHORT {
            return false;
        }
        self.stage = Stage::Asked;
        true
    }

    /// It was answered among others, of whom each takes `typical`; `took` is its part. Whether it still may be.
    pub(super) fn served(&mut self, took: Duration, typical: Duration, now: Instant) -> bool {
        self.service = (self.service * 31 + took.min(LONGEST)) / 32;
        let Stage::Trusted { since } = self.stage else { return false };
        if self.service > LONG || (self.service > SHORT && self.service > typical * TIMES) {
            self.stumbled(now);
        } else if now.saturating_duration_since(since) >= HOLDS {
            (self.stage, self.barred) = (Stage::Watched, 0);
        }
        self.is_trusted()
    }

    /// It blocked the others.
    pub(super) fn stumbled(&mut self, now: Instant) {
        let (first, longest) = BARRED;
        let time = first.saturating_mul(1 << self.barred.min(16)).min(longest);
        self.barred += 1;
        (self.stage, self.service) = (Stage::Barred { until: now + time }, Duration::ZERO);
    }

    /// What the catalogue says; `None` when it could not be asked.
    pub(super) fn checked(&mut self, harmless: Option<bool>, now: Instant) {
        self.stage = match (self.stage, harmless) {
            (Stage::Asked, Some(true)) => Stage::Trusted { since: now },
            (_, Some(false)) => Stage::Barred { until: now + HOLDS },
            (Stage::Asked, None) => Stage::Watched,
            (stage, _) => stage,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_WAY: Duration = Duration::ZERO;

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn trusted(now: Instant) -> Standing {
        let mut standing = Standing::new();
        assert!(standing.ran(millis(1), NO_WAY, now));
        assert!(!standing.ran(millis(1), NO_WAY, now), "asked once");
        assert!(!standing.is_trusted() && !standing.is_watched());
        standing.checked(Some(true), now);
        assert!(standing.is_trusted() && !standing.is_watched());
        standing
    }

    #[tokio::test]
    async fn a_statement_has_to_run_short_and_to_be_harmless() {
        let now = Instant::now();
        trusted(now);
        let mut long = Standing::new();
        for _ in 0..10 {
            assert!(!long.ran(millis(5), NO_WAY, now));
        }
        assert!(long.ran(millis(31), millis(30), now), "the way does not count");
        let mut harmful = Standing::new();
        assert!(harmful.ran(millis(1), NO_WAY, now));
        harmful.checked(Some(false), now);
        assert!(
            harmful.is_watched()
                && !harmful.is_trusted()
                && !harmful.ran(millis(1), NO_WAY, now + millis(100))
        );
        assert!(harmful.ran(millis(1), NO_WAY, now + HOLDS), "the schema may have changed");
        let mut unknown = Standing::new();
        assert!(unknown.is_watched() && unknown.ran(millis(1), NO_WAY, now));
        unknown.checked(None, now);
        assert!(
            unknown.is_watched() && !unknown.is_trusted() && unknown.ran(millis(1), NO_WAY, now),
            "asked again"
        );
    }

    #[tokio::test]
    async fn who_is_slower_than_the_others_leaves_for_longer_each_time() {
        let now = Instant::now();
        let mut standing = trusted(now);
        assert!(standing.served(millis(300), millis(1), now), "once is an accident");
        let stays = (0..100).take_while(|_| standing.served(millis(9), millis(1), now)).count();
        assert!(stays < 40, "{stays}");
        assert!(!standing.ran(millis(1), NO_WAY, now + millis(4000)));
        assert!(standing.ran(millis(1), NO_WAY, now + millis(5000)));
        standing.checked(Some(true), now);
        standing.stumbled(now);
        assert!(!standing.ran(millis(1), NO_WAY, now + millis(9000)));
        assert!(standing.ran(millis(1), NO_WAY, now + millis(10_000)));
    }

    #[tokio::test]
    async fn a_busy_machine_is_nobodys_fault_but_slow_is_slow() {
        let now = Instant::now();
        let mut standing = trusted(now);
        assert!((0..100).all(|_| standing.served(millis(5), millis(5), now)), "all are slow");
        assert!((0..100).any(|_| !standing.served(millis(35), millis(35), now)));
    }

    #[tokio::test]
    async fn a_judgement_holds_for_a_minute() {
        let now = Instant::now();
        let mut standing = trusted(now);
        assert!(standing.served(millis(1), millis(1), now + millis(59_000)));
        assert!(!standing.served(millis(1), millis(1), now + HOLDS));
        assert!(standing.ran(millis(1), NO_WAY, now + HOLDS), "and is made again");
    }
}
