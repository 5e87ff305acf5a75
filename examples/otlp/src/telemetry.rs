//! All a service does for it: two exporters, a recorder for `metrics`, a layer for `tracing`, and one call so that traces go
//! on through queues.

use std::error::Error;

use metrics_opentelemetry::{OpenTelemetryMetrics, OpenTelemetryRecorder};
use opentelemetry::metrics::MeterProvider as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{MetricExporter, SpanExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use resonant_sdk::telemetry::{Instrument, carry_traces, names};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};

/// Sends what there is to send when it is shut down, and every so often before.
#[must_use = "what is not yet sent is lost without `shutdown`"]
pub(crate) struct Telemetry {
    meters: SdkMeterProvider,
    tracers: SdkTracerProvider,
}

impl Telemetry {
    /// Where to is said by `OTEL_EXPORTER_OTLP_ENDPOINT`, by default <http://localhost:4318>.
    pub(crate) fn install() -> Result<Self, Box<dyn Error>> {
        let resource = Resource::builder().with_service_name("resonant-example").build();

        let metrics = MetricExporter::builder().with_http().build()?;
        let meters = SdkMeterProvider::builder()
            .with_resource(resource.clone())
            .with_periodic_exporter(metrics)
            .build();
        let mut recorder =
            OpenTelemetryRecorder::new(OpenTelemetryMetrics::new(meters.meter("resonant")));
        // OpenTelemetry's own buckets are made for milliseconds; the table knows what each of ours measures.
        let histograms = names::TABLE.iter().filter(|row| row.instrument == Instrument::Histogram);
        for row in histograms {
            recorder.set_histogram_bounds_mut([row.name].into_iter(), row.buckets);
        }
        metrics::set_global_recorder(recorder)?;

        let spans = SpanExporter::builder().with_http().build()?;
        let tracers =
            SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(spans).build();
        // The queue's spans are at debug; all else at info, and nothing of the HTTP client that sends the spans.
        let wanted = Targets::new()
            .with_default(LevelFilter::INFO)
            .with_target("resonant", LevelFilter::DEBUG)
            .with_target("hyper_util", LevelFilter::OFF)
            .with_target("reqwest", LevelFilter::OFF);
        let layer = tracing_opentelemetry::layer().with_tracer(tracers.tracer("resonant"));
        let subscriber = tracing_subscriber::registry().with(layer.with_filter(wanted));
        tracing::subscriber::set_global_default(subscriber)?;
        carry_traces();

        Ok(Self { meters, tracers })
    }

    /// Sends the rest. Call it outside of a Tokio runtime: it waits.
    pub(crate) fn shutdown(self) -> Result<(), Box<dyn Error>> {
        self.tracers.shutdown()?;
        self.meters.shutdown()?;
        Ok(())
    }
}
