//! What falls due for queues that are not there.

use std::sync::Arc;
use std::time::Duration;

use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use resonant_common::join::MemoryLeaseStore;
use resonant_queue::{Key, PublishOptions, RabbitMq};
use tokio::time::sleep;

use super::broker;
use super::support::{LIMIT, Seen, queue, rabbit, until, work};

const PARTITIONS: u32 = 4;

fn partition(number: u64) -> u32 {
    Key::from(number % 10).partition(PARTITIONS)
}

async fn operator(url: &str) -> (Connection, Channel) {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    (connection, channel)
}

/// One partition's queue is missing and is not to be made: what falls due for it waits until somebody makes it, and what falls
/// due for the others comes, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_falls_due_for_a_missing_queue_repeats_nothing() {
    let vhost = broker().await.vhost().await.unwrap();
    queue(rabbit(&vhost, LIMIT).await, PARTITIONS).await.close().await;
    let leases = Arc::new(MemoryLeaseStore::new());
    let looking = RabbitMq::connect([vhost.url()]).leases(leases).create_queues(false);
    let queue = queue(looking.await.unwrap(), PARTITIONS).await;
    let seen = Seen::default();
    let (worker, _) = work(&queue, &seen).await;
    queue.publish_many(0..10).await.unwrap();
    until("all is handled", async || seen.count() == 10).await;
    // Some fall due together with those of the missing one, some later.
    let mut total = 10;
    for turn in 1..=4 {
        for number in 0..10 {
            let delay = Duration::from_millis(4000 + 300 * turn);
            let options = PublishOptions::new().delay(delay);
            queue.publish_with(&(turn * 10 + number), options).await.unwrap();
            total += 1;
        }
    }
    let missing = partition(0);
    let name = format!("faults.p.{missing}");
    let (_connection, channel) = operator(&vhost.url()).await;
    channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    let of_others = (0..50).filter(|number| *number < 10 || partition(*number) != missing).count();
    until("what is of the others comes", async || seen.count() == of_others).await;
    // Much longer than what was not stored takes to be sent again.
    sleep(Duration::from_secs(2)).await;
    assert_eq!(seen.all().len(), of_others, "each came once");
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(name.as_str().into(), options, arguments).await.unwrap();
    until("the others come, too", async || seen.count() == total).await;
    until("all is settled", async || queue.depth().await.is_ok_and(|it| it.unfinished() == 0))
        .await;
    worker.drain().await.unwrap();
    assert_eq!(seen.all().len(), total, "each came once");
    seen.assert_in_order();
}

/// Another program publishes delayed messages that name no partition of the queue: they become dead letters, hold up
/// nobody, and a redrive brings them to the partition of their key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_falls_due_for_no_partition_is_a_dead_letter() {
    let vhost = broker().await.vhost().await.unwrap();
    let queue = queue(rabbit(&vhost, LIMIT).await, PARTITIONS).await;
    let seen = Seen::default();
    let (worker, check) = work(&queue, &seen).await;
    queue.publish_many(0..10).await.unwrap();
    until("all is handled", async || seen.count() == 10).await;
    let (_connection, channel) = operator(&vhost.url()).await;
    for (number, partition) in [(101, Some(9)), (102, None), (103, Some(-1))] {
        let mut headers = FieldTable::default();
        let key = (number % 10).to_string();
        headers.insert("resonant-key".into(), AMQPValue::LongString(key.into()));
        headers.insert("resonant-due".into(), AMQPValue::LongLongInt(1_700_000_000_000));
        if let Some(partition) = partition {
            headers.insert("resonant-partition".into(), AMQPValue::LongInt(partition));
        }
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_message_id(format!("other-{number}").into())
            .with_headers(headers);
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let body = number.to_string();
        let queue = "faults.due".into();
        let sent = channel.basic_publish("".into(), queue, options, body.as_bytes(), properties);
        assert!(sent.await.unwrap().await.unwrap().is_ack());
    }
    let delayed = PublishOptions::new().delay(Duration::from_millis(100));
    for number in 10..20 {
        queue.publish_with(&number, delayed.clone()).await.unwrap();
    }
    until("the others come", async || seen.count() == 20).await;
    until("they are dead letters", async || queue.depth().await.is_ok_and(|it| it.dead == 3)).await;
    let letters = queue.dead_letters(10).await.unwrap();
    for letter in &letters {
        assert!(letter.error.contains("partition"), "{letter:?}");
        assert_eq!(letter.key.as_deref().map(str::len), Some(1));
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(seen.all().len(), 20, "each came once");
    assert_eq!(queue.redrive(10).await.unwrap(), 3);
    until("they come", async || seen.count() == 23).await;
    worker.drain().await.unwrap();
    assert_eq!(seen.all().len(), 23);
    assert!(check.report().in_order(), "{:?}", check.report());
}
