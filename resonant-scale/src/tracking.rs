//! Target tracking as AWS Auto Scaling does it: keep a metric near a number, out eagerly, in with care.
//!
//! - **Out**: as many as are needed to bring the metric to its target, at once. What was added while the cooldown runs counts
//!   toward the next step: only what the larger step adds beyond it is added.
//! - **In**: rounded so that the target is not passed, only below nine tenths of it, and not again before the cooldown is
//!   over. A step out is never held back by it, and ends it.
//! - Without data nothing is taken away.
//! - Nor is it during a failover, and for a cooldown after: what was measured meanwhile was measured of a service that was not
//!   asked, and a source may tell it for a while after.

use std::time::Duration;

use resonant_common::duration::after;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::decision::{ConditionKind, Decision, MetricState, Reason};
use crate::error::{Result, config};
use crate::hpa::{Observed, Reading, ceil};

/// Settings of a [`TargetTracking`]. The names are those of AWS.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrackingConfig {
    /// The metric, by the name of its source. Default `cpu`.
    pub metric: String,
    /// What it should be. Default 70.
    pub target_value: f64,
    /// The fewest replicas. Default 1.
    pub min_capacity: u32,
    /// The most replicas. Default 1.
    pub max_capacity: u32,
    /// How long what a step out added counts toward the next. Default 60 s.
    #[serde(with = "resonant_common::duration")]
    pub scale_out_cooldown: Duration,
    /// How long after a step in, or a failover, nothing is taken away. Default 300 s.
    #[serde(with = "resonant_common::duration")]
    pub scale_in_cooldown: Duration,
    /// Never take anything away. Default no.
    pub disable_scale_in: bool,
    /// How far below the target the metric must be before anything is taken away, as a share of it. Default 0.1.
    pub scale_in_margin: f64,
}

impl Default for TrackingConfig {
    fn default() -> Self {
        Self {
            metric: "cpu".into(),
            target_value: 70.0,
            min_capacity: 1,
            max_capacity: 1,
            scale_out_cooldown: Duration::from_secs(60),
            scale_in_cooldown: Duration::from_secs(300),
            disable_scale_in: false,
            scale_in_margin: 0.1,
        }
    }
}

impl TrackingConfig {
    /// Whether the settings can be used.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config), naming the rule that is broken.
    pub fn validate(&self) -> Result<()> {
        let refuse = |message: String| Err(config("validate", message));
        if self.max_capacity == 0 || self.min_capacity > self.max_capacity {
            let Self { min_capacity, max_capacity, .. } = self;
            return refuse(format!(
                "min_capacity ({min_capacity}) must not be above max_capacity ({max_capacity}), which must be above 0"
            ));
        }
        if !self.target_value.is_finite() || self.target_value <= 0.0 {
            return refuse(format!("target_value must be above 0, not {}", self.target_value));
        }
        if !(0.0..1.0).contains(&self.scale_in_margin) {
            return refuse(format!(
                "scale_in_margin must be 0 to below 1, not {}",
                self.scale_in_margin
            ));
        }
        if self.metric.is_empty() {
            return refuse("metric must name a source".into());
        }
        Ok(())
    }
}

/// Keeps a metric near a number.
#[derive(Debug, Clone)]
pub struct TargetTracking {
    config: TrackingConfig,
    last_out: Option<Out>,
    last_in: Option<Instant>,
    /// When a failover was last known to be under way.
    failing_over: Option<Instant>,
}

/// A step out whose cooldown may run.
#[derive(Debug, Clone, Copy)]
struct Out {
    at: Instant,
    /// How many there were before it.
    base: u32,
}

impl TargetTracking {
    /// With these settings and no history.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config) for settings that break a rule.
    pub fn new(config: TrackingConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self { config, last_out: None, last_in: None, failing_over: None })
    }

    /// The settings.
    pub fn config(&self) -> &TrackingConfig {
        &self.config
    }

    /// What to do. Remembers whether a failover is under way; nothing else changes until [`scaled`](Self::scaled) is told.
    pub fn decide(&mut self, observed: &Observed, now: Instant) -> Decision {
        let TrackingConfig { min_capacity: min, max_capacity: max, .. } = self.config;
        let current = observed.scale.wanted;
        if observed.forbid_scale_in {
            self.failing_over = Some(now);
        }
        let mut decision = Decision::keep(current, Reason::WithinTolerance);
        decision.set(ConditionKind::AbleToScale, true, Reason::SucceededGetScale);
        if current < min || current > max {
            decision.to = current.clamp(min, max);
            decision.reason =
                if current < min { Reason::BelowMinimum } else { Reason::AboveMaximum };
        } else {
            self.by_metric(&mut decision, observed, now);
        }
        if observed.forbid_scale_in {
            decision.forbid_scale_in();
        }
        decision
    }

    /// The target was changed: cooldowns begin.
    pub fn scaled(&mut self, from: u32, to: u32, now: Instant) {
        if to > from {
            // Within a cooldown the base stays what it was before the first step.
            let base = self.running_out(now).map_or(from, |out| out.base);
            self.last_out = Some(Out { at: now, base });
            self.last_in = None;
        } else if to < from {
            self.last_out = None;
            self.last_in = Some(now);
        }
    }

    fn running_out(&self, now: Instant) -> Option<Out> {
        self.last_out.filter(|out| after(out.at, self.config.scale_out_cooldown) > now)
    }

    /// When the next step in is possible as far as steps are concerned.
    fn in_allowed_at(&self) -> Option<Instant> {
        let after_in = self.last_in.map(|at| after(at, self.config.scale_in_cooldown));
        let after_out = self.last_out.map(|out| after(out.at, self.config.scale_out_cooldown));
        after_in.max(after_out)
    }

    /// When what is measured says something again after a failover. A step out does not end this: it is no evidence either.
    fn calm_at(&self) -> Option<Instant> {
        self.failing_over.map(|at| after(at, self.config.scale_in_cooldown))
    }

    /// Why nothing may be taken away now, if so. That a failover is under way is not looked at here.
    fn holds_in(&self, observed: &Observed, now: Instant) -> Option<Reason> {
        let reading = observed.readings.get(&self.config.metric);
        // A sample from before its end is about the failover, however long ago that is.
        let stale = |since: Instant| matches!(reading, Some(Reading::PerInstance(samples)) if samples.values().any(|it| it.at <= since));
        let restless =
            self.calm_at().is_some_and(|at| at > now) || self.failing_over.is_some_and(stale);
        if restless && !observed.forbid_scale_in {
            return Some(Reason::AfterFailover);
        }
        self.in_allowed_at().filter(|end| *end > now).map(|_| Reason::Cooldown)
    }

    /// When the cooldown of the last step, or failover, ends.
    pub(crate) fn cools_until(&self, now: Instant) -> Option<Instant> {
        self.in_allowed_at().max(self.calm_at()).filter(|end| *end > now)
    }

    fn by_metric(&self, decision: &mut Decision, observed: &Observed, now: Instant) {
        let TrackingConfig { target_value: target, min_capacity: min, max_capacity: max, .. } =
            self.config;
        let current = observed.scale.wanted;
        let value = match observed.readings.get(&self.config.metric) {
            Some(Reading::Total(value)) => Ok(*value),
            Some(Reading::PerInstance(samples)) if !samples.is_empty() => {
                let total: f64 = samples.values().map(|sample| sample.value).sum();
                Ok(total / samples.len() as f64)
            }
            Some(Reading::Failed(why)) => Err(why.clone()),
            _ => Err("nothing was measured".to_owned()),
        };
        let value = value.and_then(|value| match value.is_finite() {
            true => Ok(value.max(0.0)),
            false => Err(format!("{value} is no number to scale by")),
        });
        // Rounded up both ways: out to be enough, in so as not to pass the target.
        let needed = |base: u32, value: f64| ceil((f64::from(base) * value / target).max(0.0));
        // What nothing is a share of cannot be known: start with the fewest that can be.
        let needed = |base: u32, value: f64| match base {
            0 if value > 0.0 => 1,
            base => needed(base, value),
        };
        let base = self.running_out(now).map_or(current, |out| out.base);
        let proposal = value.as_ref().ok().map(|value| match *value > target {
            true => needed(base, *value).max(current),
            false => needed(current, *value).min(current),
        });
        decision.metrics.push(MetricState {
            name: self.config.metric.clone(),
            kind: "tracked",
            value: value.as_ref().ok().copied(),
            target,
            ratio: value.as_ref().ok().map(|value| value / target),
            proposal,
            error: value.as_ref().err().cloned(),
        });
        let (Ok(value), Some(proposal)) = (value, proposal) else {
            decision.reason = Reason::FailedGetMetric;
            decision.set(ConditionKind::ScalingActive, false, Reason::FailedGetMetric);
            return;
        };
        decision.set(ConditionKind::ScalingActive, true, Reason::ValidMetricFound);
        decision.metric = Some(self.config.metric.clone());
        decision.recommended = Some(proposal);
        let bounded = proposal.clamp(min, max);
        let limit = match bounded.cmp(&proposal) {
            std::cmp::Ordering::Less => Reason::TooManyReplicas,
            std::cmp::Ordering::Greater => Reason::TooFewReplicas,
            std::cmp::Ordering::Equal => Reason::DesiredWithinRange,
        };
        decision.set(ConditionKind::ScalingLimited, bounded != proposal, limit);
        decision.limited = Some(bounded);
        if bounded > current {
            decision.to = bounded;
            decision.reason = Reason::MetricAboveTarget;
        } else if bounded < current {
            let careful = value < target * (1.0 - self.config.scale_in_margin);
            if self.config.disable_scale_in {
                decision.reason = Reason::ScalingDisabled;
            } else if let Some(reason) = self.holds_in(observed, now) {
                decision.reason = reason;
            } else if careful {
                decision.to = bounded;
                decision.reason = Reason::AllMetricsBelowTarget;
            }
        } else if bounded != proposal {
            decision.reason = limit;
        } else if value > target && self.running_out(now).is_some() {
            decision.reason = Reason::Cooldown;
        }
    }
}
