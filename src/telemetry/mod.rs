//! What a service does to see what its primitives count and trace.
//!
//! The crates record through `metrics` and `tracing`, whatever is installed, and install nothing themselves. It makes no
//! difference whether a primitive is built before or after the recorder. Every metric is in [`names::TABLE`], and in
//! words in `docs/metrics.md`.
//!
//! - With a recorder of your own there is nothing to do. Give its histograms the [`Metric::buckets`] of the table, and let a
//!   `process::Collector` (feature `process`) run for `cpu_usage` and `memory_usage`.
//! - Without one, `prometheus::Prometheus` (feature `prometheus`) is a recorder that has all of this.
//! - `count_requests` (feature `axum`) counts HTTP requests under the names of the scaling guide; without axum,
//!   [`Requests`] does.
//! - `carry_traces` (feature `opentelemetry`) lets traces go through the queue: the span of a handler is linked to that of
//!   the publisher, in whatever process it was.
//!
//! Alert rules and a dashboard for these metrics are in `deploy/prometheus` and `deploy/grafana`.

#[cfg(feature = "axum")]
mod http;
#[cfg(feature = "opentelemetry")]
mod opentelemetry;

#[cfg(feature = "process")]
pub use resonant_common::telemetry::process;
#[cfg(feature = "prometheus")]
pub use resonant_common::telemetry::prometheus;
pub use resonant_common::telemetry::{Instrument, Metric, Requests, names, trace};

#[cfg(feature = "axum")]
pub use self::http::count_requests;
#[cfg(feature = "opentelemetry")]
pub use self::opentelemetry::{OpenTelemetry, carry_traces};
