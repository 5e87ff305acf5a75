//! The identity of spans, as OpenTelemetry knows it.

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use resonant_common::telemetry::trace::{Propagator, set_propagator};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Lets traces be carried through queues from now on, as W3C's `traceparent`. Returns whether it was the first to ask.
///
/// Needs a subscriber with a layer of `tracing_opentelemetry` (0.34) that records spans of the target `resonant::queue` at
/// debug.
pub fn carry_traces() -> bool {
    set_propagator(OpenTelemetry)
}

/// Asks `tracing_opentelemetry` who a span is.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenTelemetry;

impl Propagator for OpenTelemetry {
    fn inject(&self, span: &Span) -> Option<String> {
        let context = span.context();
        let known = context.span().span_context().clone();
        known.is_valid().then(|| {
            let (trace, span, flags) = (known.trace_id(), known.span_id(), known.trace_flags());
            format!("00-{trace}-{span}-{:02x}", flags.to_u8())
        })
    }

    fn link(&self, span: &Span, traceparent: &str) {
        if let Some(context) = parse(traceparent) {
            span.add_link(context);
        }
    }
}

/// What a `traceparent` names. Later versions may say more after what the first one says.
fn parse(traceparent: &str) -> Option<SpanContext> {
    let mut parts = traceparent.split('-');
    let (version, trace, span, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let fits = [(version, 2), (trace, 32), (span, 16), (flags, 2)]
        .iter()
        .all(|(text, len)| text.len() == *len && text.bytes().all(|it| it.is_ascii_hexdigit()));
    if !fits || version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        TraceFlags::new(u8::from_str_radix(flags, 16).ok()?),
        true,
        TraceState::default(),
    );
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_or_refused() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = parse(good).unwrap();
        assert_eq!(context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(context.is_sampled() && context.is_remote());
        assert!(parse("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-more").is_some());
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473x-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-é4bf92f3577b34da6a3ce929d0e0e47-00f067aa0ba902b7-01",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }
}
