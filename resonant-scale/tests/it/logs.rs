//! What is said of failures, and how often.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use resonant_scale::testing::{FakeMetric, FakeTarget};
use resonant_scale::{Autoscaler, Error, HpaConfig, MetricSpec};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Keeps warnings and what is said of their end.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "resonant::scale" && *metadata.level() <= Level::INFO
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }
}

impl Lines {
    /// How many lines have all these words.
    fn with(&self, words: &[&str]) -> usize {
        let lines = self.0.lock().unwrap();
        lines.iter().filter(|line| words.iter().all(|word| line.contains(word))).count()
    }
}

#[tokio::test(start_paused = true)]
async fn each_outage_is_warned_of_once_and_its_end_is_said() {
    resonant_common::telemetry::keep_attention();
    let lines = Lines::default();
    let _guard = tracing::subscriber::set_default(lines.clone());
    let (target, failing) = (FakeTarget::new(4), FakeMetric::new(40.0));
    let policy = ["fails", "hangs"].into_iter().fold(HpaConfig::new(1, 20), |policy, name| {
        policy.metric(MetricSpec::external_average(name, 10.0))
    });
    let scaler = Autoscaler::builder("workers")
        .policy(policy)
        .source("fails", failing.clone())
        .measure("hangs", std::future::pending::<Result<f64, Error>>)
        .target(target.clone())
        .build()
        .unwrap();
    failing.set(None);
    for _ in 0..5 {
        scaler.evaluate().await;
    }
    assert_eq!(lines.with(&["WARN", "measure", "of=\"fails\"", "told to fail"]), 1);
    assert_eq!(lines.with(&["WARN", "measure", "of=\"hangs\"", "in time"]), 1);
    target.fail_to_read(true);
    scaler.evaluate().await;
    scaler.evaluate().await;
    assert_eq!(lines.with(&["WARN", "operation=\"read\"", "of=\"target\""]), 1);
    target.fail_to_read(false);
    failing.set(40.0);
    for _ in 0..3 {
        scaler.evaluate().await;
    }
    assert_eq!(lines.with(&["INFO", "of=\"fails\"", "works again"]), 1);
    assert_eq!(lines.with(&["INFO", "of=\"target\"", "works again"]), 1);
    assert_eq!(lines.with(&["INFO", "of=\"hangs\""]), 0, "it hangs still");
    failing.set(None);
    scaler.evaluate().await;
    assert_eq!(lines.with(&["WARN", "of=\"fails\""]), 2, "another outage is another warning");
}
