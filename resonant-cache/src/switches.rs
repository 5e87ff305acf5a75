//! What can be turned off while a service runs, when something goes wrong.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde::Serialize;
use tokio::sync::Notify;

/// Switches for an incident, of one cache in one process; see [`DistributedCache::switch`](crate::DistributedCache::switch).
/// The default is normal operation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Switches {
    /// Nothing is served from, or kept in, this process: every read asks the store. What was held is dropped.
    pub bypass_local: bool,
    /// Nothing is served from either tier and nothing loaded is kept: `get` finds nothing, and loads go to the loader, still
    /// once for all who ask at once. Sets, removals and invalidations reach the store as ever, so that it is right when
    /// this ends.
    pub bypass: bool,
    /// The most loaders that run at a time in this process, over all namespaces; others wait within their
    /// `load_queue_timeout`. `None` leaves it to `max_concurrent_loads`; zero stops loading.
    pub max_loads: Option<usize>,
}

impl Switches {
    /// Normal operation.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`bypass_local`](Switches::bypass_local).
    #[must_use]
    pub fn bypass_local(mut self, on: bool) -> Self {
        self.bypass_local = on;
        self
    }

    /// Sets [`bypass`](Switches::bypass).
    #[must_use]
    pub fn bypass(mut self, on: bool) -> Self {
        self.bypass = on;
        self
    }

    /// Sets [`max_loads`](Switches::max_loads).
    #[must_use]
    pub fn max_loads(mut self, most: impl Into<Option<usize>>) -> Self {
        self.max_loads = most.into();
        self
    }
}

/// Where switches are looked at: one relaxed load for each.
#[derive(Debug)]
pub(crate) struct Panel {
    /// Whether the process's own tier is used: neither bypass is on.
    bypass_local: AtomicBool,
    bypass: AtomicBool,
    most: AtomicUsize,
    running: AtomicUsize,
    freed: Notify,
}

const NO_CAP: usize = usize::MAX;

impl Default for Panel {
    fn default() -> Self {
        Self {
            bypass_local: AtomicBool::new(false),
            bypass: AtomicBool::new(false),
            most: AtomicUsize::new(NO_CAP),
            running: AtomicUsize::new(0),
            freed: Notify::new(),
        }
    }
}

impl Panel {
    pub(crate) fn set(&self, switches: Switches) {
        self.bypass_local.store(switches.bypass_local, Ordering::Release);
        self.bypass.store(switches.bypass, Ordering::Release);
        self.most.store(switches.max_loads.unwrap_or(NO_CAP), Ordering::Release);
        self.freed.notify_waiters();
    }

    pub(crate) fn get(&self) -> Switches {
        let most = self.most.load(Ordering::Acquire);
        Switches {
            bypass_local: self.bypass_local.load(Ordering::Acquire),
            bypass: self.bypasses(),
            max_loads: (most != NO_CAP).then_some(most),
        }
    }

    /// Whether both tiers are left out.
    #[inline]
    pub(crate) fn bypasses(&self) -> bool {
        self.bypass.load(Ordering::Relaxed)
    }

    /// Whether the tier in the process is left out.
    #[inline]
    pub(crate) fn bypasses_local(&self) -> bool {
        self.bypass_local.load(Ordering::Relaxed) || self.bypasses()
    }

    /// Waits for a place among the loads that may run.
    pub(crate) async fn place(&self) -> Place<'_> {
        loop {
            let freed = self.freed.notified();
            if let Some(place) = self.try_place() {
                return place;
            }
            freed.await;
        }
    }

    pub(crate) fn try_place(&self) -> Option<Place<'_>> {
        let most = self.most.load(Ordering::Acquire);
        let taken = self.running.fetch_update(Ordering::AcqRel, Ordering::Acquire, |running| {
            (running < most).then_some(running + 1)
        });
        taken.ok().map(|_| Place { panel: self })
    }
}

/// A load's place; free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    panel: &'a Panel,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.panel.running.fetch_sub(1, Ordering::AcqRel);
        if self.panel.most.load(Ordering::Acquire) != NO_CAP {
            self.panel.freed.notify_waiters();
        }
    }
}
