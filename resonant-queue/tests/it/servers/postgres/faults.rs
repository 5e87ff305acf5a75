//! Servers that die, connections that break, primaries that change.

use std::time::Duration;

use resonant_db::{Database, PoolConfig};
use resonant_queue::{Error, ErrorKind, PartitionedQueue, Postgres, SequenceCheck};
use resonant_testkit::postgres::Synchronous;
use resonant_testkit::{FaultProxy, PgBouncer, PostgresCluster};
use tokio::time::{Instant, sleep, timeout};

use super::{LIMIT, Seen, postgres, queue, until, work};

/// Publishes numbers key by key, each until it was confirmed.
async fn publish(queue: &PartitionedQueue<u64>, per_key: u64) -> u64 {
    let keys = (0..10).map(|key| {
        let queue = queue.clone();
        tokio::spawn(async move {
            for turn in 0..per_key {
                let (number, began) = (turn * 10 + key, Instant::now());
                while let Err(error) = queue.publish(&number).await {
                    assert!(began.elapsed() < LIMIT, "{error:?}");
                    assert!(error.is_transient(), "{error:?}");
                    sleep(Duration::from_millis(20)).await;
                }
                sleep(Duration::from_millis(2)).await;
            }
        })
    });
    for key in futures::future::join_all(keys.collect::<Vec<_>>()).await {
        key.unwrap();
    }
    per_key * 10
}

/// Publishes and handles while `harm` is done, and looks whether all confirmed came in order.
async fn survives(
    publisher: &Postgres,
    worker: &Postgres,
    per_key: u64,
    harm: impl AsyncFnOnce(&Seen),
) {
    let (to, from) = (queue(publisher, 4).await, queue(worker, 4).await);
    let (seen, check) = (Seen::default(), SequenceCheck::new("numbers"));
    let working = work(&from, &seen, &check).await;
    let publishing = tokio::spawn({
        let to = to.clone();
        async move { publish(&to, per_key).await }
    });
    until("the first messages", async || seen.count() > 20).await;
    harm(&seen).await;
    let before = seen.count();
    let back = Instant::now();
    until("it goes on", async || seen.count() > before || publishing.is_finished()).await;
    println!("FIGURE a message was handled {:?} after the harm was over", back.elapsed());
    let count = timeout(LIMIT, publishing).await.unwrap().unwrap();
    until("all confirmed are handled", async || seen.count() as u64 == count).await;
    until("all are settled", async || {
        from.depth().await.is_ok_and(|depth| depth.unfinished() == 0)
    })
    .await;
    seen.assert_in_order();
    assert!(check.report().in_order(), "{:?}", check.report());
    timeout(LIMIT, working.drain()).await.unwrap().unwrap();
}

async fn with_tables(url: String) -> Postgres {
    Postgres::connect(url).create_tables(true).await.unwrap()
}

/// The server is killed, comes back, and is restarted in order, in the middle of publishing and handling.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_by_a_server_that_dies() {
    let cluster = PostgresCluster::builder().durable().start().await.unwrap();
    let node = cluster.primary();
    let publisher = with_tables(node.url()).await;
    let worker = postgres(&node.url()).await;
    survives(&publisher, &worker, 60, async |seen| {
        node.kill().await.unwrap();
        sleep(Duration::from_millis(300)).await;
        node.start().await.unwrap();
        let so_far = seen.count();
        until("it goes on after the kill", async || seen.count() > so_far + 20).await;
        node.restart().await.unwrap();
    })
    .await;
}

/// Connections are reset, go silent and come back, those that listen too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_by_connections_that_break() {
    let cluster = PostgresCluster::builder().start().await.unwrap();
    let node = cluster.primary();
    let proxies = (
        FaultProxy::start(node.address()).await.unwrap(),
        FaultProxy::start(node.address()).await.unwrap(),
    );
    let publisher = with_tables(node.url_through(&proxies.0)).await;
    let worker = postgres(&node.url_through(&proxies.1)).await;
    survives(&publisher, &worker, 80, async |seen| {
        for round in 0..4 {
            let proxy = if round % 2 == 0 { &proxies.0 } else { &proxies.1 };
            proxy.cut().await.unwrap();
            let so_far = seen.count();
            until("it goes on after a cut", async || seen.count() > so_far + 5).await;
        }
        proxies.1.black_hole().await.unwrap();
        sleep(Duration::from_millis(700)).await;
        proxies.1.heal().await.unwrap();
    })
    .await;
}

/// The primary dies and its synchronous standby is promoted: the queue follows, nothing confirmed is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_confirmed_is_lost_by_a_failover() {
    let builder = PostgresCluster::builder().replicas(1).synchronous(Synchronous::Any(1));
    let cluster = builder.start().await.unwrap();
    let (primary, standby) = (cluster.primary(), cluster.replica(0));
    let open = async |create: bool| {
        let pool = PoolConfig::default().min_size(1).max_size(12);
        let builder =
            Database::builder().primary(primary.url()).replicas([standby.url()]).pool(pool);
        let db = builder.connect().await.unwrap();
        Postgres::over(db).create_tables(create).await.unwrap()
    };
    let (publisher, worker) = (open(true).await, open(false).await);
    survives(&publisher, &worker, 60, async |_| {
        primary.kill().await.unwrap();
        standby.promote().await.unwrap();
        // It would wait for a standby of its own.
        cluster.set_synchronous(Synchronous::Off).await.unwrap();
    })
    .await;
}

/// A server that is down stops no start: calls fail as unavailable until it is there, and then the worker that was
/// started meanwhile works.
#[tokio::test]
async fn a_server_that_is_down_stops_no_start() {
    let cluster = PostgresCluster::builder().start().await.unwrap();
    let node = cluster.primary();
    node.stop().await.unwrap();
    let postgres = with_tables(node.url()).await;
    let queue = queue(&postgres, 2).await;
    let refused: Error = queue.publish(&1).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused:?}");
    let (seen, check) = (Seen::default(), SequenceCheck::new("numbers"));
    let worker = work(&queue, &seen, &check).await;
    node.start().await.unwrap();
    until("publishing works", async || queue.publish(&2).await.is_ok()).await;
    until("handling works", async || seen.all().contains(&2)).await;
    worker.drain().await.unwrap();
}

/// Behind a pooler in transaction mode, where no notification comes through, everything works, and a waiting owner looks
/// by itself.
#[tokio::test]
async fn a_pooler_in_transaction_mode_will_do() {
    let cluster = PostgresCluster::builder().start().await.unwrap();
    let pooler = PgBouncer::builder().in_front_of(cluster.primary().address());
    let pooler = pooler.start().await.unwrap();
    let owner = with_tables(pooler.url()).await;
    let (seen, check) = (Seen::default(), SequenceCheck::new("numbers"));
    let queue = queue(&owner, 2).await;
    let worker = work(&queue, &seen, &check).await;
    let other = postgres(&pooler.url()).await;
    let publisher = super::queue(&other, 2).await;
    publisher.publish_many(0..50).await.unwrap();
    until("all are handled", async || seen.count() == 50).await;
    publisher.publish(&50).await.unwrap();
    until("one more is handled", async || seen.count() == 51).await;
    until("all are settled", async || queue.depth().await.unwrap().unfinished() == 0).await;
    worker.drain().await.unwrap();
    seen.assert_in_order();
    assert!(check.report().in_order(), "{:?}", check.report());
}
