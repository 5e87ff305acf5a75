//! What is counted, under which names.

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use resonant_db::{ErrorKind, Result, params};

use super::double::{Cluster, Fails};

#[test]
fn routes_retries_and_ejections_are_counted() -> Result<()> {
    let recorder = DebuggingRecorder::new();
    let snapshots = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let cluster = Cluster::default();
            let db = cluster.builder(&["a", "b"]).name("orders").connect_lazy()?;
            cluster.fail("a", (Fails::Running, ErrorKind::Unavailable));
            for _ in 0..10 {
                db.read().query("read", params![]).await?;
            }
            db.write().execute("write", params![]).await?;
            cluster.fail_commits(&[(ErrorKind::Conflict, false)]);
            db.transaction(async |tx| tx.execute("write", params![]).await).await
        })
    })?;
    let mut counted: Vec<_> = snapshots
        .snapshot()
        .into_vec()
        .into_iter()
        .filter_map(|(key, _, _, value)| {
            let name = key.key().name().to_owned();
            let labels: Vec<_> = key
                .key()
                .labels()
                .map(|label| format!("{}={}", label.key(), label.value()))
                .collect();
            match value {
                DebugValue::Counter(count) if name.starts_with("resonant_db_") && count > 0 => {
                    Some(format!("{name}{{{}}} {count}", labels.join(",")))
                }
                _ => None,
            }
        })
        .collect();
    counted.sort();
    assert_eq!(
        counted,
        [
            "resonant_db_ejections_total{database=orders} 1",
            "resonant_db_retries_total{database=orders,reason=conflict} 1",
            "resonant_db_retries_total{database=orders,reason=other_node} 5",
            "resonant_db_routed_total{database=orders,role=primary} 3",
            "resonant_db_routed_total{database=orders,role=replica} 15",
        ]
    );
    Ok(())
}
