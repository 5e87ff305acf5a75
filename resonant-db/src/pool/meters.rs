//! The metrics of a pool.

use resonant_common::telemetry::{Counter, Gauge, Histogram, names};

use super::core::PoolStatus;

#[derive(Debug)]
pub(super) struct Meters {
    idle: Gauge,
    used: Gauge,
    most: Gauge,
    pending: Gauge,
    active: Gauge,
    pub(super) timeouts: Counter,
    pub(super) create_time: Histogram,
    pub(super) wait_time: Histogram,
    pub(super) use_time: Histogram,
}

impl Meters {
    pub(super) fn new(pool: &str) -> Self {
        let label = [("db_client_connection_pool_name", pool)];
        let connections = |state| {
            let labels = [label[0], ("db_client_connection_state", state)];
            Gauge::new(&names::DB_CONNECTIONS, &labels)
        };
        Self {
            idle: connections("idle"),
            used: connections("used"),
            most: Gauge::new(&names::DB_CONNECTIONS_MAX, &label),
            pending: Gauge::new(&names::DB_PENDING, &label),
            active: Gauge::new(&names::ACTIVE_CONNECTIONS, &[("service", pool)]),
            timeouts: Counter::new(&names::DB_TIMEOUTS, &label),
            create_time: Histogram::new(&names::DB_CREATE_TIME, &label),
            wait_time: Histogram::new(&names::DB_WAIT_TIME, &label),
            use_time: Histogram::new(&names::DB_USE_TIME, &label),
        }
    }

    /// Publishes the levels.
    pub(super) fn publish(&self, status: &PoolStatus) {
        self.idle.set(f64::from(status.idle));
        self.used.set(f64::from(status.busy));
        self.most.set(f64::from(status.max_size));
        self.pending.set(f64::from(status.waiting));
        self.active.set(f64::from(status.busy));
    }
}
