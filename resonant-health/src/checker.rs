//! The handle users hold.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::HealthConfig;
use crate::core::Core;
use crate::driver::Schedule;
use crate::error::{Error, ErrorKind, Result};
use crate::lock::lock;
use crate::report::Report;

/// Watches the dependencies and the inner life of a service, and answers probes from what it knows.
///
/// A handle: clones share one checker. Checks run in the background once [`start`](HealthChecker::start) was called;
/// probes read a snapshot and never wait for a check. When the last clone is dropped, everything stops.
#[derive(Clone)]
pub struct HealthChecker {
    pub(crate) core: Arc<Core>,
    owner: Arc<Owner>,
}

/// Stops every task when the last handle goes.
struct Owner {
    token: CancellationToken,
    schedule: Mutex<Option<Schedule>>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

impl Default for HealthChecker {
    fn default() -> Self {
        Self::new()
    }
}

impl HealthChecker {
    /// A checker without checks, with the default settings.
    pub fn new() -> Self {
        Self::of(HealthConfig::default())
    }

    /// A checker with settings.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] naming the rule a setting breaks.
    pub fn with_config(config: HealthConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self::of(config))
    }

    fn of(config: HealthConfig) -> Self {
        let core = Arc::new(Core::new(config));
        let owner = Owner { token: core.token.clone(), schedule: Mutex::default() };
        Self { core, owner: Arc::new(owner) }
    }

    /// Starts the background schedule: every check at once, then each at its interval. Does nothing if it runs already.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`]: a registration breaks a rule; the message names each. [`ErrorKind::NoRuntime`]: called
    /// outside a Tokio runtime.
    pub fn start(&self) -> Result<()> {
        let members = self.core.members();
        if !members.defects.is_empty() {
            return Err(Error::new(ErrorKind::Config, "start", members.defects.join("; ")));
        }
        let runtime = Handle::try_current().map_err(|error| {
            let message = "call it inside a Tokio runtime";
            Error::new(ErrorKind::NoRuntime, "start", message).with_source(error)
        })?;
        let mut schedule = lock(&self.owner.schedule);
        if schedule.as_ref().is_some_and(|schedule| !schedule.task.is_finished()) {
            return Ok(());
        }
        let now = Instant::now();
        for entry in &members.entries {
            entry.plan(now);
        }
        *schedule = Some(Schedule::start(&self.core, &runtime));
        Ok(())
    }

    /// Stops the schedule and waits until the runs in flight have ended, which their timeouts bound. Does nothing if it
    /// does not run. What is known goes stale from here on; [`run_all`](HealthChecker::run_all) still works.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the schedule stops all the same; only the waiting is cut short.
    pub async fn stop(&self) {
        let stopped = lock(&self.owner.schedule).take();
        let Some(schedule) = stopped else { return };
        schedule.stop.cancel();
        // It ends by being told to; a panic in it was printed by the runtime.
        let _ = schedule.task.await;
        for entry in &self.core.members().entries {
            let flight = lock(&entry.flight).clone();
            if let Some(flight) = flight {
                flight.await;
            }
        }
    }

    /// Runs every check once, now, and reports what this run saw; the settled states take note of it.
    ///
    /// All who ask while a run is under way share it, and a check that is in flight is joined, not started twice. At
    /// most [`max_concurrency`](HealthConfig::max_concurrency) checks run at once, each is given up at its timeout, and
    /// the whole at the [`deadline`](HealthConfig::deadline). Every name is in the report, whatever happened to it.
    ///
    /// It needs no [`start`](HealthChecker::start). Outside a Tokio runtime every check is reported as rejected.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the run goes on to its end in the background and its results are noted.
    pub async fn run_all(&self) -> Report {
        match self.core.round().await {
            Some(report) => report,
            // The runtime that ran it has ended.
            None => self.snapshot(),
        }
    }

    /// What is known now, at once: the settled states after hysteresis. Runs nothing, waits for nothing.
    pub fn snapshot(&self) -> Report {
        self.core.snapshot()
    }

    /// Follows the state: the receiver wakes when the state of a check or of a probe changes, not at every run.
    pub fn subscribe(&self) -> watch::Receiver<Report> {
        self.core.publish(false);
        self.core.subscribe()
    }

    /// Turns ready red at once and for good, while live stays green. Call it first when the process is told to end.
    pub fn begin_drain(&self) {
        if !self.core.draining.swap(true, Ordering::AcqRel) {
            self.core.publish(false);
        }
    }

    /// [Begins to drain](HealthChecker::begin_drain) and returns after the
    /// [`drain_delay`](HealthConfig::drain_delay), when load balancers have noticed and listeners may close:
    ///
    /// ```
    /// # async fn told_to_end() {}
    /// # fn example(health: resonant_health::HealthChecker) {
    /// let shutdown = async move {
    ///     told_to_end().await;
    ///     health.drain().await;
    /// };
    /// // axum::serve(listener, app).with_graceful_shutdown(shutdown).await
    /// # drop(shutdown);
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Dropped, the drain has begun all the same; only the waiting is cut short.
    pub async fn drain(&self) {
        self.begin_drain();
        tokio::time::sleep(self.core.config.drain_delay).await;
    }

    /// The settings.
    pub fn config(&self) -> &HealthConfig {
        &self.core.config
    }
}

impl fmt::Debug for HealthChecker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.snapshot();
        let states: Vec<_> = report.checks().map(|row| (row.name(), row.status())).collect();
        f.debug_struct("HealthChecker")
            .field("status", &report.status())
            .field("checks", &states)
            .finish_non_exhaustive()
    }
}
