//! The rules of Kubernetes' HorizontalPodAutoscaler, without Kubernetes.
//!
//! Pure: a number of replicas, instances and readings go in with the time, a [`Decision`] comes out. What a cluster would
//! decide from the same inputs is decided here, floating point included. Three steps:
//!
//! 1. Each metric proposes; the largest proposal counts. A metric that cannot be read never lets the target shrink.
//! 2. The most careful recommendation of each window counts.
//! 3. Rates and bounds limit the step.
//!
//! Kubernetes is Apache-2.0; the rules are described in its documentation, and the cases by which this was checked restate
//! the numbers of its tests.

mod config;
mod groups;
mod log;
mod observed;
mod replicas;

#[cfg(test)]
mod tests;

use std::time::Duration;

use tokio::time::Instant;

pub use self::config::{
    Behavior, HpaConfig, MetricKind, MetricSpec, PolicyUnit, ScalingPolicy, ScalingRules, Select,
    Target,
};
use self::log::{Events, Log};
pub use self::observed::{Instance, Observed, Phase, Reading, Sample, Scale};
pub(crate) use self::replicas::ceil;
use crate::decision::{ConditionKind, Decision, Direction, MetricState, Reason};
use crate::error::Result;

/// Decides as Kubernetes' HorizontalPodAutoscaler does.
///
/// ```
/// use resonant_scale::{Hpa, HpaConfig, MetricSpec, Observed, Reading, Scale};
/// use tokio::time::Instant;
///
/// let config = HpaConfig::new(2, 50).metric(MetricSpec::external_average("queue_depth", 10.0));
/// let mut hpa = Hpa::new(config)?;
/// let observed = Observed {
///     scale: Scale::steady(3),
///     readings: [("queue_depth".into(), Reading::Total(58.0))].into(),
///     ..Observed::default()
/// };
/// let decision = hpa.decide(&observed, Instant::now());
/// assert_eq!((decision.from, decision.to), (3, 6));
/// assert_eq!(
///     decision.to_string(),
///     "3 to 6: a metric is above its target; queue_depth is 19.334 of 10"
/// );
/// # Ok::<(), resonant_scale::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Hpa {
    config: HpaConfig,
    recommendations: Log,
    events: Events,
}

impl Hpa {
    /// With these settings and no history.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config) for settings that break a rule.
    pub fn new(mut config: HpaConfig) -> Result<Self> {
        config.validate()?;
        let downscale = config.downscale_stabilization;
        config.behavior = config.behavior.map(|behavior| behavior.filled(downscale));
        Ok(Self { config, recommendations: Log::default(), events: Events::default() })
    }

    /// The settings, with what a behaviour left out filled in.
    pub fn config(&self) -> &HpaConfig {
        &self.config
    }

    /// What to do. Remembers the recommendation; nothing else changes until [`scaled`](Self::scaled) is told.
    pub fn decide(&mut self, observed: &Observed, now: Instant) -> Decision {
        let current = observed.scale.wanted;
        let (min, max) = (self.config.min_replicas, self.config.max_replicas);
        if self.recommendations.is_empty() {
            // What runs counts as recommended, so that a restart of the scaler makes no jump.
            self.recommendations.push(now, current);
        }
        let mut decision = Decision::keep(current, Reason::SucceededGetScale);
        decision.set(ConditionKind::AbleToScale, true, Reason::SucceededGetScale);
        if current == 0 && min > 0 && !observed.zero_counts {
            decision.reason = Reason::ScalingDisabled;
            decision.set(ConditionKind::ScalingActive, false, Reason::ScalingDisabled);
        } else if current > max {
            decision.to = max;
            decision.reason = Reason::AboveMaximum;
        } else if current < min {
            decision.to = min;
            decision.reason = Reason::BelowMinimum;
        } else {
            self.by_metrics(&mut decision, observed, now);
        }
        if observed.forbid_scale_in {
            decision.forbid_scale_in();
        }
        decision
    }

    /// The target was changed, by a decision or by a person: from now on it counts for the rates.
    pub fn scaled(&mut self, from: u32, to: u32, now: Instant) {
        if let Some(behavior) = &self.config.behavior {
            let keep = (behavior.scale_up.longest_period(), behavior.scale_down.longest_period());
            // Both logs are looked at by both directions.
            let keep = keep.0.max(keep.1);
            self.events.record(now, from, to, (keep, keep));
        }
    }

    /// What the rates allow a person who wants `to`, and when they allow more. Bounds are not looked at.
    pub(crate) fn allowed(&self, from: u32, to: u32, now: Instant) -> (u32, Option<Instant>) {
        let Some(behavior) = &self.config.behavior else { return (to, None) };
        let limit = |limit: i64| u32::try_from(limit.max(0)).unwrap_or(u32::MAX);
        // What goes the other way gives room while it counts, and takes it when it no longer does: nothing to wait for.
        let (allowed, rules, log) = if to > from {
            let upper = limit(self.events.upper(now, from, &behavior.scale_up));
            (to.min(upper.max(from)), &behavior.scale_up, &self.events.added)
        } else {
            let lower = limit(self.events.lower(now, from, &behavior.scale_down));
            (to.max(lower.min(from)), &behavior.scale_down, &self.events.removed)
        };
        let periods = rules.policies.iter().map(|policy| policy.period);
        let frees = periods.filter_map(|period| log.frees_at(now, period)).min();
        (allowed, frees)
    }

    fn by_metrics(&mut self, decision: &mut Decision, observed: &Observed, now: Instant) {
        let current = observed.scale.wanted;
        let mut best: Option<(u32, &MetricSpec)> = None;
        let mut failed = false;
        for metric in &self.config.metrics {
            let proposal = replicas::propose(&self.config, metric, observed, now);
            if let Ok(proposal) = &proposal
                && best.is_none_or(|(most, _)| most == 0 || proposal.replicas > most)
            {
                best = Some((proposal.replicas, metric));
            }
            failed |= proposal.is_err();
            decision.metrics.push(MetricState {
                name: metric.name.clone(),
                kind: metric.kind.as_str(),
                value: proposal.as_ref().ok().map(|it| it.value),
                target: metric.target.number(),
                ratio: proposal.as_ref().ok().map(|it| it.ratio).filter(|it| it.is_finite()),
                proposal: proposal.as_ref().ok().map(|it| it.replicas),
                error: proposal.err(),
            });
        }
        let wanted = match best {
            Some((wanted, metric)) if !(failed && wanted < current) => {
                decision.metric = Some(metric.name.clone());
                wanted
            }
            _ => {
                decision.reason = Reason::FailedGetMetric;
                decision.set(ConditionKind::ScalingActive, false, Reason::FailedGetMetric);
                return;
            }
        };
        decision.set(ConditionKind::ScalingActive, true, Reason::ValidMetricFound);
        decision.recommended = Some(wanted);
        // The quiet of a failover says nothing: while it lasts, what runs counts as recommended.
        let counts = if observed.forbid_scale_in { wanted.max(current) } else { wanted };
        let (stabilized, why) = self.stabilize(current, wanted, now);
        self.recommendations.note(now, counts);
        decision.stabilized = Some(stabilized);
        let why = if stabilized == wanted { Reason::ReadyForNewScale } else { why };
        decision.set(ConditionKind::AbleToScale, true, why);
        let (to, limit) = self.limit(current, stabilized, now);
        decision.set(ConditionKind::ScalingLimited, to != stabilized, limit);
        decision.limited = Some(to);
        decision.to = to;
        decision.reason = match decision.direction() {
            _ if to != stabilized && to != wanted => limit,
            _ if stabilized != wanted => why,
            Direction::Up => Reason::MetricAboveTarget,
            Direction::Down => Reason::AllMetricsBelowTarget,
            Direction::None => Reason::WithinTolerance,
        };
    }

    fn windows(&self) -> (Duration, Duration) {
        let (up, down) = (Duration::ZERO, self.config.downscale_stabilization);
        match &self.config.behavior {
            Some(it) => (
                it.scale_up.stabilization_window.unwrap_or(up),
                it.scale_down.stabilization_window.unwrap_or(down),
            ),
            None => (up, down),
        }
    }

    /// The most careful of what was recommended within the windows and of `wanted`, and which window held it.
    fn stabilize(&mut self, current: u32, wanted: u32, now: Instant) -> (u32, Reason) {
        let (up_window, down_window) = self.windows();
        self.recommendations.forget(now, up_window.max(down_window));
        if self.config.behavior.is_none() {
            // Here, unlike below, one as old as the window still counts: so it is upstream.
            let highest = self.recommendations.numbers().fold(wanted, u32::max);
            return (highest, Reason::ScaleDownStabilized);
        }
        let lowest = self.recommendations.within(now, up_window).fold(wanted, u32::min);
        let highest = self.recommendations.within(now, down_window).fold(wanted, u32::max);
        let stabilized = current.max(lowest).min(highest);
        let why =
            if wanted >= current { Reason::ScaleUpStabilized } else { Reason::ScaleDownStabilized };
        (stabilized, why)
    }

    /// `wanted` within rates and bounds, and which of them limits.
    fn limit(&self, current: u32, wanted: u32, now: Instant) -> (u32, Reason) {
        let HpaConfig { min_replicas: min, max_replicas: max, .. } = self.config;
        let Some(behavior) = &self.config.behavior else {
            // Without a behaviour: double, or four.
            let rate = current.saturating_mul(2).max(4);
            return match wanted {
                _ if wanted < min => (min, Reason::TooFewReplicas),
                _ if wanted > max.min(rate) && max > rate => (rate, Reason::ScaleUpLimit),
                _ if wanted > max => (max, Reason::TooManyReplicas),
                _ => (wanted, Reason::DesiredWithinRange),
            };
        };
        if wanted > current {
            let rate = self.events.upper(now, current, &behavior.scale_up).max(current.into());
            if i64::from(max) > rate && i64::from(wanted) > rate {
                return (u32::try_from(rate).unwrap_or(max), Reason::ScaleUpLimit);
            }
            if wanted > max {
                return (max, Reason::TooManyReplicas);
            }
        } else if wanted < current {
            let rate = self.events.lower(now, current, &behavior.scale_down).min(current.into());
            if i64::from(min) < rate && i64::from(wanted) < rate {
                return (u32::try_from(rate).unwrap_or(min), Reason::ScaleDownLimit);
            }
            if wanted < min {
                return (min, Reason::TooFewReplicas);
            }
        }
        (wanted, Reason::DesiredWithinRange)
    }
}
