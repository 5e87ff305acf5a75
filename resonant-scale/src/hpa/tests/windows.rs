//! The most careful recommendation of a window counts.

use super::super::{Behavior, Hpa, HpaConfig, MetricSpec, ScalingRules};
use super::{now, secs};

/// Earlier recommendations with their ages, the windows, current and wanted, and what comes out.
type Case = (&'static [(u32, u64)], (u64, u64), u32, u32, u32);

fn stabilized(
    behavior: Option<(u64, u64)>,
    log: &[(u32, u64)],
    current: u32,
    wanted: u32,
) -> (u32, Hpa) {
    let mut config = HpaConfig::new(0, 1000).metric(MetricSpec::external("m", 1.0));
    if let Some((up, down)) = behavior {
        config = config.behavior(Behavior {
            scale_up: ScalingRules { stabilization_window: Some(secs(up)), ..ScalingRules::up() },
            scale_down: ScalingRules {
                stabilization_window: Some(secs(down)),
                ..ScalingRules::down()
            },
        });
    }
    let mut hpa = Hpa::new(config).unwrap();
    let now = now();
    log.iter().for_each(|(number, ago)| hpa.recommendations.push(now - secs(*ago), *number));
    let (stabilized, _) = hpa.stabilize(current, wanted, now);
    (stabilized, hpa)
}

#[test]
fn with_windows_both_ways() {
    let cases: [Case; 11] = [
        (&[], (0, 0), 100, 5, 5),
        (&[(4, 120), (5, 60)], (0, 180), 100, 3, 5),
        (&[(4, 120), (5, 60)], (300, 0), 1, 7, 4),
        (&[(1, 120), (2, 60)], (300, 0), 100, 3, 3),
        (&[(4, 120), (5, 60)], (0, 300), 1, 3, 3),
        (&[(10, 600), (9, 540)], (0, 0), 100, 3, 3),
        (&[(10, 600), (9, 540)], (0, 0), 1, 100, 100),
        (&[(10, 600), (4, 60), (5, 120), (9, 540)], (0, 180), 100, 3, 5),
        (&[(10, 6000), (6, 60), (5, 120), (9, 180)], (300, 0), 1, 100, 5),
        (&[(2, 6000), (3, 180)], (300, 300), 2, 1, 2),
        (&[(2, 6000), (1, 180)], (300, 300), 2, 3, 2),
    ];
    for (log, windows, current, wanted, expected) in cases {
        let (got, _) = stabilized(Some(windows), log, current, wanted);
        assert_eq!(got, expected, "{log:?} {windows:?} {current} to {wanted}");
    }
}

#[test]
fn without_a_behavior_only_down_has_a_window() {
    type Case = (&'static [(u32, u64)], u32, u32, usize);
    let cases: [Case; 5] = [
        (&[], 5, 5, 0),
        (&[(4, 120), (5, 60)], 3, 5, 2),
        (&[(1, 120), (2, 60)], 3, 3, 2),
        // Upstream keeps places of old ones for reuse; here they are forgotten.
        (&[(10, 600), (9, 540)], 3, 3, 0),
        (&[(10, 600), (4, 60), (5, 120), (9, 540)], 3, 5, 2),
    ];
    for (log, wanted, expected, kept) in cases {
        let (got, hpa) = stabilized(None, log, 100, wanted);
        assert_eq!((got, hpa.recommendations.numbers().len()), (expected, kept), "{log:?}");
    }
}

#[test]
fn a_recommendation_as_old_as_the_window_no_longer_counts() {
    assert_eq!(stabilized(Some((0, 60)), &[(9, 60)], 9, 3).0, 3);
    assert_eq!(stabilized(Some((0, 60)), &[(9, 59)], 9, 3).0, 9);
}

#[test]
fn without_a_behavior_one_as_old_as_the_window_still_counts() {
    assert_eq!(stabilized(None, &[(9, 300)], 9, 3).0, 9);
    assert_eq!(stabilized(None, &[(9, 301)], 9, 3).0, 3);
}
