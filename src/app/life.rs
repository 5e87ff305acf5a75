//! What a service is from its first request to its last.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::{Request, State};
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use resonant_scale::Autoscaler;
use tokio::sync::watch;

use super::serve::Server;

/// A lock nobody panics under.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) struct Life {
    /// Held while the parts are set going, and says whether they were.
    pub(super) started: tokio::sync::Mutex<bool>,
    pub(super) scalers: Mutex<Vec<Autoscaler>>,
    /// Held while it is opened or ended.
    pub(super) server: tokio::sync::Mutex<Option<Server>>,
    /// Held by who ends the service: one at a time.
    pub(super) ending: tokio::sync::Mutex<()>,
    pub(super) traffic: Arc<Traffic>,
    stopping: watch::Sender<bool>,
}

impl Life {
    pub(super) fn new() -> Self {
        Self {
            started: tokio::sync::Mutex::new(false),
            scalers: Mutex::default(),
            server: tokio::sync::Mutex::default(),
            ending: tokio::sync::Mutex::default(),
            traffic: Arc::default(),
            stopping: watch::Sender::new(false),
        }
    }

    /// From here on the service ends.
    pub(super) fn stop(&self) {
        self.traffic.ending.store(true, Ordering::Release);
        self.stopping.send_replace(true);
    }

    pub(super) fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }
}

/// The requests that are being answered.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    under_way: AtomicUsize,
    ending: AtomicBool,
    cut: watch::Sender<bool>,
}

impl Traffic {
    pub(super) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Acquire)
    }

    /// Answers for the handlers that have not, which are dropped.
    pub(super) fn cut_off(&self) {
        self.cut.send_replace(true);
    }
}

struct UnderWay(Arc<Traffic>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Counts requests, and asks clients to leave once the service ends: a connection that is kept open would be closed just when
/// its client sends the next request.
pub(super) async fn see_off(
    State(traffic): State<Arc<Traffic>>,
    request: Request,
    next: Next,
) -> Response {
    traffic.under_way.fetch_add(1, Ordering::AcqRel);
    let under_way = UnderWay(traffic);
    let mut cut = under_way.0.cut.subscribe();
    let mut response = tokio::select! {
        response = next.run(request) => response,
        _ = cut.wait_for(|cut| *cut) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    };
    let ends = under_way.0.ending.load(Ordering::Acquire);
    if ends && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
