//! Handles that bind to a recorder once there is one.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Key, Label, Level, Metadata, Recorder, Unit};

use super::names::{Instrument, Metric};
use super::series;

pub(super) static METADATA: Metadata<'static> = Metadata::new("resonant", Level::INFO, None);

/// A counter that may be made before a recorder is installed.
pub struct Counter(Late<metrics::Counter>);

/// A gauge that may be made before a recorder is installed.
pub struct Gauge(Late<metrics::Gauge>);

/// A histogram that may be made before a recorder is installed.
pub struct Histogram(Late<metrics::Histogram>);

impl Counter {
    /// A handle for `metric` with the values of its labels. If a recorder is installed already, the series stands at zero
    /// from now on, so that a rate sees the first count, too.
    pub fn new(metric: &'static Metric, labels: &[(&'static str, &str)]) -> Self {
        let counter = Self(Late::new(metric, labels));
        counter.increment(0);
        counter
    }

    /// Adds to the count. About 5 ns once bound.
    pub fn increment(&self, by: u64) {
        self.0.with(
            |recorder, key| recorder.register_counter(key, &METADATA),
            |counter| counter.increment(by),
        );
    }
}

impl Gauge {
    /// A handle for `metric` with the values of its labels.
    pub fn new(metric: &'static Metric, labels: &[(&'static str, &str)]) -> Self {
        Self(Late::new(metric, labels))
    }

    /// Sets the level.
    pub fn set(&self, level: f64) {
        self.0.with(
            |recorder, key| recorder.register_gauge(key, &METADATA),
            |gauge| gauge.set(level),
        );
    }
}

impl Histogram {
    /// A handle for `metric` with the values of its labels.
    pub fn new(metric: &'static Metric, labels: &[(&'static str, &str)]) -> Self {
        Self(Late::new(metric, labels))
    }

    /// Records a sample in the metric's unit.
    pub fn record(&self, sample: f64) {
        self.0.with(
            |recorder, key| recorder.register_histogram(key, &METADATA),
            |histogram| histogram.record(sample),
        );
    }

    /// Records a duration in seconds.
    pub fn record_duration(&self, sample: Duration) {
        self.record(sample.as_secs_f64());
    }
}

/// Whether this is a recorder to bind to. The one that stands in while none is installed has no size. A real one of no size
/// is still served, only without being bound.
pub(super) fn is_real(recorder: &dyn Recorder) -> bool {
    size_of_val(recorder) != 0
}

/// A handle of type `H`, bound when first used after a recorder exists.
struct Late<H> {
    metric: &'static Metric,
    key: Key,
    bound: OnceLock<H>,
}

impl<H> Late<H> {
    fn new(metric: &'static Metric, labels: &[(&'static str, &str)]) -> Self {
        debug_assert!(
            labels.iter().map(|(name, _)| *name).eq(metric.labels.iter().copied()),
            "{} takes the labels {:?}",
            metric.name,
            metric.labels
        );
        let admit = |name: &'static str, value: &str| match series::admits(name, value) {
            true => Label::new(name, value.to_owned()),
            false => Label::new(name, series::OTHER),
        };
        let labels: Vec<_> = labels.iter().map(|(name, value)| admit(name, value)).collect();
        Self { metric, key: Key::from_parts(metric.name, labels), bound: OnceLock::new() }
    }

    fn with(&self, register: impl FnOnce(&dyn Recorder, &Key) -> H, apply: impl FnOnce(&H)) {
        if let Some(handle) = self.bound.get() {
            return apply(handle);
        }
        metrics::with_recorder(|recorder| {
            if !is_real(recorder) {
                return apply(&register(recorder, &self.key));
            }
            self.describe(recorder);
            apply(self.bound.get_or_init(|| register(recorder, &self.key)));
        });
    }

    fn describe(&self, recorder: &dyn Recorder) {
        let (name, help) = (self.metric.name.into(), self.metric.help.into());
        let unit = self.metric.unit.and_then(Unit::from_string);
        match self.metric.instrument {
            Instrument::Counter => recorder.describe_counter(name, unit, help),
            Instrument::Gauge => recorder.describe_gauge(name, unit, help),
            Instrument::Histogram => recorder.describe_histogram(name, unit, help),
        }
    }
}

macro_rules! debug {
    ($($handle:ident),*) => {$(
        impl fmt::Debug for $handle {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($handle)).field(&self.0.metric.name).finish()
            }
        }
    )*};
}
debug!(Counter, Gauge, Histogram);

#[cfg(test)]
mod tests {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    use super::super::names;
    use super::*;

    #[test]
    fn a_handle_made_before_the_recorder_counts_afterwards() {
        let published = Counter::new(&names::QUEUE_PUBLISHED, &[("queue", "early")]);
        published.increment(1); // lost: nobody listens yet

        let recorder = DebuggingRecorder::new();
        let snapshots = recorder.snapshotter();
        metrics::with_local_recorder(&recorder, || published.increment(2));
        published.increment(3); // bound for good

        let values: Vec<_> = snapshots.snapshot().into_vec();
        assert_eq!(values.len(), 1);
        let (key, unit, help, value) = &values[0];
        assert_eq!(key.key().name(), "resonant_queue_published_total");
        assert_eq!(*unit, None);
        assert!(help.is_some());
        assert_eq!(*value, DebugValue::Counter(5));
    }
}
