//! `run_all`: one run for all who ask, bounded, complete, and safe to drop.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::join_all;
use resonant_health::{Check, HealthChecker, HealthConfig, Outcome, Status};
use tokio::time::Instant;

use crate::support::{Dependency, checker, settle, steady};

fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    future.poll_unpin(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test(start_paused = true)]
async fn a_thousand_askers_share_one_run() {
    let (quick, slow) = (Dependency::well(), Dependency::hung());
    let health = HealthChecker::new().check("quick", quick.probe()).check("slow", slow.probe());
    let mut askers: Vec<_> = (0..500).map(|_| health.run_all().boxed()).collect();
    assert!(askers.iter_mut().all(|asker| poll_once(asker).is_pending()));
    settle().await;
    // The quick check has ended by now; those who come later still share the run.
    assert_eq!(quick.runs(), 1);
    let mut late: Vec<_> = (0..500).map(|_| health.run_all().boxed()).collect();
    assert!(late.iter_mut().all(|asker| poll_once(asker).is_pending()));
    settle().await;
    slow.heals();
    let reports = join_all(askers.into_iter().chain(late)).await;
    assert_eq!(reports.len(), 1000);
    assert!(reports.iter().all(|report| report.is_up() && report.checks().len() == 2));
    assert_eq!((quick.runs(), slow.runs()), (1, 1));
    // The next one is a new run.
    health.run_all().await;
    assert_eq!((quick.runs(), slow.runs()), (2, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_tasks_on_threads_never_run_a_check_twice_at_once() {
    let dependency = Dependency::well();
    let health = HealthChecker::new().check("db", dependency.probe());
    let tasks = (0..1000).map(|_| {
        let health = health.clone();
        tokio::spawn(async move { health.run_all().await })
    });
    for report in join_all(tasks).await {
        assert!(report.expect("no task panics").is_up());
    }
    assert_eq!(dependency.most_alive(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_scheduled_run_in_flight_is_joined() {
    let hung = Dependency::hung();
    let health = checker(steady()).check("db", hung.probe());
    health.start().expect("it starts");
    settle().await;
    assert_eq!(hung.runs(), 1);
    let report = health.run_all().await;
    assert_eq!(report.get("db").and_then(|row| row.outcome()), Some(Outcome::Timeout));
    assert_eq!(hung.runs(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_bounds_the_whole_and_every_name_is_there() {
    let well = Dependency::well();
    let mut health = checker(HealthConfig {
        max_concurrency: 2,
        deadline: Duration::from_millis(1500),
        ..steady()
    });
    let hung: Vec<_> = (0..7).map(|_| Dependency::hung()).collect();
    for (index, dependency) in hung.iter().enumerate() {
        health = health.check(&format!("hung-{index}"), dependency.probe());
    }
    health = health.check("well", well.probe());
    let begun = Instant::now();
    let report = health.run_all().await;
    assert!(begun.elapsed() <= Duration::from_millis(1501), "{:?}", begun.elapsed());
    assert_eq!(report.checks().len(), 8);
    let codes: Vec<_> = report.checks().filter_map(|row| row.code()).collect();
    assert_eq!(codes.iter().filter(|code| **code == "health.check.timeout").count(), 2);
    assert_eq!(codes.iter().filter(|code| **code == "health.run.deadline").count(), 6);
    assert!(report.checks().all(|row| row.outcome() == Some(Outcome::Timeout)));
    // Those not waited for go on, two at a time, and are noted.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(well.runs(), 1);
    assert_eq!(health.snapshot().get("well").map(|row| row.status()), Some(Status::Pass));
    assert!(hung.iter().all(|dependency| dependency.runs() == 1));
}

#[tokio::test(start_paused = true)]
async fn no_more_checks_run_at_once_than_allowed() {
    let shared = Dependency::hung();
    let mut health = checker(HealthConfig { max_concurrency: 3, ..steady() });
    for index in 0..20 {
        health = health.check(&format!("check-{index}"), shared.probe());
    }
    health.run_all().await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!((shared.runs(), shared.most_alive()), (20, 3));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_asker_leaves_the_run_to_the_others() {
    for polls in 0..4 {
        for hangs in [false, true] {
            let dependency = if hangs { Dependency::hung() } else { Dependency::well() };
            let health = checker(steady()).check("db", dependency.probe());
            {
                let mut asker = pin!(health.run_all());
                for _ in 0..polls {
                    if poll_once(&mut asker).is_ready() {
                        break;
                    }
                    settle().await;
                }
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            let begun = usize::from(polls > 0);
            assert_eq!(dependency.runs(), begun, "polls {polls}: the run went on by itself");
            let known = health.snapshot().get("db").map(|row| row.status());
            let expected = match (begun, hangs) {
                (0, _) => Status::Unknown,
                (_, false) => Status::Pass,
                (_, true) => Status::Fail,
            };
            assert_eq!(known, Some(expected), "polls {polls}, hangs {hangs}");
            // And nothing is stuck for the next one.
            dependency.heals();
            let report = health.run_all().await;
            assert_eq!(report.get("db").map(|row| row.status()), Some(Status::Pass));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn it_tells_what_this_run_saw_and_the_snapshot_what_has_settled() {
    let dependency = Dependency::well();
    let health = checker(steady()).check("db", dependency.probe());
    assert_eq!(health.snapshot().get("db").map(|row| row.status()), Some(Status::Unknown));
    health.run_all().await;
    dependency.breaks();
    let report = health.run_all().await;
    assert_eq!((report.status(), report.is_up()), (Status::Fail, false));
    assert_eq!(health.snapshot().status(), Status::Pass, "one failure of three");
    health.run_all().await;
    health.run_all().await;
    assert_eq!(health.snapshot().status(), Status::Fail);
}

#[tokio::test(start_paused = true)]
async fn criticality_decides_what_a_failure_means() {
    let (well, broken) = (Dependency::well(), Dependency::broken());
    for (check, expected) in [
        (Check::new("b", broken.probe()).required(), Status::Fail),
        (Check::new("b", broken.probe()), Status::Fail),
        (Check::new("b", broken.probe()).degrading(), Status::Warn),
        (Check::new("b", broken.probe()).informational(), Status::Pass),
    ] {
        let health = checker(steady()).check("a", well.probe()).with(check);
        let report = health.run_all().await;
        assert_eq!(report.status(), expected);
        assert_eq!(report.get("b").map(|row| row.status()), Some(Status::Fail), "never hidden");
        assert_eq!(report.is_up(), expected != Status::Fail);
    }
}

#[tokio::test(start_paused = true)]
async fn findings_of_a_primitive_become_a_check() {
    use resonant_health::{Finding, Severity};
    use std::sync::{Arc, Mutex};
    let said = Arc::new(Mutex::new(vec![Finding::new("primary", Severity::Ok, "db.node.ok")]));
    let pool = Arc::clone(&said);
    let health = checker(steady()).findings("db", move || pool.lock().expect("a lock").clone());
    let say = |findings: Vec<Finding>| *said.lock().expect("a lock") = findings;

    let report = health.run_all().await;
    assert_eq!((report.status(), report.code()), (Status::Pass, None));
    say(vec![
        Finding::new("primary", Severity::Ok, "db.node.ok"),
        Finding::new("pool", Severity::Warn, "db.pool.saturated"),
    ]);
    let report = health.run_all().await;
    assert_eq!((report.status(), report.code()), (Status::Warn, Some("db.pool.saturated")));
    assert_eq!(report.get("db").map(|row| row.findings().len()), Some(2));
    say(vec![
        Finding::new("pool", Severity::Warn, "db.pool.saturated"),
        Finding::new("primary", Severity::Fail, "db.node.down"),
    ]);
    let report = health.run_all().await;
    assert_eq!((report.status(), report.code()), (Status::Fail, Some("db.node.down")));
    assert_eq!(report.get("db").and_then(|row| row.outcome()), Some(Outcome::Error));
    say(vec![]);
    assert_eq!(health.run_all().await.status(), Status::Pass);
}

#[test]
fn outside_a_runtime_every_name_is_rejected_and_nothing_panics() {
    let health = HealthChecker::new().check("db", Dependency::well().probe());
    let report = health.run_all().now_or_never().expect("at once");
    let row = report.get("db").expect("every name is in the report");
    assert_eq!((row.outcome(), row.code()), (Some(Outcome::Rejected), Some("health.no_runtime")));
}
