//! How the span of a batch hangs together with those of its submitters.
//!
//! A span has one parent and a batch has many submitters, so it follows from them instead, which tracing systems show as
//! links. A batch of one is simply a child. Spans of submitters are kept until then: one that ended could not be linked.

use tracing::{Level, Span};

use crate::core::Trigger;

/// The span of a submitter. In a box, so that it costs an item no room while nobody traces.
pub(crate) type Caller = Option<Box<Span>>;

/// The most links of a span; what tracing systems keep by default.
const MOST: usize = 128;

/// Those who submitted the items of a batch.
#[derive(Debug, Default)]
pub(crate) struct Callers {
    spans: Vec<Span>,
    dropped: usize,
}

/// The span this is called in, if spans of batches are looked at.
#[inline]
pub(crate) fn caller() -> Caller {
    if !tracing::span_enabled!(target: "resonant::batch", Level::DEBUG) {
        return None;
    }
    let span = Span::current();
    (!span.is_none()).then(|| Box::new(span))
}

impl Callers {
    pub(crate) fn add(&mut self, caller: Span) {
        if self.spans.len() < MOST {
            self.spans.push(caller);
        } else {
            self.dropped += 1;
        }
    }

    /// The span a batch is processed in.
    #[inline]
    pub(crate) fn span(
        callers: Option<Box<Self>>,
        name: &str,
        size: usize,
        trigger: Trigger,
        weight: u64,
    ) -> Span {
        let (spans, dropped) = match &callers {
            Some(callers) => (callers.spans.as_slice(), callers.dropped),
            None => (&[][..], 0),
        };
        let parent = match spans {
            [only] if size == 1 => only.id(),
            _ => None,
        };
        let is_child = parent.is_some();
        let span = tracing::debug_span!(
            target: "resonant::batch", parent: parent, "batch.process",
            resonant.batch.name = name, resonant.batch.size = size, resonant.batch.trigger = trigger.name(), weight,
            resonant.batch.links_dropped = dropped,
        );
        if !is_child {
            spans.iter().for_each(|caller| {
                span.follows_from(caller);
            });
        }
        span
    }
}
