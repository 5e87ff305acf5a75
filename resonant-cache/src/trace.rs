//! Spans of calls and of loads, at debug, of the target `resonant::cache`.
//!
//! A call has a span from where it leaves what the process holds: a hit in the process has none, and costs what it costs without.
//! A load has one beside that, for it runs in a task of its own and may outlive who began it: as a child of the call that
//! began it, and in front of those that joined. What the loader does is inside it.

use tracing::{Span, field};

use crate::error::{Error, Result};
use crate::metrics::{How, Outcome};

/// A call under way, and its span.
#[derive(Debug)]
pub(crate) struct Call(Span);

impl Call {
    /// `of` is the call's name, `keys` how many it is about, if it is about keys and that is known.
    pub(crate) fn begin(cache: &str, namespace: &str, of: &'static str, keys: usize) -> Self {
        Self(tracing::debug_span!(
            target: "resonant::cache", "cache.call",
            otel.name = of,
            otel.status_code = field::Empty,
            resonant.cache.name = cache,
            resonant.cache.namespace = namespace,
            resonant.cache.keys = (keys > 0).then_some(keys),
            resonant.cache.result = field::Empty,
            error.type = field::Empty,
        ))
    }

    /// How many keys it was about, where that is known at the end.
    pub(crate) fn about(&self, keys: usize) {
        self.0.record("resonant.cache.keys", keys);
    }

    pub(crate) fn span(&self) -> Span {
        self.0.clone()
    }

    /// It waited for a load that somebody else had begun.
    pub(crate) fn joined(&self, load: &Span) {
        if !self.0.is_disabled() {
            self.0.follows_from(load);
        }
    }

    pub(crate) fn ended(&self, how: How) {
        self.0.record("resonant.cache.result", how.label());
    }

    pub(crate) fn failed(&self, error: &Error) {
        fail(&self.0, error);
        self.ended(How::Error);
    }

    /// What came of it, if that is an error.
    pub(crate) fn note<T>(&self, outcome: &Result<T>) {
        if let Err(error) = outcome {
            self.failed(error);
        }
    }
}

fn fail(span: &Span, error: &Error) {
    span.record("otel.status_code", "ERROR");
    span.record("error.type", error.code());
}

/// The span of a load of so many keys. Begun where the call is that begins the load.
pub(crate) fn load(cache: &str, namespace: &str, keys: usize) -> Span {
    tracing::debug_span!(
        target: "resonant::cache", "cache.load",
        otel.status_code = field::Empty,
        resonant.cache.name = cache,
        resonant.cache.namespace = namespace,
        resonant.cache.keys = keys,
        resonant.cache.loaded = field::Empty,
        resonant.cache.outcome = field::Empty,
        error.type = field::Empty,
    )
}

/// In the span of a load: its loader was called for so many keys, and ended so.
pub(crate) fn loaded(keys: usize, outcome: Outcome, error: Option<&Error>) {
    let span = Span::current();
    span.record("resonant.cache.loaded", keys);
    span.record("resonant.cache.outcome", outcome.label());
    if let Some(error) = error {
        fail(&span, error);
    }
}
