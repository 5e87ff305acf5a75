//! Settings of the HPA rules, with Kubernetes' names and defaults.

use std::time::Duration;

use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};

use crate::error::{Result, config};

/// Settings of an [`Hpa`](super::Hpa). Defaults are Kubernetes' own.
///
/// ```
/// use resonant_scale::{HpaConfig, MetricSpec};
///
/// let in_code = HpaConfig::new(2, 50).metric(MetricSpec::external_average("queue_depth", 10.0));
/// let in_a_file: HpaConfig = serde_json::from_str(
///     r#"{"min_replicas": 2, "max_replicas": 50,
///         "metrics": [{"name": "queue_depth", "kind": "external", "target": {"average_value": 10}}]}"#,
/// )?;
/// assert_eq!(in_code, in_a_file);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HpaConfig {
    /// The fewest replicas. Default 1. With 0 a target may be scaled to nothing and back.
    pub min_replicas: u32,
    /// The most replicas. Default 1.
    pub max_replicas: u32,
    /// What is looked at. The largest proposal counts.
    pub metrics: Vec<MetricSpec>,
    /// How fast it may go. `None`, the default, is what Kubernetes does without a `behavior` block: a scale-down window of
    /// [`downscale_stabilization`](Self::downscale_stabilization), and at most double (or 4) in one step up.
    pub behavior: Option<Behavior>,
    /// How far the ratio of value to target may be from 1 without anything being done. Default 0.1, both ways.
    pub tolerance: f64,
    /// For how long after its start the processor use of an instance is doubted. Default 5 min.
    #[serde(with = "resonant_common::duration")]
    pub cpu_initialization: Duration,
    /// Within which time after its start a first change of readiness counts as never having been ready. Default 30 s.
    #[serde(with = "resonant_common::duration")]
    pub initial_readiness: Duration,
    /// The window of scale-down where no behaviour names one. Default 300 s.
    #[serde(with = "resonant_common::duration")]
    pub downscale_stabilization: Duration,
}

impl Default for HpaConfig {
    fn default() -> Self {
        Self {
            min_replicas: 1,
            max_replicas: 1,
            metrics: Vec::new(),
            behavior: None,
            tolerance: 0.1,
            cpu_initialization: Duration::from_secs(300),
            initial_readiness: Duration::from_secs(30),
            downscale_stabilization: Duration::from_secs(300),
        }
    }
}

impl HpaConfig {
    /// Between `min` and `max` replicas, no metrics yet.
    pub fn new(min: u32, max: u32) -> Self {
        Self { min_replicas: min, max_replicas: max, ..Self::default() }
    }

    /// Adds a metric.
    #[must_use]
    pub fn metric(mut self, metric: MetricSpec) -> Self {
        self.metrics.push(metric);
        self
    }

    /// Sets how fast it may go.
    #[must_use]
    pub fn behavior(mut self, behavior: Behavior) -> Self {
        self.behavior = Some(behavior);
        self
    }

    /// Whether the settings can be used.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config), naming the rule that is broken.
    pub fn validate(&self) -> Result<()> {
        let refuse = |message: String| Err(config("validate", message));
        if self.max_replicas == 0 || self.max_replicas > MOST {
            return refuse(format!("max_replicas must be 1 to {MOST}, not {}", self.max_replicas));
        }
        if self.min_replicas > self.max_replicas {
            let Self { min_replicas, max_replicas, .. } = self;
            return refuse(format!(
                "min_replicas ({min_replicas}) must not be above max_replicas ({max_replicas})"
            ));
        }
        if self.metrics.is_empty() {
            return refuse("metrics must name at least one metric".into());
        }
        if !(self.tolerance.is_finite() && (0.0..1.0).contains(&self.tolerance)) {
            return refuse(format!("tolerance must be 0 to below 1, not {}", self.tolerance));
        }
        for (index, metric) in self.metrics.iter().enumerate() {
            metric.validate()?;
            if self.metrics[..index].iter().any(|other| other.name == metric.name) {
                return refuse(format!("the metric {:?} stands twice", metric.name));
            }
        }
        if let Some(behavior) = &self.behavior {
            behavior.scale_up.validate("scale_up")?;
            behavior.scale_down.validate("scale_down")?;
        }
        Ok(())
    }
}

/// As many replicas as Kubernetes can count.
pub(crate) const MOST: u32 = i32::MAX as u32;

/// A metric and what it should be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricSpec {
    /// Its name, by which its source is found.
    pub name: String,
    /// Where its values come from.
    pub kind: MetricKind,
    /// What it should be.
    pub target: Target,
}

/// Where a metric's values come from, which decides how missing and unready instances are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MetricKind {
    /// Processor use per instance: doubted while an instance starts.
    Cpu,
    /// Memory use per instance.
    Memory,
    /// Any other value per instance.
    Pods,
    /// One value for all: the depth of a queue, requests at a balancer.
    External,
}

impl MetricKind {
    /// The word used in files and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            MetricKind::Cpu => "cpu",
            MetricKind::Memory => "memory",
            MetricKind::Pods => "pods",
            MetricKind::External => "external",
        }
    }
}

/// What a metric should be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Percent of what instances request; for `cpu` and `memory`.
    Utilization(u32),
    /// Per instance.
    AverageValue(f64),
    /// In all; for `external`.
    Value(f64),
}

impl Target {
    /// The number alone.
    pub fn number(self) -> f64 {
        match self {
            Target::Utilization(percent) => f64::from(percent),
            Target::AverageValue(value) | Target::Value(value) => value,
        }
    }
}

impl MetricSpec {
    /// Processor use, in percent of what instances request.
    pub fn cpu(percent: u32) -> Self {
        Self::new("cpu", MetricKind::Cpu, Target::Utilization(percent))
    }

    /// Memory use, in percent of what instances request.
    pub fn memory(percent: u32) -> Self {
        Self::new("memory", MetricKind::Memory, Target::Utilization(percent))
    }

    /// A value each instance tells, and what it should be on average.
    pub fn pods(name: impl Into<String>, average: f64) -> Self {
        Self::new(name, MetricKind::Pods, Target::AverageValue(average))
    }

    /// One value for all, and what it should be in all.
    pub fn external(name: impl Into<String>, value: f64) -> Self {
        Self::new(name, MetricKind::External, Target::Value(value))
    }

    /// One value for all, and what it should be per instance: the depth of a queue and the work one worker is to have.
    pub fn external_average(name: impl Into<String>, average: f64) -> Self {
        Self::new(name, MetricKind::External, Target::AverageValue(average))
    }

    /// Any metric.
    pub fn new(name: impl Into<String>, kind: MetricKind, target: Target) -> Self {
        Self { name: name.into(), kind, target }
    }

    fn validate(&self) -> Result<()> {
        let Self { name, kind, target } = self;
        let fits = match (kind, target) {
            (MetricKind::Cpu | MetricKind::Memory, Target::Value(_)) => false,
            (MetricKind::Pods, target) => matches!(target, Target::AverageValue(_)),
            (MetricKind::External, Target::Utilization(_)) => false,
            _ => true,
        };
        if !fits {
            let kind = kind.as_str();
            let message = format!("the metric {name:?} of kind {kind} takes no target {target:?}");
            return Err(config("validate", message));
        }
        let number = target.number();
        if !number.is_finite() || milli(number) <= 0 {
            let message =
                format!("the target of the metric {name:?} must be above 0, not {number}");
            return Err(config("validate", message));
        }
        Ok(())
    }
}

/// A value in thousandths, as Kubernetes counts: rounded up, but not for a fault of floating point.
pub(crate) fn milli(value: f64) -> i64 {
    let thousandths = value * 1000.0;
    let nearest = thousandths.round();
    let close = (thousandths - nearest).abs() <= 1e-9 * thousandths.abs().max(1.0);
    // The cast saturates, and is 0 for what is no number.
    (if close { nearest } else { thousandths.ceil() }) as i64
}

/// How fast it may go each way.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Behavior {
    /// Up. Default: no window, the larger of +4 and +100 % in 15 s.
    #[serde(default)]
    pub scale_up: ScalingRules,
    /// Down. Default: a window of [`HpaConfig::downscale_stabilization`], which is 300 s, and 100 % in 15 s.
    #[serde(default)]
    pub scale_down: ScalingRules,
}

impl Behavior {
    /// With what was left out filled in.
    pub(crate) fn filled(mut self, downscale: Duration) -> Self {
        self.scale_up.fill(Duration::ZERO, ScalingRules::up());
        self.scale_down.fill(downscale, ScalingRules::down());
        self
    }
}

/// The rules of one direction. What is left out is filled in as Kubernetes does, by direction; the default leaves out all.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScalingRules {
    /// For how long the most careful recommendation counts. At most 3600 s. `None`: up none, down
    /// [`HpaConfig::downscale_stabilization`].
    #[serde(
        default,
        with = "resonant_common::duration::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub stabilization_window: Option<Duration>,
    /// What may change in how much time. None at all: those of [`up`](Self::up) or [`down`](Self::down).
    #[serde(default, deserialize_with = "some", skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<ScalingPolicy>,
    /// Which policy counts. Default the one that allows most.
    #[serde(default)]
    pub select: Select,
}

impl ScalingRules {
    /// Kubernetes' defaults for up.
    pub fn up() -> Self {
        let period = Duration::from_secs(15);
        let policies = [ScalingPolicy::pods(4, period), ScalingPolicy::percent(100, period)];
        Self { policies: policies.into(), ..Self::default() }
    }

    /// Kubernetes' defaults for down.
    pub fn down() -> Self {
        let policies = [ScalingPolicy::percent(100, Duration::from_secs(15))];
        Self { policies: policies.into(), ..Self::default() }
    }

    /// Rules of your own.
    pub fn new(window: Duration, policies: impl Into<Vec<ScalingPolicy>>) -> Self {
        Self { stabilization_window: Some(window), policies: policies.into(), select: Select::Max }
    }

    fn fill(&mut self, window: Duration, defaults: Self) {
        self.stabilization_window.get_or_insert(window);
        if self.policies.is_empty() {
            self.policies = defaults.policies;
        }
    }

    fn validate(&self, direction: &str) -> Result<()> {
        let refuse = |message: String| Err(config("validate", message));
        if self.stabilization_window.is_some_and(|it| it > Duration::from_secs(3600)) {
            return refuse(format!("{direction}: stabilization_window must be at most 3600 s"));
        }
        for policy in &self.policies {
            if policy.value == 0 {
                return refuse(format!("{direction}: the value of a policy must be above 0"));
            }
            if policy.period.is_zero() || policy.period > Duration::from_secs(1800) {
                return refuse(format!("{direction}: the period of a policy must be 1 to 1800 s"));
            }
        }
        Ok(())
    }

    pub(crate) fn longest_period(&self) -> Duration {
        self.policies.iter().map(|policy| policy.period).max().unwrap_or_default()
    }
}

/// A list that was given names something; Kubernetes refuses one of none, too.
fn some<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ScalingPolicy>, D::Error> {
    let policies = Vec::deserialize(deserializer)?;
    if policies.is_empty() {
        return Err(D::Error::custom("policies must name at least one, or be left out"));
    }
    Ok(policies)
}

/// What may change in a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScalingPolicy {
    /// Of what `value` is a number.
    #[serde(rename = "type")]
    pub unit: PolicyUnit,
    /// How much.
    pub value: u32,
    /// In which time. At most 1800 s.
    #[serde(with = "resonant_common::duration")]
    pub period: Duration,
}

/// The unit of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyUnit {
    /// Instances.
    Pods,
    /// Percent of the instances there were at the start of the period.
    Percent,
}

impl ScalingPolicy {
    /// So many instances in a period.
    pub fn pods(value: u32, period: Duration) -> Self {
        Self { unit: PolicyUnit::Pods, value, period }
    }

    /// So many percent in a period.
    pub fn percent(value: u32, period: Duration) -> Self {
        Self { unit: PolicyUnit::Percent, value, period }
    }
}

/// Which of several policies counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Select {
    /// The one that allows the largest change.
    #[default]
    Max,
    /// The one that allows the smallest.
    Min,
    /// None: no change this way.
    Disabled,
}
