//! Handlers that are a `tower::Service`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use resonant_queue::{Delivery, HandlerError, Memory, PartitionedQueue, RetryConfig, ServiceError};
use tower::{ServiceBuilder, service_fn};

async fn queue() -> PartitionedQueue<u64> {
    let retry = RetryConfig { max_attempts: 3, ..RetryConfig::default() };
    let builder = PartitionedQueue::builder("service").partitions(2).retry(retry);
    builder.key(|number: &u64| *number).backend(Memory::new()).build().await.unwrap()
}

async fn until(queue: &PartitionedQueue<u64>, holds: impl Fn(resonant_queue::Depth) -> bool) {
    let wait = async {
        while !holds(queue.depth().await.unwrap()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(600), wait).await.unwrap();
}

/// Layers of tower work unmodified: a limit bounds what runs at once, a timeout fails what hangs, and what hung is tried
/// again.
#[tokio::test(start_paused = true)]
async fn layers_of_tower_work() {
    let queue = queue().await;
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let service = {
        let (running, most, seen) = (Arc::clone(&running), Arc::clone(&most), Arc::clone(&seen));
        service_fn(move |delivery: Delivery<u64>| {
            let (running, most, seen) = (running.clone(), most.clone(), seen.clone());
            async move {
                let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(now, Ordering::SeqCst);
                if *delivery.message() == 5 && delivery.attempt() == 1 {
                    // Dropped by the timeout.
                    running.fetch_sub(1, Ordering::SeqCst);
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
                running.fetch_sub(1, Ordering::SeqCst);
                seen.lock().unwrap().push((*delivery.message(), delivery.attempt()));
                Ok::<_, std::convert::Infallible>("an answer nobody reads")
            }
        })
    };
    let service =
        ServiceBuilder::new().concurrency_limit(3).timeout(Duration::from_secs(1)).service(service);
    let worker = queue.worker_service(service).concurrency(64).start().await.unwrap();
    queue.publish_many(0..20).await.unwrap();
    until(&queue, |depth| depth.unfinished() == 0).await;
    let report = worker.drain().await.unwrap();
    assert_eq!((report.done, report.retried), (20, 1), "{report:?}");
    assert!(most.load(Ordering::SeqCst) <= 3);
    assert!(seen.lock().unwrap().contains(&(5, 2)));
}

/// Panics and errors fail their message, not the worker; a verdict passes through layers.
#[tokio::test(start_paused = true)]
async fn panics_and_verdicts_of_a_service() {
    let queue = queue().await;
    let service = service_fn(async |delivery: Delivery<u64>| match *delivery.message() {
        1 if delivery.attempt() == 1 => panic!("once"),
        2 => Err(ServiceError::from(HandlerError::reject("never"))),
        _ => Ok(()),
    });
    let service = ServiceBuilder::new().timeout(Duration::from_secs(1)).service(service);
    let worker = queue.worker_service(service).start().await.unwrap();
    queue.publish_many(0..4).await.unwrap();
    until(&queue, |depth| depth.unfinished() == 0).await;
    let report = worker.drain().await.unwrap();
    assert_eq!((report.done, report.retried, report.dead), (3, 1, 1), "{report:?}");
    assert_eq!(queue.dead_letters(10).await.unwrap()[0].error, "never");
}
