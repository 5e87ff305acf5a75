//! The manager as users hold it.

mod builder;
mod clock;
mod driver;
mod meter;
mod status;

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use resonant_common::join::{Finding, Severity, Topology};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::builder::FailoverBuilder;
use self::clock::Clock;
pub(crate) use self::clock::wall;
use self::driver::Driver;
use self::meter::Meter;
pub use self::status::{Drill, Plan, Proposal, RegionStatus, State, Status};
use crate::config::FailoverConfig;
use crate::core::{Core, Event, EventKind, Input, Reason, Wish};
use crate::error::{Error, ErrorKind, Result};
use crate::hook::Hook;
use crate::observe::{Observer, Watch};
use crate::region::{RegionBackend, RegionName};
use crate::voter::{Ballot, Quorum};

/// How many events are remembered.
const HISTORY: usize = 256;

/// Watches regions, fails over to another one when the primary is lost, and goes back when it is well again.
///
/// A cheap handle; clones are the same manager. Its tasks end with [`close`](FailoverManager::close) or the last handle.
/// Run one in every region: they share the lease through the voters, and only the holder acts.
#[derive(Clone)]
pub struct FailoverManager {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) shared: Arc<Shared>,
    regions: Vec<(RegionName, Arc<dyn RegionBackend>)>,
    observers: Vec<Arc<dyn Observer>>,
    hooks: Vec<Arc<dyn Hook>>,
    watch: Option<Watch>,
}

/// What the handle and the tasks share.
pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) config: Arc<FailoverConfig>,
    pub(crate) core: Mutex<Core>,
    pub(crate) clock: Clock,
    pub(crate) quorum: Option<Quorum>,
    pub(crate) inputs: mpsc::Sender<Input>,
    receiver: Mutex<Option<mpsc::Receiver<Input>>>,
    pub(crate) topology: watch::Sender<Topology>,
    pub(crate) events: broadcast::Sender<Event>,
    history: Mutex<VecDeque<Event>>,
    pub(crate) meter: Meter,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

impl Shared {
    pub(crate) fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn remember(&self, event: &Event) {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        if history.len() == HISTORY {
            history.pop_front();
        }
        history.push_back(event.clone());
        drop(history);
        // Nobody need listen.
        let _ = self.events.send(event.clone());
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

impl FailoverManager {
    /// A builder.
    pub fn builder() -> FailoverBuilder {
        FailoverBuilder::default()
    }

    /// Starts watching, and acting where that is allowed. Returns at once; a server that is down does not stop a start.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`]: it was started before, or has ended.
    #[expect(clippy::unused_async, reason = "the guide awaits it, and it may come to wait")]
    pub async fn start(&self) -> Result<()> {
        let shared = &self.inner.shared;
        let receiver = shared.receiver.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(receiver) = receiver.filter(|_| !shared.stop.is_cancelled()) else {
            let message = "the manager was started before or has ended; build a new one";
            return Err(Error::new(ErrorKind::Closed, "start", message));
        };
        if let Some(watch) = &self.inner.watch {
            let (shared, watch) = (Arc::clone(shared), watch.clone());
            let stop = shared.stop.clone();
            let tasks = shared.tasks.clone();
            tasks.spawn(stop.run_until_cancelled_owned(async move { watch.run(&shared).await }));
            return Ok(());
        }
        let driver = Driver::new(
            Arc::clone(shared),
            self.inner.regions.clone(),
            self.inner.observers.clone(),
            self.inner.hooks.clone(),
        );
        shared.tasks.spawn(driver.run(receiver));
        Ok(())
    }

    /// The topology, now and as it changes. Its epoch only ever rises; epoch 0 without nodes means that nothing is known
    /// yet. `db.follow(failover.subscribe())` makes a `Database` of `resonant-db` follow it.
    pub fn subscribe(&self) -> watch::Receiver<Topology> {
        self.inner.shared.topology.subscribe()
    }

    /// Events as they come. A listener that falls far behind misses the oldest.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.inner.shared.events.subscribe()
    }

    /// The last events, oldest first; at most 256.
    pub fn history(&self) -> Vec<Event> {
        let history = self.inner.shared.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.iter().cloned().collect()
    }

    /// The settings.
    pub fn config(&self) -> &FailoverConfig {
        &self.inner.shared.config
    }

    /// How everything stands.
    pub fn status(&self) -> Status {
        status::status(&self.inner.shared)
    }

    /// What this manager would do now if the primary failed, if the primary region were to take over again, or if a person
    /// asked for a switchover; and every reason why it would not. The same gates that the actions go through.
    pub fn plan(&self) -> Plan {
        status::plan(&self.inner.shared)
    }

    /// What the manager has to say of its own health.
    pub fn findings(&self) -> Vec<Finding> {
        let status = self.status();
        let name = self.inner.shared.name.clone();
        let (severity, code) = match status.state {
            _ if status.writable_primaries > 1 => (Severity::Fail, "ha.two_primaries"),
            _ if self.inner.shared.core().is_foreign() => (Severity::Fail, "ha.other_regions"),
            State::Starting => (Severity::Warn, "ha.starting"),
            State::Operating => (Severity::Warn, "ha.operating"),
            _ if status.primary.is_none() => (Severity::Fail, "ha.no_primary"),
            _ if status.paused.is_some() => (Severity::Warn, "ha.paused"),
            _ if status.regions.iter().any(|region| !region.well) => {
                (Severity::Warn, "ha.region_down")
            }
            _ => (Severity::Ok, "ha.ok"),
        };
        vec![Finding::new(name, severity, code)]
    }

    /// Makes `to` the primary in order: the old one ends its writes, the new one has everything before it takes any.
    ///
    /// Returns the epoch once clients are told.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`] naming every closed gate; [`ErrorKind::Failed`] when it was called off and the old primary
    /// took the writes again; [`ErrorKind::TimedOut`] when neither is known yet.
    ///
    /// # Cancel safety
    ///
    /// A dropped future leaves the switchover to go on.
    pub async fn switchover(&self, to: impl Into<RegionName>) -> Result<u64> {
        const OPERATION: &str = "switchover";
        let to = to.into();
        let shared = &self.inner.shared;
        let (against, _) = shared.core().judge(shared.clock.now(), &Wish::Switchover(to.clone()));
        refuse(OPERATION, &against)?;
        let mut events = self.events();
        self.send(OPERATION, Input::Switchover(to.clone())).await?;
        let limit = self.config().step_timeout * 8;
        let done = self.wait(OPERATION, &mut events, limit, |event| match &event.kind {
            EventKind::Published { primary, .. } if *primary == to => Some(Ok(event.epoch)),
            EventKind::Published { primary, .. } => {
                let message = format!("it was called off; {primary} takes the writes");
                Some(Err(Error::new(ErrorKind::Failed, OPERATION, message)))
            }
            EventKind::Refused { kind: crate::core::Kind::Switchover, reason }
                if *reason != Reason::NoProof =>
            {
                Some(refuse(OPERATION, &[*reason]).map(|()| event.epoch))
            }
            _ => None,
        });
        let epoch = done.await?;
        // The event comes with the topology; whoever follows it may take a moment.
        let mut topologies = self.subscribe();
        let told = topologies.wait_for(|topology| topology.epoch >= epoch);
        match timeout(limit, told).await {
            Ok(Ok(_)) => Ok(epoch),
            _ => {
                let message = "the new primary takes writes, but clients are not told yet";
                Err(Error::new(ErrorKind::TimedOut, OPERATION, message).with_may_have_applied())
            }
        }
    }

    /// Holds new operations back, for all managers, until [`resume`](FailoverManager::resume). One under way is finished.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`] when another manager holds the lease: ask that one. [`ErrorKind::TimedOut`].
    pub async fn pause(&self, by: impl Into<String>) -> Result<()> {
        self.command("pause", Input::Pause(by.into()), true).await
    }

    /// Lets operations begin again, and clears the budget of failovers.
    ///
    /// # Errors
    ///
    /// As [`pause`](FailoverManager::pause).
    pub async fn resume(&self) -> Result<()> {
        self.command("resume", Input::Resume, false).await
    }

    /// Sends a command and waits until the record at the voters shows it.
    async fn command(&self, operation: &'static str, input: Input, paused: bool) -> Result<()> {
        let shared = &self.inner.shared;
        let leads = || shared.core().leads(shared.clock.now());
        refuse(operation, if leads() { &[] } else { &[Reason::NoLease] })?;
        self.send(operation, input).await?;
        let shown = async {
            let is =
                || shared.core().record().is_some_and(|record| record.paused.is_some() == paused);
            while !is() {
                tokio::time::sleep(self.config().tick()).await;
            }
        };
        let limit = self.config().step_timeout * 4;
        timeout(limit, shown).await.map_err(|_| {
            let message =
                format!("not stored within {limit:?}; another manager may hold the lease now");
            Error::new(ErrorKind::TimedOut, operation, message).with_may_have_applied()
        })
    }

    async fn send(&self, operation: &'static str, input: Input) -> Result<()> {
        let sent = self.inner.shared.inputs.send(input).await;
        sent.map_err(|_| Error::new(ErrorKind::Closed, operation, "the manager has ended"))
    }

    async fn wait<T>(
        &self,
        operation: &'static str,
        events: &mut broadcast::Receiver<Event>,
        limit: Duration,
        look: impl Fn(&Event) -> Option<Result<T>>,
    ) -> Result<T> {
        let looking = async {
            loop {
                match events.recv().await {
                    Ok(event) => {
                        if let Some(result) = look(&event) {
                            return result;
                        }
                    }
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => {
                        return Err(Error::new(
                            ErrorKind::Closed,
                            operation,
                            "the manager has ended",
                        ));
                    }
                }
            }
        };
        match timeout(limit, looking).await {
            Ok(result) => result,
            Err(_) => {
                let message = format!("no outcome within {limit:?}; history() says how far it got");
                Err(Error::new(ErrorKind::TimedOut, operation, message).with_may_have_applied())
            }
        }
    }

    /// Rehearses a failover without one: asks every voter and every region, measures how long they take, and says what
    /// would happen. Changes nothing.
    pub async fn drill(&self) -> Drill {
        let shared = &self.inner.shared;
        let limit = self.config().probe_timeout;
        let regions = self.inner.regions.iter().map(|(region, backend)| async move {
            let began = Instant::now();
            let answer = timeout(limit, backend.probe(self.config().health_check_interval)).await;
            let answer = match answer {
                Ok(Ok(seen)) => seen.sick.map_or(Ok(began.elapsed()), Err),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!("no answer within {limit:?}")),
            };
            (region.clone(), answer)
        });
        let voters = shared.quorum.iter().flat_map(|quorum| quorum.voters()).map(|voter| async {
            let began = Instant::now();
            match timeout(limit, voter.cast(&shared.name, Ballot::Read)).await {
                Ok(Ok(_)) => Ok(began.elapsed()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!("no answer within {limit:?}")),
            }
        });
        let regions = futures::future::join_all(regions).await;
        let voters = futures::future::join_all(voters).await;
        Drill { regions, voters, plan: self.plan(), recovery: self.config().recovery() }
    }

    /// Ends all tasks, and gives the lease back, so that another manager need not wait for its end.
    ///
    /// # Cancel safety
    ///
    /// A dropped future has begun it all the same.
    pub async fn close(&self) {
        let shared = &self.inner.shared;
        shared.stop.cancel();
        shared.tasks.close();
        let _ = timeout(Duration::from_secs(5), shared.tasks.wait()).await;
    }
}

impl fmt::Debug for FailoverManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailoverManager")
            .field("name", &self.inner.shared.name)
            .finish_non_exhaustive()
    }
}

fn refuse(operation: &'static str, against: &[Reason]) -> Result<()> {
    if against.is_empty() {
        return Ok(());
    }
    let reasons: Vec<String> = against.iter().map(ToString::to_string).collect();
    Err(Error::new(ErrorKind::Refused, operation, reasons.join("; ")))
}
