//! What is counted, under which names.

use std::time::Duration;

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use resonant_db::{ErrorKind, Result, params};

use super::double::{Cluster, Fails};

/// Runs what is to be counted; answers what was.
fn recorded<F: Future<Output = Result<()>>>(
    work: impl FnOnce(Snapshotter) -> F,
) -> Result<Snapshotter> {
    let recorder = DebuggingRecorder::new();
    let snapshots = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let work = work(snapshots.clone());
    metrics::with_local_recorder(&recorder, || runtime.block_on(work))?;
    Ok(snapshots)
}

#[test]
fn each_replicas_lag_is_a_gauge_and_what_is_not_known_is_no_number() -> Result<()> {
    let lags = |snapshots: &Snapshotter| -> Vec<(String, f64)> {
        let mut found: Vec<_> = snapshots
            .snapshot()
            .into_vec()
            .into_iter()
            .filter(|(key, ..)| key.key().name() == "resonant_db_replica_lag_seconds")
            .filter_map(|(key, _, _, value)| {
                let node = key.key().labels().find(|label| label.key() == "node")?;
                match value {
                    DebugValue::Gauge(lag) => Some((node.value().to_owned(), lag.into_inner())),
                    _ => None,
                }
            })
            .collect();
        found.sort_by(|one, other| one.0.cmp(&other.0));
        found
    };
    let counted = recorded(async |snapshots| {
        let cluster = Cluster::with_roles();
        cluster.fail("c", (Fails::Connecting, ErrorKind::Unavailable));
        cluster.lag("b", 3);
        let db = cluster.builder(&["a", "b", "c"]).name("orders").connect_lazy()?;
        db.write().execute("write", params![]).await?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        for _ in 0..6 {
            db.write().execute("write", params![]).await?;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let [(primary, none), (a, fresh), (_, late), (_, unknown)]: [_; 4] =
            lags(&snapshots).try_into().expect("four nodes");
        assert_eq!([&*primary, &*a], ["orders/primary", "orders/replica-1"]);
        assert_eq!(none, 0.0);
        assert!(unknown.is_nan(), "it has never answered: {unknown}");
        assert!(fresh < 0.5, "{fresh}");
        assert!((2.0..4.5).contains(&late), "it is three writes behind, one each second: {late}");
        // A replica that does not answer falls behind further.
        cluster.fail("a", (Fails::Connecting, ErrorKind::Unavailable));
        tokio::time::sleep(Duration::from_secs(20)).await;
        let [_, (_, gone), ..]: [_; 4] = lags(&snapshots).try_into().expect("four nodes");
        assert!(gone > 10.0, "{gone}");
        Ok(())
    });
    counted.map(drop)
}

#[test]
fn routes_retries_and_ejections_are_counted() -> Result<()> {
    let snapshots = recorded(async |_| {
        let cluster = Cluster::default();
        let db = cluster.builder(&["a", "b"]).name("orders").connect_lazy()?;
        cluster.fail("a", (Fails::Running, ErrorKind::Unavailable));
        for _ in 0..10 {
            db.read().query("read", params![]).await?;
        }
        db.write().execute("write", params![]).await?;
        cluster.fail_commits(&[(ErrorKind::Conflict, false)]);
        db.transaction(async |tx| tx.execute("write", params![]).await).await.map(drop)
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
            "resonant_db_reads_total{database=orders,connection=own} 10",
            "resonant_db_retries_total{database=orders,reason=conflict} 1",
            "resonant_db_retries_total{database=orders,reason=other_node} 5",
            "resonant_db_routed_total{database=orders,role=primary} 3",
            "resonant_db_routed_total{database=orders,role=replica} 15",
        ]
    );
    Ok(())
}
