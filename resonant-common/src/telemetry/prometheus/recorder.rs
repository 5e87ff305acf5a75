//! Where the series are kept.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

use super::series::Buckets;
use super::text::{label_name, metric_name};
use crate::telemetry::names::{self, Instrument};

/// Bounds of histograms nobody gave any, in seconds or whatever they count.
const GENERAL: &[f64] = &[
    0.0001, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 300.0,
    1000.0, 10_000.0,
];

/// Records into a [`Prometheus`](super::Prometheus); to be installed, by itself or within layers.
#[derive(Debug)]
pub struct PrometheusRecorder {
    registry: Arc<Registry>,
}

impl PrometheusRecorder {
    pub(super) fn new(registry: Arc<Registry>) -> Self {
        Self { registry }
    }
}

/// All series, by name and labels.
#[derive(Debug)]
pub(super) struct Registry {
    families: Mutex<Families>,
    buckets: BTreeMap<String, Vec<f64>>,
    labels: BTreeMap<String, String>,
    max_series: usize,
}

#[derive(Debug, Default)]
pub(super) struct Families {
    pub(super) by_name: BTreeMap<String, Family>,
    helps: HashMap<String, SharedString>,
    series: usize,
    overflow: Option<Arc<AtomicU64>>,
}

/// The labels of a series, sorted, so that their order makes no other series.
pub(super) type Labels = Vec<(String, String)>;

#[derive(Debug)]
pub(super) struct Family {
    pub(super) instrument: Instrument,
    pub(super) help: String,
    pub(super) series: BTreeMap<Labels, Series>,
}

#[derive(Debug)]
pub(super) enum Series {
    Counter(Arc<AtomicU64>),
    Gauge(Arc<AtomicU64>),
    Histogram(Arc<Buckets>),
}

impl Registry {
    pub(super) fn new(
        buckets: BTreeMap<String, Vec<f64>>,
        labels: BTreeMap<String, String>,
        max_series: usize,
    ) -> Self {
        Self { families: Mutex::default(), buckets, labels, max_series }
    }

    pub(super) fn families(&self) -> MutexGuard<'_, Families> {
        self.families.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn describe(&self, name: &KeyName, help: SharedString) {
        let name = metric_name(name.as_str());
        let mut families = self.families();
        // As bounded as the series.
        if families.helps.len() < self.max_series {
            families.helps.entry(name).or_insert(help);
        }
    }

    /// The series of `key`, made by `make` if there is none. `pick` says no to one of another kind: the first who uses a
    /// name decides what it is.
    fn series<T>(
        &self,
        key: &Key,
        instrument: Instrument,
        make: impl FnOnce(&str) -> (Series, T),
        pick: impl FnOnce(&Series) -> Option<T>,
    ) -> Option<T> {
        let name = metric_name(key.name());
        let mut labels = self.labels.clone();
        for label in key.labels() {
            labels.insert(label_name(label.key()), label.value().to_owned());
        }
        let labels: Labels = labels.into_iter().collect();
        let mut families = self.families();
        if let Some(family) = families.by_name.get(&name) {
            if family.instrument != instrument {
                return None;
            }
            if let Some(series) = family.series.get(&labels) {
                return pick(series);
            }
        }
        if families.series >= self.max_series {
            drop(families);
            self.overflow();
            return None;
        }
        families.series += 1;
        let (series, handle) = make(&name);
        let Families { by_name, helps, .. } = &mut *families;
        let family = by_name.entry(name).or_insert_with_key(|name| {
            let ours = names::find(name).map(|metric| metric.help.to_owned());
            let help = ours.or_else(|| helps.get(name).map(|help| help.to_string()));
            Family { instrument, help: help.unwrap_or_default(), series: BTreeMap::new() }
        });
        family.series.insert(labels, series);
        Some(handle)
    }

    /// Counts a series there was no room for; the count has room of its own.
    fn overflow(&self) {
        let mut families = self.families();
        if families.overflow.is_none() {
            let count = Arc::new(AtomicU64::new(0));
            families.overflow = Some(Arc::clone(&count));
            let mut labels = self.labels.clone();
            labels.insert("label".to_owned(), "series".to_owned());
            let metric = &names::OVERFLOW;
            let family = families.by_name.entry(metric.name.to_owned()).or_insert_with(|| Family {
                instrument: metric.instrument,
                help: metric.help.to_owned(),
                series: BTreeMap::new(),
            });
            family.series.insert(labels.into_iter().collect(), Series::Counter(count));
        }
        if let Some(count) = &families.overflow {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    fn bounds(&self, name: &str) -> &[f64] {
        if let Some(own) = self.buckets.get(name) {
            return own;
        }
        match names::find(name) {
            Some(metric) if !metric.buckets.is_empty() => metric.buckets,
            _ => GENERAL,
        }
    }
}

impl Recorder for Registry {
    fn describe_counter(&self, key: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe(&key, help);
    }

    fn describe_gauge(&self, key: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe(&key, help);
    }

    fn describe_histogram(&self, key: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe(&key, help);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let make = |_: &str| {
            let count = Arc::new(AtomicU64::new(0));
            (Series::Counter(Arc::clone(&count)), count)
        };
        let pick = |series: &Series| match series {
            Series::Counter(count) => Some(Arc::clone(count)),
            _ => None,
        };
        self.series(key, Instrument::Counter, make, pick)
            .map_or_else(Counter::noop, Counter::from_arc)
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        let make = |_: &str| {
            let level = Arc::new(AtomicU64::new(0.0_f64.to_bits()));
            (Series::Gauge(Arc::clone(&level)), level)
        };
        let pick = |series: &Series| match series {
            Series::Gauge(level) => Some(Arc::clone(level)),
            _ => None,
        };
        self.series(key, Instrument::Gauge, make, pick).map_or_else(Gauge::noop, Gauge::from_arc)
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let make = |name: &str| {
            let buckets = Arc::new(Buckets::new(self.bounds(name)));
            (Series::Histogram(Arc::clone(&buckets)), buckets)
        };
        let pick = |series: &Series| match series {
            Series::Histogram(buckets) => Some(Arc::clone(buckets)),
            _ => None,
        };
        self.series(key, Instrument::Histogram, make, pick)
            .map_or_else(Histogram::noop, Histogram::from_arc)
    }
}

impl Recorder for PrometheusRecorder {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, help: SharedString) {
        self.registry.describe_counter(key, unit, help);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, help: SharedString) {
        self.registry.describe_gauge(key, unit, help);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, help: SharedString) {
        self.registry.describe_histogram(key, unit, help);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.registry.register_counter(key, metadata)
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.registry.register_gauge(key, metadata)
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        self.registry.register_histogram(key, metadata)
    }
}
