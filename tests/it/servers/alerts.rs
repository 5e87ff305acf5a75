//! The rules, evaluated by promtool.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::telemetry::{Scene, repository, rules};

fn promtool(arguments: &[&str], folder: &Path, input: Option<&Path>) -> (bool, String) {
    let input = input.map_or_else(Stdio::null, |path| fs::File::open(path).unwrap().into());
    let ran = Command::new("promtool").args(arguments).current_dir(folder).stdin(input).output();
    let output = ran.expect("promtool comes with Debian's package prometheus; run scripts/setup");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// The sample of each series, with the kind of its family.
fn samples(text: &str) -> Vec<(&str, &str, f64)> {
    let mut kind = "";
    let mut samples = Vec::new();
    for line in text.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            kind = family.rsplit(' ').next().unwrap();
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap();
            samples.push((series, kind, value.parse().unwrap()));
        }
    }
    samples
}

/// The series of a scrape as promtool takes them: gauges stay, counters go on rising as they rose between the scrapes.
fn input(first: &str, second: &str) -> String {
    let before = samples(first);
    let mut input = String::from(
        "      - series: 'up{job=\"resonant\",instance=\"a\"}'\n        values: 1x40\n",
    );
    for (series, kind, now) in samples(second) {
        let then = before.iter().find(|(name, ..)| *name == series).map_or(0.0, |row| row.2);
        let values = match kind {
            "gauge" => format!("{now}x40"),
            _ => format!("{then}+{}x40", now - then),
        };
        let target = "job=\"resonant\",instance=\"a\"";
        let series = match series.strip_suffix('}') {
            Some(labelled) => format!("{labelled},{target}}}"),
            None => format!("{series}{{{target}}}"),
        };
        let _ = writeln!(input, "      - series: '{series}'\n        values: {values}");
    }
    input
}

/// Which alerts fire after half an hour.
fn firing(input: &str, folder: &Path) -> BTreeSet<String> {
    let rules = repository().join("deploy/prometheus/rules/resonant.yaml");
    let mut test =
        format!("rule_files: ['{}']\nevaluation_interval: 1m\ntests:\n", rules.display());
    let _ = write!(test, "  - interval: 1m\n    input_series:\n{input}    promql_expr_test:\n");
    // An answer that is wrong on purpose: promtool prints the right one.
    test.push_str("      - expr: count by (alertname) (ALERTS{alertstate='firing'})\n        eval_time: 30m\n");
    test.push_str("        exp_samples: [{labels: '{alertname=\"None\"}', value: 0}]\n");
    let file = folder.join("test.yaml");
    fs::write(&file, test).unwrap();
    let (passed, text) = promtool(&["test", "rules", "test.yaml"], folder, None);
    assert!(!passed && text.contains("expr:"), "{text}");
    let got = text.split("got:").nth(1).unwrap_or_default();
    // How busy the other tests keep this process is not the scene's doing.
    let names = got.split("alertname=\\\"").skip(1).chain(got.split("alertname=\"").skip(1));
    names
        .map(|rest| rest.split(['\\', '"']).next().unwrap().to_owned())
        .filter(|name| name != "HighCPUUsage")
        .collect()
}

#[tokio::test]
async fn alerts_fire_on_what_the_running_crates_count() {
    let scene = Scene::play().await;
    let folder = tempfile::tempdir().unwrap();
    let calm = firing(&input(&scene.calm, &scene.calm), folder.path());
    assert_eq!(calm, BTreeSet::new());
    let troubled = firing(&input(&scene.troubled, &scene.later), folder.path());
    let expected = [
        "AutoscalerAtMaximum",
        "AutoscalerBlind",
        "AutoscalerTargetFails",
        "AvailabilityBudgetBurnsFast",
        "AvailabilityBudgetBurnsSlowly",
        "BatchFails",
        "BatchRejects",
        "HealthCheckFails",
        "HighQueueDepth",
        "LivenessFails",
        "NoInstanceReady",
        "PoolSaturated",
        "PoolTimeouts",
        "PoolWaitLong",
        "QueueDeadLetters",
        "QueueKeysParked",
    ];
    assert_eq!(troubled, expected.map(str::to_owned).into());
}

#[tokio::test]
async fn promtool_accepts_the_text_of_the_recorder() {
    let scene = Scene::play().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("metrics");
    fs::write(&file, &scene.later).unwrap();
    let (passed, text) = promtool(&["check", "metrics"], folder.path(), Some(&file));
    // OpenTelemetry's name, which promtool would rather leave to histograms.
    let complaints: Vec<_> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .filter(|line| !line.starts_with("db_client_connection_count "))
        .collect();
    assert!(complaints.is_empty(), "{passed}: {complaints:?}");
}

/// A threshold twice as high or half as high is noticed by the tests of its group.
#[test]
fn the_tests_of_the_rules_notice_moved_thresholds() {
    let (mutants, missed) = moved_thresholds(|group, alert| match (group, alert) {
        ("objectives", alert) if alert.ends_with("Fast") => Some("objectives-fast".to_owned()),
        // Days of series take minutes.
        ("objectives", _) => None,
        (group, _) => Some(group.to_owned()),
    });
    assert!(mutants >= 50, "{mutants}");
    assert!(missed.is_empty(), "{missed:?}");
}

#[test]
#[ignore = "days of series take minutes: scripts/soak alerts"]
fn the_tests_of_the_slow_objectives_notice_moved_thresholds() {
    let (mutants, missed) = moved_thresholds(|group, alert| {
        (group == "objectives" && alert.ends_with("Slowly")).then(|| "objectives-slow".to_owned())
    });
    assert_eq!(mutants, 20);
    assert!(missed.is_empty(), "{missed:?}");
}

/// Moves each threshold of each alert that `tests` names a file of tests for, given its group and its name. How many were moved,
/// and what no test noticed.
fn moved_thresholds(tests: impl Fn(&str, &str) -> Option<String>) -> (usize, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let source = repository().join("deploy/prometheus");
    for sub in ["rules", "tests"] {
        fs::create_dir(folder.path().join(sub)).unwrap();
        for entry in fs::read_dir(source.join(sub)).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, folder.path().join(sub).join(path.file_name().unwrap())).unwrap();
        }
    }
    let file = folder.path().join("rules/resonant.yaml");
    let text = fs::read_to_string(&file).unwrap();
    let group_of = |name: &str| {
        let before = &text[..text.find(&format!("alert: {name}\n")).unwrap()];
        before.rsplit("- name: ").next().unwrap().lines().next().unwrap().to_owned()
    };
    let mut mutants = 0;
    let mut missed = Vec::new();
    for rule in rules().into_iter().filter(|rule| rule.is_alert) {
        let Some(tests) = tests(&group_of(&rule.name), &rule.name) else { continue };
        let tests = format!("tests/{tests}.yaml");
        let at = text.find(&format!("alert: {}\n", rule.name)).unwrap();
        let end = at + text[at..].find("labels:").unwrap();
        for (place, threshold) in thresholds(&text[at..end]) {
            for factor in [2.0, 0.5] {
                let moved = (threshold.parse::<f64>().unwrap() * factor).to_string();
                let place = at + place;
                let rest = &text[place + threshold.len()..];
                fs::write(&file, format!("{}{moved}{rest}", &text[..place])).unwrap();
                let (passed, _) = promtool(&["test", "rules", &tests], folder.path(), None);
                mutants += 1;
                if passed {
                    missed.push(format!("{}: {threshold} as {moved}", rule.name));
                }
            }
        }
    }
    (mutants, missed)
}

/// The numbers something is compared with, but for zero, one and equality, which are no thresholds; with their places.
fn thresholds(rule: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for sign in ["> ", "< ", ">= ", "> ("] {
        for (place, _) in rule.match_indices(sign) {
            let place = place + sign.len();
            let length = rule[place..].find(|c: char| !c.is_ascii_digit() && c != '.');
            let number = &rule[place..place + length.unwrap_or(0)];
            if number.parse::<f64>().is_ok_and(|number| number > 0.0) {
                found.push((place, number));
            }
        }
    }
    found
}
