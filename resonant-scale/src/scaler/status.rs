//! What is known of a scaler, for people and machines.

use resonant_common::wall;
use serde::Serialize;
use tokio::time::Instant;

use super::Core;
use super::pause::PausedBy;
use crate::decision::{Condition, Decision, MetricState, Reason};
use crate::explain::{Allowance, Explanation};

/// All that is known of a scaler. Durations are seconds, times RFC 3339.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct AutoscalerStatus {
    /// The scaler's name.
    pub target: String,
    /// Rises with every change; a request may name it, to be refused if somebody was faster.
    pub generation: u64,
    /// How many there are and may be.
    pub replicas: Replicas,
    /// What the last round came to. `None` before the first.
    pub recommendation: Option<Recommendation>,
    /// The metrics of the last round.
    pub metrics: Vec<MetricState>,
    /// What can be said of the scaling as such.
    pub conditions: Vec<Condition>,
    /// What must pass before the next change.
    pub cooldowns: Cooldowns,
    /// The last change.
    pub last_scale: Option<LastChange>,
    /// Whether it is paused.
    pub paused: bool,
    /// Who paused it.
    pub paused_by: Option<PausedBy>,
    /// Whether a failover forbids taking away.
    pub scale_in_forbidden: bool,
    /// For how long a person holds the number, in seconds.
    pub held_for: Option<f64>,
    /// In how many seconds the next round is. `None` while it is not started.
    pub next_evaluation_in: Option<f64>,
}

/// How many replicas there are and may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Replicas {
    /// How many exist. `None` before the target was read.
    pub current: Option<u32>,
    /// How many are ready.
    pub ready: Option<u32>,
    /// How many were last asked for.
    pub desired: Option<u32>,
    /// The fewest.
    pub min: u32,
    /// The most.
    pub max: u32,
}

/// What a round came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Recommendation {
    /// When, RFC 3339.
    pub at: String,
    /// What the metrics asked for.
    pub raw: Option<u32>,
    /// The same after the windows.
    pub stabilized: Option<u32>,
    /// What was asked of the target.
    pub limited: u32,
    /// The metric that decided.
    pub metric: Option<String>,
    /// The one reason that best explains it.
    pub reason: Reason,
    /// The same in a line for a person.
    pub text: String,
}

/// What must pass before the next change, in seconds; `None` if nothing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Cooldowns {
    /// After the last step of the policy.
    pub policy: Option<f64>,
    /// After the last change by hand.
    pub manual: Option<f64>,
}

/// A change that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LastChange {
    /// When, RFC 3339.
    pub at: String,
    /// How many there were.
    pub from: u32,
    /// How many there are since.
    pub to: u32,
    /// Why.
    pub reason: String,
    /// Who: `autoscaler`, or what a request named.
    pub actor: String,
}

impl LastChange {
    pub(super) fn new(from: u32, to: u32, reason: impl Into<String>, actor: &str) -> Self {
        let at = wall::rfc3339(wall::now());
        Self { at, from, to, reason: reason.into(), actor: actor.to_owned() }
    }
}

/// What was decided, once or in several rounds after each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Decided {
    /// When first, RFC 3339.
    pub at: String,
    /// When last.
    pub until: String,
    /// In how many rounds.
    pub rounds: u64,
    /// How many were asked for before.
    pub from: u32,
    /// How many were asked for then.
    pub to: u32,
    /// What the metrics alone asked for, in the last of them.
    pub recommended: Option<u32>,
    /// The one reason that best explains it.
    pub reason: Reason,
    /// The same in a line for a person, of the last of them.
    pub text: String,
}

impl Decided {
    pub(super) fn new(at: String, decision: &Decision) -> Self {
        Self {
            until: at.clone(),
            at,
            rounds: 1,
            from: decision.from,
            to: decision.to,
            recommended: decision.recommended,
            reason: decision.reason,
            text: decision.to_string(),
        }
    }

    /// Whether only time has passed. Two changes are two, also of the same kind.
    pub(super) fn says_the_same_as(&self, later: &Self) -> bool {
        let key = |it: &Self| (it.from, it.to, it.reason);
        self.from == self.to && key(self) == key(later)
    }

    pub(super) fn again(&mut self, later: Self) {
        let Self { at, rounds, .. } = self;
        *self = Self { at: std::mem::take(at), rounds: *rounds + 1, ..later };
    }
}

impl Core {
    /// The last decision, step by step, and what may be asked for now.
    pub(super) fn explain(&self, now: Instant) -> Option<Explanation> {
        let (min, max) = self.policy.bounds();
        let state = self.state();
        let (at, decision) = state.decided.as_ref()?;
        let current = state.seen.as_ref().map_or(decision.to, |seen| seen.scale.wanted);
        let allowed = |to: u32| state.rules.allowed(current, to, now).to;
        let fewest = if min < current { allowed(min) } else { min };
        let most = if max > current { allowed(max) } else { max };
        Some(Explanation {
            at: wall::rfc3339(*at),
            from: decision.from,
            to: decision.to,
            reason: decision.reason,
            text: decision.to_string(),
            steps: decision.steps(),
            metrics: decision.metrics.clone(),
            conditions: decision.conditions.clone(),
            allowed: Allowance::new(fewest, most),
        })
    }

    pub(super) fn status(&self, now: Instant) -> AutoscalerStatus {
        let scale_in_forbidden = self.scale_in_forbidden();
        let (min, max) = self.policy.bounds();
        let state = self.state();
        let scale = state.seen.as_ref().map(|seen| seen.scale);
        let left = |at: Instant| at.saturating_duration_since(now).as_secs_f64();
        let decided = state.decided.as_ref();
        AutoscalerStatus {
            target: self.name.clone(),
            generation: state.generation,
            replicas: Replicas {
                current: scale.map(|it| it.existing),
                ready: scale.and_then(|it| it.ready),
                desired: scale.map(|it| it.wanted),
                min,
                max,
            },
            recommendation: decided.map(|(at, decision)| Recommendation {
                at: wall::rfc3339(*at),
                raw: decision.recommended,
                stabilized: decision.stabilized,
                limited: decision.to,
                metric: decision.metric.clone(),
                reason: decision.reason,
                text: decision.to_string(),
            }),
            metrics: decided.map(|(_, it)| it.metrics.clone()).unwrap_or_default(),
            conditions: decided.map(|(_, it)| it.conditions.clone()).unwrap_or_default(),
            cooldowns: Cooldowns {
                policy: state.rules.cools_for(now).map(|left| left.as_secs_f64()),
                manual: self.manual_cooldown(&state, now).map(|left| left.as_secs_f64()),
            },
            last_scale: state.history.back().cloned(),
            paused: state.paused_by.is_some(),
            paused_by: state.paused_by.clone(),
            scale_in_forbidden,
            held_for: state.held_until.filter(|until| *until > now).map(left),
            next_evaluation_in: state.next_at.map(left),
        }
    }
}
