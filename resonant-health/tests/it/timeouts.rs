//! Every way a probe can fail gets its own class, and none can hold the checker up.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use resonant_health::{Check, HealthChecker, HealthConfig, Outcome, Report, Status};
use tokio::time::Instant;

use crate::support::{Dependency, Failure, checker, settle, steady};

fn row<'a>(report: &'a Report, name: &str) -> (Status, Option<Outcome>, Option<&'a str>) {
    let row = report.get(name).expect("every name is in the report");
    (row.status(), row.outcome(), row.code())
}

fn timed_out(code: &str) -> (Status, Option<Outcome>, Option<&str>) {
    (Status::Fail, Some(Outcome::Timeout), Some(code))
}

/// For what runs on the real clock of a busy machine.
fn patient() -> HealthConfig {
    let minute = Duration::from_secs(60);
    HealthConfig { interval: minute, timeout: minute, deadline: minute, ..steady() }
}

/// Tokio's timers tick in milliseconds.
fn assert_exact(elapsed: Duration, expected: Duration) {
    assert!(elapsed >= expected && elapsed <= expected + Duration::from_millis(1), "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn an_async_hang_ends_exactly_at_its_timeout_and_its_future_is_dropped() {
    let hung = Dependency::hung();
    let health = HealthChecker::new().check("hung", hung.probe());
    let begun = Instant::now();
    let report = health.run_all().await;
    assert_exact(begun.elapsed(), Duration::from_millis(800));
    assert_eq!(row(&report, "hung"), timed_out("health.check.timeout"));
    assert_eq!((hung.alive(), hung.dropped()), (0, 1), "dropped before the report is out");

    let begun = Instant::now();
    health.run_all().await;
    assert_exact(begun.elapsed(), Duration::from_millis(800));
    assert_eq!((hung.runs(), hung.most_alive()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn each_check_has_a_timeout_of_its_own() {
    let (quick, slow) = (Dependency::hung(), Dependency::hung());
    let health = HealthChecker::new()
        .with(Check::new("quick", quick.probe()).timeout(Duration::from_millis(50)))
        .with(Check::new("slow", slow.probe()).timeout(Duration::from_secs(2)));
    let begun = Instant::now();
    let report = health.run_all().await;
    assert_exact(begun.elapsed(), Duration::from_secs(2));
    let took = |name| report.get(name).and_then(|row| row.duration()).unwrap_or_default();
    assert_exact(took("quick"), Duration::from_millis(50));
    assert_exact(took("slow"), Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_blocking_hang_ends_exactly_at_its_timeout() {
    let (_keep, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let health = HealthChecker::new().with(Check::blocking("disk", move || {
        gate.lock().expect("the gate").recv().map_err(Failure::other)
    }));
    let begun = Instant::now();
    let report = health.run_all().await;
    assert_exact(begun.elapsed(), Duration::from_millis(800));
    assert_eq!(row(&report, "disk"), timed_out("health.check.timeout"));
    let begun = Instant::now();
    let report = health.run_all().await;
    assert_eq!(row(&report, "disk"), timed_out("health.check.still_running"));
    assert_eq!(begun.elapsed(), Duration::ZERO, "known at once");
}

/// On the real clock, because a paused one does not wait for threads.
#[tokio::test]
async fn a_hung_thread_is_left_behind_and_no_second_copy_starts() {
    let (release, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let alive = Arc::new(Mutex::new((0, 0)));
    let count = Arc::clone(&alive);
    let health = HealthChecker::new().with(
        Check::blocking("disk", move || {
            let mut now = count.lock().expect("the count");
            *now = (now.0 + 1, now.1.max(now.0 + 1));
            drop(now);
            let result = gate.lock().expect("the gate").recv().map_err(Failure::other);
            count.lock().expect("the count").0 -= 1;
            result
        })
        .timeout(Duration::from_millis(50)),
    );
    let report = health.run_all().await;
    assert_eq!(row(&report, "disk"), timed_out("health.check.timeout"));
    for _ in 0..5 {
        let report = health.run_all().await;
        assert_eq!(row(&report, "disk"), timed_out("health.check.still_running"));
    }
    // Once the thread is back the check runs again.
    for _ in 0..10_000 {
        release.send(()).expect("the probe listens");
    }
    while health.run_all().await.get("disk").and_then(|row| row.outcome()) != Some(Outcome::Ok) {
        tokio::task::yield_now().await;
    }
    assert_eq!(alive.lock().expect("the count").1, 1, "never two copies");
}

#[tokio::test]
async fn a_panic_on_a_thread_is_a_panic() {
    let health = checker(patient())
        .with(Check::blocking("panics", || -> Result<(), Failure> { panic!("{}", "on a thread") }))
        .with(Check::blocking("fails", || Err(Failure::other("read-only file system"))))
        .with(Check::blocking("well", || Ok::<(), Failure>(())));
    let report = health.run_all().await;
    let panicked = (Status::Fail, Some(Outcome::Panic), Some("health.check.panic"));
    assert_eq!(row(&report, "panics"), panicked);
    assert_eq!(report.get("panics").and_then(|row| row.detail()), Some("on a thread"));
    let failed = (Status::Fail, Some(Outcome::Error), Some("health.check.error"));
    assert_eq!(row(&report, "fails"), failed);
    assert_eq!(row(&report, "well"), (Status::Pass, Some(Outcome::Ok), None));
}

#[tokio::test(start_paused = true)]
async fn hung_threads_take_no_more_than_their_share() {
    let (_keep, gate) = mpsc::channel::<()>();
    let gate = Arc::new(Mutex::new(gate));
    let mut health = checker(HealthConfig { blocking_threads: 2, ..steady() });
    for name in ["a", "b", "c"] {
        let gate = Arc::clone(&gate);
        health = health.with(Check::blocking(name, move || {
            gate.lock().map_err(|_| Failure::other("poisoned"))?.recv().map_err(Failure::other)
        }));
    }
    let report = health.run_all().await;
    let codes: Vec<_> = report.checks().filter_map(|row| row.code()).collect();
    assert_eq!(codes, ["health.check.timeout", "health.check.timeout", "health.check.saturated"]);
    assert_eq!(report.get("c").and_then(|row| row.outcome()), Some(Outcome::Rejected));
}

#[tokio::test]
async fn threads_are_given_back() {
    let mut health = checker(HealthConfig { blocking_threads: 1, ..patient() });
    for index in 0..10 {
        let name = format!("disk-{index}");
        health = health.with(Check::blocking(&name, || Ok::<(), Failure>(())));
    }
    let report = health.run_all().await;
    assert!(report.is_up(), "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_future_that_never_yields_holds_up_nobody_but_itself() {
    let (release, gate) = mpsc::channel::<()>();
    let gate = Arc::new(Mutex::new(gate));
    let runs = Arc::new(Mutex::new(0));
    let (inner, count) = (Arc::clone(&gate), Arc::clone(&runs));
    let health = HealthChecker::new()
        .with(
            Check::new("stuck", move || {
                let (gate, count) = (Arc::clone(&inner), Arc::clone(&count));
                async move {
                    *count.lock().expect("the count") += 1;
                    gate.lock().expect("the gate").recv().map_err(Failure::other)
                }
            })
            .timeout(Duration::from_millis(50)),
        )
        .check("well", Dependency::well().probe());
    let report = health.run_all().await;
    assert_eq!(row(&report, "stuck"), timed_out("health.check.timeout"));
    assert_eq!(report.get("well").map(|row| row.status()), Some(Status::Pass));
    let report = health.run_all().await;
    assert_eq!(row(&report, "stuck"), timed_out("health.check.still_running"));
    assert_eq!(*runs.lock().expect("the count"), 1);
    release.send(()).expect("the stuck probe listens");
}

#[tokio::test(start_paused = true)]
async fn panics_are_a_class_of_their_own_wherever_they_happen() {
    let driver = Dependency::well();
    driver.panics();
    let never: fn() -> std::future::Ready<Result<(), Failure>> = || panic!("in the closure");
    let health = HealthChecker::new()
        .check("future", driver.probe())
        .check("closure", never)
        .findings("findings", || panic!("in findings"))
        .check("odd", || async {
            std::panic::panic_any(7_u8);
            #[expect(unreachable_code, reason = "gives the future its type")]
            Ok::<(), Failure>(())
        })
        .check("well", Dependency::well().probe());
    let report = health.run_all().await;
    for (name, text) in [
        ("future", "the driver panicked"),
        ("closure", "in the closure"),
        ("findings", "in findings"),
        ("odd", "a panic without text"),
    ] {
        let expected = (Status::Fail, Some(Outcome::Panic), Some("health.check.panic"));
        assert_eq!(row(&report, name), expected, "{name}");
        assert_eq!(report.get(name).and_then(|row| row.detail()), Some(text));
    }
    assert_eq!(row(&report, "well"), (Status::Pass, Some(Outcome::Ok), None));
    // And the checker goes on.
    driver.heals();
    let report = health.run_all().await;
    assert_eq!(row(&report, "future"), (Status::Pass, Some(Outcome::Ok), None));
}

#[tokio::test(start_paused = true)]
async fn an_error_is_told_to_code_and_only_its_class_to_others() {
    let health = HealthChecker::new().check("db", Dependency::broken().probe());
    let report = health.run_all().await;
    assert_eq!(
        row(&report, "db"),
        (Status::Fail, Some(Outcome::Error), Some("health.check.error"))
    );
    assert_eq!(report.get("db").and_then(|row| row.detail()), Some("connection refused"));
    assert!(!serde_json::to_string(&report).expect("JSON").contains("refused"));
    assert!(!format!("{report:?}").contains("refused"));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_stops_everything_even_hung_probes() {
    let hung = Dependency::hung();
    let health = HealthChecker::new().check("hung", hung.probe());
    health.start().expect("it starts");
    let copy = health.clone();
    settle().await;
    assert_eq!(hung.alive(), 1);
    drop(health);
    settle().await;
    assert_eq!(hung.alive(), 1, "a clone still holds it");
    let mut changes = copy.subscribe();
    drop(copy);
    settle().await;
    assert_eq!((hung.alive(), hung.dropped()), (0, 1));
    while changes.changed().await.is_ok() {}
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(hung.runs(), 1, "nothing runs any more");
}
