//! What telemetry may cost: series, memory, allocations.
//!
//! These use up what is counted once for a whole process, so each runs in a process of its own.

use std::process::{Command, Stdio};
use std::time::Duration;

use resonant_batch::BatchProcessor;
use resonant_health::HealthChecker;
use resonant_queue::{Memory, PartitionedQueue};
use resonant_sdk::telemetry::Requests;
use resonant_sdk::telemetry::prometheus::Prometheus;

const CHILD: &str = "RESONANT_BUDGET_CHILD";

/// Runs the test `name` again in a process of its own; true there.
fn is_alone(name: &str) -> bool {
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}\n{errors}");
    false
}

fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// Series that stand in a scrape.
fn series(text: &str) -> usize {
    text.lines().filter(|line| !line.starts_with('#')).count()
}

#[test]
fn hostile_names_routes_and_errors_stay_within_the_budget() {
    if !is_alone("telemetry::budget::hostile_names_routes_and_errors_stay_within_the_budget") {
        return;
    }
    let metrics = Prometheus::builder().process(false).install().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let requests = Requests::new();
        let mut before = 0.0;
        for n in 0..100_000_u32 {
            let status = u16::try_from(n % 700).unwrap();
            let route = format!("/hostile/{n}?password={n}");
            requests.answered(&format!("M{n}"), &route, status, Duration::from_millis(1));
            if n % 100 == 0 {
                let echo = async |items: Vec<u64>| Ok::<_, std::io::Error>(items);
                let batch = BatchProcessor::builder(echo).name(format!("b{n}")).build().unwrap();
                batch.submit(1).await.unwrap();
                let builder = PartitionedQueue::<u64>::builder(format!("q{n}")).partitions(1);
                let queue = builder.backend(Memory::new()).build().await.unwrap();
                queue.publish(&1).await.unwrap();
                let failing = move || async move { Err::<(), _>(format!("error {n}")) };
                let health = HealthChecker::new().check(&format!("c{n}"), failing);
                health.run_all().await;
            }
            if n == 50_000 {
                before = resident();
            }
        }
        let grown = resident() - before;
        assert!(grown < 8.0, "grew by {grown} MiB over the second half");
    });
    let text = metrics.render();
    let count = series(&text);
    // 64 batches with 47 series and as many queues with 22, 256 checks with 29, 128 endpoints, in round figures.
    assert!(count < 30_000, "{count} series");
    assert!(text.contains("batch=\"b0\"") && text.contains("batch=\"other\""));
    for label in ["batch", "queue", "check", "endpoint"] {
        let counted = format!("resonant_telemetry_overflow_total{{label=\"{label}\"}}");
        assert!(text.contains(&counted), "{label}");
    }
    println!("FIGURE telemetry.series.hostile {count}");
}

#[test]
fn ten_million_samples_without_a_scrape_take_no_memory() {
    if !is_alone("telemetry::budget::ten_million_samples_without_a_scrape_take_no_memory") {
        return;
    }
    let metrics = Prometheus::builder().install().unwrap();
    let histogram = metrics::histogram!("resonant_batch_size_items", "batch" => "memory");
    let record = |times: u32| (0..times).for_each(|n| histogram.record(f64::from(n % 2000)));
    record(100_000);
    let before = resident();
    record(10_000_000);
    let grown = resident() - before;
    println!("FIGURE telemetry.recorder.growth_mib {grown:.2}");
    assert!(grown < 5.0, "grew by {grown} MiB");
    let count = r#"resonant_batch_size_items_count{batch="memory"} 10100000"#;
    assert!(metrics.render().contains(count));
}

#[test]
fn a_bound_handle_allocates_nothing() {
    use resonant_common::telemetry::{Counter, Gauge, Histogram, names};

    let (recorder, _metrics) = Prometheus::builder().build().unwrap();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let counter = Counter::new(&names::QUEUE_PUBLISHED, &[("queue", "allocations")]);
    let gauge = Gauge::new(&names::QUEUE_DEPTH, &[("queue", "allocations")]);
    let histogram = Histogram::new(&names::BATCH_SIZE, &[("batch", "allocations")]);
    let all = || {
        counter.increment(1);
        gauge.set(1.0);
        histogram.record(3.0);
    };
    all();
    let measured = allocation_counter::measure(|| (0..1000).for_each(|_| all()));
    assert_eq!(measured.count_total, 0);
}
