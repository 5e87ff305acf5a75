//! One round: look, decide, do.

use std::collections::HashMap;

use futures::future::join_all;
use resonant_common::wall;
use tokio::time::{Instant, timeout};

use super::Core;
use super::status::LastChange;
use crate::decision::{ConditionKind, Decision, Direction, Reason};
use crate::error::{Error, ErrorKind, Result};
use crate::hpa::{Observed, Reading};
use crate::target::TargetState;

impl Core {
    pub(super) async fn evaluate(&self) -> Decision {
        let _turn = self.turn.lock().await;
        let decision = self.round().await;
        self.meter.decided(&decision, &self.state(), self.policy.bounds());
        self.state().decided = Some((wall::now(), decision.clone()));
        decision
    }

    async fn round(&self) -> Decision {
        let state = match self.read().await {
            Ok(state) => state,
            Err(error) => {
                self.failed("read", &error);
                let known = self.state().seen.as_ref().map_or(0, |seen| seen.scale.wanted);
                let mut decision = Decision::keep(known, Reason::FailedGetScale);
                decision.set(ConditionKind::AbleToScale, false, Reason::FailedGetScale);
                return decision;
            }
        };
        let readings = self.measure().await;
        let observed = Observed {
            scale: state.scale,
            instances: state.instances,
            readings,
            forbid_scale_in: self.scale_in_forbidden(),
        };
        let mut decision = self.decide(&observed);
        if decision.changes() {
            let change =
                LastChange::new(decision.from, decision.to, decision.to_string(), "autoscaler");
            match self.set(change).await {
                Ok(()) => {
                    decision.set(ConditionKind::AbleToScale, true, Reason::SucceededRescale);
                    tracing::info!(target: "resonant::scale", name = self.name, "{decision}");
                }
                Err(error) => {
                    self.failed("set", &error);
                    decision.to = decision.from;
                    decision.reason = Reason::FailedUpdateScale;
                    decision.set(ConditionKind::AbleToScale, false, Reason::FailedUpdateScale);
                    return decision;
                }
            }
        }
        self.state().failing = false;
        decision
    }

    /// By the rules, and then by what a person wants.
    fn decide(&self, observed: &Observed) -> Decision {
        let now = Instant::now();
        let mut state = self.state();
        let mut decision = state.rules.decide(observed, now);
        let held = if state.paused {
            Some(Reason::Paused)
        } else if state.held(now) {
            Some(Reason::HeldByPerson)
        } else {
            None
        };
        if let Some(reason) = held {
            // A number outside the bounds was a person's, too.
            decision.to = decision.from;
            decision.reason = reason;
        }
        decision
    }

    /// The target, within its time. What is read is remembered.
    pub(super) async fn read(&self) -> Result<TargetState> {
        let read = timeout(self.config.timeout, self.target.read()).await;
        let read = read.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Unavailable, "read", "the target did not answer in time"))
        })?;
        self.state().read(read.clone(), Instant::now());
        Ok(read)
    }

    /// Changes the target, within its time. Remembered before it is begun, so that a dropped call is not forgotten.
    pub(super) async fn set(&self, change: LastChange) -> Result<()> {
        let to = change.to;
        self.state().begin(change.from, change);
        let set = timeout(self.config.set_timeout, self.target.set(to)).await;
        set.unwrap_or_else(|_| {
            let message = "the target did not take the change in time";
            Err(Error::new(ErrorKind::Unavailable, "set", message).with_may_have_applied())
        })?;
        self.state().finish(Instant::now());
        self.meter.changed();
        Ok(())
    }

    async fn measure(&self) -> HashMap<String, Reading> {
        let read = self.sources.iter().map(|(name, source)| async move {
            let reading = match timeout(self.config.timeout, source.read()).await {
                Ok(Ok(reading)) => reading,
                Ok(Err(error)) => {
                    self.failed("measure", &error);
                    Reading::Failed(error.message().to_owned())
                }
                Err(_) => {
                    self.meter.failed("measure");
                    Reading::Failed("the metric did not answer in time".to_owned())
                }
            };
            (name.clone(), reading)
        });
        join_all(read).await.into_iter().collect()
    }

    /// Counts a failure, and warns of the first in a row.
    fn failed(&self, operation: &'static str, error: &Error) {
        self.meter.failed(operation);
        let first = !std::mem::replace(&mut self.state().failing, true);
        if first {
            let source = std::error::Error::source(error).map(ToString::to_string);
            tracing::warn!(target: "resonant::scale", name = self.name, operation, %error, source, "scaling is held up");
        }
    }
}

/// For the labels of metrics.
pub(super) const DIRECTIONS: [Direction; 3] = [Direction::Down, Direction::None, Direction::Up];
