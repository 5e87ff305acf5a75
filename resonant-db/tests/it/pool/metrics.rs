//! The names the pool emits.

use std::collections::HashMap;

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tokio::time::sleep;

use super::{ms, secs, sizes, warm};

#[tokio::test(start_paused = true)]
async fn the_pool_emits_the_names_of_the_table() {
    let recorder = DebuggingRecorder::new();
    let snapshots = recorder.snapshotter();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let (_, pool) = warm(sizes(2, 2)).await;
    let held = (pool.get().await.expect("idle"), pool.get().await.expect("idle"));
    assert!(pool.get_timeout(ms(100)).await.is_err());
    let waiter = tokio::spawn({
        let pool = pool.clone();
        async move { pool.get().await.map(drop) }
    });
    sleep(secs(2)).await;
    let mut seen = HashMap::new();
    for (key, _, _, value) in snapshots.snapshot().into_vec() {
        let (_, key) = key.into_parts();
        let labels: Vec<_> = key.labels().map(|label| label.value().to_owned()).collect();
        seen.insert((key.name().to_owned(), labels.join(",")), value);
    }
    let value = |name: &str, labels: &str| match seen.get(&(name.to_owned(), labels.to_owned())) {
        Some(DebugValue::Gauge(level)) => level.into_inner(),
        Some(DebugValue::Counter(count)) => *count as f64,
        Some(DebugValue::Histogram(samples)) => samples.len() as f64,
        None => panic!("{name} {labels} was not emitted: {seen:?}"),
    };
    assert_eq!(value("db_client_connection_count", "main,used"), 2.0);
    assert_eq!(value("db_client_connection_count", "main,idle"), 0.0);
    assert_eq!(value("db_client_connection_max", "main"), 2.0);
    assert_eq!(value("db_client_connection_pending_requests", "main"), 1.0);
    assert_eq!(value("db_client_connection_timeouts_total", "main"), 1.0);
    assert_eq!(value("db_client_connection_create_time_seconds", "main"), 2.0);
    assert_eq!(value("db_client_connection_wait_time_seconds", "main"), 2.0);
    assert_eq!(value("active_connections", "main"), 2.0);
    drop(held);
    assert!(waiter.await.expect("ends").is_ok());
}
