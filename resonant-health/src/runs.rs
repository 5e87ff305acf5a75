//! Starting checks, once each, and taking their results.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, join_all};
use resonant_common::duration::after;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tracing::Instrument as _;

use crate::core::{Core, Members};
use crate::entry::{Entry, Flight};
use crate::lock::lock;
use crate::report::Report;
use crate::work::{End, Running, Seen};

/// A whole run that all who ask meanwhile share. `None` if it was cut off.
pub(crate) type Round = Shared<BoxFuture<'static, Option<Report>>>;

impl Core {
    /// Starts a run of `entry`, or joins the one in flight.
    pub(crate) fn run(self: &Arc<Self>, entry: &Arc<Entry>) -> Flight {
        let mut slot = lock(&entry.flight);
        if let Some(flight) = &*slot {
            return flight.clone();
        }
        let Ok(runtime) = Handle::try_current() else {
            let seen = Seen::of(End::NoRuntime, Duration::ZERO);
            return std::future::ready(seen).boxed().shared();
        };
        let (send, receive) = oneshot::channel();
        let flight = receive
            .map(|seen| seen.unwrap_or_else(|_| Seen::of(End::Cancelled, Duration::ZERO)))
            .boxed()
            .shared();
        *slot = Some(flight.clone());
        drop(slot);

        let (core, entry) = (Arc::clone(self), Arc::clone(entry));
        let landed = Landed(Arc::clone(&entry));
        runtime.spawn(async move {
            let token = core.token.clone();
            let seen = token.run_until_cancelled(core.execute(&entry)).await;
            if let Some(seen) = &seen {
                core.record(&entry, seen);
            }
            // Cleared before the answer goes out, so that whoever hears it can start the next run.
            drop(landed);
            if let Some(seen) = seen {
                // Nobody may be waiting: the schedule never does.
                let _ = send.send(seen);
            }
        });
        flight
    }

    async fn execute(&self, entry: &Entry) -> Seen {
        let span = tracing::debug_span!(
            target: "resonant::health",
            "health.check",
            check = &*entry.name,
            outcome = tracing::field::Empty
        );
        let run = async {
            let _permit = self.permits.acquire().await;
            let begun = Instant::now();
            let end = match Running::begin(&entry.running) {
                Some(running) => entry.work.run(running, entry.timeout, &self.threads).await,
                None => End::StillRunning,
            };
            Seen::of(end, begun.elapsed())
        };
        let seen = run.instrument(span.clone()).await;
        span.record("outcome", seen.outcome.as_str());
        seen
    }

    fn record(&self, entry: &Arc<Entry>, seen: &Seen) {
        let shifts = entry.record(seen, Instant::now(), self.is_scheduled());
        entry.meter.ran(seen);
        for shift in shifts {
            Self::tell(entry, shift);
        }
        self.publish(true);
        self.wake.notify_one();
    }

    /// Runs every check once, together with all who ask meanwhile.
    pub(crate) fn round(self: &Arc<Self>) -> Round {
        let mut slot = lock(&self.round);
        if let Some(round) = &*slot {
            return round.clone();
        }
        let Ok(runtime) = Handle::try_current() else {
            drop(slot);
            // Every run answers at once that there is no runtime.
            let members = self.members();
            let seen = members.entries.iter().map(|entry| self.run(entry).now_or_never()).collect();
            return std::future::ready(Some(self.report_of(&members, seen))).boxed().shared();
        };
        let (send, receive) = oneshot::channel();
        let round = receive.map(Result::ok).boxed().shared();
        *slot = Some(round.clone());
        drop(slot);

        let core = Arc::clone(self);
        let over = RoundOver(Arc::clone(self));
        runtime.spawn(async move {
            let token = core.token.clone();
            let report = token.run_until_cancelled(core.run_round()).await;
            drop(over);
            if let Some(report) = report {
                // Whoever asked may have gone.
                let _ = send.send(report);
            }
        });
        round
    }

    async fn run_round(self: &Arc<Self>) -> Report {
        let until = after(Instant::now(), self.config.deadline);
        let members = self.members();
        let flights: Vec<_> = members.entries.iter().map(|entry| self.run(entry)).collect();
        let waits = flights.into_iter().map(|flight| timeout_at(until, flight).map(Result::ok));
        let seen = join_all(waits).await;
        // A checker without checks has started once it was asked.
        self.publish(true);
        self.report_of(&members, seen)
    }

    /// The report of a run: what it saw, not what has settled. `None` stands for a run that was not waited for.
    fn report_of(&self, members: &Members, seen: Vec<Option<Seen>>) -> Report {
        let now = Instant::now();
        let late = || Seen::of(End::PastDeadline, self.config.deadline);
        let dogs = members.dogs.iter().map(|dog| dog.row(now));
        let checks = members
            .entries
            .iter()
            .zip(seen)
            .map(|(entry, seen)| entry.row_of(&seen.unwrap_or_else(late)));
        Report {
            rows: dogs.chain(checks).map(Arc::new).collect(),
            started: self.started.load(Ordering::Acquire),
            draining: self.draining.load(Ordering::Acquire),
        }
    }
}

/// Clears the slot of a run however it ends.
struct Landed(Arc<Entry>);

impl Drop for Landed {
    fn drop(&mut self) {
        *lock(&self.0.flight) = None;
    }
}

/// The same for a whole run.
struct RoundOver(Arc<Core>);

impl Drop for RoundOver {
    fn drop(&mut self) {
        *lock(&self.0.round) = None;
    }
}
