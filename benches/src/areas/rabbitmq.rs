//! `PartitionedQueue` on a RabbitMQ of one node beside raw lapin on quorum queues of the same kind.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt;
use futures::future::{join_all, try_join_all};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use resonant_common::hash::key_hash;
use resonant_common::join::MemoryLeaseStore;
use resonant_queue::{PartitionedQueue, RabbitMq};
use resonant_testkit::rabbitmq::Vhost;
use tokio::runtime::Runtime;
use tokio::sync::Notify;

use super::queue::peers::Peer;
use super::queue::{By, Task, drain, fill, wake};
use crate::Outcome;
use crate::harness::{Case, now, runtime, storm};
use crate::report::Report;

const PARTITIONS: u32 = 16;
/// Messages a consumer finds.
const STORED: usize = 10_000;
const TASKS: usize = 8;
/// Who publishes while others consume.
const PUBLISHERS: usize = 4;

pub(super) fn run(report: &mut Report) -> Outcome {
    let names = [
        "queue.rabbitmq.vs_lapin",
        "queue.rabbitmq.publish",
        "queue.rabbitmq.consume",
        "queue.rabbitmq.wake_p99_us",
        "queue.rabbitmq.vs_apalis",
    ];
    if !names.iter().any(|name| report.wants(name)) {
        return Ok(());
    }
    let bench = Bench::start()?;
    let about = "RabbitMQ, confirmed publishes, hundreds by 8 tasks";
    Case::new(names[0], about, "messages")
        .goal_against("lapin", 0.85)
        .turns(15)
        .run("PartitionedQueue", || Ok(bench.publish_many()))
        .run("lapin", || Ok(bench.raw_publish_many()))
        .measure(report)?;
    let about = "RabbitMQ, confirmed publishes, one by one by 256 tasks";
    Case::new(names[1], about, "messages")
        .turns(15)
        .run("PartitionedQueue", || Ok(bench.publish()))
        .run("lapin", || Ok(bench.raw_publish()))
        .measure(report)?;
    let about = "RabbitMQ, consume and settle";
    Case::new(names[2], about, "messages")
        .turns(3)
        .run("PartitionedQueue", || bench.consume())
        .run("lapin", || bench.raw_consume())
        .measure(report)?;
    if report.wants(names[4])
        && let Some(mut apalis) = Peer::start("rabbitmq", &bench.vhost.url())?
    {
        let about = "RabbitMQ, publish by hundreds and consume at once";
        Case::new(names[4], about, "messages")
            .goal(3.0)
            .turns(5)
            .run("PartitionedQueue", || bench.through())
            .run("apalis-amqp", || apalis.turn())
            .measure(report)?;
    }
    wake::case(names[3], "RabbitMQ, a handler that waits gets a message of another process")
        .goal(3000.0)
        .run("PartitionedQueue", || bench.wake())
        .measure(report)
}

struct Bench {
    runtime: Runtime,
    vhost: Vhost,
    queue: PartitionedQueue<Task>,
    connection: Connection,
    channels: Vec<Channel>,
    opened: AtomicUsize,
}

fn raw_name(of: &str, key: &str) -> ShortString {
    format!("{of}.{}", key_hash(key.as_bytes()) % u64::from(PARTITIONS)).as_str().into()
}

impl Bench {
    fn start() -> Outcome<Self> {
        let runtime = runtime()?;
        let (vhost, queue, connection, channels) = runtime.block_on(async {
            let server = resonant_testkit::RabbitMq::start().await?;
            let vhost = server.vhost().await?;
            let queue = open(&vhost, "published").await?;
            let connection =
                Connection::connect(&vhost.url(), ConnectionProperties::default()).await?;
            declare(&connection, "raw").await?;
            let mut channels = Vec::new();
            for _ in 0..TASKS {
                let channel = connection.create_channel().await?;
                channel.confirm_select(ConfirmSelectOptions::default()).await?;
                channels.push(channel);
            }
            Outcome::Ok((vhost, queue, connection, channels))
        })?;
        Ok(Self { runtime, vhost, queue, connection, channels, opened: AtomicUsize::new(0) })
    }

    fn publish_many(&self) -> f64 {
        storm(&self.runtime, TASKS, |task, weather| {
            let queue = self.queue.clone();
            async move {
                let messages = hundred(task);
                let mut done = 0;
                while weather.lasts() {
                    if let Ok(receipts) = queue.publish_many(&messages).await {
                        done += receipts.len() as u64;
                    }
                }
                done
            }
        })
    }

    /// A channel for each task; what is on its way is confirmed together.
    fn raw_publish_many(&self) -> f64 {
        storm(&self.runtime, TASKS, |task, weather| {
            let channel = self.channels[task].clone();
            async move {
                let messages = hundred(task);
                let mut done = 0;
                while weather.lasts() {
                    done += send(&channel, &messages, "raw").await.unwrap_or_default();
                }
                done
            }
        })
    }

    fn publish(&self) -> f64 {
        storm(&self.runtime, 256, |task, weather| {
            let queue = self.queue.clone();
            async move {
                let (message, mut done) = (Task::new(task), 0);
                while weather.lasts() {
                    done += u64::from(queue.publish(&message).await.is_ok());
                }
                done
            }
        })
    }

    fn raw_publish(&self) -> f64 {
        storm(&self.runtime, 256, |task, weather| {
            let channel = self.channels[task % TASKS].clone();
            async move {
                let (message, mut done) = ([Task::new(task)], 0);
                while weather.lasts() {
                    done += send(&channel, &message, "raw").await.unwrap_or_default();
                }
                done
            }
        })
    }

    fn name(&self) -> String {
        format!("consumed-{}", self.opened.fetch_add(1, Ordering::Relaxed))
    }

    fn consume(&self) -> Outcome<f64> {
        self.runtime.block_on(async {
            let queue = open(&self.vhost, &self.name()).await?;
            fill(&queue, 0, STORED).await?;
            let started = now();
            drain(&queue, STORED, By::Message, async { Ok(()) }).await?;
            let took = started.elapsed();
            queue.close().await;
            Ok(STORED as f64 / took.as_secs_f64())
        })
    }

    /// Published by four tasks while 64 handlers run.
    fn through(&self) -> Outcome<f64> {
        self.runtime.block_on(async {
            let queue = open(&self.vhost, &self.name()).await?;
            fill(&queue, 0, 100).await?;
            let started = now();
            drain(&queue, STORED + 100, By::Message, async {
                let publishers: Vec<_> = (0..PUBLISHERS)
                    .map(|task| {
                        let queue = queue.clone();
                        tokio::spawn(async move { fill(&queue, task, STORED / PUBLISHERS).await })
                    })
                    .collect();
                for publisher in publishers {
                    publisher.await??;
                }
                Ok(())
            })
            .await?;
            let took = started.elapsed();
            queue.close().await;
            Ok((STORED + 100) as f64 / took.as_secs_f64())
        })
    }

    fn wake(&self) -> Outcome<f64> {
        self.runtime.block_on(async {
            let leases = Arc::new(MemoryLeaseStore::new());
            let rabbit = RabbitMq::connect([self.vhost.url()]).leases(leases).await?;
            // Each queue has connections of its own, as if it were another process.
            wake::between(rabbit.clone(), rabbit).await
        })
    }

    /// A channel for each queue; each message is acknowledged by itself, as its handler ends.
    fn raw_consume(&self) -> Outcome<f64> {
        self.runtime.block_on(async {
            let name = self.name();
            declare(&self.connection, &name).await?;
            for number in 0..STORED / 100 {
                send(&self.channels[0], &hundred(number), &name).await?;
            }
            let (handled, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
            let started = now();
            let mut consumers = Vec::new();
            for partition in 0..PARTITIONS {
                let channel = self.connection.create_channel().await?;
                channel.basic_qos(512, BasicQosOptions::default()).await?;
                let queue = format!("{name}.{partition}").as_str().into();
                let options = BasicConsumeOptions::default();
                let table = FieldTable::default();
                let mut consumer =
                    channel.basic_consume(queue, ShortString::default(), options, table).await?;
                let (handled, done) = (Arc::clone(&handled), Arc::clone(&done));
                consumers.push(tokio::spawn(async move {
                    while let Some(Ok(delivery)) = consumer.next().await {
                        let task = serde_json::from_slice::<Task>(&delivery.data);
                        let acked = delivery.ack(BasicAckOptions::default()).await;
                        if task.is_ok()
                            && acked.is_ok()
                            && handled.fetch_add(1, Ordering::Relaxed) + 1 == STORED
                        {
                            done.notify_one();
                        }
                    }
                    drop(channel);
                }));
            }
            done.notified().await;
            let took = started.elapsed();
            consumers.iter().for_each(tokio::task::JoinHandle::abort);
            Ok(STORED as f64 / took.as_secs_f64())
        })
    }
}

async fn open(vhost: &Vhost, name: &str) -> Outcome<PartitionedQueue<Task>> {
    let leases = Arc::new(MemoryLeaseStore::new());
    let rabbit = RabbitMq::connect([vhost.url()]).leases(leases).await?;
    let builder = PartitionedQueue::builder(name).partitions(PARTITIONS).partition_key("agent_id");
    Ok(builder.backend(rabbit).build().await?)
}

async fn declare(connection: &Connection, name: &str) -> Outcome {
    let channel = connection.create_channel().await?;
    for partition in 0..PARTITIONS {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let queue = format!("{name}.{partition}").as_str().into();
        channel.queue_declare(queue, options, arguments).await?;
    }
    Ok(())
}

fn hundred(task: usize) -> Vec<Task> {
    (0..100).map(|number| Task::new(task * 100 + number)).collect()
}

/// Writes all, then waits for all; how many were confirmed.
async fn send(channel: &Channel, messages: &[Task], name: &str) -> Outcome<u64> {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let sent = messages.iter().map(async |message| {
        let body = serde_json::to_vec(message)?;
        let properties = BasicProperties::default().with_delivery_mode(2);
        let queue = raw_name(name, &message.agent_id);
        let sent = channel.basic_publish(ShortString::default(), queue, options, &body, properties);
        Outcome::Ok(sent.await?)
    });
    let confirms = join_all(try_join_all(sent).await?).await;
    let stored = confirms.iter().filter(|confirm| confirm.as_ref().is_ok_and(|it| it.is_ack()));
    Ok(stored.count() as u64)
}
