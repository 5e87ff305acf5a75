//! Waiting for a connection.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::core::{Enqueued, Grant, Holder, Outcome, Refusal, Site};
use super::manager::Manager;
use super::pooled::Pooled;
use super::shared::{PoolCore, Shared};
use super::tasks;
use crate::{Error, ErrorKind, Result};

/// Lends an idle connection, or waits for one at the end of the queue. One lock where one is idle; the timer is only
/// made where none is.
pub(super) async fn wait<M: Manager>(
    shared: &Arc<Shared<M>>,
    site: Site,
    limit: Option<Duration>,
) -> Result<Pooled<M>> {
    let mut place = Place { shared, site, limit, began: Instant::now(), key: None };
    let mut timer = pin!(None);
    poll_fn(|cx| {
        if let Poll::Ready(outcome) = place.poll(cx) {
            return Poll::Ready(outcome);
        }
        if timer.is_none() {
            timer.set(Some(sleep_until(place.deadline())));
        }
        match timer.as_mut().as_pin_mut() {
            Some(timer) => timer.poll(cx).map(|()| place.give_up()),
            None => Poll::Pending,
        }
    })
    .await
}

/// A place in the queue. Dropping it leaves the queue and passes on what it had been given.
struct Place<'a, M: Manager> {
    shared: &'a Arc<Shared<M>>,
    site: Site,
    limit: Option<Duration>,
    began: Instant,
    key: Option<u32>,
}

impl<M: Manager> Place<'_, M> {
    fn limit(&self) -> Duration {
        self.limit.unwrap_or(Duration::MAX)
    }

    fn deadline(&self) -> Instant {
        super::core::after(self.began, self.limit())
    }

    #[inline]
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Pooled<M>>> {
        let Some(key) = self.key else { return self.join(cx) };
        let waker = cx.waker();
        let outcome = self.shared.core().poll(key, |kept| kept.clone_from(waker));
        match outcome {
            Some(outcome) => Poll::Ready(self.finish(outcome)),
            None => Poll::Pending,
        }
    }

    #[inline]
    fn join(&mut self, cx: &mut Context<'_>) -> Poll<Result<Pooled<M>>> {
        loop {
            let mut core = self.shared.core();
            let tended = core.tended;
            match core.enqueue(self.began, self.site, || cx.waker().clone()) {
                Enqueued::Taken(grant) => {
                    drop(core);
                    if !tended {
                        self.shared.tend();
                    }
                    if let Some(pooled) = self.shared.admit(grant, self.began) {
                        self.shared.meters.wait_time.record(0.0);
                        return Poll::Ready(Ok(pooled));
                    }
                }
                Enqueued::Queued(key) => {
                    self.key = Some(key);
                    self.limit.get_or_insert(core.config().acquire_timeout);
                    let wanted = core.reserve(self.began);
                    drop(core);
                    if !tended {
                        self.shared.tend();
                    }
                    if let Some(slot) = wanted {
                        tasks::connect(self.shared, slot);
                        self.shared.open_what_is_wanted();
                    }
                    return Poll::Pending;
                }
                Enqueued::Refused(refusal) => {
                    drop(core);
                    return Poll::Ready(Err(refused(self.shared, refusal)));
                }
            }
        }
    }

    fn finish(&mut self, outcome: Outcome<M::Connection>) -> Result<Pooled<M>> {
        self.key = None;
        match outcome {
            Ok((grant, since)) => {
                let waited = since.saturating_duration_since(self.began);
                self.shared.meters.wait_time.record_duration(waited);
                Ok(Pooled::new(Arc::clone(self.shared), grant, since))
            }
            Err(refusal) => Err(refused(self.shared, refusal)),
        }
    }

    /// The deadline has passed: says why nothing came in time.
    fn give_up(&mut self) -> Result<Pooled<M>> {
        let limit = self.limit();
        let Some(key) = self.key.take() else {
            return Err(timed_out(self.shared, &self.shared.core(), limit));
        };
        let mut core = self.shared.core();
        let error = timed_out(self.shared, &core, limit);
        if let Some(grant) = core.leave(key) {
            drop(core);
            return self.finish(Ok((grant, Instant::now())));
        }
        core.count_timeout();
        drop(core);
        self.shared.meters.timeouts.increment(1);
        Err(error)
    }
}

impl<M: Manager> Drop for Place<'_, M> {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        let left: Option<Grant<M::Connection>> = self.shared.core().leave(key);
        if let Some(grant) = left {
            self.shared.put(grant, Instant::now(), PoolCore::<M>::put);
        }
    }
}

/// The error of a caller who was refused.
fn refused<M: Manager>(shared: &Shared<M>, refusal: Refusal) -> Error {
    let name = &shared.name;
    match refusal {
        Refusal::Closed => closed(name),
        Refusal::Full => {
            let most = shared.core().config().max_waiting;
            let message = format!(
                "pool {name:?} has {most} callers waiting already: lower the load, or raise max_size or max_waiting"
            );
            Error::new(ErrorKind::Overloaded, "get", message)
        }
        Refusal::Down { cause, next_attempt } => {
            let message =
                format!("pool {name:?} has no connection and cannot open one: {}", cause.message());
            Error::new(cause.kind(), "get", message)
                .with_retry_after(next_attempt.saturating_duration_since(Instant::now()))
                .with_source(cause)
        }
    }
}

pub(super) fn closed(name: &str) -> Error {
    Error::new(ErrorKind::Closed, "get", format!("pool {name:?} is closed: build a new one"))
}

/// The error of a caller who waited too long: what the connections were doing, and who held them longest.
fn timed_out<M: Manager>(shared: &Shared<M>, core: &PoolCore<M>, limit: Duration) -> Error {
    let now = Instant::now();
    let (status, name) = (core.status(now), &shared.name);
    let mut message = format!(
        "pool {name:?} had no connection free within {limit:?}: {} of {} busy, {} idle, {} being opened, {} waiting",
        status.busy, status.max_size, status.idle, status.connecting, status.waiting
    );
    name_holders(&mut message, &core.holders(now));
    let outage = core.outage();
    let kind = match outage {
        _ if status.open() > 0 => ErrorKind::Overloaded,
        Some(outage) => outage.cause.kind(),
        None => ErrorKind::TimedOut,
    };
    if let Some(outage) = outage {
        message.push_str("; opening another fails: ");
        message.push_str(outage.cause.message());
    } else if kind == ErrorKind::Overloaded {
        message.push_str("; lower the load, hold them for less time, or raise max_size");
    }
    let error = Error::new(kind, "get", message);
    match outage {
        Some(outage) => error.with_source(outage.cause.clone()),
        None => error,
    }
}

/// How warming up has ended, if it has.
pub(super) fn warmth<M: Manager>(shared: &Shared<M>) -> Option<Result<()>> {
    let core = shared.core();
    if core.is_closed() {
        return Some(Err(closed(&shared.name)));
    }
    if core.is_warm() {
        return Some(Ok(()));
    }
    let refusal = core.certain_outage(Instant::now())?;
    drop(core);
    Some(Err(refused(shared, refusal)))
}

/// The error of a close that connections did not come back for.
pub(super) fn still_out<M: Manager>(shared: &Shared<M>, deadline: Duration) -> Error {
    let core = shared.core();
    let now = Instant::now();
    let mut message = format!(
        "pool {:?} still had {} connections out after {deadline:?}; they are closed as they come back",
        shared.name,
        core.status(now).total()
    );
    name_holders(&mut message, &core.holders(now));
    Error::new(ErrorKind::TimedOut, "close", message)
}

fn name_holders(message: &mut String, holders: &[Holder]) {
    for (place, holder) in holders.iter().take(3).enumerate() {
        message.push_str(if place == 0 { "; held longest: " } else { ", " });
        message.push_str(&holder.to_string());
    }
}
