//! Traces that go on where a message is received.
//!
//! The family names its spans through `tracing` and knows no tracing system. What carries a trace from one process to
//! another, W3C's `traceparent`, is known only to the system that makes the traces: it is asked through a [`Propagator`],
//! which a service installs once, as it installs its subscriber. Without one nothing is carried. The facade has one for
//! OpenTelemetry (feature `opentelemetry`).

use std::sync::OnceLock;

use tracing::Span;

/// The header a trace travels in.
pub const TRACEPARENT: &str = "traceparent";

/// Knows the identity of spans beyond the process.
pub trait Propagator: Send + Sync + 'static {
    /// The `traceparent` of the span, if it has one.
    fn inject(&self, span: &Span) -> Option<String>;

    /// Links the span to the one that `traceparent` names.
    fn link(&self, span: &Span, traceparent: &str);
}

static INSTALLED: OnceLock<Box<dyn Propagator>> = OnceLock::new();

/// Lets traces be carried by `propagator` from now on. Returns whether it was the first; a second one is dropped.
pub fn set_propagator(propagator: impl Propagator) -> bool {
    INSTALLED.set(Box::new(propagator)).is_ok()
}

/// The `traceparent` of the span, if a propagator is installed and knows one.
pub fn inject(span: &Span) -> Option<String> {
    INSTALLED.get()?.inject(span)
}

/// Links the span to what `traceparent` names, if a propagator is installed.
pub fn link(span: &Span, traceparent: &str) {
    if let Some(propagator) = INSTALLED.get() {
        propagator.link(span, traceparent);
    }
}
