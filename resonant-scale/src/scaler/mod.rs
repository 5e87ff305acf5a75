//! The loop that looks, decides and does.

mod builder;
mod evaluate;
mod manual;
mod meter;
mod pause;
mod state;
mod status;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use resonant_common::duration::{FOR_EVER, after};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::builder::Forbidden;
use self::meter::Meter;
use self::state::State;
use crate::decision::Decision;
use crate::error::{Error, ErrorKind, Result};
use crate::explain::Explanation;
use crate::policy::Policy;
use crate::source::MetricSource;
use crate::target::ScaleTarget;

pub use self::builder::{AutoscalerBuilder, AutoscalerConfig};
pub use self::manual::{Change, Plan, ScaleRequest};
pub use self::pause::{PauseRequest, PausedBy};
pub use self::status::{
    AutoscalerStatus, Cooldowns, Decided, LastChange, Recommendation, Replicas,
};

/// Keeps a target as large as its metrics ask.
///
/// Clones are the same scaler. It works while [`started`](Self::start), and without: [`evaluate`](Self::evaluate) does one
/// round. When the last clone is dropped, the loop ends.
#[derive(Clone)]
pub struct Autoscaler {
    handle: Arc<Handle>,
}

struct Handle {
    core: Arc<Core>,
    running: Mutex<Option<Running>>,
}

struct Running {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Everything but the loop.
struct Core {
    name: String,
    config: AutoscalerConfig,
    policy: Policy,
    target: Arc<dyn ScaleTarget>,
    sources: HashMap<String, Arc<dyn MetricSource>>,
    forbidden: Vec<Forbidden>,
    meter: Meter,
    /// One evaluation or change at a time.
    turn: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

impl Core {
    fn new(
        name: String,
        config: AutoscalerConfig,
        policy: Policy,
        target: Arc<dyn ScaleTarget>,
        sources: HashMap<String, Arc<dyn MetricSource>>,
        forbidden: Vec<Forbidden>,
    ) -> Result<Self> {
        let rules = policy.clone().rules()?;
        let meter = Meter::new(&name);
        let state = Mutex::new(State::new(rules, config.history));
        let turn = tokio::sync::Mutex::new(());
        Ok(Self { name, config, policy, target, sources, forbidden, meter, turn, state })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Autoscaler {
    /// Gathers what a scaler needs. The name is that of the target: it stands in the status and on metrics.
    pub fn builder(name: impl Into<String>) -> AutoscalerBuilder {
        AutoscalerBuilder::new(name.into())
    }

    fn of(core: Core) -> Self {
        Self { handle: Arc::new(Handle { core: Arc::new(core), running: Mutex::new(None) }) }
    }

    /// The name it was given.
    pub fn name(&self) -> &str {
        &self.handle.core.name
    }

    /// The rules it follows.
    pub fn policy(&self) -> &Policy {
        &self.handle.core.policy
    }

    /// Decides every interval from now on, at once first. Does nothing if it is under way.
    ///
    /// # Errors
    ///
    /// [`NoRuntime`](ErrorKind::NoRuntime) outside a Tokio runtime.
    pub fn start(&self) -> Result<()> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| {
            Error::new(ErrorKind::NoRuntime, "start", "call it from inside a Tokio runtime")
        })?;
        let mut running = self.handle.running();
        if running.as_ref().is_some_and(|running| !running.task.is_finished()) {
            return Ok(());
        }
        let (stop, stopped) = watch::channel(false);
        let task = runtime.spawn(drive(Arc::clone(&self.handle.core), stopped));
        *running = Some(Running { stop, task });
        Ok(())
    }

    /// Ends the loop and waits for the evaluation under way. [`start`](Self::start) sets it going again.
    ///
    /// # Cancel safety
    ///
    /// A dropped `stop` has ended the loop all the same.
    pub async fn stop(&self) {
        let running = self.handle.running().take();
        if let Some(Running { stop, task }) = running {
            stop.send_replace(true);
            // A loop that panicked has ended, too.
            let _ = task.await;
        }
    }

    /// One round, now: looks, decides, does.
    ///
    /// # Cancel safety
    ///
    /// A dropped round may have changed the target; the next one sees it and counts it.
    pub async fn evaluate(&self) -> Decision {
        self.handle.core.evaluate().await
    }

    /// Stops deciding until [`resume`](Self::resume); what would be done is still shown.
    pub fn pause(&self) {
        // Without a generation it cannot be refused.
        let _ = self.set_paused(PauseRequest::pause());
    }

    /// Decides again.
    pub fn resume(&self) {
        let _ = self.set_paused(PauseRequest::resume());
    }

    /// Pauses or resumes, and remembers who and why. A round under way may still change the target. Who is paused already stays
    /// paused as they were.
    ///
    /// # Errors
    ///
    /// [`Conflict`](ErrorKind::Conflict): the generation named is not the present one.
    pub fn set_paused(&self, request: PauseRequest) -> Result<AutoscalerStatus> {
        self.handle.core.set_paused(request)
    }

    /// A person's change: within the bounds, by the rates, and remembered by them.
    ///
    /// # Errors
    ///
    /// - [`OutOfBounds`](ErrorKind::OutOfBounds): fewer than the minimum or more than the maximum;
    /// - [`Conflict`](ErrorKind::Conflict): the generation named is not the present one;
    /// - [`Held`](ErrorKind::Held): paused and not forced, or fewer are asked for during a failover;
    /// - [`Limited`](ErrorKind::Limited): too soon after another and not forced; says how long to wait;
    /// - [`Busy`](ErrorKind::Busy): another change is under way;
    /// - [`Config`](ErrorKind::Config): a hold that is too long;
    /// - [`Unavailable`](ErrorKind::Unavailable), [`Owned`](ErrorKind::Owned), [`Closed`](ErrorKind::Closed): the target's.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have changed the target; the next evaluation sees it and counts it.
    pub async fn scale(&self, request: ScaleRequest) -> Result<Plan> {
        self.handle.core.scale(request).await
    }

    /// What is known, for people and machines.
    pub fn status(&self) -> AutoscalerStatus {
        self.handle.core.status(Instant::now())
    }

    /// The last decisions, oldest first, those that keep the number for the same reason one after the other as one. As many as
    /// [`history`](AutoscalerConfig::history) says.
    pub fn decisions(&self) -> Vec<Decided> {
        self.handle.core.state().decisions.iter().cloned().collect()
    }

    /// How the last decision came about, step by step; `None` before the first.
    pub fn explain(&self) -> Option<Explanation> {
        self.handle.core.explain(Instant::now())
    }

    /// The last changes, oldest first.
    pub fn history(&self) -> Vec<LastChange> {
        self.handle.core.state().history.iter().cloned().collect()
    }
}

impl Handle {
    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let running = self.running.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Running { task, .. }) = running {
            task.abort();
        }
    }
}

impl fmt::Debug for Autoscaler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Core { name, target, .. } = &*self.handle.core;
        f.debug_struct("Autoscaler")
            .field("name", name)
            .field("target", target)
            .finish_non_exhaustive()
    }
}

async fn drive(core: Arc<Core>, mut stopped: watch::Receiver<bool>) {
    let interval = core.config.interval.min(FOR_EVER);
    let mut beat = tokio::time::interval(interval);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => break,
            _ = beat.tick() => {}
        }
        core.evaluate().await;
        core.state().next_at = Some(after(Instant::now(), interval));
    }
    core.state().next_at = None;
}
