//! One round: look, decide, do.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use futures::future::join_all;
use tokio::time::{Instant, timeout};

use super::Core;
use super::builder::Forbidden;
use super::status::LastChange;
use crate::decision::{ConditionKind, Decision, Direction, Reason};
use crate::error::{Error, ErrorKind, Result};
use crate::hpa::{Observed, Reading};
use crate::target::TargetState;

impl Core {
    pub(super) async fn evaluate(&self) -> Decision {
        let _turn = self.turn.lock().await;
        let decision = self.round().await;
        let mut state = self.state();
        self.meter.decided(&decision, &state, self.policy.bounds());
        state.decided(decision.clone());
        drop(state);
        decision
    }

    async fn round(&self) -> Decision {
        let state = match self.read().await {
            Ok(state) => state,
            Err(error) => {
                self.failed("read", "target", &error);
                let known = self.state().seen.as_ref().map_or(0, |seen| seen.scale.wanted);
                let mut decision = Decision::keep(known, Reason::FailedGetScale);
                decision.set(ConditionKind::AbleToScale, false, Reason::FailedGetScale);
                return decision;
            }
        };
        self.works("read", "target");
        let readings = self.measure().await;
        let observed = Observed {
            scale: state.scale,
            instances: state.instances,
            readings,
            forbid_scale_in: self.scale_in_forbidden(),
            zero_counts: !self.target.zero_is_off(),
        };
        let mut decision = self.decide(&observed);
        if decision.changes() {
            let change =
                LastChange::new(decision.from, decision.to, decision.to_string(), "autoscaler");
            match self.set(change).await {
                Ok(()) => {
                    self.works("set", "target");
                    decision.set(ConditionKind::AbleToScale, true, Reason::SucceededRescale);
                    tracing::info!(target: "resonant::scale", name = self.name, "{decision}");
                }
                Err(error) => {
                    self.failed("set", "target", &error);
                    decision.to = decision.from;
                    decision.reason = Reason::FailedUpdateScale;
                    decision.set(ConditionKind::AbleToScale, false, Reason::FailedUpdateScale);
                    return decision;
                }
            }
        } else {
            // Whether it would be taken is not known, but nothing waits for it.
            self.state().failing.remove(&("set", "target".to_owned()));
        }
        decision
    }

    /// By the rules, and then by what a person wants.
    fn decide(&self, observed: &Observed) -> Decision {
        let now = Instant::now();
        let mut state = self.state();
        let mut decision = state.rules.decide(observed, now);
        let held = if state.paused_by.is_some() {
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
        let unavailable = |message| Error::new(ErrorKind::Unavailable, "read", message);
        let read = timeout(self.config.timeout, caught(async { self.target.read().await })).await;
        let read = match read {
            Ok(Some(read)) => read?,
            Ok(None) => return Err(unavailable("the target panicked when it was read")),
            Err(_) => return Err(unavailable("the target did not answer in time")),
        };
        self.state().read(read.clone(), Instant::now());
        Ok(read)
    }

    /// Changes the target, within its time. Remembered before it is begun, so that a dropped call is not forgotten.
    pub(super) async fn set(&self, change: LastChange) -> Result<()> {
        let to = change.to;
        self.state().begin(change.from, change);
        let lost = |message| {
            Err(Error::new(ErrorKind::Unavailable, "set", message).with_may_have_applied())
        };
        let set = timeout(self.config.set_timeout, caught(async { self.target.set(to).await }));
        let set = match set.await {
            Ok(Some(set)) => set,
            Ok(None) => lost("the target panicked when it was changed"),
            Err(_) => lost("the target did not take the change in time"),
        };
        if let Err(error) = set {
            if !error.may_have_applied() {
                // What the next look finds changed was somebody else's.
                self.state().pending = None;
            }
            return Err(error);
        }
        self.state().finish(Instant::now());
        self.meter.changed();
        Ok(())
    }

    async fn measure(&self) -> HashMap<String, Reading> {
        let read = self.sources.iter().map(|(name, source)| async move {
            let unavailable = |message| Err(Error::new(ErrorKind::Unavailable, "read", message));
            let read = timeout(self.config.timeout, caught(async { source.read().await })).await;
            let read = match read {
                Ok(Some(read)) => read,
                Ok(None) => unavailable("the metric's source panicked"),
                Err(_) => unavailable("the metric did not answer in time"),
            };
            let reading = match read {
                Ok(reading) => {
                    self.works("measure", name);
                    reading
                }
                Err(error) => {
                    self.failed("measure", name, &error);
                    Reading::Failed(error.message().to_owned())
                }
            };
            (name.clone(), reading)
        });
        join_all(read).await.into_iter().collect()
    }

    /// Counts a failure, and warns of the first in a row of each thing.
    fn failed(&self, operation: &'static str, of: &str, error: &Error) {
        self.meter.failed(operation);
        let first = self.state().failing.insert((operation, of.to_owned()));
        if first {
            let source = std::error::Error::source(error).map(ToString::to_string);
            tracing::warn!(target: "resonant::scale", name = self.name, operation, of, %error, source, "scaling is held up");
        }
    }

    /// Says it once if it failed before.
    fn works(&self, operation: &'static str, of: &str) {
        let failed = self.state().failing.remove(&(operation, of.to_owned()));
        if failed {
            tracing::info!(target: "resonant::scale", name = self.name, operation, of, "works again");
        }
    }

    /// Whether anything says that nothing may be taken away. What panics says so, too.
    pub(super) fn scale_in_forbidden(&self) -> bool {
        let says = |forbidden: &Forbidden| {
            std::panic::catch_unwind(AssertUnwindSafe(forbidden)).unwrap_or(true)
        };
        self.forbidden.iter().any(says)
    }
}

/// What users' code comes to; `None` if it panicked, of which the panic hook has told.
async fn caught<F: Future>(code: F) -> Option<F::Output> {
    // A future that panicked is not polled again, and what it left behind is its owner's.
    AssertUnwindSafe(code).catch_unwind().await.ok()
}

/// For the labels of metrics.
pub(super) const DIRECTIONS: [Direction; 3] = [Direction::Down, Direction::None, Direction::Up];
