//! What counting costs.

use std::hint::black_box;

use metrics::Recorder;
use metrics_exporter_prometheus::PrometheusBuilder;
use resonant_batch::BatchProcessor;
use resonant_common::telemetry::prometheus::Prometheus;
use resonant_common::telemetry::{Counter, Histogram, names};

use super::Area;
use crate::Outcome;
use crate::harness::{Case, now};
use crate::report::Report;

pub(crate) const AREA: Area = Area {
    name: "telemetry",
    about: "What one update costs, on one thread: our handles bound to our Prometheus recorder beside the same handles bound to \
            metrics-exporter-prometheus. That one keeps each sample of a histogram until somebody scrapes or its upkeep runs; here \
            nobody does, which is as cheap as it gets. And an item of a `BatchProcessor` that a lone submitter submits, with a \
            recorder and without.",
    peers: &["metrics-exporter-prometheus"],
    run,
};

const UPDATES: u32 = 200_000;
const ITEMS: u32 = 20_000;

fn run(report: &mut Report) -> Outcome {
    let (ours, _read) = Prometheus::builder().build()?;
    let theirs = PrometheusBuilder::new().build_recorder();
    let counter = |recorder: &dyn Recorder| {
        let label = [("queue", "bench")];
        metrics::with_local_recorder(recorder, || Counter::new(&names::QUEUE_PUBLISHED, &label))
    };
    let (our_counter, their_counter) = (counter(&ours), counter(&theirs));
    Case::of_time("telemetry.counter", "a counter")
        .run("ours", || Ok(time(UPDATES, || our_counter.increment(black_box(1)))))
        .run("metrics-exporter-prometheus", || {
            Ok(time(UPDATES, || their_counter.increment(black_box(1))))
        })
        .measure(report)?;

    let histogram = |recorder: &dyn Recorder| {
        let histogram = Histogram::new(&names::BATCH_WAIT, &[("batch", "bench")]);
        metrics::with_local_recorder(recorder, || histogram.record(0.1));
        histogram
    };
    let (our_histogram, their_histogram) = (histogram(&ours), histogram(&theirs));
    Case::of_time("telemetry.histogram", "a histogram")
        .run("ours", || Ok(time(UPDATES, || our_histogram.record(black_box(0.003)))))
        .run("metrics-exporter-prometheus", || {
            Ok(time(UPDATES, || their_histogram.record(black_box(0.003))))
        })
        .measure(report)?;

    // The goal is 100 ns more an item: the figure is what it costs, beside it what it costs without.
    Case::of_time("telemetry.batch_item", "a lone item of a BatchProcessor")
        .run("with a recorder", || item(&ours))
        .run("without", || item(&metrics::NoopRecorder))
        .measure(report)
}

/// Nanoseconds for each of so many calls.
fn time(times: u32, mut call: impl FnMut()) -> f64 {
    let started = now();
    (0..times).for_each(|_| call());
    started.elapsed().as_secs_f64() * 1e9 / f64::from(times)
}

/// Nanoseconds for an item, on one thread, so that the recorder is only this one.
fn item(recorder: &dyn Recorder) -> Outcome<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    metrics::with_local_recorder(recorder, || {
        runtime.block_on(async {
            let echo = async |items: Vec<u64>| Ok::<_, std::io::Error>(items);
            let batch = BatchProcessor::builder(echo).build()?;
            let started = now();
            for item in 0..u64::from(ITEMS) {
                batch.submit(black_box(item)).await?;
            }
            Ok(started.elapsed().as_secs_f64() * 1e9 / f64::from(ITEMS))
        })
    })
}
