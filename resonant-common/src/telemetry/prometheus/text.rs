//! Prometheus's text format, version 0.0.4.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use super::recorder::{Family, Registry, Series};
use crate::telemetry::names::Instrument;

pub(super) fn render(registry: &Registry) -> String {
    let families = registry.families();
    let mut out = String::with_capacity(4096);
    for (name, family) in &families.by_name {
        write_family(&mut out, name, family);
    }
    out
}

fn write_family(out: &mut String, name: &str, family: &Family) {
    if !family.help.is_empty() {
        let help = family.help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(out, "# HELP {name} {help}");
    }
    let kind = match family.instrument {
        Instrument::Counter => "counter",
        Instrument::Gauge => "gauge",
        Instrument::Histogram => "histogram",
    };
    let _ = writeln!(out, "# TYPE {name} {kind}");
    for (labels, series) in &family.series {
        let mut line = |suffix: &str, bound: Option<&str>, value: &dyn std::fmt::Display| {
            let labels = labels_text(labels, bound);
            let _ = writeln!(out, "{name}{suffix}{labels} {value}");
        };
        match series {
            Series::Counter(count) => line("", None, &count.load(Ordering::Relaxed)),
            Series::Gauge(level) => {
                line("", None, &number(f64::from_bits(level.load(Ordering::Relaxed))));
            }
            Series::Histogram(buckets) => {
                let (bounds, count, sum) = buckets.read();
                for (bound, below) in bounds {
                    line("_bucket", Some(&number(bound)), &below);
                }
                line("_bucket", Some("+Inf"), &count);
                line("_sum", None, &number(sum));
                line("_count", None, &count);
            }
        }
    }
}

fn labels_text(labels: &[(String, String)], bound: Option<&str>) -> String {
    let mut text = String::new();
    let bound = bound.map(|bound| ("le", bound));
    let all = labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).chain(bound);
    for (name, value) in all {
        text.push(if text.is_empty() { '{' } else { ',' });
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(text, "{name}=\"{value}\"");
    }
    if !text.is_empty() {
        text.push('}');
    }
    text
}

fn number(value: f64) -> String {
    if value == f64::INFINITY {
        "+Inf".to_owned()
    } else if value == f64::NEG_INFINITY {
        "-Inf".to_owned()
    } else if value.is_nan() {
        "NaN".to_owned()
    } else {
        value.to_string()
    }
}

/// The name with everything else than letters, digits, `_` and `:` replaced.
pub(super) fn metric_name(name: &str) -> String {
    valid(name, |c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

/// The name with everything else than letters, digits and `_` replaced.
pub(super) fn label_name(name: &str) -> String {
    valid(name, |c| c.is_ascii_alphanumeric() || c == '_')
}

pub(super) fn is_label_name(name: &str) -> bool {
    !name.is_empty() && label_name(name) == name
}

fn valid(name: &str, may_stand: impl Fn(char) -> bool) -> String {
    let mut text: String = name.chars().map(|c| if may_stand(c) { c } else { '_' }).collect();
    if text.is_empty() || text.starts_with(|c: char| c.is_ascii_digit()) {
        text.insert(0, '_');
    }
    text
}

#[cfg(test)]
mod tests {
    use metrics::{Key, KeyName, Label, Level, Metadata, Recorder};

    use super::super::Prometheus;
    use crate::telemetry::{Counter, Gauge, Histogram, names};

    #[test]
    fn the_text_is_as_prometheus_reads_it() {
        let builder = Prometheus::builder().process(false).constant_label("region", "eu\"1\"");
        let (recorder, metrics) = builder.buckets("foreign_seconds", [1.0]).build().unwrap();
        metrics::with_local_recorder(&recorder, || {
            Counter::new(&names::QUEUE_PUBLISHED, &[("queue", "text-test")]).increment(3);
            Gauge::new(&names::QUEUE_DEPTH, &[("queue", "text-test")]).set(0.5);
            Histogram::new(&names::BATCH_SIZE, &[("batch", "text-test")]).record(3.0);
        });
        let metadata = Metadata::new("foreign", Level::INFO, None);
        recorder.describe_histogram(KeyName::from("foreign.seconds"), None, "One\nand two.".into());
        let labels = |one: &'static str, two: &'static str| {
            let value = |name| if name == "b" { "B" } else { "A\\" };
            vec![Label::new(one, value(one)), Label::new(two, value(two))]
        };
        for labels in [labels("a", "b"), labels("b", "a")] {
            let key = Key::from_parts("foreign.seconds", labels);
            recorder.register_histogram(&key, &metadata).record(7.0);
        }
        // The first use of a name decides what it is.
        recorder.register_counter(&Key::from_name("queue_depth"), &metadata).increment(1);
        let text = metrics.render();
        let expected = r#"# HELP foreign_seconds One\nand two.
# TYPE foreign_seconds histogram
foreign_seconds_bucket{a="A\\",b="B",region="eu\"1\"",le="1"} 0
foreign_seconds_bucket{a="A\\",b="B",region="eu\"1\"",le="+Inf"} 2
foreign_seconds_sum{a="A\\",b="B",region="eu\"1\""} 14
foreign_seconds_count{a="A\\",b="B",region="eu\"1\""} 2
# HELP queue_depth Messages not yet finished.
# TYPE queue_depth gauge
queue_depth{queue="text-test",region="eu\"1\""} 0.5
"#;
        assert!(text.starts_with(expected), "{text}");
        assert!(text.contains(
            "resonant_queue_published_total{queue=\"text-test\",region=\"eu\\\"1\\\"\"} 3\n"
        ));
        assert!(text.contains("le=\"2\"} 0\n") && text.contains("le=\"4\"} 1\n"), "{text}");
    }

    #[test]
    fn series_past_the_limit_are_not_kept_but_counted() {
        let (recorder, metrics) =
            Prometheus::builder().process(false).max_series(10).build().unwrap();
        let metadata = Metadata::new("foreign", Level::INFO, None);
        for n in 0..1000 {
            let key = Key::from_parts("hostile_total", vec![Label::new("user", n.to_string())]);
            recorder.register_counter(&key, &metadata).increment(1);
        }
        let text = metrics.render();
        assert_eq!(text.lines().filter(|line| line.starts_with("hostile_total")).count(), 10);
        assert!(
            text.contains("resonant_telemetry_overflow_total{label=\"series\"} 990\n"),
            "{text}"
        );
    }

    #[test]
    fn settings_no_scrape_would_accept_are_refused() {
        let refused = |builder: super::super::PrometheusBuilder| {
            builder.build().map(drop).unwrap_err().to_string()
        };
        assert!(refused(Prometheus::builder().buckets("x", [])).contains("buckets of x"));
        assert!(refused(Prometheus::builder().buckets("x", [2.0, 1.0])).contains("above"));
        assert!(refused(Prometheus::builder().buckets("x", [f64::NAN])).contains("finite"));
        assert!(refused(Prometheus::builder().constant_label("a-b", "c")).contains("a-b"));
    }
}
