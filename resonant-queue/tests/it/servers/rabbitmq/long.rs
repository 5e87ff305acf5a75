//! Handlers that take longer than the broker waits for an acknowledgement.

use std::sync::Arc;

use resonant_queue::{Delivery, HandlerError};
use tokio::sync::Semaphore;

use super::node;
use super::support::{LIMIT, Seen, queue, rabbit, until};

/// The broker closes the channel of a consumer that has not acknowledged in time, by default half an hour. The handler goes
/// on, its message is not handed out again, and what comes after it is handled in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_longer_than_the_brokers_patience_runs_once() {
    let (server, node) = node().await;
    // It looks once in a tick whether the time is over.
    node.eval("application:set_env(rabbit, consumer_timeout, 1000), application:set_env(rabbit, channel_tick_interval, 500).")
        .await
        .unwrap();
    let vhost = server.vhost().await.unwrap();
    let queue = queue(rabbit(&vhost, LIMIT).await, 1).await;
    let (began, seen, gate) = (Seen::default(), Seen::default(), Arc::new(Semaphore::new(0)));
    let handler = {
        let (began, seen, gate) = (began.clone(), seen.clone(), Arc::clone(&gate));
        async move |delivery: Delivery<u64>| {
            began.push(*delivery.message());
            if *delivery.message() == 0 {
                gate.acquire().await?.forget();
            }
            seen.push(delivery.into_message());
            Ok::<(), HandlerError>(())
        }
    };
    let worker = queue.worker(handler).start().await.unwrap();
    queue.publish_many([0, 1, 10]).await.unwrap();
    until("the other key is handled", async || seen.all().contains(&1)).await;
    let timeouts = async || {
        let log = std::fs::read_to_string(node.log_file()).unwrap_or_default();
        log.matches("has timed out waiting for delivery acknowledgement").count()
            + log.matches("Timeout value used").count()
    };
    until("the broker gave up waiting, again and again", async || timeouts().await >= 3).await;
    queue.publish(&11).await.unwrap();
    until("messages of another key still come", async || seen.all().contains(&11)).await;
    assert_eq!(began.all().iter().filter(|number| **number == 0).count(), 1, "it runs once");
    gate.add_permits(1);
    until("all is handled", async || seen.count() == 4).await;
    until("all is settled", async || queue.depth().await.is_ok_and(|it| it.unfinished() == 0))
        .await;
    worker.drain().await.unwrap();
    let mut all = began.all();
    all.sort_unstable();
    assert_eq!(all, [0, 1, 10, 11], "each ran once");
    seen.assert_in_order();
}
