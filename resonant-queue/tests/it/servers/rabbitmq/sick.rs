//! A partition's queue that neither confirms nor refuses, as one that has lost its majority: the others do not notice.

use std::time::Duration;

use resonant_queue::{Delivery, HandlerError, Key, PartitionedQueue, PublishOptions};
use resonant_testkit::rabbitmq::{RabbitNode, Vhost};
use tokio::time::{Instant, timeout};

use super::node;
use super::support::{LIMIT, Seen, queue, rabbit, until, work};

const PARTITIONS: u32 = 4;
const CONFIRM: Duration = Duration::from_secs(12);

fn partition(number: u64) -> u32 {
    Key::from(number % 10).partition(PARTITIONS)
}

/// The queue's process, as an Erlang expression.
fn process(vhost: &Vhost, partition: u32) -> String {
    format!("whereis('{}_faults.p.{partition}')", vhost.name())
}

/// Those of the first ten numbers whose queues answer, where that of 0 does not.
fn healthy() -> impl Iterator<Item = u64> {
    (0..10).filter(|number| partition(*number) != partition(0))
}

/// A queue whose partition of 0 hangs, and the process to be resumed.
async fn with_a_sick_partition(
    vhost: &Vhost,
    node: &RabbitNode,
) -> (PartitionedQueue<u64>, String) {
    let queue = queue(rabbit(vhost, CONFIRM).await, PARTITIONS).await;
    for number in 0..10 {
        queue.publish(&number).await.unwrap();
    }
    let process = process(vhost, partition(0));
    node.eval(&format!("sys:suspend({process}).")).await.unwrap();
    (queue, process)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_does_not_answer_holds_up_no_other() {
    let (server, node) = node().await;
    let vhost = server.vhost().await.unwrap();
    let (queue, process) = with_a_sick_partition(&vhost, &node).await;
    let healthy = healthy().next().unwrap();
    let sick_one = |turn: u64| {
        let queue = queue.clone();
        tokio::spawn(async move { queue.publish(&(turn * 10)).await })
    };
    let many = tokio::spawn({
        let queue = queue.clone();
        async move { queue.publish_many((1..=1000u64).map(|turn| turn * 10)).await.map(drop) }
    });
    // They come with the others, again and again.
    let (mut hang, mut longest) = (Vec::new(), Duration::ZERO);
    for turn in 1..=150 {
        hang.extend((0..4).map(|of| sick_one(turn * 4 + of)));
        let began = Instant::now();
        queue.publish(&(turn * 10 + healthy)).await.unwrap();
        longest = longest.max(began.elapsed());
    }
    println!("FIGURE beside a queue that does not answer a publish took {longest:?} at most");
    assert!(longest < CONFIRM / 2, "it took {longest:?}");
    // They are told in time, and none of them is told that it is stored.
    for hanging in hang {
        let told = timeout(LIMIT, hanging).await.expect("within the limit").unwrap();
        let error = told.unwrap_err();
        assert!(error.is_transient(), "{error:?}");
    }
    assert!(timeout(LIMIT, many).await.expect("within the limit").unwrap().is_err());
    queue.publish(&healthy).await.unwrap();
    node.eval(&format!("sys:resume({process}).")).await.unwrap();
    until("it answers again", async || queue.publish(&0).await.is_ok()).await;
}

/// Messages that fall due for such a queue hold up none that fall due for others, and come when it answers again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_falls_due_for_a_queue_that_does_not_answer_holds_up_nothing() {
    let (server, node) = node().await;
    let vhost = server.vhost().await.unwrap();
    let queue = queue(rabbit(&vhost, CONFIRM).await, PARTITIONS).await;
    let seen = Seen::default();
    let (worker, _) = work(&queue, &seen).await;
    queue.publish_many(0..10).await.unwrap();
    until("all is handled", async || seen.count() == 10).await;
    let process = process(&vhost, partition(0));
    node.eval(&format!("sys:suspend({process}).")).await.unwrap();
    let later = |millis| PublishOptions::new().delay(Duration::from_millis(millis));
    // Those for the sick one fall due first, and again between the others.
    for turn in 1..=4 {
        for number in 0..10 {
            queue.publish_with(&(turn * 10 + number), later(100 * turn)).await.unwrap();
        }
    }
    let began = Instant::now();
    until("the healthy ones came", async || seen.count() == 10 + 4 * healthy().count()).await;
    let took = began.elapsed();
    println!("FIGURE delayed messages beside a queue that does not answer took {took:?}");
    assert!(took < CONFIRM / 2, "{took:?}");
    node.eval(&format!("sys:resume({process}).")).await.unwrap();
    until("the others come, too", async || seen.count() == 50).await;
    worker.drain().await.unwrap();
    seen.assert_in_order();
}

/// A redrive moves the dead letters of all queues that answer, and says that it could not move the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redrive_moves_what_queues_take_that_answer() {
    let (server, node) = node().await;
    let vhost = server.vhost().await.unwrap();
    let queue = queue(rabbit(&vhost, Duration::from_secs(8)).await, PARTITIONS).await;
    let reject = async |_: Delivery<u64>| Err(HandlerError::reject("no"));
    let worker = queue.worker(reject).start().await.unwrap();
    // More than the broker takes acknowledgements at a time, and what is left is between them.
    queue.publish_many(0..400).await.unwrap();
    until("all are dead letters", async || queue.depth().await.is_ok_and(|it| it.dead == 400))
        .await;
    worker.drain().await.unwrap();
    let process = process(&vhost, partition(0));
    node.eval(&format!("sys:suspend({process}).")).await.unwrap();
    let began = Instant::now();
    let error = queue.redrive(10_000).await.unwrap_err();
    println!(
        "FIGURE a redrive beside a queue that does not answer took {:?}: {error:?}",
        began.elapsed()
    );
    assert!(error.is_transient() && error.may_have_applied(), "{error:?}");
    let sick = partition(0);
    let mut left = Vec::new();
    until("what is left is there again", async || {
        left = queue.dead_letters(10_000).await.unwrap();
        !left.is_empty()
    })
    .await;
    let places: Vec<_> = left.iter().map(|letter| letter.partition).collect();
    assert!(places.iter().all(|place| *place == sick), "{sick} of {places:?}");
    let of_sick = (0..400).filter(|number| partition(*number) == sick).count();
    assert_eq!(left.len(), of_sick, "all that was not moved, and nothing else");
    node.eval(&format!("sys:resume({process}).")).await.unwrap();
    until("the others can be moved", async || queue.redrive(10_000).await.is_ok()).await;
    let seen = Seen::default();
    let (worker, _) = work(&queue, &seen).await;
    until("all are handled", async || seen.count() == 400).await;
    let empty = async || queue.depth().await.is_ok_and(|depth| depth.unfinished() == 0);
    until("nothing is left", empty).await;
    worker.drain().await.unwrap();
    seen.assert_in_order();
    // What is in doubt may come twice, but nothing else.
    let moved = seen.all().into_iter().filter(|number| partition(*number) != sick).count();
    assert_eq!(moved, 400 - of_sick, "moved once");
}

/// Where only a channel hangs, its queues are found to answer over another one, long before the first is given up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_hangs_holds_up_its_queues_for_moments_only() {
    let (server, node) = node().await;
    let vhost = server.vhost().await.unwrap();
    let queue = queue(rabbit(&vhost, CONFIRM).await, PARTITIONS).await;
    queue.publish(&0).await.unwrap();
    node.eval("[sys:suspend(P) || P <- rabbit_channel:list()].").await.unwrap();
    let (began, first) = (Instant::now(), queue.publish(&10));
    let first = tokio::spawn(first);
    // By then it is known that there is no answer.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    for number in 2..5 {
        queue.publish(&(number * 10)).await.unwrap();
    }
    let took = began.elapsed();
    println!("FIGURE a publish beside a channel that hangs took {took:?}");
    assert!(took < CONFIRM * 3 / 4, "{took:?}");
    assert!(!first.is_finished(), "nobody answered the first one");
    first.abort();
}

/// Whoever publishes to queues that answer is never in the company of one that finds out about a queue that does not: none
/// of them hangs with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_finds_out_about_a_queue_takes_nobody_along() {
    let (server, node) = node().await;
    let vhost = server.vhost().await.unwrap();
    let (queue, process) = with_a_sick_partition(&vhost, &node).await;
    let healthy: Vec<u64> = healthy().collect();
    // The first that hang take along whoever flies with them: nobody does.
    let hanging: Vec<_> = (1..=20)
        .map(|turn| {
            let queue = queue.clone();
            tokio::spawn(async move { queue.publish(&(turn * 10)).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let (began, mut count, mut longest) = (Instant::now(), 0, Duration::ZERO);
    while began.elapsed() < CONFIRM {
        let crowd = healthy.iter().flat_map(|of| (0..8).map(move |turn| turn * 10 + of));
        let crowd = crowd.map(|number| {
            let queue = queue.clone();
            async move {
                let began = Instant::now();
                queue.publish(&number).await.unwrap();
                began.elapsed()
            }
        });
        for took in futures::future::join_all(crowd).await {
            (count, longest) = (count + 1, longest.max(took));
        }
    }
    println!("FIGURE {count} publishes beside one that finds out took {longest:?} at most");
    for hang in hanging {
        timeout(LIMIT, hang).await.unwrap().unwrap().unwrap_err();
    }
    node.eval(&format!("sys:resume({process}).")).await.unwrap();
}
