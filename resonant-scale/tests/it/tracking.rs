//! Target tracking: eager out, careful in.

use std::time::Duration;

use proptest::prelude::*;
use resonant_scale::{
    Decision, Observed, Reading, Reason, Sample, Scale, TargetTracking, TrackingConfig,
};
use tokio::time::Instant;

struct Run {
    tracking: TargetTracking,
    start: Instant,
    current: u32,
}

impl Run {
    fn of(current: u32, config: TrackingConfig) -> Self {
        let tracking = TargetTracking::new(config).unwrap();
        Self { tracking, start: Instant::now(), current }
    }

    /// Decides at so many seconds and does it.
    fn at(&mut self, seconds: u64, value: impl Into<Option<f64>>) -> Decision {
        self.with(seconds, value, false)
    }

    fn with(
        &mut self,
        seconds: u64,
        value: impl Into<Option<f64>>,
        forbid_scale_in: bool,
    ) -> Decision {
        let now = self.start + Duration::from_secs(seconds);
        let reading = value.into().map_or(Reading::Failed("no data".into()), Reading::Total);
        let observed = Observed {
            scale: Scale::steady(self.current),
            readings: [("cpu".into(), reading)].into(),
            forbid_scale_in,
            ..Observed::default()
        };
        let decision = self.tracking.decide(&observed, now);
        self.tracking.scaled(self.current, decision.to, now);
        self.current = decision.to;
        decision
    }
}

fn config() -> TrackingConfig {
    TrackingConfig { min_capacity: 1, max_capacity: 100, ..TrackingConfig::default() }
}

#[test]
fn what_was_added_in_the_cooldown_counts_toward_the_next_step() {
    let mut run = Run::of(10, config());
    assert_eq!(run.at(0, 84.0).to, 12);
    // The same alarm again asks for 12 of 10: they are there.
    assert_eq!((run.at(15, 84.0).to, run.at(15, 84.0).reason), (12, Reason::Cooldown));
    // A larger one asks for 13: one more.
    assert_eq!(run.at(30, 91.0).to, 13);
    // A smaller one asks for nothing.
    assert_eq!(run.at(45, 77.0).to, 13);
    // The cooldown began anew with the last step, and the base stayed.
    assert_eq!(run.at(89, 91.0).to, 13);
    assert_eq!(run.at(90, 77.0).to, 15);
}

#[test]
fn in_waits_for_its_cooldown_and_out_does_not() {
    let mut run = Run::of(20, config());
    assert_eq!(run.at(0, 35.0).to, 10);
    assert_eq!((run.at(299, 35.0).to, run.current), (10, 10));
    assert_eq!(run.at(299, 35.0).reason, Reason::Cooldown);
    assert_eq!(run.at(300, 35.0).to, 5);
    // Out at once, which ends the cooldown of the step in; in again after that of the step out.
    assert_eq!(run.at(310, 140.0).to, 10);
    assert_eq!(run.at(369, 35.0).to, 10);
    assert_eq!(run.at(370, 35.0).to, 5);
}

#[test]
fn in_is_careful() {
    // Nine tenths of the target is not below nine tenths of it.
    assert_eq!(Run::of(10, config()).at(0, 63.0).to, 10);
    assert_eq!(Run::of(10, config()).at(0, 62.9).to, 9);
    assert_eq!(Run::of(10, config()).at(0, 50.0).to, 8, "rounded up: 7.14 would pass the target");
    let never = TrackingConfig { disable_scale_in: true, ..config() };
    assert_eq!(Run::of(10, never).at(0, 1.0).to, 10);
}

#[test]
fn without_data_and_during_a_failover_nothing_is_taken_away() {
    let mut run = Run::of(10, config());
    assert_eq!(run.at(0, None).reason, Reason::FailedGetMetric);
    assert_eq!(run.at(1, f64::NAN).to, 10);
    assert_eq!(run.with(2, 1.0, true).reason, Reason::ScaleInForbidden);
    assert_eq!(run.with(3, 140.0, true).to, 20);
}

#[test]
fn bounds_hold_at_once_and_nothing_can_grow() {
    assert_eq!(Run::of(500, config()).at(0, 70.0).to, 100);
    assert_eq!(Run::of(0, config()).at(0, 70.0).to, 1);
    let from_nothing = TrackingConfig { min_capacity: 0, ..config() };
    assert_eq!(Run::of(0, from_nothing.clone()).at(0, 500.0).to, 1);
    assert_eq!(Run::of(0, from_nothing).at(0, 0.0).to, 0);
}

#[test]
fn settings_that_break_a_rule_are_refused() {
    let refused = |config| TargetTracking::new(config).map(drop).unwrap_err().message().to_owned();
    assert!(refused(TrackingConfig { max_capacity: 0, ..config() }).contains("max_capacity"));
    assert!(
        refused(TrackingConfig { min_capacity: 101, ..config() }).contains("min_capacity (101)")
    );
    assert!(refused(TrackingConfig { target_value: 0.0, ..config() }).contains("target_value"));
    assert!(
        refused(TrackingConfig { scale_in_margin: 1.0, ..config() }).contains("scale_in_margin")
    );
    assert!(refused(TrackingConfig { metric: String::new(), ..config() }).contains("metric"));
    let text = r#"{"metric":"cpu","target_value":70,"min_capacity":1,"max_capacity":100,"scale_in_cooldown":"300s"}"#;
    assert_eq!(serde_json::from_str::<TrackingConfig>(text).unwrap(), config());
}

proptest! {
    #[test]
    fn bounds_hold_and_steps_in_are_a_cooldown_apart(
        values in proptest::collection::vec(proptest::option::weighted(0.9, 0.0..300.0_f64), 200),
        start in 1..100_u32,
        step in 1..120_u64,
    ) {
        let mut run = Run::of(start, config());
        let mut last_in = None;
        for (index, value) in values.into_iter().enumerate() {
            let (at, before) = (index as u64 * step, run.current);
            run.at(at, value);
            prop_assert!((1..=100).contains(&run.current));
            if run.current < before {
                prop_assert!(value.is_some_and(|value| value < 63.0));
                prop_assert!(last_in.is_none_or(|last| at - last >= 300));
                last_in = Some(at);
            } else if run.current > before {
                prop_assert!(value.is_some_and(|value| value > 70.0));
                // A step out ends the cooldown of the step in; its own is what holds then.
                last_in = None;
            }
        }
    }
}

#[test]
fn what_is_no_number_is_a_failed_metric_and_takes_nothing_away() {
    let now = Instant::now();
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let sample = resonant_scale::Sample { value, at: now, window: Duration::from_secs(60) };
        for reading in [Reading::Total(value), Reading::PerInstance([("a".into(), sample)].into())]
        {
            let observed = Observed {
                scale: Scale::steady(10),
                readings: [("cpu".into(), reading)].into(),
                ..Observed::default()
            };
            let decision = TargetTracking::new(config()).unwrap().decide(&observed, now);
            assert_eq!((decision.to, decision.reason), (10, Reason::FailedGetMetric), "{value}");
            let error = decision.metrics[0].error.clone().unwrap();
            assert!(error.contains("no number"), "{error}");
        }
    }
}

#[test]
fn the_quiet_of_a_failover_is_no_evidence_for_tracking_either() {
    let mut run = Run::of(20, config());
    for seconds in (0..600).step_by(15) {
        // Nobody asks a service that fails over.
        assert_eq!(run.with(seconds, 0.0, true).to, 20, "{seconds}");
    }
    // It ended, and the source still tells what it measured before: that takes nothing away for a cooldown.
    for seconds in (600..885).step_by(15) {
        let decision = run.at(seconds, 0.0);
        assert_eq!((decision.to, decision.reason), (20, Reason::AfterFailover), "{seconds}");
    }
    assert_eq!(run.at(885, 35.0).to, 10, "300 s after it was last seen");
    // Out is never held back, and a step out does not shorten the wait of a failover.
    let mut run = Run::of(10, config());
    run.with(0, 0.0, true);
    assert_eq!(run.at(10, 140.0).to, 20);
    assert_eq!((run.at(100, 35.0).to, run.at(100, 35.0).reason), (20, Reason::AfterFailover));
    assert_eq!(run.at(300, 35.0).to, 10);
}

#[test]
fn samples_from_before_the_end_of_a_failover_take_nothing_away_however_late() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut tracking =
        TargetTracking::new(TrackingConfig { scale_in_cooldown: Duration::ZERO, ..config() })
            .unwrap();
    let mut decide = |seconds, sampled: [u64; 2], forbid_scale_in| {
        let sample = |at: Instant| Sample { value: 7.0, at, window: Duration::from_secs(30) };
        let samples =
            [("one".into(), sample(at(sampled[0]))), ("two".into(), sample(at(sampled[1])))];
        let observed = Observed {
            scale: Scale::steady(10),
            readings: [("cpu".into(), Reading::PerInstance(samples.into()))].into(),
            forbid_scale_in,
            ..Observed::default()
        };
        tracking.decide(&observed, at(seconds))
    };
    assert_eq!(decide(60, [50, 50], true).reason, Reason::ScaleInForbidden);
    // One instance's agent hangs: what it says is from before.
    assert_eq!(decide(1000, [990, 50], false).reason, Reason::AfterFailover);
    assert_eq!(decide(1000, [990, 60], false).reason, Reason::AfterFailover);
    assert_eq!(decide(1000, [990, 61], false).to, 1);
}
