//! Traces through OpenTelemetry: what an exporter is given.

use opentelemetry::trace::{SpanContext, TracerProvider as _};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use resonant_batch::{BatchProcessor, Policy};
use resonant_queue::{Delivery, Memory, PartitionedQueue};
use resonant_sdk::telemetry::carry_traces;
use tracing::Instrument;
use tracing_subscriber::layer::SubscriberExt;

/// Runs `service` under a subscriber that exports to memory, and returns the spans that ended.
fn exported(service: impl AsyncFnOnce()) -> Vec<SpanData> {
    resonant_common::telemetry::keep_attention();
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().start_paused(true).build().unwrap().block_on(service());
    });
    provider.force_flush().unwrap();
    exporter.get_finished_spans().unwrap()
}

fn named<'a>(spans: &'a [SpanData], name: &str) -> Vec<&'a SpanData> {
    spans.iter().filter(|span| span.name == name).collect()
}

fn linked(span: &SpanData) -> Vec<SpanContext> {
    span.links.iter().map(|link| link.span_context.clone()).collect()
}

async fn queue(name: &str) -> PartitionedQueue<u64> {
    let builder = PartitionedQueue::<u64>::builder(name).partitions(1);
    let builder = builder.key(|number: &u64| number.to_string());
    builder.backend(Memory::new()).build().await.unwrap()
}

#[test]
fn the_span_of_a_handler_is_linked_to_its_publisher() {
    carry_traces();
    let spans = exported(async || {
        let queue = queue("traced").await;
        let publish = async { queue.publish(&7).await.unwrap() };
        publish.instrument(tracing::info_span!("request")).await;
        queue.publish(&8).await.unwrap(); // by nobody's trace
        let worker = queue.worker(async move |delivery: Delivery<u64>| {
            let work = async { delivery.message() + 1 };
            work.instrument(tracing::info_span!("work")).await;
            Ok(())
        });
        let worker = worker.start().await.unwrap();
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert_eq!(worker.drain().await.unwrap().done, 2);
    });
    let (request, handled) = (named(&spans, "request"), named(&spans, "queue.process"));
    assert_eq!((request.len(), handled.len()), (1, 2), "{spans:#?}");
    let mut links: Vec<_> = handled.iter().map(|span| linked(span)).collect();
    links.sort_by_key(Vec::len);
    assert_eq!(links[0], []);
    assert_eq!(links[1].len(), 1);
    let (link, origin) = (&links[1][0], &request[0].span_context);
    assert_eq!((link.trace_id(), link.span_id()), (origin.trace_id(), origin.span_id()));
    assert!(link.is_remote() && link.is_sampled());
    // A trace of its own, which the handler's own spans are part of.
    for span in &handled {
        assert_ne!(span.span_context.trace_id(), origin.trace_id());
        assert!(
            named(&spans, "work")
                .iter()
                .any(|work| work.parent_span_id == span.span_context.span_id())
        );
    }
}

#[test]
fn a_run_is_linked_to_each_publisher() {
    carry_traces();
    let spans = exported(async || {
        let queue = queue("runs").await;
        for _ in 0..3 {
            let publish = async { queue.publish_with_key("one", &7).await.unwrap() };
            publish.instrument(tracing::info_span!("request")).await;
        }
        let handler = async move |_: resonant_queue::Run<u64>| Ok(());
        let worker = queue.worker_runs(10, handler).start().await.unwrap();
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert_eq!(worker.drain().await.unwrap().done, 3);
    });
    let handled = named(&spans, "queue.process");
    let links: Vec<_> = handled.iter().flat_map(|span| linked(span)).collect();
    let mut origins: Vec<_> =
        named(&spans, "request").iter().map(|span| span.span_context.span_id()).collect();
    let mut linked: Vec<_> = links.iter().map(SpanContext::span_id).collect();
    origins.sort_by_key(|id| id.to_bytes());
    linked.sort_by_key(|id| id.to_bytes());
    assert_eq!(linked, origins);
}

#[test]
fn a_batch_is_linked_to_its_submitters() {
    let spans = exported(async || {
        let echo = async |items: Vec<u64>| Ok::<_, std::io::Error>(items);
        let batch = BatchProcessor::builder(echo).policy(Policy::Fixed).build().unwrap();
        let submit = |item| {
            let batch = batch.clone();
            let submit = async move { batch.submit(item).await.unwrap() };
            submit.instrument(tracing::info_span!("request"))
        };
        tokio::join!(submit(1), submit(2));
        submit(3).await;
    });
    let batches = named(&spans, "batch.process");
    assert_eq!(batches.len(), 2, "{spans:#?}");
    let requests: Vec<_> = named(&spans, "request");
    let (two, one) = (batches[0], batches[1]);
    let ids: Vec<_> = requests.iter().map(|span| span.span_context.span_id()).collect();
    assert_eq!(linked(two).len(), 2);
    assert!(linked(two).iter().all(|link| ids.contains(&link.span_id())));
    assert_eq!(linked(one), []);
    assert_eq!(one.parent_span_id, requests[2].span_context.span_id());
}
