//! Processes that are frozen, thawed or killed in the middle of a message, and workers that come: who owns what, and since
//! when. This binary runs itself as the other process.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use resonant_common::join::MemoryLeaseStore;
use resonant_queue::{
    Delivery, Durability, HandlerError, PartitionedQueue, PublishOptions, RabbitMq, Sqlite,
};
use tokio::time::{Instant, sleep, timeout};

use super::broker;
use crate::other_process::{OtherProcess, hold_messages};
use crate::servers::{LIMIT, until};

const CHILD: &str = "RESONANT_QUEUE_RABBIT_TAKEOVER";
const LEASE: Duration = Duration::from_secs(2);
/// How long an owner that stops waits until its acknowledgements are applied.
const SETTLING: Duration = Duration::from_secs(3);
const HEARTBEAT: Duration = Duration::from_secs(2);

/// Leases are in a file both processes know.
async fn open(url: &str, directory: &Path) -> PartitionedQueue<u64> {
    let leases = Sqlite::builder(directory.join("leases.db")).durability(Durability::Normal);
    let leases = leases.open().await.unwrap().leases();
    let rabbit = RabbitMq::connect([url]).leases(leases).heartbeat(HEARTBEAT).await.unwrap();
    let builder = PartitionedQueue::builder("takeover").partitions(1).key(|_: &u64| "one");
    builder.lease_ttl(LEASE).backend(rabbit).build().await.unwrap()
}

/// The child: begins messages, and finishes none before it is told to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(argument) = std::env::var(CHILD) else { return };
    let (url, directory) = argument.split_once(' ').unwrap();
    let queue = open(url, Path::new(directory)).await;
    hold_messages(queue, Path::new(directory)).await;
}

async fn takes_over(freezes: bool) {
    let vhost = broker().await.vhost().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let queue = open(&vhost.url(), directory.path()).await;
    queue.publish_many(0..5).await.unwrap();
    let argument = format!("{} {}", vhost.url(), directory.path().display());
    let mut child = OtherProcess::run("servers::rabbitmq::takeover::child", CHILD, &argument);
    let began = child.line_with("began").await;
    assert!(began.contains("began 0 at "), "{began}");
    let epoch: u64 = began.split(" at ").nth(1).unwrap().trim().parse().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let handler = {
        let seen = Arc::clone(&seen);
        async move |delivery: Delivery<u64>| {
            assert!(delivery.epoch() > epoch, "it owns what the child did");
            seen.lock().unwrap().push(*delivery.message());
            Ok::<(), HandlerError>(())
        }
    };
    // It waits for a partition before the other one ends.
    let worker = queue.worker(handler).start().await.unwrap();
    let ended = Instant::now();
    if freezes {
        child.freeze().await
    } else {
        child.kill().await
    }
    until("it is taken over", async || !seen.lock().unwrap().is_empty()).await;
    let how = if freezes { "frozen" } else { "killed" };
    println!(
        "FIGURE a {how} owner was taken over {:?} after it ended (lease {LEASE:?}, heartbeat {HEARTBEAT:?})",
        ended.elapsed()
    );
    until("all is handled", async || seen.lock().unwrap().len() == 5).await;
    assert_eq!(*seen.lock().unwrap(), [0, 1, 2, 3, 4]);
    if freezes {
        std::fs::write(directory.path().join("go on"), "").unwrap();
        child.thaw().await;
        child.line_with("fenced").await;
        queue.publish(&5).await.unwrap();
        until("it goes on", async || seen.lock().unwrap().len() >= 6).await;
        assert_eq!(*seen.lock().unwrap(), [0, 1, 2, 3, 4, 5], "the zombie changed nothing");
        child.kill().await;
    }
    worker.drain().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_owner_is_taken_over() {
    takes_over(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_owner_is_taken_over_and_refused_when_it_thaws() {
    takes_over(true).await;
}

/// A second worker comes: it gets half of the partitions. Those that stay are not opened anew, so nothing of them pauses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebalance_is_fair_and_leaves_partitions_alone_that_stay() {
    let vhost = broker().await.vhost().await.unwrap();
    let leases = Arc::new(MemoryLeaseStore::new());
    let rabbit = RabbitMq::connect([vhost.url()]).creation_wait(Duration::ZERO).leases(leases);
    let queue: PartitionedQueue<u64> = PartitionedQueue::builder("balance")
        .partitions(8)
        .backend(rabbit.await.unwrap())
        .build()
        .await
        .unwrap();
    // By partition: who handled last, at which epochs, and the longest pause.
    type Turns = BTreeMap<u32, (usize, Vec<u64>, Instant, Duration)>;
    let turns: Arc<Mutex<Turns>> = Arc::default();
    let start = async |name: usize| {
        let turns = Arc::clone(&turns);
        let handler = async move |delivery: Delivery<u64>| {
            let now = Instant::now();
            let mut turns = turns.lock().unwrap();
            let fresh = || (name, Vec::new(), now, Duration::ZERO);
            let turn = turns.entry(delivery.partition()).or_insert_with(fresh);
            turn.3 = turn.3.max(now - turn.2);
            (turn.0, turn.2) = (name, now);
            if turn.1.last() != Some(&delivery.epoch()) {
                turn.1.push(delivery.epoch());
            }
            Ok::<(), HandlerError>(())
        };
        queue.worker(handler).start().await.unwrap()
    };
    let load = tokio::spawn({
        let queue = queue.clone();
        async move {
            for number in 0.. {
                let unkeyed = PublishOptions::new().unkeyed();
                if queue.publish_with(&number, unkeyed).await.is_err() {
                    return;
                }
                sleep(Duration::from_millis(1)).await;
            }
        }
    });
    let first = start(0).await;
    until("all partitions are served", async || turns.lock().unwrap().len() == 8).await;
    turns.lock().unwrap().clear();
    let came = Instant::now();
    let second = start(1).await;
    let of = |name| turns.lock().unwrap().values().filter(|turn| turn.0 == name).count();
    until("shares are even", async || of(0) == 4 && of(1) == 4).await;
    println!(
        "FIGURE shares of 8 partitions were 4 and 4 {:?} after a second worker came",
        came.elapsed()
    );
    sleep(Duration::from_secs(1)).await;
    let (mut stayed, mut moved) = (Duration::ZERO, Duration::ZERO);
    for (owner, epochs, _, pause) in turns.lock().unwrap().values() {
        match owner {
            0 => {
                assert_eq!(epochs.len(), 1, "it was opened once");
                stayed = stayed.max(*pause);
            }
            _ => moved = moved.max(*pause),
        }
    }
    println!(
        "FIGURE the longest pause of a partition that stayed was {stayed:?}, of one that moved {moved:?}"
    );
    load.abort();
    first.drain().await.unwrap();
    second.drain().await.unwrap();
}

/// An owner that stops in order holds hundreds of messages while another consumer waits: that one is given these before all
/// later ones, and none that was finished.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_partition_gets_it_in_order_after_a_graceful_stop() {
    // An owner whose broker is too busy gives up waiting until its acknowledgements are applied, and what is not comes again.
    for _ in 0..5 {
        if hands_over_in_order().await {
            return;
        }
    }
    panic!("no owner could stop in order");
}

/// Whether the owner had time to stop in order.
async fn hands_over_in_order() -> bool {
    const COUNT: u64 = 1500;
    let vhost = broker().await.vhost().await.unwrap();
    let leases = Arc::new(MemoryLeaseStore::new());
    let rabbit = RabbitMq::connect([vhost.url()]).creation_wait(Duration::ZERO).leases(leases);
    let builder = PartitionedQueue::<u64>::builder("waits").partitions(1).key(|n: &u64| n % 7);
    let queue = builder.backend(rabbit.await.unwrap()).build().await.unwrap();
    queue.publish_many(0..COUNT).await.unwrap();
    let finished = Arc::new(Mutex::new(BTreeSet::new()));
    let handler = {
        let finished = Arc::clone(&finished);
        async move |delivery: Delivery<u64>| {
            // Keys go on at different paces, so that what is finished is no prefix.
            sleep(Duration::from_millis(1 + delivery.message() % 7)).await;
            finished.lock().unwrap().insert(delivery.into_message());
            Ok::<(), HandlerError>(())
        }
    };
    let worker = queue.worker(handler).start().await.unwrap();
    let connection =
        Connection::connect(&vhost.url(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.basic_qos(512, BasicQosOptions::default()).await.unwrap();
    let options = BasicConsumeOptions::default();
    let asked =
        channel.basic_consume("waits.p.0".into(), "".into(), options, FieldTable::default());
    let mut waiting = asked.await.unwrap();
    until("some are finished", async || finished.lock().unwrap().len() > 300).await;
    let began = Instant::now();
    worker.drain().await.unwrap();
    let in_time = began.elapsed() < SETTLING;
    let finished = finished.lock().unwrap().clone();
    let (mut rest, mut all) = (Vec::new(), finished.clone());
    while all.len() < COUNT as usize {
        let next = timeout(LIMIT, waiting.next()).await.expect("all come").unwrap().unwrap();
        let number = String::from_utf8(next.data.clone()).unwrap().parse::<u64>().unwrap();
        rest.push(number);
        all.insert(number);
        next.ack(BasicAckOptions::default()).await.unwrap();
    }
    if in_time {
        assert!(rest.is_sorted(), "in their old order: {rest:?}");
        assert!(rest.iter().all(|number| !finished.contains(number)), "none comes twice");
    }
    in_time
}
