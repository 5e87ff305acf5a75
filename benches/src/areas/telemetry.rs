//! What counting costs.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use metrics::Recorder;
use metrics_exporter_prometheus::PrometheusBuilder;
use resonant_batch::BatchProcessor;
use resonant_cache::{CacheConfig, DistributedCache, Raw};
use resonant_common::telemetry::prometheus::Prometheus;
use resonant_common::telemetry::{Counter, Histogram, names};
use resonant_testkit::Redis;

use super::Area;
use crate::Outcome;
use crate::harness::{Case, Dice, now, runtime};
use crate::report::Report;

pub(crate) const AREA: Area = Area {
    name: "telemetry",
    about: "What one update costs, on one thread: our handles bound to our Prometheus recorder beside the same handles bound to \
            metrics-exporter-prometheus. That one keeps each sample of a histogram until somebody scrapes or its upkeep runs; here \
            nobody does, which is as cheap as it gets. And an item of a `BatchProcessor` that a lone submitter submits, with a \
            recorder and without. The same for a `DistributedCache`: a hit in the process, and 64 tasks that read from one Redis \
            server, whose ratio is what is left of the throughput.",
    peers: &["metrics-exporter-prometheus"],
    run,
};

const UPDATES: u32 = 200_000;
const ITEMS: u32 = 20_000;
const HITS: u32 = 50_000;
const KEYS: usize = 10_000;
const READERS: usize = 64;
const READS: usize = 200;

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
        .measure(report)?;

    Case::of_time("telemetry.cache_hit", "a hit in the process of a DistributedCache")
        .run("with a recorder", || hit(&ours))
        .run("without", || hit(&metrics::NoopRecorder))
        .measure(report)?;

    let kit = runtime()?;
    let redis = kit.block_on(Redis::start())?;
    kit.block_on(fill(redis.url()))?;
    Case::new("telemetry.cache_l2_get.vs_without", "Redis, get, 64 tasks, one thread", "gets")
        .run("with a recorder", || reads(&ours, redis.url()))
        .run("without", || reads(&metrics::NoopRecorder, redis.url()))
        .goal_against("without", 0.97)
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

/// Nanoseconds for a hit, on one thread as well.
fn hit(recorder: &dyn Recorder) -> Outcome<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    metrics::with_local_recorder(recorder, || {
        runtime.block_on(async {
            let cache = DistributedCache::memory(1 << 20);
            let values = cache.namespace_builder("bench").open_with(Raw)?;
            values.set("key", &Bytes::from_static(&[b'v'; 64])).await?;
            let started = now();
            for _ in 0..HITS {
                black_box(values.get(black_box("key")).await?);
            }
            Ok(started.elapsed().as_secs_f64() * 1e9 / f64::from(HITS))
        })
    })
}

/// A cache that keeps as good as nothing in the process.
async fn shared(url: String) -> Outcome<resonant_cache::Namespace<Bytes>> {
    let config = CacheConfig {
        nodes: vec![url],
        cluster_mode: false,
        max_bytes: 4096,
        ..CacheConfig::default()
    };
    let cache = DistributedCache::builder().config(config).connect().await?;
    Ok(cache.namespace_builder("bench").open_with(Raw)?)
}

async fn fill(url: String) -> Outcome {
    let values = shared(url).await?;
    for key in 0..KEYS {
        values.set(&key.to_string(), &Bytes::from_static(&[b'v'; 64])).await?;
    }
    Ok(())
}

/// Reads a second from a server, all of them and the connection on this thread.
fn reads(recorder: &dyn Recorder, url: String) -> Outcome<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    metrics::with_local_recorder(recorder, || {
        runtime.block_on(async {
            let values = shared(url).await?;
            let keys: Arc<[String]> = (0..KEYS).map(|key| key.to_string()).collect();
            let started = now();
            let readers: Vec<_> = (0..READERS)
                .map(|reader| {
                    let (values, keys) = (values.clone(), Arc::clone(&keys));
                    tokio::spawn(async move {
                        let mut dice = Dice::new(reader + 1);
                        for _ in 0..READS {
                            let found = values.get(&keys[dice.below(KEYS)]).await;
                            if !matches!(found, Ok(Some(_))) {
                                return Err("a value is not there");
                            }
                        }
                        Ok(())
                    })
                })
                .collect();
            for reader in readers {
                reader.await??;
            }
            Ok((READERS * READS) as f64 / started.elapsed().as_secs_f64())
        })
    })
}
