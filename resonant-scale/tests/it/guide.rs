//! The scaling guide's policies, minute by minute. Time is invented: a day takes no time.

use std::time::Duration;

use resonant_scale::{
    Hpa, HpaConfig, Instance, MetricSpec, Observed, Reading, Sample, Scale, TargetTracking, guide,
};
use tokio::time::Instant;

const TICK: Duration = Duration::from_secs(15);

/// How many replicas there are at the end of each minute, decided every 15 s as Kubernetes does.
fn minutes(hpa: &mut Hpa, start: u32, count: usize, load: impl Fn(u32) -> Observed) -> Vec<u32> {
    let mut now = Instant::now() + Duration::from_secs(10_000);
    let mut current = start;
    let mut trace = Vec::new();
    for _ in 0..count {
        for _ in 0..4 {
            let decision = hpa.decide(&load(current), now);
            if decision.changes() {
                hpa.scaled(current, decision.to, now);
                current = decision.to;
            }
            now += TICK;
        }
        trace.push(current);
    }
    trace
}

/// Always asks for so many, whatever there is.
fn wanting(replicas: u32) -> impl Fn(u32) -> Observed {
    move |current| Observed {
        scale: Scale::steady(current),
        readings: [("m".to_owned(), Reading::Total(f64::from(replicas)))].into(),
        ..Observed::default()
    }
}

fn api_pace(min: u32, max: u32) -> Hpa {
    let config = HpaConfig {
        behavior: guide::api().behavior,
        ..HpaConfig::new(min, max).metric(MetricSpec::external_average("m", 1.0))
    };
    Hpa::new(config).unwrap()
}

#[test]
fn up_by_four_a_minute_after_a_minute() {
    let trace = minutes(&mut api_pace(1, 100), 10, 8, wanting(30));
    assert_eq!(trace, [10, 14, 18, 22, 26, 30, 30, 30]);
}

#[test]
fn down_by_a_tenth_a_minute_after_five() {
    let trace = minutes(&mut api_pace(1, 100), 80, 12, wanting(1));
    assert_eq!(trace, [80, 80, 80, 80, 80, 72, 64, 57, 51, 45, 40, 36]);
}

#[test]
fn at_ten_and_below_one_a_minute_and_never_stuck() {
    let trace = minutes(&mut api_pace(1, 100), 11, 18, wanting(1));
    assert_eq!(trace, [11, 11, 11, 11, 11, 9, 8, 7, 6, 5, 4, 3, 2, 1, 1, 1, 1, 1]);
}

/// Cores and bytes per instance, of half a core and 512 MiB requested.
fn api_load(cpu: f64, memory: f64) -> impl Fn(u32) -> Observed {
    move |current| {
        let now = Instant::now() + Duration::from_secs(20_000);
        let since = now - Duration::from_secs(15_000);
        let instance = |index: u32| Instance {
            cpu_request: Some(0.5),
            memory_request: Some(512.0 * 1024.0 * 1024.0),
            ..Instance::running(format!("api-{index}"), since)
        };
        let samples = |value: f64| {
            let sample = Sample { value, at: now, window: Duration::from_secs(30) };
            Reading::PerInstance(
                (0..current).map(|index| (format!("api-{index}"), sample)).collect(),
            )
        };
        Observed {
            scale: Scale::steady(current),
            instances: (0..current).map(instance).collect(),
            readings: [("cpu".into(), samples(cpu)), ("memory".into(), samples(memory))].into(),
            ..Observed::default()
        }
    }
}

#[test]
fn api_servers_grow_by_processor_and_by_memory_within_three_and_twenty() {
    // 0.5 of 0.5 cores is 100 %: more than the 70 it should be, at each size again.
    let mut hpa = Hpa::new(guide::api()).unwrap();
    assert_eq!(minutes(&mut hpa, 3, 8, api_load(0.5, 0.0)), [3, 5, 8, 12, 16, 20, 20, 20]);
    // 80 % of the memory is as it should be; 85 % is within the tolerance; 100 % is not.
    let memory = |percent: f64| percent / 100.0 * 512.0 * 1024.0 * 1024.0;
    for (percent, to) in [(80.0, 10), (85.0, 10), (88.0, 10), (89.0, 12), (100.0, 13)] {
        let mut hpa = Hpa::new(guide::api()).unwrap();
        let trace = minutes(&mut hpa, 10, 2, api_load(0.35, memory(percent)));
        assert_eq!(trace, [10, to], "{percent}");
    }
    // Below the fewest and above the most there is no waiting.
    for (start, to) in [(1, 3), (25, 20)] {
        let mut hpa = Hpa::new(guide::api()).unwrap();
        assert_eq!(hpa.decide(&api_load(0.35, 0.0)(start), Instant::now()).to, to);
    }
}

#[test]
fn workers_have_ten_messages_each() {
    for (depth, from, to) in [
        (0.0, 2, 2),
        (20.0, 2, 2),
        (22.0, 2, 2),
        (23.0, 2, 3),
        (42.0, 2, 4), // at most double, or four, in one step
        (100.0, 8, 10),
        (1000.0, 30, 50),
        (499.0, 50, 50),
    ] {
        let mut hpa = Hpa::new(guide::workers()).unwrap();
        let observed = Observed {
            scale: Scale::steady(from),
            readings: [("queue_depth".into(), Reading::Total(depth))].into(),
            ..Observed::default()
        };
        assert_eq!(hpa.decide(&observed, Instant::now()).to, to, "{depth} for {from}");
    }
}

#[test]
fn workers_wait_five_minutes_before_they_go() {
    let mut hpa = Hpa::new(guide::workers()).unwrap();
    let quiet = |current| Observed {
        scale: Scale::steady(current),
        readings: [("queue_depth".into(), Reading::Total(0.0))].into(),
        ..Observed::default()
    };
    assert_eq!(minutes(&mut hpa, 40, 7, quiet), [40, 40, 40, 40, 40, 2, 2]);
}

#[test]
fn aws_keeps_the_processor_at_seventy() {
    let mut tracking = TargetTracking::new(guide::aws_cpu()).unwrap();
    let now = Instant::now();
    let observed = |current, value| Observed {
        scale: Scale::steady(current),
        readings: [("cpu".into(), Reading::Total(value))].into(),
        ..Observed::default()
    };
    let config = tracking.config().clone();
    assert_eq!((config.target_value, config.min_capacity, config.max_capacity), (70.0, 3, 20));
    assert_eq!(config.scale_out_cooldown, Duration::from_secs(60));
    assert_eq!(config.scale_in_cooldown, Duration::from_secs(300));
    assert_eq!(tracking.decide(&observed(4, 105.0), now).to, 6);
    assert_eq!(tracking.decide(&observed(4, 1000.0), now).to, 20);
    assert_eq!(tracking.decide(&observed(10, 35.0), now).to, 5);
    assert_eq!(tracking.decide(&observed(10, 1.0), now).to, 3);
    for near in [64.0, 70.0] {
        assert_eq!(tracking.decide(&observed(10, near), now).to, 10);
    }
}
