//! Whose recorder it is: the service's own, installed when the service likes, or ours, when asked for.

use std::collections::BTreeSet;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use resonant_batch::BatchProcessor;
use resonant_sdk::telemetry::names::{self, TABLE};
use resonant_sdk::telemetry::prometheus::{Error, Prometheus};

use super::Scene;

/// The names of the families in a scrape.
fn families(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    lines.map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn whatever_the_crates_emit_is_in_the_table() {
    let scene = Scene::play().await;
    let seen = families(&scene.later);
    for name in &seen {
        let metric = names::find(name).unwrap_or_else(|| panic!("{name} is not in the table"));
        assert!(scene.later.contains(&format!("# HELP {name} {}\n", metric.help)), "{name}");
    }
    // What no test can bring about in a moment, by name, so that nothing else goes missing.
    let absent: Vec<_> =
        TABLE.iter().map(|metric| metric.name).filter(|name| !seen.contains(*name)).collect();
    assert_eq!(absent, ["resonant_telemetry_overflow_total"]);
}

/// One process, one global recorder: the whole story in one test.
#[tokio::test(start_paused = true)]
async fn a_service_with_its_own_recorder_counts_what_was_built_before_it() {
    let batch = BatchProcessor::builder(async |items: Vec<u64>| Ok::<_, std::io::Error>(items));
    let batch = batch.name("built-before").build().unwrap();
    batch.submit(1).await.unwrap(); // nobody listens yet

    // The service's own: an exporter of another make, with the buckets of the table.
    let mut builder = PrometheusBuilder::new();
    for metric in TABLE.iter().filter(|metric| !metric.buckets.is_empty()) {
        let matcher = Matcher::Full(metric.name.to_owned());
        builder = builder.set_buckets_for_metric(matcher, metric.buckets).unwrap();
    }
    let own = builder.install_recorder().unwrap();
    batch.submit(2).await.unwrap();
    batch.submit(3).await.unwrap();

    let text = own.render();
    let line = r#"resonant_batch_items_total{batch="built-before",outcome="ok"} 2"#;
    assert!(text.contains(line), "{text}");
    assert!(text.contains("# HELP resonant_batch_items_total Items by outcome."), "{text}");
    let bucket = r#"resonant_batch_size_items_bucket{batch="built-before",le="1"} 2"#;
    assert!(text.contains(bucket), "a histogram, not a summary: {text}");

    // And ours does not push it aside.
    assert_eq!(Prometheus::builder().install().unwrap_err(), Error::Installed);
    batch.submit(4).await.unwrap();
    assert!(own.render().contains(r#"{batch="built-before",outcome="ok"} 3"#));
}
