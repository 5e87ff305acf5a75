//! Which instances count.

use std::collections::HashMap;

use tokio::time::Instant;

use super::super::config::{HpaConfig, MetricKind};
use super::super::groups::Groups;
use super::super::observed::{Instance, Phase, Sample};
use super::{now, secs};

/// Started and changed readiness so many seconds ago, with a sample of this age and window.
struct Pod {
    kind: MetricKind,
    phase: Phase,
    started: Option<u64>,
    ready: Option<(bool, u64)>,
    sample: Option<(u64, u64)>,
}

/// What it counts as: ready, unready, missing, ignored.
fn counts_as(pod: &Pod) -> &'static str {
    let now = now();
    let ago = |seconds: u64| now - secs(seconds);
    let mut instance = Instance::running("bentham", now);
    instance.phase = pod.phase;
    instance.started = pod.started.map(ago);
    instance.ready = pod.ready.map(|(ready, since)| (ready, ago(since)));
    let mut samples = HashMap::new();
    if let Some((age, window)) = pod.sample {
        samples.insert("bentham".into(), Sample { value: 1.0, at: ago(age), window: secs(window) });
    }
    class(&[instance], &samples, pod.kind, now)
}

fn class(
    instances: &[Instance],
    samples: &HashMap<String, Sample>,
    kind: MetricKind,
    now: Instant,
) -> &'static str {
    let config = HpaConfig {
        cpu_initialization: secs(120),
        initial_readiness: secs(10),
        ..HpaConfig::new(1, 9)
    };
    let groups = Groups::of(instances, samples, kind, &config, now);
    match (groups.ready, groups.unready.len(), groups.missing.len(), groups.ignored.len()) {
        (1, 0, 0, 0) => "ready",
        (0, 1, 0, 0) => "unready",
        (0, 0, 1, 0) => "missing",
        (0, 0, 0, 1) => "ignored",
        other => panic!("{other:?}"),
    }
}

#[test]
fn by_phase_readiness_and_sample() {
    use MetricKind::{Cpu, Memory, Pods};
    use Phase::{Failed, Pending, Running, Succeeded};
    let pod = |kind, phase, started, ready, sample| Pod { kind, phase, started, ready, sample };
    for (name, pod, expected) in [
        ("memory needs no readiness", pod(Memory, Succeeded, None, None, Some((0, 60))), "ready"),
        ("no readiness", pod(Cpu, Succeeded, Some(0), None, Some((0, 0))), "unready"),
        ("no start", pod(Cpu, Running, None, Some((true, 0)), Some((0, 0))), "unready"),
        (
            "fresh sample while starting",
            pod(Cpu, Succeeded, Some(60), Some((true, 30)), Some((0, 30))),
            "ready",
        ),
        (
            "old sample while starting",
            pod(Cpu, Succeeded, Some(60), Some((true, 30)), Some((0, 60))),
            "unready",
        ),
        (
            "unready while starting",
            pod(Cpu, Succeeded, Some(60), Some((false, 30)), Some((0, 30))),
            "unready",
        ),
        ("ready later", pod(Cpu, Succeeded, Some(180), Some((true, 170)), Some((0, 60))), "ready"),
        (
            "never ready",
            pod(Cpu, Succeeded, Some(600), Some((false, 595)), Some((0, 60))),
            "unready",
        ),
        ("was ready", pod(Cpu, Succeeded, Some(600), Some((false, 60)), Some((0, 60))), "ready"),
        (
            "the end of the first readiness",
            pod(Cpu, Running, Some(600), Some((false, 590)), Some((0, 60))),
            "ready",
        ),
        (
            "the end of the start",
            pod(Cpu, Running, Some(120), Some((true, 0)), Some((0, 60))),
            "ready",
        ),
        ("pending", pod(Cpu, Pending, Some(180), Some((false, 120)), Some((0, 60))), "unready"),
        ("pending without a sample", pod(Pods, Pending, None, None, None), "unready"),
        ("failed", pod(Cpu, Failed, Some(600), Some((true, 500)), Some((0, 60))), "ignored"),
        ("no sample", pod(Cpu, Running, Some(600), Some((true, 500)), None), "missing"),
        ("no sample of memory", pod(Memory, Running, None, None, None), "missing"),
    ] {
        assert_eq!(counts_as(&pod), expected, "{name}");
    }
}

#[test]
fn what_is_being_taken_away_does_not_count() {
    let now = now();
    let mut gone = Instance::running("x", now - secs(600));
    gone.deleting = true;
    assert_eq!(class(&[gone.clone()], &HashMap::new(), MetricKind::Cpu, now), "ignored");
    gone.phase = Phase::Pending;
    assert_eq!(class(&[gone], &HashMap::new(), MetricKind::Pods, now), "ignored");
}
