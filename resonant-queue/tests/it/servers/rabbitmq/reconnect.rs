//! Everything that can end a connection, a channel, a consumer or a queue: workers and publishers go on by themselves.

use std::time::Duration;

use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ConnectionProperties};
use resonant_common::join::MemoryLeaseStore;
use resonant_queue::{ErrorKind, PartitionedQueue, RabbitMq};
use resonant_testkit::FaultProxy;
use tokio::time::{Instant, sleep, timeout};

use super::support::{LIMIT, Seen, publish, queue, rabbit, until, work};
use super::{broker, node};

/// Publishes and handles a thousand messages of ten keys, with a fault in the middle: all are handled, in order.
async fn survives(name: &str, queue: &PartitionedQueue<u64>, fault: impl AsyncFnOnce()) {
    let seen = Seen::default();
    let (worker, check) = work(queue, &seen).await;
    let publisher = tokio::spawn({
        let queue = queue.clone();
        async move { publish(&queue, 100).await }
    });
    until("the first messages", async || seen.count() > 100).await;
    fault().await;
    let healed = Instant::now();
    let so_far = seen.count();
    // A fast machine may be through with all of them before the last of several faults.
    until("it goes on", async || seen.count() > so_far + 10 || publisher.is_finished()).await;
    println!("FIGURE {name}: goes on {:?} after the fault", healed.elapsed());
    let confirmed = timeout(LIMIT, publisher).await.unwrap().unwrap();
    assert_eq!(confirmed.len(), 1000);
    until("all confirmed are handled", async || seen.count() == 1000).await;
    seen.assert_in_order();
    assert!(check.report().in_order(), "{:?}", check.report());
    worker.drain().await.unwrap();
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_cut_and_silence() {
    let broker = broker().await;
    let vhost = broker.vhost().await.unwrap();
    let proxy = FaultProxy::start(broker.node(0).address()).await.unwrap();
    let rabbit = RabbitMq::connect([broker.node(0).url_through(&proxy, vhost.name())])
        .leases(std::sync::Arc::new(MemoryLeaseStore::new()))
        .heartbeat(Duration::from_secs(1))
        .confirm_timeout(Duration::from_secs(3))
        .await
        .unwrap();
    let queue = queue(rabbit, 2).await;
    survives("TCP cut, refused, silent", &queue, async || {
        proxy.cut().await.unwrap();
        sleep(Duration::from_millis(50)).await;
        proxy.refuse().await.unwrap();
        proxy.cut().await.unwrap();
        sleep(Duration::from_millis(300)).await;
        // Neither side is told: heartbeats must notice.
        proxy.heal().await.unwrap();
        sleep(Duration::from_millis(300)).await;
        proxy.black_hole().await.unwrap();
        sleep(Duration::from_secs(4)).await;
        proxy.cut().await.unwrap();
        proxy.heal().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broker_restarted_in_order() {
    let (server, node) = node().await;
    let vhost = server.vhost().await.unwrap();
    let queue = queue(rabbit(&vhost, Duration::from_secs(5)).await, 2).await;
    survives("broker restarted", &queue, async || {
        node.stop().await.unwrap();
        node.start().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_and_connections_closed_by_the_server() {
    let vhost = broker().await.vhost().await.unwrap();
    let queue = queue(rabbit(&vhost, Duration::from_secs(5)).await, 2).await;
    survives("channels, then connections closed by the server", &queue, async || {
        assert!(vhost.close_channels().await.unwrap() > 0);
        sleep(Duration::from_millis(100)).await;
        assert!(vhost.close_connections().await.unwrap() > 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_cancelled_by_the_server() {
    let vhost = broker().await.vhost().await.unwrap();
    let queue = queue(rabbit(&vhost, Duration::from_secs(5)).await, 2).await;
    survives("consumers cancelled", &queue, async || {
        for partition in ["faults.p.0", "faults.p.1"] {
            assert_eq!(vhost.cancel_consumers(partition).await.unwrap(), 1, "{partition}");
        }
    })
    .await;
}

async fn operator(url: &str) -> (Connection, Channel) {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

/// What a deleted queue held is gone with it; everything after is stored and handled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_queues_are_created_again() {
    let vhost = broker().await.vhost().await.unwrap();
    let queue = queue(rabbit(&vhost, Duration::from_secs(5)).await, 2).await;
    let seen = Seen::default();
    let (worker, _) = work(&queue, &seen).await;
    queue.publish_many(0..20).await.unwrap();
    until("the first messages", async || seen.count() == 20).await;
    let (_connection, channel) = operator(&vhost.url()).await;
    for name in ["p.0", "p.1", "dead", "due", "delay.0", "delay.3"] {
        let name = format!("faults.{name}");
        channel.queue_delete(name.into(), QueueDeleteOptions::default()).await.unwrap();
    }
    let deleted = Instant::now();
    let mut number = 100;
    until("publishing goes on", async || {
        number += 10;
        queue.publish(&number).await.is_ok()
    })
    .await;
    until("handling goes on", async || seen.all().contains(&number)).await;
    println!("FIGURE queues deleted: goes on {:?} after the fault", deleted.elapsed());
    // Delayed ones find their queues, too.
    let options = resonant_queue::PublishOptions::new().delay(Duration::from_millis(300));
    until("delaying goes on", async || queue.publish_with(&5001, options.clone()).await.is_ok())
        .await;
    until("delayed ones fall due", async || seen.all().contains(&5001)).await;
    let depth = async || queue.depth().await;
    until("all is counted", async || depth().await.is_ok_and(|depth| depth.dead == 0)).await;
    worker.drain().await.unwrap();
}

/// Told not to create, it says what is missing, and goes on once somebody has made it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_creation_a_missing_queue_is_an_error_that_names_it() {
    let vhost = broker().await.vhost().await.unwrap();
    let leases = std::sync::Arc::new(MemoryLeaseStore::new());
    let looking = || RabbitMq::connect([vhost.url()]).leases(leases.clone()).create_queues(false);
    let builder = PartitionedQueue::<u64>::builder("faults").partitions(1).key(|n: &u64| n % 10);
    let refused = builder.backend(looking().await.unwrap()).build().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound, "{refused}");
    assert!(refused.to_string().contains("faults.log"), "{refused}");

    // Somebody with the permission makes them.
    queue(rabbit(&vhost, LIMIT).await, 1).await.close().await;
    let queue = queue(looking().await.unwrap(), 1).await;
    let seen = Seen::default();
    let (worker, _) = work(&queue, &seen).await;
    queue.publish(&1).await.unwrap();
    until("it is handled", async || seen.count() == 1).await;
    let (_connection, channel) = operator(&vhost.url()).await;
    let deleted = QueueDeleteOptions::default();
    channel.queue_delete("faults.p.0".into(), deleted).await.unwrap();
    let refused = queue.publish(&11).await.unwrap_err();
    assert_eq!((refused.kind(), refused.is_transient()), (ErrorKind::NotFound, false), "{refused}");
    assert!(refused.to_string().contains("faults.p.0"), "{refused}");
    // Long enough for the broker to tell the consumers, see `traps`.
    sleep(Duration::from_secs(1)).await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare("faults.p.0".into(), options, arguments).await.unwrap();
    until("publishing goes on", async || queue.publish(&21).await.is_ok()).await;
    until("handling goes on", async || seen.all().contains(&21)).await;
    worker.drain().await.unwrap();
}
