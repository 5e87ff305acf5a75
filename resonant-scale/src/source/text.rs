//! Metrics in Prometheus' text format: what a recorder in this process renders.

use std::fmt;

use async_trait::async_trait;

use super::MetricSource;
use crate::error::{Error, ErrorKind, Result};
use crate::hpa::Reading;

/// The sum of a metric's series in a text of Prometheus' format, such as what the recorder of this process renders.
///
/// ```
/// # struct Handle; impl Handle { fn render(&self) -> String { "queue_depth{queue=\"tasks\"} 7\n".into() } }
/// # let handle = Handle;
/// use resonant_scale::source::PrometheusText;
///
/// // `handle` is `prometheus::Prometheus` of the family or the `PrometheusHandle` of metrics-exporter-prometheus.
/// let depth = PrometheusText::new(move || handle.render(), "queue_depth").label("queue", "tasks");
/// # drop(depth);
/// ```
pub struct PrometheusText {
    render: Box<dyn Fn() -> String + Send + Sync>,
    metric: String,
    labels: Vec<(String, String)>,
}

impl PrometheusText {
    /// All series of `metric` in what `render` returns.
    pub fn new(
        render: impl Fn() -> String + Send + Sync + 'static,
        metric: impl Into<String>,
    ) -> Self {
        Self { render: Box::new(render), metric: metric.into(), labels: Vec::new() }
    }

    /// Only series with this label.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.push((name.into(), value.into()));
        self
    }
}

impl fmt::Debug for PrometheusText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { metric, labels, .. } = self;
        f.debug_struct("PrometheusText")
            .field("metric", metric)
            .field("labels", labels)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl MetricSource for PrometheusText {
    async fn read(&self) -> Result<Reading> {
        let text = (self.render)();
        let failed = |message| Error::new(ErrorKind::Unavailable, "read", message);
        match sum(&text, &self.metric, &self.labels) {
            Ok(Some(total)) => Ok(Reading::Total(total)),
            Ok(None) => Err(failed(format!("no series of {} is recorded yet", self.metric))),
            Err(NoNumber) => {
                Err(failed(format!("a series of {} is no finite number", self.metric)))
            }
        }
    }
}

/// A series that matches holds none. A sum without it would be too small, and take away what is needed.
#[derive(Debug, PartialEq, Eq)]
struct NoNumber;

/// The sum of the series that match; `None` if there is none.
fn sum(text: &str, metric: &str, wanted: &[(String, String)]) -> Result<Option<f64>, NoNumber> {
    let mut total = None;
    for line in text.lines() {
        let Some(rest) = line.strip_prefix(metric) else { continue };
        let (labels, rest) = match rest.chars().next() {
            Some('{') => match labels(&rest[1..]) {
                Some(read) => read,
                None => continue,
            },
            Some(' ') => (Vec::new(), rest),
            // Another metric whose name begins alike.
            _ => continue,
        };
        if !wanted.iter().all(|label| labels.contains(label)) {
            continue;
        }
        // A time may stand after the value.
        let value = rest.split_ascii_whitespace().next().and_then(|word| word.parse::<f64>().ok());
        *total.get_or_insert(0.0) += value.ok_or(NoNumber)?;
    }
    match total {
        Some(total) if !f64::is_finite(total) => Err(NoNumber),
        total => Ok(total),
    }
}

/// The labels up to the closing brace, and what follows it.
fn labels(text: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.push((name.trim().to_owned(), value));
        rest = &after[end + 1..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_summed_by_name_and_labels() {
        let text = "# HELP queue_depth Messages.\n# TYPE queue_depth gauge\n\
            queue_depth{queue=\"a\"} 3\nqueue_depth{queue=\"b}\\\"\",x=\"y\"} 4.5 1700000000\n\
            queue_depth_bucket{queue=\"a\"} 100\nplain 2\nbroken{queue=\"a 1\n";
        let label = |value: &str| vec![("queue".to_owned(), value.to_owned())];
        assert_eq!(sum(text, "queue_depth", &[]), Ok(Some(7.5)));
        assert_eq!(sum(text, "queue_depth", &label("a")), Ok(Some(3.0)));
        assert_eq!(sum(text, "queue_depth", &label("b}\"")), Ok(Some(4.5)));
        assert_eq!(sum(text, "queue_depth", &label("c")), Ok(None));
        assert_eq!(sum(text, "plain", &[]), Ok(Some(2.0)));
        for missing in ["queue", "broken", "HELP"] {
            assert_eq!(sum(text, missing, &[]), Ok(None), "{missing}");
        }
    }

    #[test]
    fn a_series_that_is_no_number_is_an_error_and_no_smaller_sum() {
        for bad in ["NaN", "+Inf", "-Inf", "seven", ""] {
            let text = format!("depth{{a=\"1\"}} 3\ndepth{{a=\"2\"}} {bad}\n");
            assert_eq!(sum(&text, "depth", &[]), Err(NoNumber), "{bad}");
            let label = [("a".to_owned(), "1".to_owned())];
            assert_eq!(sum(&text, "depth", &label), Ok(Some(3.0)), "{bad}");
        }
    }
}
