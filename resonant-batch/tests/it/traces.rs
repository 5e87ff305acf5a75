//! The shape of traces.

use std::sync::{Arc, Mutex};

use resonant_batch::Policy;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Instrument, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use crate::support::Script;

/// What was seen of one span named `batch.process`.
#[derive(Debug, Default, Clone)]
struct Seen {
    id: u64,
    parent: Option<String>,
    follows: Vec<String>,
    size: u64,
    dropped: u64,
}

#[derive(Clone, Default)]
struct Watch(Arc<Mutex<Vec<Seen>>>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Watch {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if attributes.metadata().name() != "batch.process" {
            return;
        }
        let parent = context.span(id).unwrap().parent().map(|parent| parent.name().to_owned());
        let mut seen = Seen { id: id.into_u64(), parent, ..Seen::default() };
        attributes.record(&mut seen);
        self.0.lock().unwrap().push(seen);
    }

    fn on_follows_from(&self, span: &Id, follows: &Id, context: Context<'_, S>) {
        let name = context.span(follows).unwrap().name().to_owned();
        let mut all = self.0.lock().unwrap();
        all.iter_mut().find(|seen| seen.id == span.into_u64()).unwrap().follows.push(name);
    }
}

impl Visit for Seen {
    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}

    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "resonant.batch.size" => self.size = value,
            "resonant.batch.links_dropped" => self.dropped = value,
            _ => {}
        }
    }
}

/// Runs `test` on a paused clock and returns the spans of batches.
fn watched(test: impl AsyncFnOnce()) -> Vec<Seen> {
    resonant_common::telemetry::keep_attention();
    let watch = Watch::default();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(watch.clone()), || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().start_paused(true).build().unwrap().block_on(test());
    });
    watch.0.lock().unwrap().clone()
}

#[test]
fn a_batch_of_300_links_128_submitters_and_says_how_many_it_left_out() {
    let seen = watched(async || {
        let script = Script::open();
        let builder = script.builder().policy(Policy::Fixed).max_batch_size(300);
        let batch = builder.build().unwrap();
        let submitters: Vec<_> = (0..300)
            .map(|item| {
                let batch = batch.clone();
                let submit = async move { batch.submit(item).await.unwrap() };
                // The submitter's own handle of its span is gone as soon as it waits for nothing else.
                tokio::spawn(submit.instrument(tracing::info_span!("request")))
            })
            .collect();
        for submitter in submitters {
            submitter.await.unwrap();
        }
    });
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!((seen[0].size, seen[0].dropped, seen[0].follows.len()), (300, 172, 128));
    assert!(seen[0].follows.iter().all(|name| name == "request"));
    assert_eq!(seen[0].parent, None);
}

#[test]
fn a_batch_of_one_is_a_child_and_has_no_link() {
    let seen = watched(async || {
        let batch = Script::open().builder().build().unwrap();
        batch.submit(1).instrument(tracing::info_span!("request")).await.unwrap();
        // Without a span around it, it is a root.
        batch.submit(2).await.unwrap();
    });
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert_eq!((seen[0].parent.as_deref(), seen[0].follows.len()), (Some("request"), 0));
    assert_eq!((seen[1].parent.as_deref(), seen[1].follows.len()), (None, 0));
}

#[test]
fn a_submitters_span_is_kept_until_it_is_linked() {
    let seen = watched(async || {
        let batch = Script::open().builder().policy(Policy::Fixed).build().unwrap();
        let submitted: Vec<_> = (0..2)
            .map(|item| {
                // The span has ended for everybody else before the batch is dispatched.
                tracing::info_span!("handler").in_scope(|| batch.try_submit(item).unwrap())
            })
            .collect();
        for submitted in submitted {
            submitted.await.unwrap();
        }
    });
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].follows, ["handler", "handler"]);
}

/// A subscriber that wants nothing of ours.
struct Deaf(Arc<Mutex<usize>>);

impl Subscriber for Deaf {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() != "resonant::batch"
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn clone_span(&self, id: &Id) -> Id {
        *self.0.lock().unwrap() += 1;
        id.clone()
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[test]
fn nobody_pays_for_spans_that_are_not_wanted() {
    let cloned = Arc::new(Mutex::new(0));
    tracing::subscriber::with_default(Deaf(Arc::clone(&cloned)), || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let batch = Script::open().builder().build().unwrap();
            batch.submit(1).instrument(tracing::info_span!("request")).await.unwrap();
        });
    });
    assert_eq!(*cloned.lock().unwrap(), 0);
}
