//! Serves one owned partition: reads, hands to handlers, settles. A thin shell around the dispatcher.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::handler::{self, Handle, Origin};
use super::report::Tally;
use crate::backend::{Feed, Fetched, Settlement};
use crate::error::{Error, ErrorKind, Result};
use crate::lanes::{Job, Lanes, Outcome, Rules, Want};
use crate::queue::Core;

/// What a pump is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Take and run.
    Run,
    /// Take nothing new; go on with what runs.
    Pause,
    /// Take nothing new and end once all that runs is settled.
    Drain,
}

/// How a pump ended.
#[derive(Debug)]
pub(crate) enum End {
    /// Everything taken was settled.
    Drained,
    /// The partition has a newer owner.
    Fenced,
    /// The queue was closed.
    Closed,
}

/// The wait after the engine failed, before it is asked again.
const PATIENCE: Duration = Duration::from_millis(200);

pub(crate) struct Pump {
    pub(crate) core: Arc<Core>,
    pub(crate) handler: Arc<dyn Handle>,
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) tally: Arc<Tally>,
    /// Tells when the handlers have really stopped.
    pub(crate) running: TaskTracker,
    pub(crate) origin: Origin,
    pub(crate) mode: watch::Receiver<Mode>,
    pub(crate) pause: watch::Receiver<bool>,
}

type Fetching = BoxFuture<'static, (Want, Result<Fetched>)>;
type Settling = BoxFuture<'static, (Arc<Vec<Settlement>>, Result<()>)>;
type Permit = Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send>>;

struct Finished {
    job: Job,
    outcome: Outcome,
    took: Duration,
}

/// What is under way. Dropping it drops all of it: handlers stop, nothing is settled any more.
struct Flight {
    jobs: JoinSet<Finished>,
    forward: Option<Fetching>,
    refill: Option<Fetching>,
    settling: Option<Settling>,
    permit: Option<Permit>,
    /// Not to ask the engine again before.
    hold: Option<Instant>,
    health: Health,
}

/// Whether the engine failed when it was last asked.
struct Health {
    failing: bool,
}

impl Pump {
    /// Serves the partition until it is drained, fenced or the queue is closed. Dropping the future stops its handlers;
    /// what they had not finished is handed out again.
    pub(crate) async fn run(mut self, rules: Rules) -> End {
        let mut health = Health { failing: false };
        let opened = loop {
            match self.core.store.open(self.origin.partition, self.origin.epoch).await {
                Ok(opened) => break opened,
                Err(error) => match ending(&error) {
                    Some(end) => return end,
                    None => {
                        self.note(&mut health, Some(&error));
                        tokio::time::sleep(PATIENCE).await;
                    }
                },
            }
            if *self.mode.borrow() == Mode::Drain {
                return End::Drained;
            }
        };
        let mut lanes = Lanes::new(rules, opened.parked);
        let mut chance = StdRng::from_rng(&mut rand::rng());
        let mut flight = Flight {
            jobs: JoinSet::new(),
            forward: None,
            refill: None,
            settling: None,
            permit: None,
            hold: None,
            health,
        };
        loop {
            let mode = self.mode();
            let now = Instant::now();
            if mode == Mode::Run {
                self.start_ready(&mut lanes, &mut flight, now);
                self.start_fetches(&mut lanes, &mut flight, &opened.feed, now);
            } else {
                flight.permit = None;
            }
            self.start_settling(&mut lanes, &mut flight);
            if mode == Mode::Drain
                && flight.jobs.is_empty()
                && flight.settling.is_none()
                && !lanes.has_settlements()
            {
                return End::Drained;
            }
            let wake = [lanes.next_wake().filter(|_| mode == Mode::Run), flight.hold]
                .into_iter()
                .flatten()
                .filter(|at| *at > now)
                .min();
            tokio::select! {
                biased;
                changed = self.mode.changed() => if changed.is_err() { return End::Closed },
                Ok(()) = self.pause.changed() => {},
                Some(finished) = flight.jobs.join_next() => {
                    let now = Instant::now();
                    let mut next = Some(finished);
                    while let Some(finished) = next {
                        // A task only fails to join when it was aborted, which nobody does but the drop.
                        if let Ok(finished) = finished {
                            self.finish(&mut lanes, finished, now, &mut chance);
                        }
                        next = flight.jobs.try_join_next();
                    }
                },
                (batch, result) = ready(&mut flight.settling) => {
                    flight.settling = None;
                    self.note(&mut flight.health, result.as_ref().err());
                    match result {
                        Ok(()) => lanes.settled(batch.len()),
                        Err(error) => match ending(&error) {
                            Some(end) => return end,
                            None => {
                                // Whether it was applied is unknown: it is repeated, which changes nothing twice.
                                flight.settling = Some(self.settle(batch, PATIENCE));
                            }
                        },
                    }
                },
                (want, result) = ready(&mut flight.refill) => {
                    flight.refill = None;
                    if let Some(end) = self.fetched(&mut lanes, &mut flight, &want, result) {
                        return end;
                    }
                },
                (want, result) = ready(&mut flight.forward) => {
                    flight.forward = None;
                    if let Some(end) = self.fetched(&mut lanes, &mut flight, &want, result) {
                        return end;
                    }
                },
                permit = ready(&mut flight.permit) => {
                    flight.permit = None;
                    let Some(permit) = permit else { return End::Closed };
                    if self.mode() == Mode::Run
                        && let Some(job) = lanes.take(Instant::now())
                    {
                        self.start(&mut flight, job, permit);
                    }
                },
                () = sleep_until(wake) => {},
            }
        }
    }

    /// Tells once that the engine fails, and once that it no longer does.
    fn note(&self, health: &mut Health, error: Option<&Error>) {
        let failed = error.filter(|error| ending(error).is_none());
        if health.failing == failed.is_some() {
            return;
        }
        health.failing = failed.is_some();
        let (queue, partition) = (&self.core.spec.name, self.origin.partition);
        match failed {
            Some(error) => {
                tracing::warn!(queue = %queue, partition, error = %error, "the engine fails; it is asked again until it answers");
            }
            None => tracing::info!(queue = %queue, partition, "the engine answers again"),
        }
    }

    fn mode(&self) -> Mode {
        let mode = *self.mode.borrow();
        if mode == Mode::Run && *self.pause.borrow() { Mode::Pause } else { mode }
    }

    /// Hands out jobs while handlers are free; queues for one if none is.
    fn start_ready(&self, lanes: &mut Lanes, flight: &mut Flight, now: Instant) {
        while lanes.has_ready(now) {
            match Arc::clone(&self.permits).try_acquire_owned() {
                Ok(permit) => {
                    let Some(job) = lanes.take(now) else { return };
                    self.start(flight, job, permit);
                }
                Err(_) => {
                    flight.permit.get_or_insert_with(|| {
                        let permits = Arc::clone(&self.permits);
                        Box::pin(async move { permits.acquire_owned().await.ok() })
                    });
                    return;
                }
            }
        }
        flight.permit = None;
    }

    fn start(&self, flight: &mut Flight, job: Job, permit: OwnedSemaphorePermit) {
        let (handler, origin) = (Arc::clone(&self.handler), self.origin);
        let in_flight = self.core.in_flight.enter(job.messages.len());
        let job = async move {
            let began = Instant::now();
            let outcome = handler::run(&*handler, &job.messages, origin).await;
            drop((permit, in_flight));
            Finished { job, outcome, took: began.elapsed() }
        };
        flight.jobs.spawn(self.running.track_future(job));
    }

    fn finish(&self, lanes: &mut Lanes, finished: Finished, now: Instant, chance: &mut StdRng) {
        let Finished { job, outcome, took } = finished;
        let done = outcome.done;
        let fate = lanes.finish(job, outcome, now, chance);
        self.tally.count(done, fate, took);
    }

    fn start_fetches(
        &self,
        lanes: &mut Lanes,
        flight: &mut Flight,
        feed: &Arc<dyn Feed>,
        now: Instant,
    ) {
        if flight.hold.is_some_and(|until| now < until) {
            return;
        }
        flight.hold = None;
        while let Some(want) = lanes.want(now) {
            let feed = Arc::clone(feed);
            let fetching: Fetching = Box::pin(async move { (want, feed.fetch(want.fetch).await) });
            let place = if want.refill { &mut flight.refill } else { &mut flight.forward };
            *place = Some(fetching);
        }
    }

    fn fetched(
        &self,
        lanes: &mut Lanes,
        flight: &mut Flight,
        want: &Want,
        result: Result<Fetched>,
    ) -> Option<End> {
        self.note(&mut flight.health, result.as_ref().err());
        match result {
            Ok(fetched) => {
                lanes.fetched(want, fetched, Instant::now());
                None
            }
            Err(error) => {
                lanes.fetch_failed(want);
                flight.hold = Some(Instant::now() + PATIENCE);
                ending(&error)
            }
        }
    }

    /// Sends what is to be settled, one batch at a time: while one is on its way the next one grows.
    fn start_settling(&self, lanes: &mut Lanes, flight: &mut Flight) {
        if flight.settling.is_none() && lanes.has_settlements() {
            flight.settling = Some(self.settle(Arc::new(lanes.settlements()), Duration::ZERO));
        }
    }

    fn settle(&self, batch: Arc<Vec<Settlement>>, after: Duration) -> Settling {
        let (store, origin) = (Arc::clone(&self.core.store), self.origin);
        Box::pin(async move {
            if !after.is_zero() {
                tokio::time::sleep(after).await;
            }
            let result = store.settle(origin.partition, origin.epoch, Arc::clone(&batch)).await;
            (batch, result)
        })
    }
}

/// Whether an error ends the pump, or is to be waited out.
fn ending(error: &Error) -> Option<End> {
    match error.kind() {
        ErrorKind::Fenced => Some(End::Fenced),
        ErrorKind::Closed => Some(End::Closed),
        _ => None,
    }
}

/// Awaits what may be under way, or for ever.
async fn ready<F: Future + Unpin>(slot: &mut Option<F>) -> F::Output {
    match slot {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
