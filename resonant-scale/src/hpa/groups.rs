//! Which instances count: ready, unready, without a sample, or not at all.

use std::collections::{HashMap, HashSet};

use resonant_common::duration::after;
use tokio::time::Instant;

use super::config::{HpaConfig, MetricKind};
use super::observed::{Instance, Phase, Sample};

/// The instances of a target by how they count for one metric.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Groups<'a> {
    pub(crate) ready: usize,
    pub(crate) unready: HashSet<&'a str>,
    pub(crate) missing: HashSet<&'a str>,
    pub(crate) ignored: HashSet<&'a str>,
}

impl<'a> Groups<'a> {
    pub(crate) fn of(
        instances: &'a [Instance],
        samples: &HashMap<String, Sample>,
        kind: MetricKind,
        config: &HpaConfig,
        now: Instant,
    ) -> Self {
        let mut groups = Self::default();
        for instance in instances {
            let name = instance.name.as_str();
            if instance.deleting || instance.phase == Phase::Failed {
                groups.ignored.insert(name);
            } else if instance.phase == Phase::Pending {
                groups.unready.insert(name);
            } else if let Some(sample) = samples.get(name) {
                if kind == MetricKind::Cpu && doubtful(instance, sample, config, now) {
                    groups.unready.insert(name);
                } else {
                    groups.ready += 1;
                }
            } else {
                groups.missing.insert(name);
            }
        }
        groups
    }
}

/// Whether the processor use of an instance says more of its start than of its work.
fn doubtful(instance: &Instance, sample: &Sample, config: &HpaConfig, now: Instant) -> bool {
    let (Some((ready, since)), Some(started)) = (instance.ready, instance.started) else {
        return true;
    };
    if after(started, config.cpu_initialization) > now {
        // A sample taken over a time that began before it was ready counts its start.
        !ready || sample.at < after(since, sample.window)
    } else {
        // Unready, and it became so right after its start: it has never been ready.
        !ready && after(started, config.initial_readiness) > since
    }
}
