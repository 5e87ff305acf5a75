//! Brokers that die, hang, throw clients out and run out of memory.

use std::sync::Arc;
use std::time::Duration;

use resonant_queue::backend::{Backend, Fetch, QueueSpec, Settlement};
use resonant_queue::{Delivery, ErrorKind, HandlerError, Key, Outgoing};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use super::support::{LIMIT, Seen, publish, queue, rabbit, until, work};
use super::{broker, node};

/// A broker of one node killed and restarted while thousands are published and handled loses none that was confirmed, and keeps the
/// order of each key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_confirmed_is_lost_by_a_broker_that_is_killed() {
    let (rabbit_server, node) = node().await;
    let vhost = rabbit_server.vhost().await.unwrap();
    let queue = queue(rabbit(&vhost, Duration::from_secs(5)).await, 2).await;
    let seen = Seen::default();
    let (worker, check) = work(&queue, &seen).await;
    let publisher = tokio::spawn({
        let queue = queue.clone();
        async move { publish(&queue, 100).await }
    });
    until("the first messages", async || seen.count() > 100).await;
    node.kill().await.unwrap();
    sleep(Duration::from_millis(200)).await;
    assert!(!publisher.is_finished(), "it was killed in the middle");
    node.start().await.unwrap();
    let back = Instant::now();
    let so_far = seen.count();
    until("it goes on", async || seen.count() > so_far).await;
    println!("FIGURE a message handled {:?} after the broker was back", back.elapsed());
    let confirmed = timeout(LIMIT, publisher).await.unwrap().unwrap();
    assert_eq!(confirmed.len(), 1000);
    until("all confirmed are handled", async || seen.count() == 1000).await;
    seen.assert_in_order();
    assert!(check.report().in_order(), "{:?}", check.report());
    worker.drain().await.unwrap();
}

/// Channels and connections closed by the server, a memory alarm and a frozen node: the worker goes on by
/// itself, and what a handler holds is not handed out twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_goes_on_whatever_the_broker_does_to_it() {
    let (rabbit_server, node) = node().await;
    let vhost = rabbit_server.vhost().await.unwrap();
    let queue = queue(rabbit(&vhost, Duration::from_secs(3)).await, 1).await;
    let (seen, gate) = (Seen::default(), Arc::new(Semaphore::new(0)));
    let began = Seen::default();
    let handler = {
        let (seen, began, gate) = (seen.clone(), began.clone(), Arc::clone(&gate));
        async move |delivery: Delivery<u64>| {
            began.push(*delivery.message());
            gate.acquire().await?.forget();
            seen.push(delivery.into_message());
            Ok::<(), HandlerError>(())
        }
    };
    let worker = queue.worker(handler).start().await.unwrap();
    // Handlers hold messages while their channel, then their connection is closed.
    queue.publish_many(0..20).await.unwrap();
    until("ten keys run", async || began.count() == 10).await;
    assert!(node.close_channels().await.unwrap() > 0);
    sleep(Duration::from_millis(100)).await;
    assert!(node.close_connections("maintenance").await.unwrap() > 0);
    gate.add_permits(20);
    until("all are handled", async || seen.count() == 20).await;
    until("all are settled", async || {
        queue.depth().await.is_ok_and(|depth| depth.unfinished() == 0)
    })
    .await;
    assert_eq!((seen.all().len(), began.all().len()), (20, 20), "none was handed out twice");
    seen.assert_in_order();

    // Out of memory: who publishes waits and is told; what runs is finished and acknowledged.
    queue.publish_many(100..120).await.unwrap();
    until("they run", async || began.count() == 30).await;
    node.raise_memory_alarm().await.unwrap();
    let held = tokio::spawn({
        let queue = queue.clone();
        async move { (queue.publish(&1000).await, queue.publish(&1010).await) }
    });
    gate.add_permits(20);
    until("handlers finish under the alarm", async || seen.count() == 40).await;
    until("and are settled", async || {
        let ready = "{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(list_to_binary(\"VHOST\"), queue, <<\"faults.p.0\">>)), \
                     proplists:get_value(messages, rabbit_amqqueue:info(Q, [messages])).";
        let ready = ready.replace("VHOST", vhost.name());
        node.eval(&ready).await.unwrap().parse::<u64>().unwrap_or(99) <= 1
    })
    .await;
    let (first, second) = timeout(LIMIT, held).await.unwrap().unwrap();
    // The broker reads one message of a connection before it blocks it.
    for refused in [first, second].into_iter().filter_map(Result::err) {
        assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
    }
    // Crowds of publishers are held, then refused, and nothing of them piles up.
    let mut after = Vec::new();
    for _ in 0..3 {
        let crowd: Vec<_> = (0..2000)
            .map(|number| {
                let queue = queue.clone();
                tokio::spawn(async move { queue.publish(&(10_000 + number)).await })
            })
            .collect();
        let mut refused = 0;
        for publish in crowd {
            if let Err(error) = timeout(LIMIT, publish).await.unwrap().unwrap() {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                refused += 1;
            }
        }
        assert!(refused > 1900, "{refused} refused");
        after.push((status("VmRSS:"), status("Threads:")));
    }
    println!(
        "FIGURE KiB and threads after each of three crowds of 2000 refused publishers: {after:?}"
    );
    node.clear_memory_alarm().await.unwrap();
    gate.add_permits(10_000);
    until("publishing goes on", async || queue.publish(&1020).await.is_ok()).await;
    until("reading after the alarm", async || seen.all().contains(&1020)).await;

    // Frozen: calls end by their deadlines; thawed it goes on.
    node.freeze().unwrap();
    let asked = Instant::now();
    let refused = queue.publish(&2000).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    node.thaw().unwrap();
    until("publishing goes on", async || queue.publish(&2010).await.is_ok()).await;
    until("reading after the thaw", async || seen.all().contains(&2010)).await;
    timeout(LIMIT, worker.drain()).await.unwrap().unwrap();
}

/// A number the system knows of this process.
fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Two processes: once the second opened a partition at a higher epoch the first one is refused, its channel is closed,
/// and what it held comes to the second in order.
#[tokio::test]
async fn a_zombie_of_another_process_is_fenced_and_its_channel_closed() {
    let vhost = broker().await.vhost().await.unwrap();
    let spec = QueueSpec::new("fence", 1);
    let zombie = rabbit(&vhost, LIMIT).await.declare(&spec).await.unwrap();
    let heir = rabbit(&vhost, LIMIT).await.declare(&spec).await.unwrap();
    let batch =
        (0..20).map(|n| Outgoing::new(0, Some(Key::from("k")), bytes::Bytes::from(n.to_string())));
    zombie.publish(Arc::new(batch.collect())).await.unwrap();
    let opened = zombie.open(0, 3).await.unwrap();
    let held = opened.feed.fetch(Fetch::after(0, 5)).await.unwrap().messages;
    assert_eq!(held.len(), 5);
    let done = |sequence| Arc::new(vec![Settlement::Done { sequence }]);
    zombie.settle(0, 3, done(held[0].sequence)).await.unwrap();

    let taken = heir.open(0, 5).await.unwrap();
    let mut bodies = Vec::new();
    while bodies.len() < 19 {
        let fetched =
            timeout(LIMIT, taken.feed.fetch(Fetch::after(0, 100))).await.unwrap().unwrap();
        bodies
            .extend(fetched.messages.iter().map(|m| String::from_utf8_lossy(&m.body).into_owned()));
    }
    assert_eq!(bodies, (1..20).map(|n| n.to_string()).collect::<Vec<_>>());
    let refused = zombie.settle(0, 3, done(held[1].sequence)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Fenced);
    let refused = opened.feed.fetch(Fetch::after(0, 5)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Fenced);
    let refused = zombie.open(0, 4).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Fenced);
    assert_eq!(heir.stored().await.unwrap().ready, 19, "the zombie changed nothing");
}

/// A cluster of three that loses the leader of a partition in the middle of publishing and handling: nothing confirmed is
/// lost, the order of each key is kept, and the work goes on through the nodes that are left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_goes_on_without_the_leader_of_a_partition() {
    let cluster = resonant_testkit::RabbitMq::builder().nodes(3).start().await.unwrap();
    let vhost = cluster.vhost().await.unwrap();
    let queue = queue(rabbit(&vhost, Duration::from_secs(5)).await, 1).await;
    let seen = Seen::default();
    let (worker, check) = work(&queue, &seen).await;
    let publisher = tokio::spawn({
        let queue = queue.clone();
        async move { publish(&queue, 100).await }
    });
    until("the first messages", async || seen.count() > 50).await;
    let leader = cluster.leader_of(vhost.name(), "faults.p.0").await.unwrap();
    leader.kill().await.unwrap();
    let killed = Instant::now();
    let so_far = seen.count();
    until("it goes on", async || seen.count() > so_far + 50).await;
    println!("FIGURE goes on {:?} after the leader of three was killed", killed.elapsed());
    let confirmed = timeout(LIMIT, publisher).await.unwrap().unwrap();
    assert_eq!(confirmed.len(), 1000);
    until("all confirmed are handled", async || seen.count() == 1000).await;
    seen.assert_in_order();
    assert!(check.report().in_order(), "{:?}", check.report());
    worker.drain().await.unwrap();
}
