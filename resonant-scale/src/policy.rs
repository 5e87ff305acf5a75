//! Which rules a scaler follows.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::decision::{Decision, Reason};
use crate::error::Result;
use crate::hpa::{Hpa, HpaConfig, Observed};
use crate::tracking::{TargetTracking, TrackingConfig};

/// The settings of the rules a scaler follows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Policy {
    /// Kubernetes' rules.
    Hpa(HpaConfig),
    /// AWS target tracking.
    TargetTracking(TrackingConfig),
}

impl From<HpaConfig> for Policy {
    fn from(config: HpaConfig) -> Self {
        Policy::Hpa(config)
    }
}

impl From<TrackingConfig> for Policy {
    fn from(config: TrackingConfig) -> Self {
        Policy::TargetTracking(config)
    }
}

impl Policy {
    /// The fewest and the most replicas.
    pub fn bounds(&self) -> (u32, u32) {
        match self {
            Policy::Hpa(it) => (it.min_replicas, it.max_replicas),
            Policy::TargetTracking(it) => (it.min_capacity, it.max_capacity),
        }
    }

    /// The metrics it needs.
    pub fn metrics(&self) -> Vec<&str> {
        match self {
            Policy::Hpa(it) => it.metrics.iter().map(|metric| metric.name.as_str()).collect(),
            Policy::TargetTracking(it) => vec![it.metric.as_str()],
        }
    }

    pub(crate) fn rules(self) -> Result<Rules> {
        Ok(match self {
            Policy::Hpa(config) => Rules::Hpa(Hpa::new(config)?),
            Policy::TargetTracking(config) => Rules::Tracking(TargetTracking::new(config)?),
        })
    }
}

/// The rules with their history.
#[derive(Debug)]
pub(crate) enum Rules {
    Hpa(Hpa),
    Tracking(TargetTracking),
}

impl Rules {
    pub(crate) fn decide(&mut self, observed: &Observed, now: Instant) -> Decision {
        match self {
            Rules::Hpa(hpa) => hpa.decide(observed, now),
            Rules::Tracking(tracking) => tracking.decide(observed, now),
        }
    }

    pub(crate) fn scaled(&mut self, from: u32, to: u32, now: Instant) {
        match self {
            Rules::Hpa(hpa) => hpa.scaled(from, to, now),
            Rules::Tracking(tracking) => tracking.scaled(from, to, now),
        }
    }

    /// What the rates leave of a change a person wants, which of them limits it, and after what time there is more.
    pub(crate) fn allowed(&self, from: u32, to: u32, now: Instant) -> Allowed {
        let Rules::Hpa(hpa) = self else { return Allowed { to, limit: None, more_in: None } };
        let (allowed, frees) = hpa.allowed(from, to, now);
        let reason = if to > from { Reason::ScaleUpLimit } else { Reason::ScaleDownLimit };
        Allowed {
            to: allowed,
            limit: (allowed != to).then_some(reason),
            more_in: frees.map(|at| at.saturating_duration_since(now)),
        }
    }

    /// How long the cooldown of the last step still runs.
    pub(crate) fn cools_for(&self, now: Instant) -> Option<Duration> {
        match self {
            Rules::Hpa(_) => None,
            Rules::Tracking(it) => {
                it.cools_until(now).map(|end| end.saturating_duration_since(now))
            }
        }
    }
}

pub(crate) struct Allowed {
    pub(crate) to: u32,
    pub(crate) limit: Option<Reason>,
    pub(crate) more_in: Option<Duration>,
}
