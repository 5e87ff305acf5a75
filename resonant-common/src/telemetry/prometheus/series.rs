//! One series of each kind, updated without a lock and without allocation.

use std::sync::atomic::{AtomicU64, Ordering};

use metrics::HistogramFn;

/// A histogram that counts samples into its buckets as they come.
#[derive(Debug)]
pub(super) struct Buckets {
    bounds: Box<[f64]>,
    /// One for each bound, and one for what is above all of them.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Buckets {
    pub(super) fn new(bounds: &[f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds: bounds.into(), counts, sum: AtomicU64::new(0.0_f64.to_bits()) }
    }

    /// The bounds with the number of samples up to each, the number of all, and their sum.
    pub(super) fn read(&self) -> (Vec<(f64, u64)>, u64, f64) {
        let mut total = 0;
        let mut read = Vec::with_capacity(self.bounds.len());
        for (index, count) in self.counts.iter().enumerate() {
            total += count.load(Ordering::Relaxed);
            if let Some(bound) = self.bounds.get(index) {
                read.push((*bound, total));
            }
        }
        (read, total, f64::from_bits(self.sum.load(Ordering::Relaxed)))
    }

    fn add(&self, sample: f64, times: u64) {
        if sample.is_nan() {
            return;
        }
        let bucket = self.bounds.partition_point(|bound| *bound < sample);
        self.counts[bucket].fetch_add(times, Ordering::Relaxed);
        let mut sum = self.sum.load(Ordering::Relaxed);
        loop {
            let more = (f64::from_bits(sum) + sample * times as f64).to_bits();
            match self.sum.compare_exchange_weak(sum, more, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => sum = now,
            }
        }
    }
}

impl HistogramFn for Buckets {
    fn record(&self, value: f64) {
        self.add(value, 1);
    }

    fn record_many(&self, value: f64, count: usize) {
        self.add(value, count as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket_and_nan_to_none() {
        let buckets = Buckets::new(&[1.0, 2.0]);
        for sample in [0.5, 1.0, 1.5, 2.0, 3.0, f64::NAN] {
            buckets.record(sample);
        }
        buckets.record_many(0.0, 10);
        assert_eq!(buckets.read(), (vec![(1.0, 12), (2.0, 14)], 15, 8.0));
    }
}
