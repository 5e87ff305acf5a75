//! What the metrics say.

use std::collections::BTreeMap;

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use resonant_cache::Result;

use crate::support::{Source, cache_with, exact};

#[test]
fn calls_loads_and_sizes_are_counted() {
    let recorder = DebuggingRecorder::new();
    let snapshots = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = metrics::with_local_recorder(&recorder, || match runtime {
        Ok(runtime) => runtime.block_on(calls()),
        Err(error) => panic!("{error}"),
    });
    assert!(outcome.is_ok(), "{outcome:?}");
    let mut counted = BTreeMap::new();
    for (key, _, _, value) in snapshots.snapshot().into_vec() {
        let labels: Vec<_> = key.key().labels().map(|label| label.value().to_owned()).collect();
        let value = match value {
            DebugValue::Counter(count) => count as f64,
            DebugValue::Gauge(level) => level.into_inner(),
            DebugValue::Histogram(samples) => samples.len() as f64,
        };
        counted.insert(format!("{} {}", key.key().name(), labels.join(" ")), value);
    }
    let expected = [
        ("resonant_cache_operations_total cache get miss", 1.0),
        ("resonant_cache_operations_total cache get hit_local", 2.0),
        ("resonant_cache_operations_total cache get hit_shared", 1.0),
        ("resonant_cache_operations_total cache get_or_load loaded", 1.0),
        ("resonant_cache_operations_total cache get_or_load error", 1.0),
        ("resonant_cache_operations_total cache set ok", 1.0),
        ("resonant_cache_operations_total cache delete ok", 1.0),
        ("resonant_cache_load_duration_seconds cache ok", 1.0),
        ("resonant_cache_load_duration_seconds cache error", 1.0),
        ("resonant_cache_entries cache", 1.0),
    ];
    for (name, value) in expected {
        assert_eq!(counted.get(name), Some(&value), "{name} in {counted:#?}");
    }
    assert!(counted["resonant_cache_bytes cache"] > 0.0);
}

async fn calls() -> Result<()> {
    let cache = cache_with(exact());
    let users = cache.namespace::<String>("user");
    users.get("7").await?;
    users.set("7", &"Ada".to_owned()).await?;
    for _ in 0..3 {
        users.get("7").await?;
    }
    users.get_or_load("8", Source::open().answers("Bob")).await?;
    assert!(users.get_or_load("9", Source::open().fails()).await.is_err());
    users.delete("7").await?;
    cache.usage();
    Ok(())
}
