use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::*;

const PASS: Status = Status::Pass;
const WARN: Status = Status::Warn;
const FAIL: Status = Status::Fail;
const UNKNOWN: Status = Status::Unknown;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn policy() -> Policy {
    Policy {
        interval: secs(10),
        jitter: 0.0,
        recheck: secs(1),
        rise: 2,
        fall: 3,
        dwell: Duration::ZERO,
        stale_intervals: 3,
    }
}

/// Plays results one second apart and collects the states.
struct Script {
    track: Track,
    now: Instant,
    policy: Policy,
}

impl Script {
    fn new(policy: Policy) -> Self {
        Self { track: Track::new(), now: Instant::now(), policy }
    }

    fn see(&mut self, seen: Status) -> Status {
        self.track.observe(seen, self.now, &self.policy);
        self.now += secs(1);
        self.track.state()
    }

    /// `p`, `w`, `f` are results; the states come back in the same letters.
    fn play(&mut self, results: &str) -> String {
        let letter = |state| match state {
            PASS => 'p',
            WARN => 'w',
            FAIL => 'f',
            UNKNOWN => 'u',
        };
        let result = |letter| match letter {
            'p' => PASS,
            'w' => WARN,
            _ => FAIL,
        };
        results.chars().map(|seen| letter(self.see(result(seen)))).collect()
    }
}

#[test]
fn scripted_results_give_exactly_these_states() {
    for (results, states) in [
        // The first result counts at once.
        ("p", "p"),
        ("f", "f"),
        ("w", "w"),
        // Three worse in a row to fall, two better to rise.
        ("pfff", "pppf"),
        ("pffpfff", "ppppppf"),
        ("pfffpp", "pppffp"),
        ("pfffpfpp", "pppffffp"),
        // The mildest of the worse results is what all agree on.
        ("pwfw", "pppw"),
        ("pfwf", "pppw"),
        ("pfwffff", "pppwwwf"),
        // The worst of the better ones.
        ("fwp", "ffw"),
        ("fpw", "ffw"),
        ("fpwpp", "ffwwp"),
        // From warn a streak on the other side starts anew.
        ("wfpfpfp", "wwwwwww"),
        ("wfff", "wwwf"),
        ("wpp", "wwp"),
    ] {
        assert_eq!(Script::new(policy()).play(results), states, "{results}");
    }
}

#[test]
fn rise_and_fall_of_one_follow_every_result() {
    let mut script = Script::new(Policy { rise: 1, fall: 1, ..policy() });
    assert_eq!(script.play("pfpwfwp"), "pfpwfwp");
}

#[test]
fn a_state_is_kept_for_its_dwell_and_the_streak_goes_on() {
    let mut script = Script::new(Policy { rise: 1, fall: 1, dwell: secs(5), ..policy() });
    // The first result does not dwell; a change at second 1 does, until second 6.
    assert_eq!(script.play("pfpppppp"), "pfffffpp");
    // A streak broken during the dwell starts anew, and the next change is due at the end of the next dwell.
    assert_eq!(script.play("ffffff"), "pppfff");
}

#[test]
fn alternating_results_change_the_state_at_most_once_per_dwell() {
    use rand::RngExt as _;
    for seed in 0..200 {
        let mut chance = StdRng::seed_from_u64(seed);
        let dwell = Duration::from_millis(chance.random_range(1..20_000));
        let policy = Policy {
            rise: chance.random_range(1..4),
            fall: chance.random_range(1..4),
            dwell,
            ..policy()
        };
        let (mut track, mut now) = (Track::new(), Instant::now());
        let mut last: Option<Instant> = None;
        for turn in 0..500 {
            let alternate = if turn % 2 == 0 { FAIL } else { PASS };
            let any = [PASS, WARN, FAIL][chance.random_range(0..3)];
            let seen = if seed % 2 == 0 { alternate } else { any };
            if let Some(shift) = track.observe(seen, now, &policy) {
                assert_eq!(shift.to, track.state());
                // The first result of all is taken at once and does not dwell.
                if shift.from != UNKNOWN {
                    assert!(last.is_none_or(|last| now - last >= dwell), "seed {seed}");
                    last = Some(now);
                }
            }
            now += Duration::from_millis(chance.random_range(1..3000));
        }
    }
}

#[test]
fn a_state_never_moves_past_what_was_seen() {
    use rand::RngExt as _;
    for seed in 0..200 {
        let mut chance = StdRng::seed_from_u64(seed);
        let policy =
            Policy { rise: chance.random_range(1..5), fall: chance.random_range(1..5), ..policy() };
        let (mut track, now) = (Track::new(), Instant::now());
        let mut seen_last = Vec::new();
        for _ in 0..300 {
            let seen = [PASS, WARN, FAIL][chance.random_range(0..3)];
            seen_last.push(seen);
            if let Some(shift) = track.observe(seen, now, &policy) {
                let needed = match shift {
                    Shift { from: UNKNOWN, .. } => 1,
                    Shift { from, to } if to > from => policy.fall,
                    _ => policy.rise,
                };
                let tail = &seen_last[seen_last.len() - needed as usize..];
                let worse = shift.to > shift.from;
                if shift.from != UNKNOWN {
                    assert!(
                        tail.iter()
                            .all(|seen| (*seen > shift.from) == worse && *seen != shift.from),
                        "seed {seed}: {shift:?} after {tail:?}"
                    );
                }
                assert!(tail.contains(&shift.to), "seed {seed}: {shift:?} after {tail:?}");
            }
        }
    }
}

#[test]
fn no_result_for_three_intervals_is_unknown_and_the_next_counts_at_once() {
    let mut script = Script::new(policy());
    script.play("p");
    let last = script.now - secs(1);
    assert_eq!(script.track.expire(last + secs(30), &policy()), None);
    let shift = script.track.expire(last + secs(30) + Duration::from_millis(1), &policy());
    assert_eq!(shift, Some(Shift { from: PASS, to: UNKNOWN }));
    assert_eq!(script.track.expire(last + secs(60), &policy()), None, "told once");
    script.now = last + secs(60);
    assert_eq!(script.play("f"), "f");
}

#[test]
fn rechecks_soon_after_a_surprise_and_backs_off_while_down() {
    let chance = &mut StdRng::seed_from_u64(1);
    let mut script = Script::new(policy());
    let mut waits = |results: &str| -> Vec<u64> {
        results
            .chars()
            .map(|seen| {
                script.play(&seen.to_string());
                script.track.delay(&policy(), chance).as_secs()
            })
            .collect()
    };
    assert_eq!(waits("pp"), [10, 10]);
    // Two failures are unconfirmed, the third settles; then 1, 2, 4, 8 and at most the interval.
    assert_eq!(waits("ffffffff"), [1, 1, 1, 2, 4, 8, 10, 10]);
    // A first success is unconfirmed; the second settles.
    assert_eq!(waits("pp"), [1, 10]);
}

#[test]
fn jitter_spreads_waits_by_its_share_and_no_more() {
    let policy = Policy { jitter: 0.1, ..policy() };
    let chance = &mut StdRng::seed_from_u64(7);
    let track = Track::new();
    let waits: Vec<_> = (0..1000).map(|_| track.delay(&policy, chance)).collect();
    assert!(waits.iter().all(|wait| (secs(9)..=secs(11)).contains(wait)));
    assert!(waits.iter().any(|wait| *wait < Duration::from_millis(9200)));
    assert!(waits.iter().any(|wait| *wait > Duration::from_millis(10_800)));
}
