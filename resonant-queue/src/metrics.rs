//! The queue's metrics, by the one name table.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use resonant_common::telemetry::names::{
    QUEUE_DEPTH, QUEUE_FINISHED, QUEUE_IN_FLIGHT, QUEUE_OLDEST_AGE, QUEUE_PARKED,
    QUEUE_PROCESS_TIME, QUEUE_PUBLISHED, QUEUE_RETRIES, QUEUE_WANTED_WORKERS,
};
use resonant_common::telemetry::{Counter, Gauge, Histogram};

use crate::config::QueueConfig;
use crate::depth::Depth;

#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) published: Counter,
    pub(crate) done: Counter,
    pub(crate) dead: Counter,
    pub(crate) parked: Counter,
    pub(crate) retries: Counter,
    pub(crate) process_time: Histogram,
    depth: Gauge,
    oldest_age: Gauge,
    in_flight: Gauge,
    parked_keys: Gauge,
    wanted_workers: Gauge,
}

impl Metrics {
    pub(crate) fn new(queue: &str) -> Self {
        let labels = [("queue", queue)];
        let finished = |outcome| Counter::new(&QUEUE_FINISHED, &[("queue", queue), outcome]);
        Self {
            published: Counter::new(&QUEUE_PUBLISHED, &labels),
            done: finished(("outcome", "done")),
            dead: finished(("outcome", "dead")),
            parked: finished(("outcome", "parked")),
            retries: Counter::new(&QUEUE_RETRIES, &labels),
            process_time: Histogram::new(&QUEUE_PROCESS_TIME, &labels),
            depth: Gauge::new(&QUEUE_DEPTH, &labels),
            oldest_age: Gauge::new(&QUEUE_OLDEST_AGE, &labels),
            in_flight: Gauge::new(&QUEUE_IN_FLIGHT, &labels),
            parked_keys: Gauge::new(&QUEUE_PARKED, &labels),
            wanted_workers: Gauge::new(&QUEUE_WANTED_WORKERS, &labels),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    pub(crate) fn sample(&self, depth: &Depth, config: &QueueConfig) {
        self.depth.set(depth.unfinished() as f64);
        self.in_flight.set(depth.in_flight as f64);
        self.parked_keys.set(depth.parked_keys as f64);
        let wanted = depth.wanted_workers(config.messages_per_worker, config.partitions);
        self.wanted_workers.set(f64::from(wanted));
        self.oldest_age.set(depth.oldest_age.unwrap_or_default().as_secs_f64());
    }
}

/// Counts messages that are out with handlers of this process.
#[derive(Debug, Default)]
pub(crate) struct InFlight(AtomicU64);

/// Counts messages as in flight until dropped.
#[derive(Debug)]
pub(crate) struct Entered {
    counter: Arc<InFlight>,
    count: u64,
}

impl InFlight {
    pub(crate) fn enter(self: &Arc<Self>, count: usize) -> Entered {
        let count = count as u64;
        self.0.fetch_add(count, Ordering::Relaxed);
        Entered { counter: Arc::clone(self), count }
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.counter.0.fetch_sub(self.count, Ordering::Relaxed);
    }
}
