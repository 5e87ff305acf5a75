//! What RabbitMQ 3.10 and lapin do that the engine is built around. If one of these changes, so must the engine.

use std::time::Duration;

use futures::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ChannelFlowOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer};
use resonant_testkit::rabbitmq::Vhost;
use tokio::time::timeout;

use super::broker;
use super::support::LIMIT;

const SOON: Duration = Duration::from_secs(20);
const QUIET: Duration = Duration::from_millis(150);

struct Client {
    vhost: Vhost,
    connection: Connection,
    channel: Channel,
}

async fn client() -> Client {
    let vhost = broker().await.vhost().await.unwrap();
    let connection =
        Connection::connect(&vhost.url(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    Client { vhost, connection, channel }
}

impl Client {
    async fn declare(&self, queue: &str, kind: &str, more: &[(&str, AMQPValue)]) -> u32 {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
        for (name, value) in more {
            arguments.insert((*name).into(), value.clone());
        }
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let declared = self.channel.queue_declare(queue.into(), options, arguments).await;
        declared.unwrap().message_count()
    }

    async fn publish(&self, queue: &str, body: &str) -> Confirmation {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let properties = BasicProperties::default().with_delivery_mode(2);
        let sent = self.channel.basic_publish(
            "".into(),
            queue.into(),
            options,
            body.as_bytes(),
            properties,
        );
        timeout(SOON, sent.await.unwrap()).await.unwrap().unwrap()
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> (Channel, Consumer) {
        self.consume_from(queue, prefetch, FieldTable::default()).await
    }

    async fn consume_from(
        &self,
        queue: &str,
        prefetch: u16,
        from: FieldTable,
    ) -> (Channel, Consumer) {
        let channel = self.connection.create_channel().await.unwrap();
        channel.basic_qos(prefetch, BasicQosOptions::default()).await.unwrap();
        let options = BasicConsumeOptions::default();
        let consumer = channel.basic_consume(queue.into(), "c".into(), options, from).await;
        (channel, consumer.unwrap())
    }
}

async fn next(consumer: &mut Consumer) -> Delivery {
    timeout(SOON, consumer.next()).await.unwrap().unwrap().unwrap()
}

async fn bodies(consumer: &mut Consumer, count: usize) -> Vec<u64> {
    let mut bodies = Vec::new();
    for _ in 0..count {
        bodies.push(String::from_utf8(next(consumer).await.data).unwrap().parse().unwrap());
    }
    bodies
}

fn single() -> [(&'static str, AMQPValue); 1] {
    [("x-single-active-consumer", AMQPValue::Boolean(true))]
}

/// What a lost channel gives back comes in its old order and before what was never delivered, as long as every consumer
/// takes as many as the one before could hold. One that takes fewer turns the order round.
#[tokio::test]
async fn returned_messages_keep_their_order_only_with_a_constant_prefetch() {
    for (second, kept) in [(8, true), (3, false)] {
        let client = client().await;
        client.declare("q", "quorum", &single()).await;
        for body in 1..=12 {
            client.publish("q", &body.to_string()).await;
        }
        let (channel, mut consumer) = client.consume("q", 8).await;
        assert_eq!(bodies(&mut consumer, 8).await, [1, 2, 3, 4, 5, 6, 7, 8]);
        // Acknowledged out of order: the third by its tag.
        channel.basic_ack(3, BasicAckOptions::default()).await.unwrap();
        let again = client.consume("q", second).await;
        channel.close(200, "".into()).await.unwrap();
        let (channel, mut consumer) = again;
        bodies(&mut consumer, usize::from(second)).await;
        channel.close(200, "".into()).await.unwrap();
        let (_channel, mut consumer) = client.consume("q", 100).await;
        let all = bodies(&mut consumer, 11).await;
        assert_eq!(all == [1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12], kept, "{all:?}");
    }
}

/// A second consumer of a queue with a single active one gets nothing until the first one's channel is gone, and then
/// what that one held. A cancelled consumer would hand over too early.
#[tokio::test]
async fn a_standby_gets_what_the_active_one_held_once_its_channel_is_gone() {
    let client = client().await;
    client.declare("q", "quorum", &single()).await;
    let (first, mut active) = client.consume("q", 2).await;
    for body in 1..=4 {
        client.publish("q", &body.to_string()).await;
    }
    assert_eq!(bodies(&mut active, 2).await, [1, 2]);
    let (_second, mut standby) = client.consume("q", 4).await;
    assert!(timeout(QUIET, standby.next()).await.is_err(), "it waits");
    first.close(200, "".into()).await.unwrap();
    assert_eq!(bodies(&mut standby, 4).await, [1, 2, 3, 4]);
}

/// A mistake closes the channel and all that is on it, not the connection; acknowledgements on it are lost without an
/// error of their own unless something is asked afterwards.
#[tokio::test]
async fn a_mistake_closes_all_of_a_channel() {
    let client = client().await;
    client.declare("q", "quorum", &[]).await;
    client.publish("q", "1").await;
    let (channel, mut consumer) = client.consume("q", 4).await;
    let delivery = next(&mut consumer).await;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare("nowhere".into(), passive, FieldTable::default()).await.unwrap_err();
    // Closed: the acknowledgement says false or an error, never that it was applied.
    assert!(!delivery.ack(BasicAckOptions::default()).await.unwrap_or(false));
    let flow = channel.channel_flow(ChannelFlowOptions { active: true }).await;
    flow.expect_err("asking tells");
    assert!(client.connection.status().connected());
    let (_channel, mut consumer) = client.consume("q", 4).await;
    assert!(next(&mut consumer).await.redelivered);
}

/// An unroutable message is confirmed as if it were stored, and comes back beside the confirm.
#[tokio::test]
async fn an_unroutable_message_is_confirmed_with_the_message() {
    let client = client().await;
    let confirmed = client.publish("nowhere", "1").await;
    assert!(confirmed.is_ack());
    assert!(confirmed.take_message().is_some());
}

/// A consumer of a deleted queue ends without an error.
#[tokio::test]
async fn a_deleted_queue_ends_its_consumers_quietly() {
    let client = client().await;
    client.declare("q", "quorum", &[]).await;
    let (_channel, mut consumer) = client.consume("q", 4).await;
    client.channel.queue_delete("q".into(), Default::default()).await.unwrap();
    assert!(timeout(SOON, consumer.next()).await.unwrap().is_none());
}

/// A queue that is deleted and made again at once: its consumer is moved to the new one without a word, and gets nothing
/// from it.
#[tokio::test]
async fn a_queue_made_again_at_once_leaves_its_consumer_mute() {
    let client = client().await;
    let other = Connection::connect(&client.vhost.url(), ConnectionProperties::default()).await;
    let operator = other.unwrap().create_channel().await.unwrap();
    client.declare("q", "quorum", &[]).await;
    let (_channel, mut consumer) = client.consume("q", 4).await;
    operator.queue_delete("q".into(), Default::default()).await.unwrap();
    client.declare("q", "quorum", &[]).await;
    client.publish("q", "1").await;
    assert!(timeout(QUIET, consumer.next()).await.is_err(), "neither an end nor a message");
}

/// A stream gives every reader all of it in one order, its own writes included.
#[tokio::test]
async fn a_stream_gives_every_reader_one_order() {
    let client = client().await;
    client.declare("log", "stream", &[]).await;
    for body in 1..=3 {
        client.publish("log", &body.to_string()).await;
    }
    let first = || {
        let mut from = FieldTable::default();
        from.insert("x-stream-offset".into(), AMQPValue::LongString("first".into()));
        from
    };
    let (_one, mut one) = client.consume_from("log", 100, first()).await;
    let (_two, mut two) = client.consume_from("log", 100, first()).await;
    client.publish("log", "4").await;
    assert_eq!(bodies(&mut one, 4).await, [1, 2, 3, 4]);
    assert_eq!(bodies(&mut two, 4).await, [1, 2, 3, 4]);
    let offset = client.publish("log", "5").await;
    assert!(offset.is_ack());
    let delivery = next(&mut one).await;
    let headers = delivery.properties.headers().clone().unwrap();
    assert!(headers.inner().contains_key("x-stream-offset"), "{headers:?}");
}

/// Who publishes on a channel beside others may be told what became of theirs: a message that came back is handed to any
/// of those that are confirmed together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishers_that_share_a_channel_get_the_returns_of_each_other() {
    let client = client().await;
    client.declare("there", "quorum", &[]).await;
    let turn = async |channel: Channel, queue: &'static str| {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let send = || {
            let properties = BasicProperties::default().with_delivery_mode(2);
            channel.basic_publish("".into(), queue.into(), options, b"1", properties)
        };
        let sent = futures::future::try_join_all((0..50).map(|_| send())).await.unwrap();
        let confirms = futures::future::try_join_all(sent).await.unwrap();
        let back = |it: &&Confirmation| matches!(it, Confirmation::Ack(Some(_)));
        confirms.iter().filter(back).count()
    };
    let mixed = async {
        loop {
            let channel = &client.channel;
            let tasks = futures::future::join_all(
                ["there", "gone", "there", "gone"].map(|queue| turn(channel.clone(), queue)),
            );
            if tasks.await[0] > 0 {
                return;
            }
        }
    };
    // It takes a confirm of several at once, and comes by chance.
    timeout(LIMIT, mixed).await.expect("it is told of a message that is not its own");
}
