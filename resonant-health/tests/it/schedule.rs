//! The background schedule: when checks run, what settles, what goes stale, who is told.

use std::time::Duration;

use resonant_health::{Check, ErrorKind, HealthChecker, HealthConfig, Probe, Status};
use tokio::time::{Instant, sleep};

use crate::support::{Dependency, checker, settle, steady};

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn checks_run_at_once_and_then_at_their_interval() {
    let (often, seldom, always) = (Dependency::well(), Dependency::well(), Dependency::well());
    let health = checker(steady())
        .with(Check::new("always", always.probe()).interval(Duration::from_millis(100)))
        .with(Check::new("often", often.probe()).interval(secs(2)))
        .check("seldom", seldom.probe());
    health.start().expect("it starts");
    settle().await;
    assert_eq!((often.runs(), seldom.runs()), (1, 1));
    sleep(Duration::from_millis(19_500)).await;
    assert_eq!((often.runs(), seldom.runs()), (10, 2));
    // Timers tick in milliseconds and may be one late.
    assert!((190..=196).contains(&always.runs()), "{}", always.runs());
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_rechecked_soon_and_settles_after_three() {
    let db = Dependency::well();
    let health = checker(steady()).check("db", db.probe());
    health.start().expect("it starts");
    settle().await;
    db.breaks();
    let mut states = Vec::new();
    for _ in 0..14 {
        sleep(secs(1)).await;
        settle().await;
        states.push(health.snapshot().status());
    }
    // Runs at 10, 11 and 12 s fail; the third settles it.
    assert!(states[..11].iter().all(|state| *state == Status::Pass), "{states:?}");
    assert!(states[12..].iter().all(|state| *state == Status::Fail), "{states:?}");
    let row = health.snapshot().get("db").map(|row| (row.code(), row.transitions()));
    assert_eq!(row, Some((Some("health.check.error"), 1)));

    // While it stays down it is asked less and less often, but at least once per interval.
    let before = db.runs();
    sleep(secs(60)).await;
    let asked = db.runs() - before;
    assert!((6..=10).contains(&asked), "{asked}");

    db.heals();
    sleep(secs(12)).await;
    assert_eq!(health.snapshot().status(), Status::Pass);
    let snapshot = health.snapshot();
    let history = snapshot
        .get("db")
        .map(|row| row.history().iter().map(|change| (change.from, change.to)).collect::<Vec<_>>());
    let expected = [
        (Status::Unknown, Status::Pass),
        (Status::Pass, Status::Fail),
        (Status::Fail, Status::Pass),
    ];
    assert_eq!(history.as_deref(), Some(&expected[..]));
}

#[tokio::test(start_paused = true)]
async fn only_the_last_changes_are_remembered_but_all_are_counted() {
    let db = Dependency::well();
    let health =
        checker(HealthConfig { history: 4, rise: 1, fall: 1, ..steady() }).check("db", db.probe());
    for turn in 0..21 {
        if turn % 2 == 0 {
            db.heals()
        } else {
            db.breaks()
        }
        health.run_all().await;
    }
    let snapshot = health.snapshot();
    let row = snapshot.get("db").expect("the row");
    assert_eq!((row.history().len(), row.transitions()), (4, 20));
}

#[tokio::test(start_paused = true)]
async fn a_flapping_dependency_changes_the_probe_at_most_once_per_dwell() {
    let db = Dependency::well();
    let health = checker(HealthConfig { rise: 1, fall: 1, dwell: secs(5), ..steady() })
        .check("db", db.probe());
    let mut changes = health.subscribe();
    health.run_all().await;
    changes.mark_unchanged();
    let (mut last, mut told) = (None::<Instant>, 0);
    for turn in 0..120 {
        if turn % 2 == 0 {
            db.breaks()
        } else {
            db.heals()
        }
        health.run_all().await;
        if changes.has_changed().expect("the checker lives") {
            changes.mark_unchanged();
            let now = Instant::now();
            assert!(last.is_none_or(|last| now - last >= secs(5)));
            (last, told) = (Some(now), told + 1);
        }
        sleep(Duration::from_millis(500)).await;
    }
    assert!((2..=12).contains(&told), "{told} changes in a minute");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_confirms_goes_stale() {
    let db = Dependency::well();
    let health = checker(steady()).check("db", db.probe());
    health.start().expect("it starts");
    sleep(secs(25)).await;
    health.stop().await;
    assert!(health.snapshot().is_up());
    sleep(secs(24)).await;
    assert!(health.snapshot().is_up(), "the last run was 29 seconds ago");
    sleep(secs(2)).await;
    let snapshot = health.snapshot();
    let row = snapshot.get("db").map(|row| (row.status(), row.code()));
    assert_eq!(row, Some((Status::Unknown, Some("health.check.stale"))));
    assert_eq!((snapshot.status(), snapshot.code()), (Status::Fail, Some("health.check.stale")));
    assert_eq!(snapshot.probe(Probe::Live), Status::Pass);
    assert_eq!(snapshot.probe(Probe::Startup), Status::Pass);
    health.start().expect("it starts again");
    settle().await;
    assert!(health.snapshot().is_up(), "the first new result counts at once");
}

#[tokio::test(start_paused = true)]
async fn stop_waits_for_runs_in_flight_and_ends_the_schedule() {
    let db = Dependency::hung();
    let health = checker(steady()).check("db", db.probe());
    health.start().expect("it starts");
    health.start().expect("twice does nothing");
    settle().await;
    let begun = Instant::now();
    health.stop().await;
    assert!(begun.elapsed() >= Duration::from_millis(800), "{:?}", begun.elapsed());
    assert_eq!((db.runs(), db.alive()), (1, 0));
    health.stop().await;
    sleep(secs(120)).await;
    assert_eq!(db.runs(), 1);
    db.heals();
    assert!(health.run_all().await.is_up(), "asking still works");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_stop_stops_all_the_same() {
    let db = Dependency::hung();
    let health = checker(steady()).check("db", db.probe());
    health.start().expect("it starts");
    settle().await;
    tokio::select! {
        biased;
        () = health.stop() => unreachable!("a run is in flight"),
        () = tokio::task::yield_now() => {}
    }
    sleep(secs(120)).await;
    assert_eq!(db.runs(), 1);
    health.start().expect("it starts again");
    settle().await;
    assert_eq!(db.runs(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_check_added_later_is_picked_up() {
    let (first, second) = (Dependency::well(), Dependency::well());
    let health = checker(steady()).check("first", first.probe());
    health.start().expect("it starts");
    sleep(secs(1)).await;
    let _ = health.clone().check("second", second.probe());
    settle().await;
    assert_eq!((first.runs(), second.runs()), (1, 1));
    assert_eq!(health.snapshot().checks().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn subscribers_hear_of_changes_and_not_of_runs() {
    let db = Dependency::well();
    let health = checker(steady()).check("db", db.probe());
    let mut changes = health.subscribe();
    assert_eq!(changes.borrow_and_update().status(), Status::Fail, "not started yet");
    health.start().expect("it starts");
    changes.changed().await.expect("the checker lives");
    assert_eq!(changes.borrow_and_update().status(), Status::Pass);
    sleep(secs(100)).await;
    assert!(db.runs() >= 10 && !changes.has_changed().expect("the checker lives"));
    db.breaks();
    let begun = Instant::now();
    changes.changed().await.expect("the checker lives");
    assert_eq!(changes.borrow_and_update().status(), Status::Fail);
    assert!(begun.elapsed() <= secs(13), "{:?}", begun.elapsed());
    health.begin_drain();
    changes.changed().await.expect("the checker lives");
    assert!(changes.borrow().is_draining());
}

/// Runs until `done`, but not for ever.
async fn eventually(what: &str, done: impl Fn() -> bool) {
    let limit = Instant::now() + secs(30);
    while !done() {
        assert!(Instant::now() < limit, "{what} never happened");
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_schedule_goes_on_whatever_moment_askers_join_its_runs() {
    let milli = Duration::from_millis(1);
    let config = HealthConfig { interval: milli, timeout: milli, recheck: milli, ..steady() };
    let dependencies: Vec<_> = (0..8).map(|_| Dependency::well()).collect();
    let mut health = checker(config);
    for (index, dependency) in dependencies.iter().enumerate() {
        health = health.check(&format!("check-{index}"), dependency.probe());
    }
    health.start().expect("it starts");
    let askers = (0..4).map(|_| {
        let health = health.clone();
        tokio::spawn(async move {
            for _ in 0..300 {
                health.run_all().await;
            }
        })
    });
    for asker in askers {
        asker.await.expect("no panic");
    }
    for dependency in &dependencies {
        let before = dependency.runs();
        eventually("a scheduled run", || dependency.runs() >= before + 3).await;
        assert_eq!(dependency.most_alive(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_that_panics_does_not_end_the_schedule_of_a_check() {
    struct Panics;
    impl tracing::Subscriber for Panics {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            metadata.is_event() && *metadata.level() == tracing::Level::WARN
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn event(&self, _: &tracing::Event<'_>) {
            std::panic::resume_unwind(Box::new("the log broke"));
        }
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }
    let _keep = crate::support::Log::new();
    let db = Dependency::broken();
    let health = checker(steady()).check("db", db.probe());
    health.start().expect("it starts");
    let quiet = tracing::subscriber::set_default(Panics);
    sleep(secs(1)).await;
    drop(quiet);
    let before = db.runs();
    sleep(secs(60)).await;
    assert!(db.runs() > before, "the check runs on");
}

#[test]
fn starting_outside_a_runtime_is_refused() {
    let error = HealthChecker::new().start().expect_err("no runtime");
    assert_eq!(error.kind(), ErrorKind::NoRuntime);
    assert_eq!(error.code(), "health.no_runtime");
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_breaks_a_rule_is_refused_and_never_looks_healthy() {
    let well = Dependency::well();
    let health = checker(HealthConfig { max_checks: 5, ..steady() })
        .check("db", well.probe())
        .check("db", well.probe())
        .check("postgres://u:secret@h/db", well.probe())
        .with(Check::new("slow", well.probe()).timeout(secs(11)))
        .with(Check::new("rising", well.probe()).rise(0))
        .check("one-too-many", well.probe())
        .check("two-too-many", well.probe());
    let error = health.start().expect_err("rules are broken").to_string();
    for rule in [
        "the name \"db\" is given twice",
        "check-3: a check's name has 1 to 64 letters",
        "slow: timeout must be at most interval",
        "rising: rise and fall must be at least 1",
        "over-limit-6: more than 5 checks",
    ] {
        assert!(error.contains(rule), "{error}");
    }
    assert!(!error.contains("secret"));
    let report = health.run_all().await;
    let states: Vec<_> = report.checks().map(|row| (row.name(), row.status())).collect();
    let fail = Status::Fail;
    assert_eq!(
        states,
        [
            ("db", Status::Pass),
            ("db-2", fail),
            ("check-3", fail),
            ("slow", fail),
            ("rising", fail),
            ("over-limit-6", fail)
        ]
    );
    assert_eq!(well.runs(), 1, "a refused check is not run");
    assert_eq!(report.get("slow").and_then(|row| row.code()), Some("health.check.refused"));
    assert!(!report.is_up());
}

#[test]
fn bad_settings_are_refused_by_their_rule() {
    let config = HealthConfig { timeout: secs(60), deadline: secs(60), ..HealthConfig::default() };
    let error = HealthChecker::with_config(config).expect_err("a broken rule");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("timeout must be at most interval"), "{error}");
}

fn for_ever() -> HealthConfig {
    HealthConfig {
        interval: Duration::MAX,
        timeout: Duration::MAX,
        recheck: Duration::MAX,
        dwell: Duration::MAX,
        deadline: Duration::MAX,
        ..HealthConfig::default()
    }
}

#[tokio::test]
async fn a_blocking_check_may_take_for_ever() {
    let disk = Check::blocking("disk", || Ok::<(), std::io::Error>(()));
    assert_eq!(checker(for_ever()).with(disk).run_all().await.status(), Status::Pass);
}

#[tokio::test(start_paused = true)]
async fn times_may_be_for_ever() {
    let (slow, fast) = (Dependency::well(), Dependency::well());
    let often = Check::new("cache", fast.probe()).interval(secs(1)).timeout(secs(1));
    let health = checker(for_ever()).check("db", slow.probe()).with(often.recheck(secs(1)));
    let report = health.run_all().await;
    assert_eq!(report.status(), Status::Pass, "{report:?}");
    health.start().expect("it starts");
    sleep(secs(3600)).await;
    assert!(fast.runs() > 3000 && slow.runs() <= 2, "{} and {}", fast.runs(), slow.runs());
    assert_eq!(health.snapshot().status(), Status::Pass);
}
