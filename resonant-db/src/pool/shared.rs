//! The pool itself, shared by its handles, the connections it has lent and its tasks: one short lock around the
//! decisions, and the doing of what they say.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::config::PoolConfig;
use super::core::{Core, Grant, Put, Site};
use super::manager::{Manager, Verdict};
use super::meters::Meters;
use super::pooled::{Judged, Pooled};
use super::retire::Retirements;
use super::tasks;

pub(super) type PoolCore<M> = Core<<M as Manager>::Connection, Waker>;

/// A way of giving a connection back to the decisions.
type PutBy<M> = fn(&mut PoolCore<M>, Lent<M>, Instant) -> Put<<M as Manager>::Connection, Waker>;

/// A connection of the manager with its slot.
pub(super) type Lent<M> = Grant<<M as Manager>::Connection>;

pub(super) struct Shared<M: Manager> {
    pub(super) name: Arc<str>,
    pub(super) manager: M,
    core: Mutex<PoolCore<M>>,
    pub(super) retirements: Mutex<Retirements<M::Connection>>,
    pub(super) meters: Meters,
    /// No more connects, checks and upkeep: the pool is closed or gone.
    pub(super) stop: CancellationToken,
    /// No more patience with connections being cleaned or closed either.
    pub(super) abandon: CancellationToken,
    /// Something is due earlier than the upkeep task knows.
    pub(super) nudge: Notify,
    /// A connection was opened, could not be, or is gone for good.
    pub(super) progress: Notify,
    /// Where tasks go when the caller is outside of a runtime.
    runtime: Mutex<Option<Handle>>,
}

impl<M: Manager> Shared<M> {
    pub(super) fn new(name: Arc<str>, manager: M, config: PoolConfig) -> Self {
        Self {
            meters: Meters::new(&name),
            name,
            manager,
            core: Mutex::new(Core::new(config, Instant::now(), rand::random())),
            retirements: Mutex::default(),
            stop: CancellationToken::new(),
            abandon: CancellationToken::new(),
            nudge: Notify::new(),
            progress: Notify::new(),
            runtime: Mutex::new(None),
        }
    }

    /// The decisions, locked: never across an await, and never while user code runs.
    pub(super) fn core(&self) -> MutexGuard<'_, PoolCore<M>> {
        lock(&self.core)
    }

    /// The runtime tasks go to: the caller's, or else the last one the pool was used on.
    pub(super) fn runtime(&self) -> Option<Handle> {
        Handle::try_current().ok().or_else(|| lock(&self.runtime).clone())
    }

    /// Lends an idle connection, if there is one and nobody waits.
    pub(super) fn take(self: &Arc<Self>, site: Site) -> Option<Pooled<M>> {
        loop {
            let now = Instant::now();
            let grant = self.core().take(now, site)?;
            if let Some(pooled) = self.admit(grant, now) {
                self.meters.wait_time.record(0.0);
                return Some(pooled);
            }
        }
    }

    /// Lends a connection that was idle, unless a free look shows that it is no good any more.
    #[inline]
    pub(super) fn admit(self: &Arc<Self>, grant: Lent<M>, now: Instant) -> Option<Pooled<M>> {
        Some(Pooled::new(Arc::clone(self), Judged::new(self, grant).fit()?, now))
    }

    /// Takes a connection back from wherever it was.
    pub(super) fn release(self: &Arc<Self>, grant: Lent<M>, verdict: Verdict, now: Instant) {
        match verdict {
            Verdict::Reuse => self.put(grant, now, PoolCore::<M>::put),
            Verdict::Clean => {
                self.core().begin_cleaning(grant.slot, now);
                tasks::clean(self, grant);
            }
            Verdict::Discard => self.discard(grant),
        }
    }

    /// Gives a connection that is fit for use to the decisions, by `put`, and does what they say.
    #[inline]
    pub(super) fn put(self: &Arc<Self>, grant: Lent<M>, now: Instant, put: PutBy<M>) {
        let outcome = put(&mut self.core(), grant, now);
        match outcome {
            Put::Parked => {}
            Put::Handed(waker) => waker.wake(),
            outcome => self.put_slowly(outcome, now, put),
        }
    }

    #[cold]
    fn put_slowly(
        self: &Arc<Self>,
        mut outcome: Put<M::Connection, Waker>,
        now: Instant,
        put: PutBy<M>,
    ) {
        loop {
            match outcome {
                Put::Parked => return,
                Put::Handed(waker) => return waker.wake(),
                Put::Close(grant) => return tasks::close(self, grant),
                Put::Look { grant, after, to } => {
                    let rounds = lock(&self.retirements).snapshot(after, to);
                    if rounds.condemns(&grant.connection) {
                        return self.discard(grant);
                    }
                    let mut core = self.core();
                    core.passed(grant.slot, to);
                    outcome = put(&mut core, grant, now);
                }
            }
        }
    }

    /// Closes a connection.
    pub(super) fn discard(self: &Arc<Self>, grant: Lent<M>) {
        let grant = self.core().begin_closing(grant);
        tasks::close(self, grant);
    }

    /// The connection of a slot is gone for good: opens others where that is called for.
    pub(super) fn forget(self: &Arc<Self>, slot: u32) {
        self.core().forget(slot);
        self.open_what_is_wanted();
        self.progress.notify_waiters();
    }

    /// Opens connections for those who wait, for `min_size`, and in place of aged ones.
    pub(super) fn open_what_is_wanted(self: &Arc<Self>) {
        loop {
            let Some(slot) = self.core().reserve(Instant::now()) else { return };
            tasks::connect(self, slot);
        }
    }

    /// Sees to it that a task looks after what is due, on the present runtime.
    pub(super) fn tend(self: &Arc<Self>) {
        let Ok(runtime) = Handle::try_current() else { return };
        {
            let mut core = self.core();
            if core.tended || core.is_closed() {
                return;
            }
            core.tended = true;
        }
        *lock(&self.runtime) = Some(runtime.clone());
        tasks::upkeep(self, &runtime);
    }

    /// Lets nobody in any more and closes what is idle: politely if asked to, otherwise by dropping it.
    pub(super) fn shut(self: &Arc<Self>, politely: bool) {
        let (wakers, idle) = self.core().close();
        self.stop.cancel();
        wakers.into_iter().for_each(Waker::wake);
        for grant in idle {
            if politely {
                tasks::close(self, grant);
            } else {
                drop(grant.connection);
                self.core().forget(grant.slot);
            }
        }
        self.progress.notify_waiters();
    }
}

impl<M: Manager> fmt::Debug for Shared<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.core().status(Instant::now());
        f.debug_struct("ConnectionPool").field("name", &self.name).field("status", &status).finish()
    }
}

/// Locks; a panic elsewhere while it was locked has left nothing half done.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
