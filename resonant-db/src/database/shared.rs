//! When a read goes to a connection that others use too.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::backend::{Fitness, Lanes, LanesStatus, Sharing};

/// Whether a database's reads may share connections.
#[derive(Clone)]
pub(super) struct Switch(Arc<AtomicBool>);

impl Switch {
    pub(super) fn new(lanes: Lanes) -> Self {
        let switch = Self(Arc::default());
        switch.set(lanes);
        switch
    }

    pub(super) fn set(&self, lanes: Lanes) {
        self.0.store(lanes != Lanes::Off, Ordering::Release);
    }

    fn is_on(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The shared connections of a node, and whether there is a crowd.
///
/// A read takes an idle connection as long as there is one. Once there is none, reads that may share do, and go on to
/// share until there are no more than half as many of them as the pool had connections: one connection each would then
/// only be slower, and those that are left are for whoever needs one to himself.
pub(super) struct Shared {
    sharing: Arc<dyn Sharing>,
    /// The whole database's switch.
    switch: Switch,
    crowded: AtomicBool,
    /// How many connections the pool had when the crowd came.
    room: AtomicU32,
}

impl Shared {
    pub(super) fn new(sharing: Arc<dyn Sharing>, switch: Switch) -> Self {
        Self { sharing, switch, crowded: AtomicBool::new(false), room: AtomicU32::new(0) }
    }

    pub(super) fn is_on(&self) -> bool {
        self.switch.is_on()
    }

    pub(super) fn sharing(&self) -> &dyn Sharing {
        &*self.sharing
    }

    pub(super) fn fitness(&self, sql: &str) -> Fitness {
        self.sharing.fitness(sql)
    }

    /// Whether more read than there are connections.
    pub(super) fn is_crowded(&self) -> bool {
        if !self.crowded.load(Ordering::Relaxed) {
            return false;
        }
        let over = self.sharing.in_flight() * 2 <= self.room.load(Ordering::Relaxed);
        if over {
            self.crowded.store(false, Ordering::Relaxed);
        }
        !over
    }

    /// A read found none of `room` connections idle, and shares one.
    pub(super) fn crowd(&self, room: impl FnOnce() -> u32) {
        if !self.crowded.load(Ordering::Relaxed) {
            self.room.store(room(), Ordering::Relaxed);
            self.crowded.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn status(&self) -> LanesStatus {
        self.sharing.status()
    }

    pub(super) fn empty(&self) {
        self.sharing.empty();
    }

    /// Turns sharing off at this node, or on again.
    pub(super) fn switch(&self, on: bool) {
        self.sharing.switch(on);
    }

    pub(super) async fn close(&self) {
        self.sharing.close().await;
    }
}
