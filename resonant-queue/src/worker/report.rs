//! What a worker has done.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::lanes::Fate;
use crate::metrics::Metrics;

/// What a worker did in its life, as its drain reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DrainReport {
    /// Messages finished.
    pub done: u64,
    /// Deliveries that failed and were to be tried again.
    pub retried: u64,
    /// Messages whose key was parked because of them.
    pub parked: u64,
    /// Messages that became dead letters.
    pub dead: u64,
    /// Partitions lost to another owner while they were served.
    pub fenced: u64,
    /// Partitions whose handlers were stopped because the drain took longer than `drain_timeout`. Their unfinished
    /// messages are handed out again.
    pub abandoned: u64,
}

/// Counts for the report and the metrics.
#[derive(Debug)]
pub(crate) struct Tally {
    metrics: Arc<Metrics>,
    done: AtomicU64,
    retried: AtomicU64,
    parked: AtomicU64,
    dead: AtomicU64,
    pub(crate) fenced: AtomicU64,
    pub(crate) abandoned: AtomicU64,
}

impl Tally {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            done: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            parked: AtomicU64::new(0),
            dead: AtomicU64::new(0),
            fenced: AtomicU64::new(0),
            abandoned: AtomicU64::new(0),
        }
    }

    pub(crate) fn count(&self, done: usize, fate: Option<Fate>, took: Duration) {
        self.metrics.process_time.record_duration(took);
        if done > 0 {
            self.done.fetch_add(done as u64, Ordering::Relaxed);
            self.metrics.done.increment(done as u64);
        }
        let (count, metric) = match fate {
            None => return,
            Some(Fate::Retried) => (&self.retried, &self.metrics.retries),
            Some(Fate::Parked) => (&self.parked, &self.metrics.parked),
            Some(Fate::Dead) => (&self.dead, &self.metrics.dead),
        };
        count.fetch_add(1, Ordering::Relaxed);
        metric.increment(1);
    }

    pub(crate) fn report(&self) -> DrainReport {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        DrainReport {
            done: get(&self.done),
            retried: get(&self.retried),
            parked: get(&self.parked),
            dead: get(&self.dead),
            fenced: get(&self.fenced),
            abandoned: get(&self.abandoned),
        }
    }
}
