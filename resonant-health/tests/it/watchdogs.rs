//! Watchdogs, the only thing liveness rests on.

use std::time::Duration;

use resonant_health::{HealthChecker, Probe, Report, Status, Watchdog};
use tokio::time::sleep;

use crate::support::{Dependency, checker, settle, steady};

fn live_and_ready(report: &Report) -> (Status, Status) {
    (report.probe(Probe::Live), report.probe(Probe::Ready))
}

#[tokio::test(start_paused = true)]
async fn a_silent_heartbeat_fails_live_and_ready_until_it_beats_again() {
    let (heartbeat, watchdog) = Watchdog::heartbeat("consumer", Duration::from_secs(30));
    let health = checker(steady()).live(watchdog);
    health.run_all().await;
    sleep(Duration::from_secs(30)).await;
    assert_eq!(live_and_ready(&health.snapshot()), (Status::Pass, Status::Pass));
    sleep(Duration::from_millis(2)).await;
    let snapshot = health.snapshot();
    assert_eq!(live_and_ready(&snapshot), (Status::Fail, Status::Fail));
    assert_eq!(snapshot.get("consumer").and_then(|row| row.code()), Some("health.watchdog.silent"));
    heartbeat.beat();
    assert_eq!(live_and_ready(&health.snapshot()), (Status::Pass, Status::Pass));
    // A loop that dies takes its heartbeat with it.
    drop(heartbeat);
    sleep(Duration::from_secs(31)).await;
    assert_eq!(health.snapshot().probe(Probe::Live), Status::Fail);
}

#[tokio::test(start_paused = true)]
async fn a_retired_heartbeat_is_no_fault() {
    let (heartbeat, watchdog) = Watchdog::heartbeat("import", Duration::from_secs(1));
    let health = checker(steady()).live(watchdog);
    heartbeat.retire();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(health.snapshot().probe(Probe::Live), Status::Pass);
}

#[tokio::test(start_paused = true)]
async fn a_raised_flag_is_told_by_its_own_code_and_local_ones_stop_traffic_only() {
    let (restart, live) = Watchdog::flag("writer");
    let (overload, local) = Watchdog::flag("memory");
    let health = checker(steady()).live(live).local(local);
    health.run_all().await;
    overload.raise("app.memory.high");
    let snapshot = health.snapshot();
    assert_eq!(live_and_ready(&snapshot), (Status::Pass, Status::Fail));
    assert_eq!(snapshot.code(), Some("app.memory.high"));
    overload.lower();
    restart.raise("app.writer.gone");
    assert_eq!(live_and_ready(&health.snapshot()), (Status::Fail, Status::Fail));
    restart.lower();
    assert_eq!(live_and_ready(&health.snapshot()), (Status::Pass, Status::Pass));
}

#[tokio::test(start_paused = true)]
async fn dependencies_never_reach_the_live_probe() {
    let (_heartbeat, watchdog) = Watchdog::heartbeat("loop", Duration::from_secs(3600));
    let health = checker(steady())
        .live(watchdog)
        .check("db", Dependency::broken().probe())
        .check("cache", Dependency::hung().probe());
    health.run_all().await;
    assert_eq!(live_and_ready(&health.snapshot()), (Status::Pass, Status::Fail));
}

#[test]
fn a_stalled_executor_shows_from_another_runtime() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().start_paused(true).build().expect("a runtime")
    };
    let (work, admin) = (runtime(), runtime());
    let watchdog = Watchdog::executor("executor", Duration::from_secs(2));
    let health = HealthChecker::new().live(watchdog);
    // Unarmed until the schedule runs.
    admin.block_on(async {
        sleep(Duration::from_secs(10)).await;
        assert_eq!(health.snapshot().probe(Probe::Live), Status::Pass);
    });
    work.block_on(async {
        health.start().expect("it starts");
        sleep(Duration::from_secs(60)).await;
        assert_eq!(health.snapshot().probe(Probe::Live), Status::Pass);
    });
    // Nobody drives `work` any more: its tasks are stalled. The clock of a paused runtime is its own, so the time the
    // watchdog has been silent is read off `admin`'s, which starts where the process's clock is.
    admin.block_on(async {
        sleep(Duration::from_secs(120)).await;
        let snapshot = health.snapshot();
        assert_eq!(snapshot.probe(Probe::Live), Status::Fail);
        assert_eq!(snapshot.get("executor").and_then(|r| r.code()), Some("health.watchdog.silent"));
    });
    work.block_on(async {
        sleep(Duration::from_secs(1)).await;
        settle().await;
    });
    drop(work);
    // A schedule that has ended is not a stall.
    admin.block_on(async {
        sleep(Duration::from_secs(120)).await;
        assert_eq!(health.snapshot().probe(Probe::Live), Status::Pass);
    });
}
