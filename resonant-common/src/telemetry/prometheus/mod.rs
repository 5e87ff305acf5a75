//! A recorder for Prometheus, for services that have none.
//!
//! ```
//! use resonant_common::telemetry::prometheus::Prometheus;
//!
//! # fn main() -> Result<(), resonant_common::telemetry::prometheus::Error> {
//! let metrics = Prometheus::builder().constant_label("region", "us-east-1").install()?;
//!
//! // In the handler of GET /metrics:
//! let body = metrics.render();
//! assert!(Prometheus::CONTENT_TYPE.starts_with("text/plain; version=0.0.4"));
//! # drop(body);
//! # Ok(()) }
//! ```
//!
//! Histograms are counted into buckets as they come: nothing is buffered, so memory does not grow while nobody scrapes and
//! there is no upkeep to run. The family's metrics have the buckets of the [table](super::names); others have general ones
//! unless [`PrometheusBuilder::buckets`] says more. It takes in whatever the process records through the `metrics` crate, up
//! to a limit of series.
//!
//! Who has a recorder already keeps it: the family records into any. For an exporter of another kind,
//! [`Metric::buckets`](super::Metric::buckets) are the bounds to set.

mod recorder;
mod series;
mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use self::recorder::Registry;
use super::process::Collector;

pub use self::recorder::PrometheusRecorder;

/// The most series unless said otherwise.
const MAX_SERIES: usize = 20_000;

/// What a recorder that was built or installed has counted, as text for a scrape. A clone reads the same.
#[derive(Clone, Debug)]
pub struct Prometheus {
    registry: Arc<Registry>,
    process: Option<Arc<Collector>>,
}

impl Prometheus {
    /// The `Content-Type` of [`render`](Self::render)'s text.
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// Gathers settings.
    pub fn builder() -> PrometheusBuilder {
        PrometheusBuilder::new()
    }

    /// Everything counted so far, in Prometheus's text format; `cpu_usage` and its like are measured now.
    pub fn render(&self) -> String {
        if let Some(process) = &self.process {
            process.read_into(&*self.registry);
        }
        text::render(&self.registry)
    }
}

/// Settings of a [`Prometheus`] recorder.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `install` or `build` is called"]
pub struct PrometheusBuilder {
    buckets: BTreeMap<String, Vec<f64>>,
    labels: BTreeMap<String, String>,
    max_series: usize,
    process: bool,
}

impl Default for PrometheusBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl PrometheusBuilder {
    /// The defaults: the family's buckets, no label of its own, 20,000 series, the process measured.
    pub fn new() -> Self {
        Self {
            buckets: BTreeMap::new(),
            labels: BTreeMap::new(),
            max_series: MAX_SERIES,
            process: true,
        }
    }

    /// The upper bounds of the buckets of the histogram `metric`, rising.
    pub fn buckets(mut self, metric: impl Into<String>, bounds: impl Into<Vec<f64>>) -> Self {
        self.buckets.insert(metric.into(), bounds.into());
        self
    }

    /// A label every series gets, unless it has one of that name itself.
    pub fn constant_label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// The most series held. What would be one more is not recorded, and `resonant_telemetry_overflow_total` counts it
    /// under the label `series`. Default 20,000.
    pub fn max_series(mut self, series: usize) -> Self {
        self.max_series = series;
        self
    }

    /// Whether each scrape measures the process (`cpu_usage`, `memory_usage`, …). Default yes.
    pub fn process(mut self, measured: bool) -> Self {
        self.process = measured;
        self
    }

    /// Makes it the recorder of the whole process. Best done first thing; what the family built before it counts from
    /// then on.
    ///
    /// # Errors
    ///
    /// [`Error::Installed`] if there is a recorder already, and those of [`build`](Self::build).
    pub fn install(self) -> Result<Prometheus, Error> {
        let (recorder, handle) = self.build()?;
        metrics::set_global_recorder(recorder).map_err(|_| Error::Installed)?;
        Ok(handle)
    }

    /// Makes the recorder without installing it, for those who put layers around it.
    ///
    /// # Errors
    ///
    /// [`Error::Buckets`] or [`Error::Label`] for settings no scrape would accept.
    pub fn build(self) -> Result<(PrometheusRecorder, Prometheus), Error> {
        for (metric, bounds) in &self.buckets {
            let rising = bounds.is_sorted_by(|one, next| one < next);
            if bounds.is_empty() || !rising || !bounds.iter().all(|bound| bound.is_finite()) {
                return Err(Error::Buckets(metric.clone()));
            }
        }
        if let Some(name) = self.labels.keys().find(|name| !text::is_label_name(name)) {
            return Err(Error::Label(name.clone()));
        }
        let registry = Arc::new(Registry::new(self.buckets, self.labels, self.max_series));
        let process = self.process.then(|| Arc::new(Collector::new()));
        let recorder = PrometheusRecorder::new(Arc::clone(&registry));
        Ok((recorder, Prometheus { registry, process }))
    }
}

/// Why there is no recorder.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The buckets of this metric are not finite bounds, each above the one before.
    Buckets(String),
    /// The process has a recorder already; the family records into that one.
    Installed,
    /// This is no name of a label.
    Label(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Buckets(metric) => {
                write!(
                    f,
                    "the buckets of {metric} must be finite bounds, each above the one before"
                )
            }
            Error::Installed => {
                f.write_str("the process has a metrics recorder already; record into that one")
            }
            Error::Label(name) => write!(
                f,
                "{name:?} is no name of a label: letters, digits and _, and no digit first"
            ),
        }
    }
}

impl std::error::Error for Error {}
