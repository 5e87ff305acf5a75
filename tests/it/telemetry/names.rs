//! The one table of names, and everything that is made from it or held against it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use resonant_sdk::telemetry::names::{self, TABLE};
use resonant_sdk::telemetry::{Instrument, Metric};

use super::promql;

/// The root of the repository.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A rule of the file of rules.
#[derive(Debug, Default, Clone)]
pub(crate) struct Rule {
    /// The alert's name, or that of the recorded series.
    pub(crate) name: String,
    pub(crate) is_alert: bool,
    pub(crate) expr: String,
    pub(crate) runbook: String,
}

/// The rules as they stand in the file. It is written plainly enough to be read by lines.
pub(crate) fn rules() -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    let mut in_expr = false;
    for line in read("deploy/prometheus/rules/resonant.yaml").lines() {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        let start = |key: &str| text.strip_prefix(key).map(|rest| rest.trim().to_owned());
        if let Some(name) = start("- alert:").or_else(|| start("- record:")) {
            let is_alert = text.starts_with("- alert:");
            rules.push(Rule { name, is_alert, ..Rule::default() });
            in_expr = false;
        } else if let Some(rule) = rules.last_mut() {
            if let Some(expr) = start("expr:") {
                in_expr = expr == ">-";
                rule.expr = if in_expr { String::new() } else { expr };
            } else if in_expr && indent > 8 {
                let _ = write!(rule.expr, "{text} ");
            } else {
                in_expr = false;
                if let Some(link) = start("runbook_url:") {
                    rule.runbook = link;
                }
            }
        }
    }
    rules
}

/// The row a series belongs to, with what its name ends in beyond the row's.
fn row_of(series: &str) -> Option<(&'static Metric, &str)> {
    if let Some(metric) = names::find(series) {
        return (metric.instrument != Instrument::Histogram).then_some((metric, ""));
    }
    ["_bucket", "_sum", "_count"].into_iter().find_map(|suffix| {
        let metric = names::find(series.strip_suffix(suffix)?)?;
        (metric.instrument == Instrument::Histogram).then_some((metric, suffix))
    })
}

/// What is wrong with a query: names that are not in the table, labels their metrics do not have.
fn faults(expr: &str, recorded: &BTreeSet<String>) -> Vec<String> {
    let mut faults = Vec::new();
    let mut labels: BTreeSet<&str> = ["job", "instance"].into();
    let named = promql::read(expr);
    for (series, selected) in &named.metrics {
        let own: Vec<&str> = match row_of(series) {
            Some((metric, suffix)) => {
                let le = (suffix == "_bucket").then_some("le");
                metric.labels.iter().copied().chain(le).collect()
            }
            None if series == "up" || recorded.contains(series) => Vec::new(),
            None => {
                faults.push(format!("{series} is not in the table of names"));
                continue;
            }
        };
        for label in selected.iter().filter(|label| !["job", "instance"].contains(&label.as_str()))
        {
            if !own.contains(&label.as_str()) {
                faults.push(format!("{series} has no label {label}"));
            }
        }
        labels.extend(own);
    }
    for label in named.grouped.iter().filter(|label| !labels.contains(label.as_str())) {
        faults.push(format!("nothing in it has the label {label}"));
    }
    if named.metrics.is_empty() {
        faults.push("it names no metric".to_owned());
    }
    faults
}

fn recorded() -> BTreeSet<String> {
    rules().into_iter().filter(|rule| !rule.is_alert).map(|rule| rule.name).collect()
}

#[test]
fn every_query_of_the_rules_is_in_the_table() {
    let (rules, recorded) = (rules(), recorded());
    assert!(rules.iter().filter(|rule| rule.is_alert).count() >= 28 && recorded.len() >= 14);
    for rule in &rules {
        let faults = faults(&rule.expr, &recorded);
        assert!(faults.is_empty(), "{}: {faults:?} in {}", rule.name, rule.expr);
    }
}

#[test]
fn every_query_of_the_dashboard_is_in_the_table() {
    let dashboard: serde_json::Value =
        serde_json::from_str(&read("deploy/grafana/resonant.json")).unwrap();
    let mut queries = Vec::new();
    collect(&dashboard, &mut queries);
    assert!(queries.len() >= 50, "{}", queries.len());
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "two panels share an id");
    let recorded = recorded();
    let mut shown = BTreeSet::new();
    for query in &queries {
        let faults = faults(query, &recorded);
        assert!(faults.is_empty(), "{faults:?} in {query}");
        shown.extend(promql::read(query).metrics.into_keys());
    }
    // The other way round: what is counted can be seen.
    let unseen: Vec<_> = TABLE
        .iter()
        .map(|metric| metric.name)
        .filter(|name| {
            !shown.iter().any(|series| row_of(series).is_some_and(|row| row.0.name == *name))
        })
        .filter(|name| *name != names::CPU_LIMIT.name)
        .collect();
    assert!(unseen.is_empty(), "no panel shows {unseen:?}");
}

fn collect(value: &serde_json::Value, queries: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(map) => {
            queries.extend(map.get("expr").and_then(|expr| expr.as_str()).map(str::to_owned));
            map.values().for_each(|value| collect(value, queries));
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| collect(value, queries)),
        _ => {}
    }
}

#[test]
fn a_name_that_is_not_in_the_table_is_found() {
    let none = BTreeSet::new();
    let good = r#"rate(resonant_batch_size_items_bucket{batch="x", le="1", job="y"}[5m])"#;
    assert_eq!(faults(good, &none), Vec::<String>::new());
    for bad in [
        "queue_dept > 1",
        "rate(resonant_batch_size_items[5m])",
        "rate(queue_depth_bucket[5m])",
        r#"queue_depth{que="x"}"#,
        r#"queue_depth{le="1"}"#,
        "sum by (pool) (queue_depth)",
        "job:unknown:rate5m > 1",
        "1 > 0",
    ] {
        assert_eq!(faults(bad, &none).len(), 1, "{bad}: {:?}", faults(bad, &none));
    }
}

#[test]
fn every_alert_has_tests_both_ways_and_a_page() {
    let page = read("docs/alerts.md");
    let folder = repository().join("deploy/prometheus/tests");
    let tests: String = fs::read_dir(folder)
        .unwrap()
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    for Rule { name, runbook, .. } in rules().into_iter().filter(|rule| rule.is_alert) {
        assert!(tests.contains(&format!("- name: {name} fires")), "no test that {name} fires");
        assert!(tests.contains(&format!("- name: {name} stays quiet")), "no quiet test of {name}");
        assert!(page.contains(&format!("\n## {name}\n")), "docs/alerts.md has nothing on {name}");
        assert!(runbook.ends_with(&format!("docs/alerts.md#{}", name.to_lowercase())), "{runbook}");
    }
}

#[test]
fn the_page_of_metrics_is_made_from_the_table() {
    let page = page();
    if std::env::var_os("RESONANT_WRITE_DOCS").is_some() {
        fs::write(repository().join("docs/metrics.md"), &page).unwrap();
    }
    let again = "run it again with RESONANT_WRITE_DOCS=1 to write the page anew";
    assert_eq!(read("docs/metrics.md"), page, "{again}");
}

fn page() -> String {
    let mut page = String::from(
        "# Metrics\n\nEverything the crates count, from the table in `resonant-common/src/telemetry/names.rs`. This page is written by a \
         test from it.\n\n\
         Labels named in code (`queue`, `cache`, `batch`, `database`, `service`, `target` and the pool's name) take 64 values in a process, \
         checks and shards 256, endpoints 128; more become `other`. All other labels are closed sets.\n\n\
         | metric | kind | labels | what it is |\n|---|---|---|---|\n",
    );
    for metric in TABLE {
        let kind = match metric.instrument {
            Instrument::Counter => "counter",
            Instrument::Gauge => "gauge",
            Instrument::Histogram => "histogram",
        };
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = labels.join(", ");
        let _ = writeln!(page, "| `{}` | {kind} | {labels} | {} |", metric.name, metric.help);
    }
    page.push_str("\n## Buckets\n\n| histogram | upper bounds |\n|---|---|\n");
    for metric in TABLE.iter().filter(|metric| metric.instrument == Instrument::Histogram) {
        let bounds: Vec<_> = metric.buckets.iter().map(f64::to_string).collect();
        let _ = writeln!(page, "| `{}` | {} |", metric.name, bounds.join(", "));
    }
    page
}

/// The name under which Prometheus knows a metric that OpenTelemetry calls `name`, by the compatibility rules of its
/// specification: the unit in full and, for a counter, `_total` are appended where they are missing.
fn prometheus_name(name: &str, unit: Option<&str>, instrument: Instrument) -> String {
    let (base, total) = match (instrument, name.strip_suffix("_total")) {
        (Instrument::Counter, Some(base)) => (base, "_total"),
        (Instrument::Counter, None) => (name, "_total"),
        _ => (name, ""),
    };
    let unit = unit.map(|unit| format!("_{unit}")).filter(|unit| !base.ends_with(unit.as_str()));
    format!("{base}{}{total}", unit.unwrap_or_default())
}

#[test]
fn names_survive_the_way_through_opentelemetry() {
    for Metric { name, unit, instrument, .. } in TABLE {
        assert_eq!(prometheus_name(name, *unit, *instrument), *name);
        // Units that OpenTelemetry spells in a way that comes back as the same suffix.
        assert!(matches!(unit, None | Some("seconds" | "bytes")), "{name}: {unit:?}");
    }
    assert_eq!(
        prometheus_name("answers", Some("seconds"), Instrument::Histogram),
        "answers_seconds"
    );
    assert_eq!(prometheus_name("sent", Some("bytes"), Instrument::Counter), "sent_bytes_total");
}
