//! What rates and bounds leave of a step.

use super::super::log::{Events, Log};
use super::super::{Behavior, Hpa, HpaConfig, MetricSpec, ScalingPolicy, ScalingRules, Select};
use super::{now, secs};
use crate::decision::Reason::{self, *};

/// Pods and their period, percent and their period; none where the value is 0.
fn rules(pods: (u32, u64), percent: (u32, u64), window: u64) -> ScalingRules {
    let mut policies = Vec::new();
    if pods.0 > 0 {
        policies.push(ScalingPolicy::pods(pods.0, secs(pods.1)));
    }
    if percent.0 > 0 {
        policies.push(ScalingPolicy::percent(percent.0, secs(percent.1)));
    }
    ScalingRules::new(secs(window), policies)
}

/// So many changes, each in the middle of its share of the last 120 s.
fn spread(changes: &[u32]) -> Log {
    let now = now();
    let mut log = Log::default();
    let share = 120.0 / changes.len() as f64;
    for (index, change) in changes.iter().enumerate() {
        // Whole seconds, as the original counts them.
        let ago = (120.0 - share * (index + 1) as f64 + share / 2.0) as u64;
        log.push(now - secs(ago), *change);
    }
    log
}

struct Case {
    name: &'static str,
    bounds: (u32, u32),
    up: Option<ScalingRules>,
    down: Option<ScalingRules>,
    added: &'static [u32],
    removed: &'static [u32],
    current: u32,
    wanted: u32,
    expected: (u32, Reason),
}

fn check(case: Case) {
    // The log is made relative to one instant.
    tokio::runtime::Builder::new_current_thread()
        .start_paused(true)
        .enable_time()
        .build()
        .unwrap()
        .block_on(async {
            let behavior = Behavior {
                scale_up: case.up.unwrap_or_else(ScalingRules::up),
                scale_down: case.down.unwrap_or_else(ScalingRules::down),
            };
            let config = HpaConfig::new(case.bounds.0, case.bounds.1)
                .metric(MetricSpec::external("m", 1.0))
                .behavior(behavior);
            let mut hpa = Hpa::new(config).unwrap();
            hpa.events = Events { added: spread(case.added), removed: spread(case.removed) };
            assert_eq!(hpa.limit(case.current, case.wanted, now()), case.expected, "{}", case.name);
        });
}

macro_rules! cases {
    ($($name:ident: $min:literal..$max:literal, $current:literal to $wanted:literal
        $(, up $up:expr)? $(, down $down:expr)? $(, added $added:expr)? $(, removed $removed:expr)?
        => $expected:literal $reason:ident;)*) => {$(
        #[test]
        fn $name() {
            #[allow(unused_mut, unused_assignments)]
            let mut case = Case {
                name: stringify!($name), bounds: ($min, $max), up: None, down: None, added: &[], removed: &[],
                current: $current, wanted: $wanted, expected: ($expected, $reason),
            };
            $(case.up = Some($up);)?
            $(case.down = Some($down);)?
            $(case.added = &$added;)?
            $(case.removed = &$removed;)?
            check(case);
        }
    )*};
}

cases! {
    within_the_bounds: 3..8, 5 to 7 => 7 DesiredWithinRange;
    below_the_minimum: 2..8, 3 to 1 => 2 TooFewReplicas;
    nothing_where_the_minimum_is_nothing: 0..10, 1 to 0 => 0 DesiredWithinRange;
    the_maximum_is_below_the_rate: 1..10, 20 to 1000 => 10 TooManyReplicas;
    far_above_the_maximum: 100..150, 100 to 1000 => 150 TooManyReplicas;
    one_percent_of_three_is_one: 1..2000, 3 to 1000, up rules((0, 0), (1, 60), 0) => 4 ScaleUpLimit;
    // Left out upstream by a flag that stayed behind.
    twenty_fewer_of_a_thousand: 3..2000, 1000 to 3, down rules((20, 60), (0, 0), 0) => 980 ScaleDownLimit;
    the_default_up_doubles: 1..1000, 10 to 50 => 20 ScaleUpLimit;
    pods_above_percent_up: 1..1000, 10 to 500, up rules((100, 60), (100, 60), 0) => 110 ScaleUpLimit;
    percent_above_pods_up: 1..1000, 10 to 500, up rules((2, 60), (100, 60), 0) => 20 ScaleUpLimit;
    many_pods_up: 1..1000, 10 to 50, up rules((100, 60), (0, 0), 0) => 50 DesiredWithinRange;
    very_many_pods_up: 1..1000, 10 to 50, up rules((10000, 60), (0, 0), 0) => 50 DesiredWithinRange;
    pods_limit_up: 1..1000, 10 to 50, up rules((30, 60), (0, 0), 0) => 40 ScaleUpLimit;
    percent_limits_up: 1..1000, 10 to 50, up rules((0, 0), (200, 60), 0) => 30 ScaleUpLimit;
    pods_above_percent_down: 1..1000, 100 to 2, down rules((20, 60), (1, 60), 300) => 80 ScaleDownLimit;
    few_pods_above_percent_down: 1..1000, 100 to 2, down rules((2, 60), (1, 60), 300) => 98 ScaleDownLimit;
    many_pods_down_to_the_minimum: 1..1000, 10 to 0, down rules((100, 60), (0, 0), 300) => 1 TooFewReplicas;
    many_pods_down_to_the_minimum_again: 1..1000, 10 to 0, down rules((100, 60), (0, 0), 300) => 1 TooFewReplicas;
    all_percent_down_to_the_minimum: 5..1000, 10 to 2, down rules((0, 0), (100, 60), 300) => 5 TooFewReplicas;
    pods_limit_down: 1..1000, 10 to 2, down rules((5, 60), (0, 0), 300) => 5 ScaleDownLimit;
    percent_allow_down: 1..1000, 10 to 5, down rules((0, 0), (50, 60), 300) => 5 DesiredWithinRange;
    many_pods_up_after_others: 1..200, 100 to 500, up rules((300, 60), (0, 0), 0), added [1, 5, 9] => 200 TooManyReplicas;
    many_percent_up_after_others: 1..200, 100 to 500, up rules((0, 0), (10000, 60), 0), added [1, 5, 9] => 200 TooManyReplicas;
    // 100 - 15 + 5 would be fewer: keep.
    no_more_after_too_many: 1..1000, 100 to 500, up rules((5, 120), (0, 0), 0), added [1, 5, 9] => 100 ScaleUpLimit;
    pods_up_after_others: 1..1000, 100 to 500, up rules((150, 120), (0, 0), 0), added [1, 5, 9] => 235 ScaleUpLimit;
    percent_up_after_others: 1..1000, 100 to 500, up rules((0, 0), (200, 120), 0), added [1, 5, 9] => 255 ScaleUpLimit;
    percent_up_after_both_ways: 1..1000, 6 to 24, up rules((0, 0), (300, 300), 0), added [4], removed [2] => 16 ScaleUpLimit;
    the_default_down_after_others: 1..1000, 10 to 5, removed [1, 5, 9] => 5 DesiredWithinRange;
    many_pods_down_after_others: 1..1000, 100 to 0, down rules((115, 120), (0, 0), 300), removed [1, 5, 9] => 1 TooFewReplicas;
    many_pods_down_after_others_to_five: 5..1000, 100 to 0, down rules((130, 120), (0, 0), 300), removed [1, 5, 9] => 5 TooFewReplicas;
    all_percent_down_after_others: 5..1000, 100 to 2, down rules((0, 0), (100, 120), 300), removed [1, 5, 9] => 5 TooFewReplicas;
    // 100 + 15 - 5 would be more: keep.
    no_fewer_after_too_many: 1..1000, 100 to 2, down rules((5, 120), (0, 0), 300), removed [1, 5, 9] => 100 ScaleDownLimit;
    percent_down_after_others: 1..1000, 100 to 0, down rules((0, 0), (50, 120), 300), removed [2, 4, 6] => 56 ScaleDownLimit;
    percent_down_after_both_ways: 1..1000, 10 to 1, down rules((0, 0), (50, 180), 0), added [2], removed [4] => 6 ScaleDownLimit;
    percent_down_after_very_many: 1..1000, 100 to 0, down rules((0, 0), (10, 120), 300), removed [10, 10, 10] => 100 ScaleDownLimit;
    below_nothing_is_no_limit: 1..1000, 10 to 5, down rules((0, 0), (1000, 120), 300), removed [10, 10, 10] => 5 DesiredWithinRange;
    old_ones_do_not_count_up: 1..1000, 100 to 200, up rules((1000, 60), (0, 0), 0), added [8, 12, 9, 11] => 200 DesiredWithinRange;
    two_periods_up: 1..1000, 100 to 200, up rules((1000, 120), (100, 60), 0), added [8, 12, 9, 11] => 200 DesiredWithinRange;
    two_short_periods_up: 1..1000, 100 to 200, up rules((1000, 30), (100, 60), 0), added [8, 12, 9, 11] => 200 DesiredWithinRange;
    old_ones_do_not_count_down: 1..1000, 100 to 5, down rules((1000, 60), (0, 0), 300), removed [8, 12, 9, 11] => 5 DesiredWithinRange;
    two_periods_down: 1..1000, 100 to 5, down rules((1000, 120), (100, 60), 300), removed [8, 12, 9, 11] => 5 DesiredWithinRange;
    two_short_periods_down: 1..1000, 100 to 5, down rules((1000, 30), (100, 60), 300), removed [8, 12, 9, 11] => 5 DesiredWithinRange;
    // Floating point as it is.
    ten_percent_of_fifty_is_six: 1..1000, 50 to 500, up rules((0, 0), (10, 60), 0) => 56 ScaleUpLimit;
    ten_percent_of_a_hundred_is_eleven: 1..1000, 100 to 500, up rules((0, 0), (10, 60), 0) => 111 ScaleUpLimit;
    thirty_percent_of_ninety_is_twenty_eight: 1..1000, 90 to 1, down rules((0, 0), (30, 60), 0) => 62 ScaleDownLimit;
    percent_of_the_most_stays_the_most: 1..2147483647, 2147483646 to 2147483647, up rules((0, 0), (1000, 60), 0) => 2147483647 DesiredWithinRange;
}

#[test]
fn the_smaller_of_two_policies_can_be_chosen() {
    let with = |mut rules: ScalingRules, select| {
        rules.select = select;
        rules
    };
    let (events, now) = (Events::default(), now());
    let both = rules((2, 60), (50, 60), 300);
    assert_eq!(events.upper(now, 1, &with(both.clone(), Select::Min)), 2);
    assert_eq!(events.lower(now, 5, &with(both.clone(), Select::Min)), 3);
    assert_eq!(events.upper(now, 10, &with(both.clone(), Select::Max)), 15);
    assert_eq!(events.lower(now, 10, &with(both.clone(), Select::Max)), 5);
    assert_eq!(events.upper(now, 7, &with(both.clone(), Select::Disabled)), 7);
    assert_eq!(events.lower(now, 7, &with(both, Select::Disabled)), 7);
}

/// Current, wanted, bounds, expected. Without a behaviour a step is at most double, or four.
#[test]
fn without_a_behavior_the_classic_rules_hold() {
    for (current, wanted, min, max, expected) in [
        (5, 7, 3, 8, (7, DesiredWithinRange)),
        (3, 1, 2, 8, (2, TooFewReplicas)),
        (1, 0, 0, 10, (0, DesiredWithinRange)),
        (20, 1000, 1, 10, (10, TooManyReplicas)),
        (3, 1000, 1, 2000, (6, ScaleUpLimit)),
        (1, 1000, 1, 2000, (4, ScaleUpLimit)),
        (0, 9, 0, 2000, (4, ScaleUpLimit)),
    ] {
        let config = HpaConfig::new(min, max).metric(MetricSpec::external("m", 1.0));
        let hpa = Hpa::new(config).unwrap();
        assert_eq!(hpa.limit(current, wanted, now()), expected, "{current} to {wanted}");
    }
}

/// What is remembered of changes: those before, the rules if any, the sum of the last 60 s before, and what is then kept.
#[test]
fn changes_are_remembered_as_long_as_a_policy_looks_back() {
    type Before = &'static [(u32, u64)];
    let table: [(Before, Option<ScalingRules>, u32, &[u32]); 8] = [
        (&[], None, 0, &[]),
        (&[], Some(rules((10, 60), (100, 60), 0)), 0, &[5]),
        (&[(7, 61)], None, 0, &[7]),
        (&[(7, 61)], Some(rules((10, 60), (100, 60), 0)), 0, &[5]),
        (&[(7, 58)], Some(rules((10, 60), (100, 60), 0)), 7, &[7, 5]),
        (&[(7, 61), (6, 59)], Some(rules((10, 60), (0, 0), 0)), 6, &[6, 5]),
        (
            &[(8, 29), (6, 59), (7, 61), (9, 61)],
            Some(rules((10, 60), (100, 30), 0)),
            14,
            &[8, 6, 5],
        ),
        (&[(7, 58), (6, 59)], Some(rules((10, 120), (100, 30), 0)), 13, &[7, 6, 5]),
    ];
    for (before, rules, sum, after) in table {
        for up in [true, false] {
            let now = now();
            let mut log = Log::default();
            before.iter().for_each(|(change, ago)| log.push(now - secs(*ago), *change));
            assert_eq!(log.within(now, secs(60)).sum::<u32>(), sum);
            let mut config = HpaConfig::new(1, 100).metric(MetricSpec::external("m", 1.0));
            if let Some(rules) = rules.clone() {
                // The other direction looks back no further.
                let short = ScalingRules::new(secs(0), [ScalingPolicy::pods(1, secs(1))]);
                config = config.behavior(match up {
                    true => Behavior { scale_up: rules, scale_down: short },
                    false => Behavior { scale_up: short, scale_down: rules },
                });
            }
            let mut hpa = Hpa::new(config).unwrap();
            let (to, log_of) = match up {
                true => (15, &mut hpa.events.added),
                false => (5, &mut hpa.events.removed),
            };
            *log_of = log;
            hpa.scaled(10, to, now);
            let log = if up { &hpa.events.added } else { &hpa.events.removed };
            assert_eq!(log.numbers().collect::<Vec<_>>(), after, "up: {up}");
        }
    }
}
