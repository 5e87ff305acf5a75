//! A partition's queue that neither confirms nor refuses, as one that has lost its majority: the others do not notice.

use std::time::Duration;

use resonant_queue::Key;
use resonant_testkit::rabbitmq::Vhost;
use tokio::time::{Instant, timeout};

use super::node;
use super::support::{LIMIT, queue, rabbit, until};

const PARTITIONS: u32 = 4;
const CONFIRM: Duration = Duration::from_secs(12);

fn partition(number: u64) -> u32 {
    Key::from(number % 10).partition(PARTITIONS)
}

/// The queue's process, as an Erlang expression.
fn process(vhost: &Vhost, partition: u32) -> String {
    format!("whereis('{}_faults.p.{partition}')", vhost.name())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_does_not_answer_holds_up_no_other() {
    let (server, node) = node().await;
    let vhost = server.vhost().await.unwrap();
    let queue = queue(rabbit(&vhost, CONFIRM).await, PARTITIONS).await;
    for number in 0..10 {
        queue.publish(&number).await.unwrap();
    }
    let sick = partition(0);
    let healthy = (0..10).find(|number| partition(*number) != sick).unwrap();
    let process = process(&vhost, sick);
    node.eval(&format!("sys:suspend({process}).")).await.unwrap();
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
