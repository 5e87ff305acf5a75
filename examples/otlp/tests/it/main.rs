//! The example as a process of its own, and a collector that takes what it sends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod collector;

use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use resonant_sdk::telemetry::{Instrument, names};
use tokio::process::Command;

use crate::collector::Collector;

#[tokio::test]
async fn traces_and_metrics_reach_a_collector() {
    let collector = Collector::start().await;
    let output = Command::new(env!("CARGO_BIN_EXE_otlp"))
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said, "handled 8 tasks; traces and metrics are sent\n");

    let spans = collector.spans();
    let named = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let request = named("request");
    assert_eq!(request.len(), 1, "{spans:#?}");
    let handled = named("queue.process");
    assert_eq!(handled.len(), 8, "{spans:#?}");
    for span in &handled {
        let link = span.links.first().expect("a handler is linked to who published its task");
        assert_eq!((&link.trace_id, &link.span_id), (&request[0].trace_id, &request[0].span_id));
        assert_ne!(span.trace_id, request[0].trace_id);
    }
    // Each task was in some batch; a batch of one is a child of its submitter, a larger one is linked to all of them.
    let batches = named("batch.process");
    let submitters: usize = batches.iter().map(|batch| batch.links.len().max(1)).sum();
    assert_eq!(submitters, 8, "{batches:#?}");

    let metrics = collector.metrics();
    for metric in metrics.iter().filter(|metric| metric.name.starts_with("resonant_")) {
        let row = names::find(&metric.name).unwrap_or_else(|| panic!("unknown: {}", metric.name));
        assert_eq!(metric.description, row.help);
        let instrument = match metric.data.as_ref().unwrap() {
            Data::Sum(_) => Instrument::Counter,
            Data::Gauge(_) => Instrument::Gauge,
            _ => Instrument::Histogram,
        };
        assert_eq!(instrument, row.instrument, "{}", metric.name);
        if let Some(Data::Histogram(histogram)) = &metric.data {
            assert_eq!(histogram.data_points[0].explicit_bounds, row.buckets, "{}", metric.name);
        }
    }
    let published = metrics.iter().find(|metric| metric.name == names::QUEUE_PUBLISHED.name);
    let Some(Data::Sum(published)) = published.and_then(|metric| metric.data.as_ref()) else {
        panic!("no count of what was published in {metrics:#?}");
    };
    use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
    assert_eq!(published.data_points[0].value, Some(Value::AsInt(8)));
}

#[tokio::test]
async fn a_missing_collector_is_said_and_stops_nobody() {
    let output = Command::new(env!("CARGO_BIN_EXE_otlp"))
        // Nobody listens there.
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("Error"), "{output:?}");
}
