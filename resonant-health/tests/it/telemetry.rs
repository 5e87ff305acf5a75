//! Metrics from the family's table, and one warning per change of state.

use std::time::Duration;

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use resonant_health::{HealthConfig, Watchdog};
use tokio::time::sleep;

use crate::support::{Dependency, Log, checker, settle, steady};

/// Runs `test` on a paused clock with a recorder and a log of its own.
fn observed<F: Future<Output = ()>>(test: impl FnOnce(Snapshotter, Log) -> F) {
    let (recorder, log) = (DebuggingRecorder::new(), Log::new());
    let snapshots = recorder.snapshotter();
    tracing::subscriber::with_default(log.clone(), || {
        metrics::with_local_recorder(&recorder, || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
            runtime.block_on(test(snapshots, log));
        });
    });
}

/// Every series as `name{label=value,…}` with its value.
fn series(snapshots: &Snapshotter) -> std::collections::BTreeMap<String, f64> {
    let rows = snapshots.snapshot().into_vec().into_iter();
    rows.map(|(key, _, _, value)| {
        let key = key.key();
        let labels: Vec<_> =
            key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let value = match value {
            DebugValue::Counter(count) => count as f64,
            DebugValue::Gauge(level) => level.into_inner(),
            DebugValue::Histogram(samples) => samples.len() as f64,
        };
        (format!("{}{{{}}}", key.name(), labels.join(",")), value)
    })
    .collect()
}

#[test]
fn metrics_tell_states_runs_and_transitions() {
    observed(|snapshots, _| async move {
        let db = Dependency::well();
        let health = checker(HealthConfig { rise: 1, fall: 1, ..steady() }).check("db", db.probe());
        health.run_all().await;
        let seen = series(&snapshots);
        assert_eq!(seen["resonant_health_check_status{check=db,state=pass}"], 1.0);
        assert_eq!(seen["resonant_health_check_status{check=db,state=fail}"], 0.0);
        assert_eq!(seen["resonant_health_status{probe=ready,state=pass}"], 1.0);
        assert_eq!(seen["resonant_health_status{probe=live,state=pass}"], 1.0);
        assert_eq!(seen["resonant_health_check_runs_total{check=db,outcome=ok}"], 1.0);
        assert_eq!(seen["resonant_health_check_runs_total{check=db,outcome=panic}"], 0.0);
        assert_eq!(seen["resonant_health_check_duration_seconds{check=db}"], 1.0);
        assert!(seen["resonant_health_check_last_success_timestamp_seconds{check=db}"] > 1.6e9);

        db.breaks();
        health.run_all().await;
        db.hangs();
        health.run_all().await;
        health.begin_drain();
        let seen = series(&snapshots);
        assert_eq!(seen["resonant_health_check_status{check=db,state=pass}"], 0.0);
        assert_eq!(seen["resonant_health_check_status{check=db,state=fail}"], 1.0);
        assert_eq!(seen["resonant_health_status{probe=ready,state=fail}"], 1.0);
        assert_eq!(seen["resonant_health_status{probe=live,state=pass}"], 1.0);
        assert_eq!(seen["resonant_health_check_runs_total{check=db,outcome=error}"], 1.0);
        assert_eq!(seen["resonant_health_check_runs_total{check=db,outcome=timeout}"], 1.0);
        assert_eq!(seen["resonant_health_transitions_total{check=db,to=fail}"], 1.0);
    });
}

#[test]
fn one_warning_per_change_of_state_and_none_per_run() {
    observed(|_, log| async move {
        let db = Dependency::well();
        let health = checker(steady()).check("db", db.probe());
        health.start().expect("it starts");
        sleep(Duration::from_secs(100)).await;
        assert!(log.warnings().is_empty(), "{:?}", log.warnings());
        db.breaks();
        sleep(Duration::from_secs(300)).await;
        assert!(db.runs() > 30);
        let warnings = log.warnings();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        for part in
            ["check=\"db\"", "from=\"pass\"", "to=\"fail\"", "health.check.error", "refused"]
        {
            assert!(warnings[0].contains(part), "{part} in {warnings:?}");
        }
        db.heals();
        sleep(Duration::from_secs(100)).await;
        assert_eq!(log.warnings().len(), 2);
        assert!(log.warnings()[1].contains("to=\"pass\""));
    });
}

#[test]
fn a_watchdog_warns_once_and_the_gauges_follow_without_anybody_asking() {
    observed(|snapshots, log| async move {
        let (heartbeat, watchdog) = Watchdog::heartbeat("loop", Duration::from_secs(5));
        let health = checker(steady()).live(watchdog);
        health.start().expect("it starts");
        sleep(Duration::from_secs(30)).await;
        assert_eq!(series(&snapshots)["resonant_health_status{probe=live,state=fail}"], 1.0);
        assert_eq!(log.warnings().len(), 1, "{:?}", log.warnings());
        heartbeat.beat();
        sleep(Duration::from_secs(2)).await;
        assert_eq!(series(&snapshots)["resonant_health_status{probe=live,state=fail}"], 0.0);
        assert_eq!(log.warnings().len(), 2, "{:?}", log.warnings());
    });
}

#[test]
fn asking_a_checker_nobody_started_warns_once() {
    observed(|_, log| async move {
        let health = checker(steady()).check("db", Dependency::well().probe());
        for _ in 0..10 {
            health.answer(resonant_health::Endpoint::Report, &crate::support::get("/health"));
        }
        settle().await;
        assert_eq!(log.warnings().len(), 1, "{:?}", log.warnings());
        assert!(log.warnings()[0].contains("call start()"));
    });
}

#[test]
fn a_checker_that_is_only_asked_now_and_then_does_not_warn_of_staleness() {
    observed(|snapshots, log| async move {
        let db = Dependency::well();
        let health =
            checker(steady()).check("db", db.probe()).check("cache", Dependency::well().probe());
        for _ in 0..10 {
            assert!(health.run_all().await.is_up());
            sleep(Duration::from_secs(600)).await;
        }
        assert!(log.warnings().is_empty(), "{:?}", log.warnings());
        db.breaks();
        health.run_all().await;
        assert_eq!(log.warnings().len(), 1, "an old state gives way to the first new result");
        let seen = series(&snapshots);
        assert_eq!(seen["resonant_health_transitions_total{check=db,to=unknown}"], 0.0);
        assert_eq!(seen["resonant_health_transitions_total{check=db,to=fail}"], 1.0);
    });
}
