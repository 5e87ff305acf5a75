//! A pool of connections to one server.
//!
//! [`ConnectionPool`] lends connections that a [`Manager`] opens. It is first come, first served: whatever comes free
//! goes to the caller who has waited longest. The most recently used connection is lent first, so that a pool that has
//! grown can shrink again. Lending and taking back an idle connection costs two short locks: no round trip, no
//! allocation, no task.
//!
//! Connections are opened in tasks of the pool, never in a caller's future: a caller who gives up neither loses the
//! connection nor the place of the next in the queue, and while one is being opened whoever is first takes the next that
//! comes back.
//!
//! # Cancel safety
//!
//! Every future of this module may be dropped at any await. A dropped `get` leaves the queue; if it had already been
//! handed a connection, the next in the queue gets it.

#[cfg(feature = "bb8")]
mod bb8;
mod config;
mod core;
mod get;
mod manager;
mod meters;
mod pooled;
mod retire;
mod shared;
mod tasks;

#[cfg(feature = "testing")]
pub mod testing;

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use resonant_common::join::{Finding, Severity};
use tokio::time::{Instant, timeout_at};

#[cfg(feature = "bb8")]
pub use self::bb8::Bb8;
pub use self::config::PoolConfig;
pub use self::core::{Holder, PoolStatus};
pub use self::manager::{Manager, Verdict};
pub use self::pooled::Pooled;

use self::shared::Shared;
use crate::{Error, ErrorKind, Result};

/// A pool of connections. Clones share it; it ends with the last clone or with [`close`](ConnectionPool::close).
pub struct ConnectionPool<M: Manager> {
    owner: Arc<Owner<M>>,
}

/// What the handles share, as against the connections that have been lent: its end is the pool's end.
struct Owner<M: Manager> {
    shared: Arc<Shared<M>>,
}

impl<M: Manager> Drop for Owner<M> {
    fn drop(&mut self) {
        self.shared.shut(false);
        self.shared.abandon.cancel();
    }
}

impl<M: Manager> ConnectionPool<M> {
    /// Makes a pool. Nothing is awaited: on a Tokio runtime the first `min_size` connections are opened in the
    /// background, elsewhere with the first call. A server that is down stops no start. `name` labels logs and metrics.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the settings break a rule, which the message names.
    pub fn new(name: impl Into<Arc<str>>, manager: M, config: PoolConfig) -> Result<Self> {
        config.validate()?;
        let shared = Arc::new(Shared::new(name.into(), manager, config));
        shared.tend();
        Ok(Self { owner: Arc::new(Owner { shared }) })
    }

    /// Lends a connection, waiting up to `acquire_timeout` for one.
    ///
    /// The place this is called from is remembered and named if it holds the connection for too long.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Overloaded`]: none came free in time, or too many wait already. The message says what the
    ///   connections were doing and who held them longest.
    /// - The kind of the connect error, if nothing is open and nothing can be opened, within a second of a server that
    ///   refuses; [`ErrorKind::TimedOut`] if the first connection was still being opened.
    /// - [`ErrorKind::Closed`].
    #[track_caller]
    pub fn get(&self) -> impl Future<Output = Result<Pooled<M>>> + Send + use<'_, M> {
        self.get_at(Location::caller(), None)
    }

    /// Lends a connection, waiting up to `limit` for one: otherwise as [`get`](ConnectionPool::get).
    ///
    /// # Errors
    ///
    /// As [`get`](ConnectionPool::get).
    #[track_caller]
    pub fn get_timeout(
        &self,
        limit: Duration,
    ) -> impl Future<Output = Result<Pooled<M>>> + Send + use<'_, M> {
        self.get_at(Location::caller(), Some(limit))
    }

    /// Lends a connection in the name of `site`, for wrappers that pass on the place they were called from. Waits up to
    /// `limit`, or `acquire_timeout`.
    ///
    /// # Errors
    ///
    /// As [`get`](ConnectionPool::get).
    pub async fn get_at(
        &self,
        site: &'static Location<'static>,
        limit: Option<Duration>,
    ) -> Result<Pooled<M>> {
        get::wait(&self.owner.shared, site, limit).await
    }

    /// Lends a connection if one is idle and nobody waits.
    #[track_caller]
    pub fn try_get(&self) -> Option<Pooled<M>> {
        self.owner.shared.take(Location::caller())
    }

    /// Lends a connection if one is idle and nobody waits, in the name of `site`.
    pub(crate) fn try_get_at(&self, site: &'static Location<'static>) -> Option<Pooled<M>> {
        self.owner.shared.take(site)
    }

    /// Waits until `min_size` connections are open.
    ///
    /// # Errors
    ///
    /// The cause, if opening one fails and goes on failing; [`ErrorKind::TimedOut`] after `acquire_timeout`;
    /// [`ErrorKind::Closed`].
    pub async fn warm_up(&self) -> Result<()> {
        let shared = &self.owner.shared;
        shared.tend();
        let limit = shared.core().config().acquire_timeout;
        let deadline = core::after(Instant::now(), limit);
        loop {
            let progress = shared.progress.notified();
            if let Some(outcome) = get::warmth(shared) {
                return outcome;
            }
            if timeout_at(deadline, progress).await.is_err() {
                let status = self.status();
                let message = format!(
                    "pool {:?} has {} of {} connections open after {limit:?}",
                    self.name(),
                    status.open(),
                    status.min_size
                );
                return Err(Error::new(ErrorKind::TimedOut, "warm_up", message));
            }
        }
    }

    /// The name given in code.
    pub fn name(&self) -> &str {
        &self.owner.shared.name
    }

    /// What opens the connections.
    pub fn manager(&self) -> &M {
        &self.owner.shared.manager
    }

    /// The present settings.
    pub fn config(&self) -> PoolConfig {
        self.owner.shared.core().config().clone()
    }

    /// A snapshot of the pool.
    pub fn status(&self) -> PoolStatus {
        self.owner.shared.core().status(Instant::now())
    }

    /// Who holds connections, the longest first.
    pub fn holders(&self) -> Vec<Holder> {
        self.owner.shared.core().holders(Instant::now())
    }

    /// What the pool says of its own health, without asking the server. Codes: `db.pool.ok`, `db.pool.saturated`
    /// (callers wait and there is no room to grow), `db.pool.connects_failing` (what is open works),
    /// `db.pool.unreachable` (nothing is open), `db.pool.leak` (a connection is held for longer than
    /// `leak_warning_after`), `db.pool.closed`.
    pub fn findings(&self) -> Vec<Finding> {
        let (status, limit) = (self.status(), self.config().leak_warning_after);
        let leak = self.holders().first().is_some_and(|holder| holder.held >= limit);
        let saturated = status.waiting > 0 && status.total() >= status.max_size;
        let down = status.outage.is_some();
        let facts = [
            (status.is_closed, Severity::Fail, "db.pool.closed"),
            (down && status.open() == 0, Severity::Fail, "db.pool.unreachable"),
            (down && status.open() > 0, Severity::Warn, "db.pool.connects_failing"),
            (saturated, Severity::Warn, "db.pool.saturated"),
            (leak, Severity::Warn, "db.pool.leak"),
        ];
        let finding = |severity, code| Finding::new(self.name().to_owned(), severity, code);
        let mut findings: Vec<_> = facts
            .iter()
            .filter(|(holds, ..)| *holds)
            .map(|(_, severity, code)| finding(*severity, code))
            .collect();
        if findings.is_empty() {
            findings.push(finding(Severity::Ok, "db.pool.ok"));
        }
        findings
    }

    /// Retires the connections `condemned` picks, such as those to a demoted node: idle ones now, lent ones as they come
    /// back, those being opened as soon as they are.
    ///
    /// `condemned` is called without any lock held, now and, for connections that are out, when they return.
    pub fn retire<F>(&self, condemned: F)
    where
        F: Fn(&M::Connection) -> bool + Send + Sync + 'static,
    {
        retire::retire(&self.owner.shared, Arc::new(condemned));
    }

    /// Changes the sizes, live. Growing to a higher `min_size` begins at once; what is above a lower `max_size` goes as
    /// it comes back.
    ///
    /// # Errors
    ///
    /// As [`reconfigure`](ConnectionPool::reconfigure).
    pub fn resize(&self, min_size: u32, max_size: u32) -> Result<()> {
        self.reconfigure(self.config().min_size(min_size).max_size(max_size))
    }

    /// Changes the settings, live. `max_lifetime` and `health_check_interval` apply to connections opened from now on,
    /// `acquire_timeout` to callers from now on, the rest at once.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the settings break a rule; then nothing has changed.
    pub fn reconfigure(&self, config: PoolConfig) -> Result<()> {
        config.validate()?;
        let shared = &self.owner.shared;
        shared.core().reconfigure(config);
        shared.tend();
        shared.nudge.notify_one();
        Ok(())
    }

    /// Whether the pool has been closed.
    pub fn is_closed(&self) -> bool {
        self.owner.shared.core().is_closed()
    }

    /// Closes the pool: from now on nobody gets a connection, callers who wait are told, idle connections are closed,
    /// lent ones as they come back. Waits for all that, up to `deadline`; after it nothing is waited for, and a lent
    /// connection is still closed whenever it comes back.
    ///
    /// Calling it again waits again.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TimedOut`] if connections were still out; the message names who holds them.
    ///
    /// # Cancel safety
    ///
    /// The pool is closed with the first poll and stays so. A dropped future only stops waiting.
    pub async fn close(&self, deadline: Duration) -> Result<()> {
        let shared = &self.owner.shared;
        let until = core::after(Instant::now(), deadline);
        shared.shut(true);
        loop {
            let progress = shared.progress.notified();
            if self.status().total() == 0 {
                return Ok(());
            }
            if timeout_at(until, progress).await.is_err() {
                shared.abandon.cancel();
                return Err(get::still_out(shared, deadline));
            }
        }
    }
}

impl<M: Manager> Clone for ConnectionPool<M> {
    fn clone(&self) -> Self {
        Self { owner: Arc::clone(&self.owner) }
    }
}

impl<M: Manager> fmt::Debug for ConnectionPool<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.owner.shared.fmt(f)
    }
}
