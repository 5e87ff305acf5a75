//! Whole rounds: metrics, windows, rates and bounds, and what is said of them.

use tokio::time::Instant;

use super::super::{
    Behavior, Hpa, HpaConfig, MetricSpec, Observed, Reading, Scale, ScalingPolicy, ScalingRules,
};
use super::{now, secs};
use crate::decision::ConditionKind::{self, AbleToScale, ScalingActive, ScalingLimited};
use crate::decision::Reason;

fn observed(replicas: u32, readings: &[(&str, Option<f64>)]) -> Observed {
    let reading = |value: &Option<f64>| match value {
        Some(value) => Reading::Total(*value),
        None => Reading::Failed("something went wrong".into()),
    };
    Observed {
        scale: Scale::steady(replicas),
        readings: readings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), reading(value)))
            .collect(),
        ..Observed::default()
    }
}

fn two(min: u32, max: u32) -> HpaConfig {
    HpaConfig::new(min, max)
        .metric(MetricSpec::external("a", 10.0))
        .metric(MetricSpec::external("b", 10.0))
}

fn at_once(config: HpaConfig) -> HpaConfig {
    config.behavior(Behavior {
        scale_down: ScalingRules { stabilization_window: Some(secs(0)), ..ScalingRules::down() },
        ..Behavior::default()
    })
}

#[test]
fn the_largest_proposal_counts_and_what_failed_never_shrinks() {
    for (a, b, from, to, active, reason) in [
        (Some(20.0), Some(10.0), 3, 6, true, Reason::MetricAboveTarget),
        (Some(5.0), Some(20.0), 3, 6, true, Reason::MetricAboveTarget),
        (Some(5.0), Some(2.0), 6, 3, true, Reason::AllMetricsBelowTarget),
        (Some(10.5), Some(2.0), 6, 6, true, Reason::WithinTolerance),
        (None, Some(20.0), 3, 6, true, Reason::MetricAboveTarget),
        (Some(20.0), None, 3, 6, true, Reason::MetricAboveTarget),
        (None, Some(2.0), 6, 6, false, Reason::FailedGetMetric),
        (Some(2.0), None, 6, 6, false, Reason::FailedGetMetric),
        (Some(10.0), None, 6, 6, true, Reason::WithinTolerance),
        (None, None, 6, 6, false, Reason::FailedGetMetric),
    ] {
        let mut hpa = Hpa::new(at_once(two(1, 100))).unwrap();
        let decision = hpa.decide(&observed(from, &[("a", a), ("b", b)]), now());
        assert_eq!((decision.to, decision.reason), (to, reason), "{a:?} {b:?}");
        assert_eq!(decision.condition(ScalingActive).unwrap().holds, active);
        let failed = decision.metrics.iter().filter(|metric| metric.error.is_some()).count();
        assert_eq!(failed, [a, b].iter().filter(|it| it.is_none()).count());
    }
}

#[test]
fn bounds_come_before_metrics_windows_and_rates() {
    for (min, max, from, to, reason) in [
        (2, 6, 1, 2, Reason::BelowMinimum),
        (2, 5, 6, 5, Reason::AboveMaximum),
        (1, 9, 0, 0, Reason::ScalingDisabled),
        (2, 5, 500, 5, Reason::AboveMaximum),
        (90, 100, 1, 90, Reason::BelowMinimum),
    ] {
        let mut hpa = Hpa::new(two(min, max).behavior(Behavior::default())).unwrap();
        let decision = hpa.decide(&observed(from, &[("a", None), ("b", None)]), now());
        assert_eq!((decision.to, decision.reason), (to, reason));
        assert!(decision.metrics.is_empty(), "they are not looked at");
    }
}

#[test]
fn the_minimum_may_be_nothing_and_back() {
    let mut hpa =
        Hpa::new(at_once(HpaConfig::new(0, 9).metric(MetricSpec::external_average("a", 10.0))))
            .unwrap();
    assert_eq!(hpa.decide(&observed(0, &[("a", Some(25.0))]), now()).to, 3);
    assert_eq!(hpa.decide(&observed(3, &[("a", Some(0.0))]), now()).to, 0);
}

fn conditions(hpa: &mut Hpa, observed: &Observed, at: Instant) -> [(bool, Reason); 3] {
    let decision = hpa.decide(observed, at);
    let of = |kind: ConditionKind| {
        let condition = decision.condition(kind).unwrap();
        (condition.holds, condition.reason)
    };
    [of(AbleToScale), of(ScalingActive), of(ScalingLimited)]
}

#[test]
fn conditions_say_what_kubernetes_says() {
    let valid = (true, Reason::ValidMetricFound);
    let at = now();
    let single = |min, max| HpaConfig::new(min, max).metric(MetricSpec::external("a", 10.0));
    let mut hpa = Hpa::new(at_once(single(2, 5))).unwrap();
    let ready = (true, Reason::ReadyForNewScale);
    let within = (false, Reason::DesiredWithinRange);
    assert_eq!(
        conditions(&mut hpa, &observed(3, &[("a", Some(10.0))]), at),
        [ready, valid, within]
    );
    let many = (true, Reason::TooManyReplicas);
    assert_eq!(conditions(&mut hpa, &observed(3, &[("a", Some(90.0))]), at), [ready, valid, many]);
    let few = (true, Reason::TooFewReplicas);
    assert_eq!(conditions(&mut hpa, &observed(3, &[("a", Some(0.1))]), at), [ready, valid, few]);
    let mut hpa = Hpa::new(at_once(single(1, 100))).unwrap();
    let rate = (true, Reason::ScaleUpLimit);
    assert_eq!(conditions(&mut hpa, &observed(3, &[("a", Some(90.0))]), at), [ready, valid, rate]);
    // The window of the default behaviour holds what ran at the start.
    let mut hpa = Hpa::new(single(1, 100).behavior(Behavior::default())).unwrap();
    let window = (true, Reason::ScaleDownStabilized);
    assert_eq!(
        conditions(&mut hpa, &observed(8, &[("a", Some(5.0))]), at),
        [window, valid, within]
    );
}

#[test]
fn a_restart_makes_no_jump() {
    let config =
        HpaConfig::new(1, 100).metric(MetricSpec::external("a", 10.0)).behavior(Behavior {
            scale_up: ScalingRules { stabilization_window: Some(secs(60)), ..ScalingRules::up() },
            ..Behavior::default()
        });
    for value in [100.0, 0.1] {
        let mut hpa = Hpa::new(config.clone()).unwrap();
        assert!(!hpa.decide(&observed(8, &[("a", Some(value))]), now()).changes());
    }
}

#[test]
fn nothing_is_taken_away_during_a_failover() {
    let mut hpa = Hpa::new(at_once(two(1, 5))).unwrap();
    let mut quiet = observed(4, &[("a", Some(1.0)), ("b", Some(1.0))]);
    quiet.forbid_scale_in = true;
    let decision = hpa.decide(&quiet, now());
    assert_eq!(
        (decision.to, decision.reason, decision.recommended),
        (4, Reason::ScaleInForbidden, Some(1))
    );
    // Not even what is above the maximum, and more is still added.
    quiet.scale = Scale::steady(9);
    assert_eq!(hpa.decide(&quiet, now()).to, 9);
    let mut busy = observed(4, &[("a", Some(100.0)), ("b", Some(1.0))]);
    busy.forbid_scale_in = true;
    assert_eq!(hpa.decide(&busy, now()).to, 5);
    quiet.scale = Scale::steady(4);
    quiet.forbid_scale_in = false;
    assert_eq!(hpa.decide(&quiet, now()).to, 1);
}

#[test]
fn a_thousand_scalers_do_not_know_of_each_other() {
    let at = now();
    for number in 0..1000_u32 {
        let mut hpa = Hpa::new(at_once(two(1, 2000))).unwrap();
        let value = f64::from(number + 1);
        let decision = hpa.decide(&observed(10, &[("a", Some(value)), ("b", Some(0.0))]), at);
        let expected = match value {
            value if (9.0..=11.0).contains(&value) => 10,
            value => (value.ceil() as u32).min(20),
        };
        assert_eq!(decision.to, expected, "{value}");
    }
}

#[test]
fn settings_that_break_a_rule_are_refused_by_its_name() {
    let refused = |config: HpaConfig| Hpa::new(config).map(drop).unwrap_err().message().to_owned();
    let single = |metric| HpaConfig::new(1, 9).metric(metric);
    assert!(refused(HpaConfig::new(3, 2).metric(MetricSpec::cpu(70))).contains("min_replicas (3)"));
    assert!(refused(HpaConfig::new(0, 0).metric(MetricSpec::cpu(70))).contains("max_replicas"));
    assert!(
        refused(HpaConfig::new(1, u32::MAX).metric(MetricSpec::cpu(70))).contains("max_replicas")
    );
    assert!(refused(HpaConfig::new(1, 2)).contains("at least one metric"));
    assert!(refused(single(MetricSpec::cpu(0))).contains("above 0"));
    assert!(refused(single(MetricSpec::external("x", f64::NAN))).contains("above 0"));
    assert!(refused(single(MetricSpec::cpu(1)).metric(MetricSpec::cpu(2))).contains("twice"));
    let spec =
        MetricSpec::new("x", super::super::MetricKind::Pods, super::super::Target::Value(1.0));
    assert!(refused(single(spec)).contains("takes no target"));
    let long = ScalingRules::new(secs(3601), []);
    let behavior = Behavior { scale_up: long, ..Behavior::default() };
    assert!(refused(single(MetricSpec::cpu(1)).behavior(behavior)).contains("scale_up: stabil"));
    let mut config = single(MetricSpec::cpu(1));
    config.tolerance = f64::NAN;
    assert!(refused(config).contains("tolerance"));
}

#[test]
fn the_quiet_of_a_failover_is_no_evidence_for_taking_away() {
    let config = HpaConfig::new(1, 50).metric(MetricSpec::external_average("m", 10.0));
    for behavior in [None, Some(Behavior::default())] {
        let mut hpa = Hpa::new(HpaConfig { behavior, ..config.clone() }).unwrap();
        let start = now();
        let mut round = |second: u64, forbid_scale_in| {
            // Nothing is published while it fails over.
            let observed = Observed {
                scale: Scale::steady(20),
                readings: [("m".into(), Reading::Total(0.0))].into(),
                forbid_scale_in,
                ..Observed::default()
            };
            hpa.decide(&observed, start + secs(second)).to
        };
        for second in (0..=600).step_by(15) {
            assert_eq!(round(second, true), 20);
        }
        // The window begins when it is over.
        for second in (615..900).step_by(15) {
            assert_eq!(round(second, false), 20, "{second}");
        }
        assert!(round(915, false) < 20);
    }
}

#[test]
fn a_person_waits_for_the_log_of_their_direction_alone() {
    let behavior = Behavior {
        scale_up: ScalingRules::new(secs(0), [ScalingPolicy::pods(2, secs(60))]),
        scale_down: ScalingRules::new(secs(0), [ScalingPolicy::pods(2, secs(60))]),
    };
    let config = HpaConfig::new(1, 50).metric(MetricSpec::external("m", 1.0)).behavior(behavior);
    let mut hpa = Hpa::new(config).unwrap();
    let start = now();
    hpa.scaled(10, 9, start);
    hpa.scaled(9, 12, start + secs(30));
    // The end of what was taken away allows no more to be added.
    assert_eq!(hpa.allowed(12, 20, start + secs(40)), (12, Some(start + secs(90))));
    assert_eq!(hpa.allowed(12, 4, start + secs(40)).1, Some(start + secs(60)));
}

#[test]
fn the_raw_recommendation_is_remembered() {
    let config = HpaConfig::new(1, 50).metric(MetricSpec::external_average("m", 10.0));
    let mut hpa = Hpa::new(config).unwrap();
    let start = now();
    hpa.decide(&observed(20, &[("m", Some(200.0))]), start);
    hpa.decide(&observed(20, &[("m", Some(50.0))]), start + secs(15));
    assert_eq!(hpa.recommendations.numbers().collect::<Vec<_>>(), [20, 5], "as of its last time");
}

#[test]
fn none_count_as_too_few_where_that_is_no_switch() {
    let config = HpaConfig::new(2, 50).metric(MetricSpec::external_average("m", 10.0));
    let mut hpa = Hpa::new(config).unwrap();
    let mut observed = observed(0, &[("m", Some(200.0))]);
    assert_eq!(hpa.decide(&observed, now()).reason, Reason::ScalingDisabled);
    observed.zero_counts = true;
    let decision = hpa.decide(&observed, now());
    assert_eq!((decision.to, decision.reason), (2, Reason::BelowMinimum));
}

#[test]
fn windows_and_policies_left_out_are_those_of_the_direction() {
    let minute = ScalingPolicy::pods(1, secs(60));
    let (up, down) = (ScalingRules::up().policies, ScalingRules::down().policies);
    let table = [
        (r#"{}"#, (0, up.clone()), (60, down.clone())),
        (r#"{"scale_down": {}}"#, (0, up.clone()), (60, down.clone())),
        (r#"{"scale_up": {"stabilization_window": 30}}"#, (30, up.clone()), (60, down.clone())),
        (
            r#"{"scale_down": {"policies": [{"type": "pods", "value": 1, "period": 60}]}}"#,
            (0, up.clone()),
            (60, vec![minute]),
        ),
        (r#"{"scale_down": {"stabilization_window": 0}}"#, (0, up.clone()), (0, down.clone())),
        (
            r#"{"scale_up": {"policies": [{"type": "pods", "value": 1, "period": 60}]},
                "scale_down": {"select": "disabled"}}"#,
            (0, vec![minute]),
            (60, down.clone()),
        ),
    ];
    for (json, up, down) in table {
        let behavior: Behavior = serde_json::from_str(json).unwrap();
        let mut config = HpaConfig::new(1, 9).metric(MetricSpec::cpu(1)).behavior(behavior);
        config.downscale_stabilization = secs(60);
        let hpa = Hpa::new(config.clone()).unwrap();
        let filled = hpa.config().behavior.clone().unwrap();
        for (rules, (window, policies)) in [(filled.scale_up, up), (filled.scale_down, down)] {
            assert_eq!(rules.stabilization_window, Some(secs(window)), "{json}");
            assert_eq!(rules.policies, policies, "{json}");
        }
        let again: HpaConfig =
            serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
        assert_eq!(again, config, "{json}");
    }
    // Kubernetes does not take a list of none either.
    let error = serde_json::from_str::<Behavior>(r#"{"scale_up": {"policies": []}}"#).unwrap_err();
    assert!(error.to_string().contains("at least one"), "{error}");
}

#[test]
fn what_is_remembered_does_not_grow_with_the_rounds() {
    let config = HpaConfig::new(1, 50)
        .metric(MetricSpec::external_average("m", 10.0))
        .behavior(Behavior::default());
    let start = now();
    // Restless: as many as fit into the longest window. Calm, however often it is asked: one.
    for (every, restless, most) in
        [(secs(15), true, 22), (std::time::Duration::from_millis(1), false, 2)]
    {
        let mut hpa = Hpa::new(config.clone()).unwrap();
        let mut current = 20;
        for round in 0..20_000_u32 {
            let load = if restless { f64::from(round * 7919 % 500) } else { 200.0 };
            let at = start + every * round;
            let to = hpa.decide(&observed(current, &[("m", Some(load))]), at).to;
            hpa.scaled(current, to, at);
            current = to;
            let kept = hpa.recommendations.numbers().len();
            assert!(kept <= most, "{kept} after {round} rounds");
            let events = hpa.events.added.numbers().len() + hpa.events.removed.numbers().len();
            assert!(events <= 4, "{events} after {round} rounds");
        }
    }
}

#[test]
fn a_number_that_stayed_is_forgotten_with_its_last_time_and_not_its_first() {
    let mut log = super::super::log::Log::default();
    let start = now();
    for second in [0, 15, 30] {
        log.note(start + secs(second), 9);
    }
    log.note(start + secs(45), 3);
    assert_eq!(log.numbers().collect::<Vec<_>>(), [9, 3]);
    assert_eq!(log.within(start + secs(89), secs(60)).collect::<Vec<_>>(), [9, 3]);
    assert_eq!(log.within(start + secs(90), secs(60)).collect::<Vec<_>>(), [3]);
}
