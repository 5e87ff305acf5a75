//! From one metric to a proposal.
//!
//! Values in thousandths, as the original has them. Pods have two containers there, which doubles use and request alike and
//! leaves every ratio as it is; the totals here are those of one.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::super::config::{HpaConfig, MetricKind, MetricSpec, Target};
use super::super::observed::{Instance, Observed, Phase, Reading, Sample, Scale};
use super::super::replicas::propose;
use super::{now, secs};

/// How a pod is: `R` running and ready, `U` running and never ready, `H` still hot from its start, `h` hot and unready,
/// `P` pending and unready, `F` failed, `D` being deleted.
fn pod(letter: char, name: String, request: Option<i64>, now: Instant) -> Instance {
    let started = if "Hh".contains(letter) { now } else { now - secs(3600) };
    let mut pod = Instance::running(name, started);
    pod.ready = Some(("RHF".contains(letter), started));
    pod.phase = match letter {
        'P' => Phase::Pending,
        'F' => Phase::Failed,
        _ => Phase::Running,
    };
    pod.deleting = letter == 'D';
    pod.cpu_request = request.map(thousandths);
    pod
}

fn thousandths(value: i64) -> f64 {
    value as f64 / 1000.0
}

struct Case<'a> {
    kind: MetricKind,
    target: Target,
    current: u32,
    pods: &'a str,
    requests: &'a [i64],
    levels: &'a [i64],
    named: &'a [&'a str],
}

impl Case<'_> {
    fn run(&self) -> Result<(u32, i64), String> {
        let now = now();
        let requests = |index: usize| match self.requests {
            [] => None,
            [one] => Some(*one),
            several => several.get(index).copied(),
        };
        let letters = self.pods.chars().enumerate();
        let instances: Vec<_> = letters
            .map(|(index, letter)| pod(letter, format!("pod-{index}"), requests(index), now))
            .collect();
        let reading = if self.kind == MetricKind::External {
            Reading::Total(self.levels.iter().map(|level| thousandths(*level)).sum())
        } else {
            let name = |index: usize| match self.named.get(index) {
                Some(name) => (*name).to_owned(),
                None => format!("pod-{index}"),
            };
            // Fresh, over a minute.
            let sample =
                |level: &i64| Sample { value: thousandths(*level), at: now, window: secs(60) };
            let levels = self.levels.iter().enumerate();
            let samples: HashMap<_, _> =
                levels.map(|(index, level)| (name(index), sample(level))).collect();
            Reading::PerInstance(samples)
        };
        let metric = MetricSpec::new("m", self.kind, self.target);
        let config = HpaConfig {
            cpu_initialization: secs(120),
            initial_readiness: secs(10),
            ..HpaConfig::new(1, 1000)
        };
        let observed = Observed {
            scale: Scale { wanted: self.current, existing: self.current, ready: None },
            instances,
            readings: [("m".to_owned(), reading)].into(),
            ..Observed::default()
        };
        let proposal = propose(&config, &metric, &observed, now)?;
        let value = match self.target {
            Target::Utilization(_) => proposal.value,
            _ => (proposal.value * 1000.0).round(),
        };
        Ok((proposal.replicas, value as i64))
    }
}

macro_rules! cpu {
    ($($name:ident: $current:literal of $pods:literal at $target:literal, $requests:expr, $levels:expr => $expected:expr;)*) => {$(
        #[test]
        fn $name() {
            let case = Case {
                kind: MetricKind::Cpu, target: Target::Utilization($target), current: $current,
                pods: $pods, requests: &$requests, levels: &$levels, named: &[],
            };
            assert_eq!(case.run(), Ok($expected));
        }
    )*};
}

cpu! {
    up: 3 of "RRR" at 30, [1000], [300, 500, 700] => (5, 50);
    up_less_for_one_unready: 3 of "URR" at 30, [1000], [300, 500, 700] => (4, 60);
    up_less_for_one_hot: 3 of "HRR" at 30, [1000], [300, 500, 700] => (4, 60);
    not_up_for_two_unready: 3 of "RUU" at 30, [1000], [400, 500, 700] => (3, 40);
    not_up_for_two_hot: 3 of "Rhh" at 30, [1000], [400, 500, 700] => (3, 40);
    up_without_the_failed: 2 of "RRFF" at 30, [1000], [500, 700] => (4, 60);
    up_without_the_deleted: 2 of "RRDD" at 30, [1000], [500, 700] => (4, 60);
    down: 5 of "RRRRR" at 50, [1000], [100, 300, 500, 250, 250] => (3, 28);
    down_counts_only_ready: 5 of "RRRUU" at 50, [1000], [100, 300, 500, 250, 250] => (2, 30);
    down_without_the_pending: 5 of "RPPPP" at 50, [1000], [100] => (1, 10);
    down_without_the_hot: 5 of "RRRHH" at 50, [1000], [100, 300, 500, 250, 250] => (2, 30);
    down_without_the_failed: 5 of "RRRRRFF" at 50, [1000], [100, 300, 500, 250, 250] => (3, 28);
    down_without_the_deleted: 5 of "RRRRRDD" at 50, [1000], [100, 300, 500, 250, 250] => (3, 28);
    near_enough: 3 of "RRR" at 100, [900, 1000, 1100], [1010, 1030, 1020] => (3, 102);
    more_samples_than_pods: 4 of "RRRR" at 100, [1000], [4000, 9500, 3000, 7000, 3200, 2000] => (24, 587);
    missing_count_as_full: 4 of "RRRR" at 100, [1000], [400, 95] => (3, 24);
    missing_at_the_target: 2 of "RR" at 100, [1000], [1000] => (2, 100);
    missing_above_the_target: 2 of "RR" at 100, [1000], [1900] => (2, 190);
    missing_below_the_target: 2 of "RR" at 100, [1000], [600] => (2, 60);
    missing_and_unready: 3 of "URR" at 50, [1000], [100, 450] => (3, 45);
    missing_and_hot: 3 of "HRR" at 50, [1000], [100, 450] => (3, 45);
    missing_and_unready_up: 3 of "URR" at 50, [1000], [100, 2000] => (4, 200);
    missing_and_hot_up: 3 of "hRR" at 50, [1000], [100, 2000] => (4, 200);
    missing_and_unready_down: 4 of "URRR" at 50, [1000], [100, 100, 100] => (3, 10);
    a_rolling_update_with_a_surge: 2 of "RRR" at 50, [1000], [100, 100] => (2, 10);
    // A target above 100 %: what is missing counts as at the target, not as full.
    missing_with_a_high_target: 4 of "RRRR" at 200, [1000], [400, 400] => (3, 40);
    // Ten pods of 150 of 300: 60 % and 55 % of target, the latter within the tolerance.
    just_outside_the_tolerance: 10 of "RRRRRRRRRR" at 56,
        [400, 200, 310, 290, 302, 298, 301, 299, 300, 300], [150; 10] => (9, 50);
    just_within_the_tolerance: 10 of "RRRRRRRRRR" at 55,
        [400, 200, 310, 290, 302, 298, 301, 299, 300, 300], [150; 10] => (10, 50);
    use_beyond_counting_saturates: 2 of "RR" at 1, [1], [i64::MAX / 2, i64::MAX / 2] => (2_147_483_647, 4_611_686_018_427_387_904);
}

#[test]
fn what_cannot_be_proposed_says_why() {
    let run = |current, pods, requests: &[i64], levels: &[i64], named: &[&str]| {
        let target = Target::Utilization(100);
        Case { kind: MetricKind::Cpu, target, current, pods, requests, levels, named }
            .run()
            .unwrap_err()
    };
    assert!(run(1, "R", &[1000], &[100], &["an-older-pod"]).contains("no known instance"));
    assert!(run(4, "RRRR", &[1000], &[], &[]).contains("nothing was measured"));
    assert!(run(1, "R", &[], &[200], &[]).contains("requests no cpu"));
    assert!(run(1, "", &[1000], &[200], &[]).contains("no instances"));
    assert!(run(2, "UU", &[1000], &[200, 200], &[]).contains("not be ready"));
}

macro_rules! plain {
    ($($name:ident: $current:literal of $pods:literal at $target:literal, $levels:expr => $expected:expr;)*) => {$(
        #[test]
        fn $name() {
            let case = Case {
                kind: MetricKind::Pods, target: Target::AverageValue(thousandths($target)), current: $current,
                pods: $pods, requests: &[], levels: &$levels, named: &[],
            };
            assert_eq!(case.run(), Ok($expected));
        }
    )*};
}

plain! {
    pods_up: 3 of "RRR" at 15000, [20000, 10000, 30000] => (4, 20000);
    pods_up_whatever_is_hot: 3 of "RRh" at 15000, [50000, 10000, 30000] => (6, 30000);
    pods_up_whatever_is_unready: 3 of "hRh" at 15000, [50000, 15000, 30000] => (7, 31666);
    pods_of_one_value_up: 1 of "R" at 4400, [8600] => (2, 8600);
    pods_down: 5 of "RRRRR" at 20000, [12000, 12000, 12000, 12000, 12000] => (3, 12000);
    pods_near_enough: 3 of "RRR" at 20000, [20000, 21000, 21000] => (3, 20666);
    pods_missing_below_count_as_at_the_target: 4 of "RRRR" at 10000, [2000, 2000] => (3, 2000);
    pods_missing_above_count_as_nothing: 4 of "RRRR" at 10000, [40000, 40000] => (8, 40000);
    pods_pending_above_count_as_nothing: 3 of "RPP" at 10000, [60000] => (6, 60000);
    // Exactly at the target one missing counts as nothing, unlike for utilisation.
    pods_missing_at_the_target: 3 of "RRR" at 10000, [10000, 10000] => (2, 10000);
}

macro_rules! external {
    ($($name:ident: $current:literal of $pods:literal, $target:expr, $level:literal => $expected:expr;)*) => {$(
        #[test]
        fn $name() {
            let case = Case {
                kind: MetricKind::External, target: $target, current: $current,
                pods: $pods, requests: &[], levels: &[$level], named: &[],
            };
            assert_eq!(case.run(), Ok($expected));
        }
    )*};
}

fn value(target: i64) -> Target {
    Target::Value(thousandths(target))
}

fn average(target: i64) -> Target {
    Target::AverageValue(thousandths(target))
}

external! {
    object_up: 3 of "RRR", value(15000), 20000 => (4, 20000);
    object_up_by_ready_pods: 3 of "hRh", value(10000), 50000 => (5, 50000);
    object_down: 5 of "RRRRR", value(20000), 12000 => (3, 12000);
    object_near_enough: 3 of "RRR", value(20000), 20666 => (3, 20666);
    object_per_pod_up: 3 of "RRR", average(5000), 20000 => (4, 6667);
    object_per_pod_down: 5 of "RRRRR", average(2000), 6000 => (3, 1200);
    object_per_pod_near_enough: 4 of "RRRR", average(5000), 20166 => (4, 5042);
    external_by_ready_pods: 3 of "hRh", value(4400), 8600 => (2, 8600);
    external_down: 5 of "RRRRR", value(14334), 8600 => (3, 8600);
    external_near_enough: 3 of "RRR", value(8888), 8600 => (3, 8600);
    external_per_pod_up: 3 of "RRR", average(2150), 8600 => (4, 2867);
    external_per_pod_down: 5 of "RRRRR", average(2867), 8600 => (3, 1720);
    external_per_pod_near_enough: 3 of "RRR", average(2900), 8600 => (3, 2867);
    from_nothing_by_value: 0 of "", value(1000), 2500 => (3, 2500);
    from_nothing_within_what_would_be_the_tolerance: 0 of "", value(1000), 1050 => (2, 1050);
    from_nothing_to_nothing: 0 of "", value(1000), 0 => (0, 0);
    from_nothing_by_average: 0 of "", average(10_000), 25_000 => (3, 25_000);
    from_nothing_without_a_queue: 0 of "", average(10_000), 0 => (0, 0);
    to_nothing: 3 of "RRR", average(10_000), 0 => (0, 0);
    // Ten workers of four jobs each: up to 44 nothing is done.
    forty_one_jobs: 10 of "RRRRRRRRRR", average(4000), 41_000 => (10, 4100);
    forty_four_jobs: 10 of "RRRRRRRRRR", average(4000), 44_000 => (10, 4400);
    forty_five_jobs: 10 of "RRRRRRRRRR", average(4000), 45_000 => (12, 4500);
    both_ends_of_the_tolerance_belong_to_it: 10 of "RRRRRRRRRR", value(10_000), 9_000 => (10, 9_000);
    just_below_it: 10 of "RRRRRRRRRR", value(10_000), 8_999 => (9, 8_999);
    below_nothing_is_nothing: 3 of "RRR", value(1000), -5000 => (0, -5000);
}

#[test]
fn readings_of_the_wrong_shape_or_no_number_are_refused() {
    let observed = |reading| Observed {
        scale: Scale::steady(3),
        readings: [("m".to_owned(), reading)].into(),
        ..Observed::default()
    };
    let config = HpaConfig::new(1, 10);
    let metric = MetricSpec::external("m", 1.0);
    for (reading, words) in [
        (Reading::Total(f64::NAN), "no number"),
        (Reading::Total(f64::INFINITY), "no number"),
        (Reading::PerInstance(HashMap::new()), "one for all"),
        (Reading::Failed("it is gone".into()), "it is gone"),
    ] {
        let error = propose(&config, &metric, &observed(reading), now()).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
    let error = propose(&config, &MetricSpec::cpu(50), &observed(Reading::Total(1.0)), now());
    assert_eq!(error.unwrap_err(), "nothing was measured");
    let pods = MetricSpec::pods("m", 1.0);
    let error = propose(&config, &pods, &observed(Reading::Total(1.0)), now()).unwrap_err();
    assert!(error.contains("one per instance"));
}

#[test]
fn requests_of_nothing_and_less_are_refused_without_a_fault() {
    let at = now();
    for request in [0.0, -0.001, f64::NEG_INFINITY] {
        let mut instance = Instance::running("a", at - secs(3600));
        instance.cpu_request = Some(request);
        let sample = Sample { value: f64::from(f32::MIN), at, window: secs(60) };
        let observed = Observed {
            scale: Scale::steady(1),
            instances: vec![instance],
            readings: [("cpu".into(), Reading::PerInstance([("a".into(), sample)].into()))].into(),
            ..Observed::default()
        };
        let metric = MetricSpec::cpu(70);
        let config = HpaConfig::new(1, 9).metric(metric.clone());
        let error = propose(&config, &metric, &observed, at).unwrap_err();
        assert!(error.contains("request nothing"), "{error}");
    }
}

#[test]
fn times_without_end_are_no_fault() {
    let at = now();
    let instance = Instance::running("a", at);
    let sample = Sample { value: 1.0, at, window: Duration::MAX };
    let observed = Observed {
        scale: Scale::steady(1),
        instances: vec![Instance { cpu_request: Some(1.0), ..instance }],
        readings: [("cpu".into(), Reading::PerInstance([("a".into(), sample)].into()))].into(),
        ..Observed::default()
    };
    let mut config = HpaConfig::new(1, 9).metric(MetricSpec::cpu(70));
    config.cpu_initialization = Duration::MAX;
    config.initial_readiness = Duration::MAX;
    config.downscale_stabilization = Duration::MAX;
    let mut hpa = super::super::Hpa::new(config).unwrap();
    for second in 0..3 {
        hpa.decide(&observed, at + secs(second));
    }
}
