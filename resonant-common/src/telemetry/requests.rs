//! The guide's two metrics of an HTTP layer.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::handle::{Counter, Histogram};
use super::{names, series};

/// The most combinations of method, endpoint and status counted apart.
const MOST: usize = 2048;

/// Counts answered requests: `requests_total{method,endpoint,status}` and `request_duration_seconds{method,endpoint}`.
///
/// Give it the *template* of a route (`/users/{id}`), never the path a client sent. Whatever comes, the number of series
/// stays bounded: unknown methods, more than 128 endpoints and impossible statuses become `other`.
///
/// ```
/// use resonant_common::telemetry::Requests;
/// use std::time::Duration;
///
/// let requests = Requests::new();
/// requests.answered("GET", "/users/{id}", 200, Duration::from_millis(3));
/// ```
#[derive(Clone, Default)]
pub struct Requests {
    shared: Arc<Shared>,
}

/// Method, endpoint and, for answers, status.
type Kept<K, H> = RwLock<HashMap<K, Arc<H>>>;

#[derive(Default)]
struct Shared {
    answers: Kept<(&'static str, String, u16), Counter>,
    times: Kept<(&'static str, String), Histogram>,
}

impl Requests {
    /// Counts from zero. Clones share what they know.
    pub fn new() -> Self {
        Self::default()
    }

    /// A request was answered with `status` after `took`.
    pub fn answered(&self, method: &str, endpoint: &str, status: u16, took: Duration) {
        let method = known_method(method);
        let status = if (100..600).contains(&status) { status } else { 0 };
        let text = if status == 0 { series::OTHER.to_owned() } else { status.to_string() };
        let Shared { answers, times } = &*self.shared;
        let counter = find_or_make(answers, (method, endpoint.to_owned(), status), |key| {
            let endpoint = if key.is_some() { endpoint } else { series::OTHER };
            Counter::new(
                &names::REQUESTS,
                &[("method", method), ("endpoint", endpoint), ("status", &text)],
            )
        });
        counter.increment(1);
        let histogram = find_or_make(times, (method, endpoint.to_owned()), |key| {
            let endpoint = if key.is_some() { endpoint } else { series::OTHER };
            Histogram::new(&names::REQUEST_DURATION, &[("method", method), ("endpoint", endpoint)])
        });
        histogram.record_duration(took);
    }
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests").finish_non_exhaustive()
    }
}

/// What is kept under the key; past the limit one made without a key, which is not kept.
fn find_or_make<K: Eq + std::hash::Hash, H>(
    kept: &Kept<K, H>,
    key: K,
    make: impl FnOnce(Option<&K>) -> H,
) -> Arc<H> {
    let known = kept.read().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = known.get(&key) {
        return Arc::clone(found);
    }
    if known.len() >= MOST {
        return Arc::new(make(None));
    }
    drop(known);
    let mut kept = kept.write().unwrap_or_else(PoisonError::into_inner);
    let made = Arc::new(make(Some(&key)));
    Arc::clone(kept.entry(key).or_insert(made))
}

fn known_method(method: &str) -> &'static str {
    const KNOWN: [&str; 9] =
        ["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS", "CONNECT", "TRACE"];
    KNOWN.into_iter().find(|known| *known == method).unwrap_or(series::OTHER)
}

#[cfg(test)]
mod tests {
    use metrics_util::debugging::DebuggingRecorder;

    use super::*;

    #[test]
    fn whatever_clients_send_series_stay_bounded() {
        let recorder = DebuggingRecorder::new();
        let snapshots = recorder.snapshotter();
        metrics::with_local_recorder(&recorder, || {
            let requests = Requests::new();
            for n in 0..20_000_u32 {
                let (method, endpoint) = (format!("METHOD{n}"), format!("/hostile/{n}"));
                let status = u16::try_from(n % 1000).unwrap();
                requests.answered(&method, &endpoint, status, Duration::ZERO);
                requests.answered("GET", "/known", 200, Duration::ZERO);
            }
        });
        let rows = snapshots.snapshot().into_vec();
        assert!(rows.len() < 2 * MOST + 600, "{}", rows.len());
        let known =
            rows.iter().any(|row| row.0.key().labels().any(|label| label.value() == "/known"));
        assert!(known);
    }
}
