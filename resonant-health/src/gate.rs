//! Holding startup closed until the application says so.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use crate::checker::HealthChecker;
use crate::core::Core;

impl HealthChecker {
    /// Holds the startup probe, and with it readiness, closed until the gate is opened: for migrations, warm-up, a
    /// first leader. It opens when all gates are open and everything required has worked once; then it stays open.
    ///
    /// Take gates before [`start`](HealthChecker::start); once startup is over a new gate changes nothing.
    pub fn startup_gate(&self) -> Gate {
        self.core.gates.fetch_add(1, Ordering::AcqRel);
        Gate { core: Arc::downgrade(&self.core) }
    }
}

/// Holds startup closed; from [`HealthChecker::startup_gate`]. Dropped without being opened, it stays closed.
#[derive(Debug)]
#[must_use = "startup waits until the gate is opened"]
pub struct Gate {
    core: Weak<Core>,
}

impl Gate {
    /// Opens it.
    pub fn open(self) {
        let Some(core) = self.core.upgrade() else { return };
        core.gates.fetch_sub(1, Ordering::AcqRel);
        core.publish(true);
    }
}
