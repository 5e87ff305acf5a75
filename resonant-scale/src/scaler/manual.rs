//! Changes by a person.

use std::time::Duration;

use resonant_common::duration::after;
use serde::Serialize;
use tokio::time::{Instant, timeout};

use super::Core;
use super::status::LastChange;
use crate::decision::Reason;
use crate::error::{Error, ErrorKind, Result, config};

/// How long another change is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a person wants.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ScaleRequest {
    /// To which number, or by how many.
    pub change: Change,
    /// Why; shown in the history.
    pub reason: String,
    /// Who; shown in the history.
    pub actor: String,
    /// For how long the number then stays, whatever the metrics say.
    pub hold_for: Option<Duration>,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Also while paused, in the cooldown and faster than the rates; never beyond the bounds, nor fewer during a failover.
    pub force: bool,
    /// Only if the status still has this generation.
    pub generation: Option<u64>,
}

/// To which number, or by how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// To this number.
    To(u32),
    /// By so many more or fewer.
    By(i64),
}

impl ScaleRequest {
    /// To `replicas`.
    pub fn to(replicas: u32) -> Self {
        Self::new(Change::To(replicas))
    }

    /// By `delta` more, or fewer.
    pub fn by(delta: i64) -> Self {
        Self::new(Change::By(delta))
    }

    fn new(change: Change) -> Self {
        Self {
            change,
            reason: String::new(),
            actor: "operator".into(),
            hold_for: None,
            dry_run: false,
            force: false,
            generation: None,
        }
    }

    /// Why.
    #[must_use]
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }

    /// Who.
    #[must_use]
    pub fn actor(mut self, actor: impl Into<String>) -> Self {
        self.actor = actor.into();
        self
    }

    /// For how long the number then stays.
    #[must_use]
    pub fn hold_for(mut self, time: Duration) -> Self {
        self.hold_for = Some(time);
        self
    }

    /// Only say what would be done.
    #[must_use]
    pub fn dry_run(mut self) -> Self {
        self.dry_run = true;
        self
    }

    /// Also while paused, in the cooldown and faster than the rates.
    #[must_use]
    pub fn force(mut self) -> Self {
        self.force = true;
        self
    }

    /// Only if the status still has this generation.
    #[must_use]
    pub fn generation(mut self, generation: u64) -> Self {
        self.generation = Some(generation);
        self
    }
}

/// What was, or would be, done.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Plan {
    /// The scaler's name.
    pub target: String,
    /// How many there were.
    pub from: u32,
    /// How many there are, or would be.
    pub to: u32,
    /// How many were wanted.
    pub wanted: u32,
    /// Which rate made it fewer or more than wanted.
    pub limited_by: Option<Reason>,
    /// Whether the target was changed.
    pub applied: bool,
    /// Whether it was only asked what would be done.
    pub dry_run: bool,
    /// The generation after it.
    pub generation: u64,
}

impl Core {
    pub(super) async fn scale(&self, request: ScaleRequest) -> Result<Plan> {
        if request.hold_for.is_some_and(|hold| hold > self.config.max_hold) {
            let most = self.config.max_hold.as_secs();
            return Err(config("scale", format!("hold_for must be at most {most} s")));
        }
        let turn = timeout(PATIENCE, self.turn.lock()).await;
        let _turn = turn.map_err(|_| {
            Error::new(ErrorKind::Busy, "scale", "another change is under way; look at the status")
        })?;
        let from = self.read().await?.scale.wanted;
        let mut plan = self.plan(from, &request)?;
        if request.dry_run {
            return Ok(plan);
        }
        if plan.to != plan.from {
            let why =
                if request.reason.is_empty() { Reason::Manual.text() } else { &request.reason };
            self.set(LastChange::new(from, plan.to, why, &request.actor)).await?;
            plan.applied = true;
            tracing::info!(
                target: "resonant::scale", name = self.name, actor = request.actor,
                "{from} to {} by hand", plan.to
            );
        }
        let now = Instant::now();
        let mut state = self.state();
        if plan.applied {
            state.manual_at = Some(now);
        }
        if let Some(hold) = request.hold_for {
            state.held_until = (!hold.is_zero()).then(|| after(now, hold));
            state.generation += 1;
        }
        plan.generation = state.generation;
        Ok(plan)
    }

    /// What would be done; nothing is changed.
    fn plan(&self, from: u32, request: &ScaleRequest) -> Result<Plan> {
        let now = Instant::now();
        let forbidden = self.scale_in_forbidden();
        let state = self.state();
        let refuse = |kind, message: String| Error::new(kind, "scale", message);
        if let Some(named) = request.generation.filter(|named| *named != state.generation) {
            let message =
                format!("the generation is {}, not {named}; read the status", state.generation);
            return Err(refuse(ErrorKind::Conflict, message));
        }
        let (min, max) = self.policy.bounds();
        let wanted = match request.change {
            Change::To(replicas) => i64::from(replicas),
            Change::By(delta) => i64::from(from).saturating_add(delta),
        };
        let wanted = u32::try_from(wanted).ok().filter(|wanted| (min..=max).contains(wanted));
        let Some(wanted) = wanted else {
            let message = format!("{} may have {min} to {max} replicas", self.name);
            return Err(refuse(ErrorKind::OutOfBounds, message));
        };
        let mut plan = Plan {
            target: self.name.clone(),
            from,
            to: wanted,
            wanted,
            limited_by: None,
            applied: false,
            dry_run: request.dry_run,
            generation: state.generation,
        };
        if wanted == from {
            return Ok(plan);
        }
        if wanted < from && forbidden {
            let message = "a failover is under way; nothing is taken away until it is over";
            return Err(refuse(ErrorKind::Held, message.into()));
        }
        if request.force {
            return Ok(plan);
        }
        if state.paused_by.is_some() {
            let message = "scaling is paused; resume it, or use force";
            return Err(refuse(ErrorKind::Held, message.into()));
        }
        if let Some(left) = self.manual_cooldown(&state, now) {
            let message = format!(
                "the cooldown after the last change by hand runs for another {} s; wait, or use force",
                left.as_secs_f64().ceil()
            );
            return Err(refuse(ErrorKind::Limited, message).with_retry_after(left));
        }
        let allowed = state.rules.allowed(from, wanted, now);
        if allowed.to == from {
            let left = allowed.more_in.unwrap_or(self.config.interval);
            let message = "the rate of the policy allows no more change now; wait, or use force";
            return Err(refuse(ErrorKind::Limited, message.into()).with_retry_after(left));
        }
        plan.to = allowed.to;
        plan.limited_by = allowed.limit;
        Ok(plan)
    }

    /// What is left of the cooldown after a person's change.
    pub(super) fn manual_cooldown(&self, state: &super::State, now: Instant) -> Option<Duration> {
        let end = after(state.manual_at?, self.config.manual_cooldown);
        Some(end.saturating_duration_since(now)).filter(|left| !left.is_zero())
    }
}
