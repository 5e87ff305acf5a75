//! What holds whatever comes in.

use proptest::prelude::*;

use super::super::{
    Behavior, Hpa, HpaConfig, MetricSpec, Observed, Reading, Scale, ScalingPolicy, ScalingRules,
    Select,
};
use super::{now, secs};

fn policy() -> impl Strategy<Value = ScalingPolicy> {
    (any::<bool>(), 1..300_u32, 1..600_u64).prop_map(|(pods, value, period)| match pods {
        true => ScalingPolicy::pods(value, secs(period)),
        false => ScalingPolicy::percent(value, secs(period)),
    })
}

fn rules() -> impl Strategy<Value = ScalingRules> {
    let select = prop_oneof![Just(Select::Max), Just(Select::Min), Just(Select::Disabled)];
    (0..600_u64, proptest::collection::vec(policy(), 1..4), select).prop_map(
        |(window, policies, select)| ScalingRules {
            select,
            ..ScalingRules::new(secs(window), policies)
        },
    )
}

fn config() -> impl Strategy<Value = HpaConfig> {
    let behavior = proptest::option::of((rules(), rules()));
    (0..50_u32, 1..200_u32, behavior).prop_map(|(min, more, behavior)| {
        let mut config =
            HpaConfig::new(min, min + more).metric(MetricSpec::external_average("m", 10.0));
        config.behavior = behavior.map(|(scale_up, scale_down)| Behavior { scale_up, scale_down });
        config
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// A hundred rounds of any load: within the bounds, never against what is recommended, and never more than the rate.
    #[test]
    fn a_run_stays_within_bounds_and_never_goes_the_wrong_way(
        config in config(),
        start in 0..300_u32,
        loads in proptest::collection::vec(proptest::option::weighted(0.9, 0.0..5000.0_f64), 100),
        forbidden in proptest::collection::vec(proptest::bool::weighted(0.1), 100),
        step in 1..60_u64,
    ) {
        let (min, max) = (config.min_replicas, config.max_replicas);
        let mut hpa = Hpa::new(config).unwrap();
        let mut current = start;
        let mut at = now();
        for (load, forbid_scale_in) in loads.into_iter().zip(forbidden) {
            at += secs(step);
            let reading = load.map_or(Reading::Failed("no".into()), Reading::Total);
            let observed = Observed {
                scale: Scale::steady(current),
                readings: [("m".to_owned(), reading)].into(),
                forbid_scale_in,
                ..Observed::default()
            };
            let decision = hpa.decide(&observed, at);
            let to = decision.to;
            if current == 0 && min > 0 {
                prop_assert_eq!(to, 0);
            } else if (min..=max).contains(&current) {
                prop_assert!((min..=max).contains(&to));
                match decision.recommended {
                    None => prop_assert_eq!(to, current),
                    // Without a behaviour a window may hold more than runs.
                    Some(wanted) if hpa.config().behavior.is_some() => {
                        prop_assert!(to >= wanted.min(current) && to <= wanted.max(current).max(min));
                    }
                    Some(_) => {}
                }
            }
            prop_assert!(!(forbid_scale_in && to < current));
            prop_assert!(!(load.is_none() && to < current.min(max)));
            hpa.scaled(current, to, at);
            current = to;
        }
    }

    /// Started anew at any moment, the first decision is no larger step than the window allows: it keeps.
    #[test]
    fn a_restart_keeps_what_runs(load in 0.0..5000.0_f64, current in 1..200_u32) {
        let window = |rules| ScalingRules { stabilization_window: Some(secs(60)), ..rules };
        let behavior = Behavior { scale_up: window(ScalingRules::up()), scale_down: window(ScalingRules::down()) };
        let config = HpaConfig::new(1, 200).metric(MetricSpec::external_average("m", 10.0)).behavior(behavior);
        let observed = Observed {
            scale: Scale::steady(current),
            readings: [("m".to_owned(), Reading::Total(load))].into(),
            ..Observed::default()
        };
        prop_assert!(!Hpa::new(config).unwrap().decide(&observed, now()).changes());
    }
}
