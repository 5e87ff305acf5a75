//! The policies of the scaling guide, as values.

use std::time::Duration;

use crate::hpa::{Behavior, HpaConfig, MetricSpec, ScalingPolicy, ScalingRules};
use crate::tracking::TrackingConfig;

/// API servers: 3 to 20, processor at 70 % and memory at 80 % of what is requested; up by at most 4 a minute after a minute's
/// thought, down by at most a tenth a minute after five.
pub fn api() -> HpaConfig {
    let minute = Duration::from_secs(60);
    HpaConfig::new(3, 20).metric(MetricSpec::cpu(70)).metric(MetricSpec::memory(80)).behavior(
        Behavior {
            scale_up: ScalingRules::new(minute, [ScalingPolicy::pods(4, minute)]),
            scale_down: ScalingRules::new(5 * minute, [ScalingPolicy::percent(10, minute)]),
        },
    )
}

/// Queue workers: 2 to 50, ten messages each by the metric `queue_depth`; Kubernetes' own pace.
pub fn workers() -> HpaConfig {
    HpaConfig::new(2, 50).metric(MetricSpec::external_average("queue_depth", 10.0))
}

/// AWS target tracking: processor at 70, 60 s after a step out and 300 s after a step in. The guide names no bounds; these
/// are those of its API servers.
pub fn aws_cpu() -> TrackingConfig {
    TrackingConfig { min_capacity: 3, max_capacity: 20, ..TrackingConfig::default() }
}
