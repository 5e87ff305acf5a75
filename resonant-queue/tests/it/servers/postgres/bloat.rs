//! Tables stay small, whatever goes through them.

use std::time::Duration;

use resonant_queue::{HandlerError, PartitionedQueue, Postgres, Run};
use resonant_testkit::{PgNode, PostgresCluster};
use tokio::time::Instant;

use super::until;

async fn server() -> (PostgresCluster, Postgres) {
    let builder = PostgresCluster::builder().setting("autovacuum_naptime", "1s");
    let cluster = builder.start().await.unwrap();
    let url = cluster.primary().url();
    let postgres = Postgres::connect(url).create_tables(true).await.unwrap();
    (cluster, postgres)
}

/// Sends so many messages through a queue, and returns how long it took.
async fn through(postgres: &Postgres, count: u64) -> Duration {
    let builder = PartitionedQueue::<u64>::builder("numbers").partitions(4).key(|n: &u64| n % 500);
    let queue = builder.backend(postgres.clone()).build().await.unwrap();
    let handler = async |_: Run<u64>| Ok::<(), HandlerError>(());
    let worker = queue.worker_runs(64, handler).start().await.unwrap();
    let began = Instant::now();
    let numbers: Vec<u64> = (0..count).collect();
    for some in numbers.chunks(100) {
        queue.publish_many(some).await.unwrap();
    }
    until("all is handled", async || queue.depth().await.unwrap().unfinished() == 0).await;
    let took = began.elapsed();
    worker.drain().await.unwrap();
    took
}

async fn megabytes(node: &PgNode) -> f64 {
    let sql = "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = 'resonant_queue' AND c.relkind = 'r'";
    node.value(sql).await.unwrap().parse::<f64>().unwrap() / f64::from(1 << 20)
}

/// The size after the same load again is no larger: what was finished makes room for what comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_stay_as_small_as_they_were() {
    let (cluster, postgres) = server().await;
    let node = cluster.primary();
    let mut sizes = Vec::new();
    for _ in 0..4 {
        through(&postgres, 10_000).await;
        let dead = "SELECT coalesce(sum(n_dead_tup), 0) FROM pg_stat_user_tables WHERE relname = 'messages'";
        until("vacuum comes by", async || {
            node.value(dead).await.unwrap().parse::<u64>().unwrap() < 20_000
        })
        .await;
        sizes.push(megabytes(&node).await);
    }
    println!("FIGURE MiB after each 10,000 messages: {sizes:.1?}");
    // 40,000 rows with their index would be some 6 MiB, and the row versions of heads and owners as much again.
    assert!(sizes[3] < 12.0, "{sizes:?}");
    let rows = "SELECT (SELECT count(*) FROM resonant_queue.messages) + (SELECT count(*) FROM resonant_queue.tallies)";
    assert_eq!(node.value(rows).await.unwrap(), "0");
}

/// While somebody holds an old snapshot no version of a row goes away; a message costs no more reads for that, however many
/// there are.
#[tokio::test]
async fn a_held_snapshot_makes_no_message_read_more() {
    let (cluster, postgres) = server().await;
    let node = cluster.primary();
    let builder = PartitionedQueue::<u64>::builder("numbers").partitions(1);
    drop(builder.backend(postgres).build().await.unwrap());
    let mut holder = node.session().await.unwrap();
    holder.sql("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").await.unwrap();
    let mut session = node.session().await.unwrap();
    let mut reads = Vec::new();
    for _ in 0..4 {
        for number in 0..150 {
            let message = format!("SELECT resonant_publish('numbers', '{}', '1')", number % 3);
            session.sql(&message).await.unwrap();
            let settled = "SELECT resonant_queue.settle(base, 0, ARRAY(SELECT sequence FROM
                resonant_queue.fetch(base, 0, 1000000000, 10, 1000000)), NULL) FROM resonant_queue.queues";
            session.sql(settled).await.unwrap();
        }
        session.sql("SELECT pg_stat_force_next_flush()").await.unwrap();
        let read =
            "SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE schemaname = 'resonant_queue'
            AND relname IN ('heads', 'owners', 'keys', 'messages')";
        reads.push(session.value(read).await.unwrap().parse::<u64>().unwrap());
    }
    holder.sql("COMMIT").await.unwrap();
    let rounds: Vec<_> = reads.windows(2).map(|pair| pair[1] - pair[0]).collect();
    println!("FIGURE index entries read by each 150 messages while a snapshot is held: {rounds:?}");
    assert!(rounds[2] < rounds[0] + rounds[0] / 4, "{rounds:?}");
    assert!(rounds[2] < 150 * 60, "{rounds:?}");
}

/// Half a million messages, the second half while an old snapshot is held open; prints speed and sizes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: scripts/soak queue"]
async fn long_soak() {
    let (cluster, postgres) = server().await;
    let node = cluster.primary();
    for _ in 0..5 {
        let took = through(&postgres, 50_000).await;
        let rate = 50_000.0 / took.as_secs_f64();
        println!("FIGURE {rate:.0} messages/s, {:.1} MiB", megabytes(&node).await);
    }
    let mut reader = node.session().await.unwrap();
    reader.sql("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").await.unwrap();
    for _ in 0..5 {
        let took = through(&postgres, 50_000).await;
        let rate = 50_000.0 / took.as_secs_f64();
        println!(
            "FIGURE with a snapshot held {rate:.0} messages/s, {:.1} MiB",
            megabytes(&node).await
        );
    }
    reader.sql("COMMIT").await.unwrap();
}
