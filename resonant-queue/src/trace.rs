//! Traces through the queue: a publish leaves its `traceparent` in the headers, the span of the handler is linked to it.
//!
//! Linked, not a child: a message may be handled long after the trace of its publisher has ended, and more than once.

use std::sync::Arc;

use resonant_common::telemetry::trace::{TRACEPARENT, inject, link};
use tracing::Span;

use crate::message::{Headers, Message};
use crate::version::Versions;
use crate::worker::Origin;

/// The most links of a span; what tracing systems keep by default.
const MOST: usize = 128;

/// The headers with the version, and with the span this is called in, unless they name them. Without a propagator there is
/// no span.
pub(crate) fn stamped(headers: &Headers, versions: &Versions) -> Option<Arc<Headers>> {
    let stamp = match headers.contains_key(TRACEPARENT) {
        true => None,
        false => inject(&Span::current()),
    };
    if stamp.is_none() && headers.is_empty() && !versions.stamps() {
        return None;
    }
    let mut headers = headers.clone();
    headers.extend(stamp.map(|stamp| (TRACEPARENT.to_owned(), stamp)));
    versions.stamp(&mut headers);
    Some(Arc::new(headers))
}

/// The span a handler runs in.
pub(crate) fn process(messages: &[Message], origin: Origin) -> Span {
    let (first, count) = (messages.first(), messages.len());
    let span = tracing::debug_span!(
        target: "resonant::queue", parent: None, "queue.process",
        resonant.queue.partition = origin.partition,
        resonant.queue.sequence = first.map(|message| message.sequence),
        resonant.queue.attempt = first.map(|message| message.failures.saturating_add(1)),
        messaging.batch.message_count = (count > 1).then_some(count),
    );
    if !span.is_disabled() {
        let parents = messages.iter().filter_map(|it| it.headers.as_ref()?.get(TRACEPARENT));
        parents.take(MOST).for_each(|parent| link(&span, parent));
    }
    span
}
