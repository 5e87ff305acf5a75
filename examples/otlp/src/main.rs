//! A service whose traces and metrics go to an OpenTelemetry collector, over OTLP.
//!
//! ```sh
//! OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 cargo run -p resonant-example-otlp
//! ```
//!
//! It publishes eight tasks in the span `request`, handles them from the queue in batches, and sends what it saw. In the
//! trace of each handler stands a link to the trace of the request that published the task, in whatever process that was.

mod telemetry;

use std::error::Error;
use std::time::Duration;

use resonant_batch::BatchProcessor;
use resonant_queue::{Delivery, HandlerError, Memory, PartitionedQueue};
use telemetry::Telemetry;
use tracing::Instrument as _;

fn main() -> Result<(), Box<dyn Error>> {
    // Before the runtime: exporters are made and shut down outside of it.
    let telemetry = Telemetry::install()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let handled = runtime.block_on(service())?;
    drop(runtime);
    telemetry.shutdown()?;
    println!("handled {handled} tasks; traces and metrics are sent");
    Ok(())
}

async fn service() -> Result<u64, Box<dyn Error>> {
    let batch = BatchProcessor::builder(async |tasks: Vec<u64>| {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok::<_, std::io::Error>(tasks)
    })
    .max_batch_size(100)
    .build()?;
    let queue = PartitionedQueue::<u64>::builder("session-tasks")
        .partitions(16)
        .key(|task: &u64| task.to_string())
        .backend(Memory::new())
        .build()
        .await?;

    let publish = async {
        for task in 0..8 {
            queue.publish(&task).await?;
        }
        Ok::<_, resonant_queue::Error>(())
    };
    publish.instrument(tracing::info_span!("request")).await?;

    let worker = queue.worker(async move |delivery: Delivery<u64>| {
        batch.submit(*delivery.message()).await.map_err(HandlerError::retry)?;
        Ok(())
    });
    let worker = worker.concurrency(8).start().await?;
    while queue.depth().await?.unfinished() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(worker.drain().await?.done)
}
