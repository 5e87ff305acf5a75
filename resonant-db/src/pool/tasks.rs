//! The pool's tasks: opening, cleaning and closing connections off the caller's path, checking idle ones, and upkeep.
//!
//! Each task owns the slot it works on. A task that dies, by a panic or with its runtime, gives the slot free as it is
//! dropped. All end with the pool: `stop` ends connects and checks, `abandon` cleaning and closing, which have a
//! deadline of their own anyway.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{info, warn};

use super::config::PoolConfig;
use super::core::{Chore, Grant};
use super::manager::{Manager, Verdict};
use super::shared::{Lent, PoolCore, Shared};
use crate::{Error, ErrorKind};

/// Levels are published this often; nothing the upkeep task has not been told of is later than this.
const TICK: Duration = Duration::from_secs(1);

/// A slot that a task works on.
struct Work<M: Manager> {
    shared: Arc<Shared<M>>,
    slot: u32,
    connecting: bool,
    done: bool,
}

impl<M: Manager> Work<M> {
    fn new(shared: &Arc<Shared<M>>, slot: u32, connecting: bool) -> Self {
        Self { shared: Arc::clone(shared), slot, connecting, done: false }
    }

    /// The slot has been dealt with.
    fn done(mut self) -> Arc<Shared<M>> {
        self.done = true;
        Arc::clone(&self.shared)
    }
}

impl<M: Manager> Drop for Work<M> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        if self.connecting && !self.shared.stop.is_cancelled() {
            let message = "the task that opened the connection died: its manager panicked, or its runtime has ended";
            connect_failed(
                &self.shared,
                self.slot,
                Error::new(ErrorKind::Unavailable, "connect", message),
            );
        } else {
            self.shared.forget(self.slot);
        }
    }
}

/// Starts a task that owns the slot and has a time limit from the settings.
fn start<M, F, Fut>(
    shared: &Arc<Shared<M>>,
    work: Work<M>,
    limit: fn(&PoolConfig) -> Duration,
    task: F,
) where
    M: Manager,
    F: FnOnce(Work<M>, Duration) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    // Without a runtime the work is dropped, and with it the slot given free.
    let Some(runtime) = shared.runtime() else { return };
    let limit = limit(shared.core().config());
    runtime.spawn(task(work, limit));
}

/// Opens a connection for a reserved slot.
pub(super) fn connect<M: Manager>(shared: &Arc<Shared<M>>, slot: u32) {
    let work = Work::new(shared, slot, true);
    start(
        shared,
        work,
        |config| config.connect_timeout,
        move |work, limit| async move {
            let began = Instant::now();
            let shared = &work.shared;
            let opening = timeout(limit, shared.manager.connect());
            let opened = shared.stop.run_until_cancelled(opening).await;
            let now = Instant::now();
            match opened {
                None => drop(work),
                Some(Ok(Ok(connection))) => {
                    shared.meters.create_time.record_duration(now - began);
                    connected(&work.done(), slot, connection, now);
                }
                Some(Ok(Err(cause))) => connect_failed(&work.done(), slot, cause),
                Some(Err(_)) => {
                    let message = format!(
                        "opening a connection took longer than connect_timeout ({limit:?})"
                    );
                    let cause = Error::new(ErrorKind::TimedOut, "connect", message);
                    connect_failed(&work.done(), slot, cause);
                }
            }
        },
    );
}

fn connected<M: Manager>(
    shared: &Arc<Shared<M>>,
    slot: u32,
    connection: M::Connection,
    now: Instant,
) {
    let connected = shared.core().connected(slot, now);
    shared.put(Grant { slot, connection }, now, PoolCore::<M>::put);
    if let Some(replaced) = connected.replaced {
        close(shared, replaced);
    }
    if let Some(outage) = connected.ended {
        info!(
            pool = &*shared.name,
            failures = outage.failures,
            lasted = ?now.saturating_duration_since(outage.since),
            "connections can be opened again"
        );
    }
    shared.open_what_is_wanted();
    shared.progress.notify_waiters();
}

fn connect_failed<M: Manager>(shared: &Arc<Shared<M>>, slot: u32, cause: Error) {
    let shown = cause.to_string();
    let failed = shared.core().connect_failed(slot, cause, Instant::now());
    if failed.began {
        warn!(pool = &*shared.name, cause = shown, "connections cannot be opened");
    }
    failed.wakers.into_iter().for_each(std::task::Waker::wake);
    shared.nudge.notify_one();
    shared.progress.notify_waiters();
}

/// Cleans a connection and gives it back, or closes it.
pub(super) fn clean<M: Manager>(shared: &Arc<Shared<M>>, Grant { slot, connection }: Lent<M>) {
    let work = Work::new(shared, slot, false);
    start(
        shared,
        work,
        |config| config.clean_timeout,
        move |work, limit| async move {
            let shared = &work.shared;
            let cleaning = timeout(limit, shared.manager.clean(connection));
            if let Some(Ok(Some(connection))) = shared.abandon.run_until_cancelled(cleaning).await {
                let grant = Grant { slot, connection };
                work.done().release(grant, Verdict::Reuse, Instant::now());
            }
        },
    );
}

/// Closes a connection whose slot is marked as closing.
pub(super) fn close<M: Manager>(shared: &Arc<Shared<M>>, Grant { slot, connection }: Lent<M>) {
    let work = Work::new(shared, slot, false);
    start(
        shared,
        work,
        |config| config.clean_timeout,
        move |work, limit| async move {
            let closing = timeout(limit, work.shared.manager.close(connection));
            // Whatever comes of it, dropping `work` gives the slot free.
            let _ = work.shared.abandon.run_until_cancelled(closing).await;
        },
    );
}

/// Checks an idle connection.
fn probe<M: Manager>(shared: &Arc<Shared<M>>, mut grant: Lent<M>) {
    let work = Work::new(shared, grant.slot, false);
    start(
        shared,
        work,
        |config| config.health_check_timeout,
        move |work, limit| async move {
            let checking = timeout(limit, work.shared.manager.check(&mut grant.connection));
            let works = work.shared.stop.run_until_cancelled(checking).await;
            let works = matches!(works, Some(Ok(Ok(()))));
            let shared = work.done();
            if works {
                shared.put(grant, Instant::now(), PoolCore::<M>::probed);
            } else {
                let grant = shared.core().probe_failed(grant, Instant::now());
                shared.nudge.notify_one();
                close(&shared, grant);
            }
        },
    );
}

/// Looks after what falls due, until the pool is closed or gone.
pub(super) fn upkeep<M: Manager>(shared: &Arc<Shared<M>>, runtime: &Handle) {
    let (stop, tending) = (shared.stop.clone(), Tending(Arc::clone(shared)));
    runtime.spawn(stop.run_until_cancelled_owned(keep_up(tending)));
}

async fn keep_up<M: Manager>(tending: Tending<M>) {
    loop {
        let due = do_what_is_due(&tending.0);
        let _ = timeout_at(due, tending.0.nudge.notified()).await;
    }
}

fn do_what_is_due<M: Manager>(shared: &Arc<Shared<M>>) -> Instant {
    loop {
        let Some(chore) = shared.core().chore(Instant::now()) else { break };
        match chore {
            Chore::Close(grant) => close(shared, grant),
            Chore::Probe(grant) => probe(shared, grant),
            Chore::Leak(holder) => warn!(
                pool = &*shared.name,
                site = %holder.site,
                held = ?holder.held,
                "a connection has been held for longer than leak_warning_after"
            ),
        }
    }
    shared.open_what_is_wanted();
    let (now, core) = (Instant::now(), shared.core());
    let (status, due) = (core.status(now), core.next_due(now, TICK));
    drop(core);
    shared.meters.publish(&status);
    due
}

/// The mark that somebody looks after the pool.
struct Tending<M: Manager>(Arc<Shared<M>>);

impl<M: Manager> Drop for Tending<M> {
    fn drop(&mut self) {
        self.0.core().tended = false;
    }
}
