//! What spans shards and is stopped midway: by a server that dies, or by a caller that goes.

use std::convert::Infallible;
use std::time::Duration;

use futures::{StreamExt, stream};
use resonant_db::sharding::Migrations;
use resonant_db::{ErrorKind, KeyType, PoolConfig, ShardedDatabase, params};
use resonant_testkit::PostgresCluster;
use tokio::sync::mpsc;

use super::sharding::{databases, small};
use super::until;

const SCHEMA: &str = "CREATE TABLE agents (org_id text NOT NULL, id bigint NOT NULL, note text)";
const COPY: &str = "COPY agents (org_id, id, note) FROM STDIN";

fn builder(
    urls: impl IntoIterator<Item = String>,
) -> resonant_db::sharding::ShardedDatabaseBuilder {
    let mut builder = ShardedDatabase::builder().table("agents", "org_id", KeyType::Text);
    for (shard, url) in urls.into_iter().enumerate() {
        builder = builder.shard(format!("shard_{shard}"), url);
    }
    builder
}

fn rows(from: i64, count: i64) -> String {
    (from..from + count).map(|n| format!("org_{}\t{n}\t{}\n", n % 50, "x".repeat(200))).collect()
}

#[tokio::test]
async fn a_server_that_dies_midway_stops_what_spans_it_and_spares_the_others() {
    let clusters = PostgresCluster::builder().start_shards(3).await.expect("three servers");
    let pool = PoolConfig::default()
        .min_size(0)
        .max_size(2)
        .acquire_timeout(Duration::from_secs(2))
        .connect_timeout(Duration::from_secs(2));
    let db = builder(clusters.iter().map(|cluster| cluster.primary().url())).pool(pool);
    let db = db.connect().await.expect("shards");
    let agents = ("1_agents.sql", SCHEMA);
    let first = Migrations::from_files([agents]).expect("a set");
    assert!(db.migrator(&first).run().await.expect("migrated").is_complete());
    let counted = async |at: usize| {
        let count = clusters[at].primary().value("SELECT count(*) FROM agents").await;
        count.expect("counted")
    };
    let data = stream::iter([Ok::<_, Infallible>(rows(0, 30_000))]);
    db.copy_in(COPY, data).await.expect("copied");
    let before = [counted(0).await, counted(1).await, counted(2).await];

    // In the middle of rows that come: the stream ends with the error and frees the others.
    let sql = "SELECT id, note FROM agents ORDER BY id";
    let mut stream = db.stream_all(sql, params![]).await.expect("opened");
    stream.next().await.expect("a row").expect("a row");
    // In the middle of data that go: nothing is copied anywhere.
    let (pieces, taken) = mpsc::channel::<Result<String, Infallible>>(1);
    let taken = stream::unfold(taken, async |mut taken| Some((taken.recv().await?, taken)));
    let copying = tokio::spawn({
        let db = db.clone();
        async move { db.copy_in(COPY, taken.boxed()).await }
    });
    pieces.send(Ok(rows(100_000, 20_000))).await.expect("taken");
    let copies =
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY %' AND state = 'active'";
    for cluster in &clusters {
        let node = cluster.primary();
        until("it copies", async || node.value(copies).await.is_ok_and(|n| n == "1")).await;
    }
    clusters[1].primary().kill().await.expect("killed");
    // It shows with what is sent next.
    while pieces.send(Ok(rows(200_000, 5_000))).await.is_ok() {}
    let error = copying.await.expect("joined").expect_err("a shard died");
    assert!(error.message().starts_with("on shard_1: "), "{error}");
    assert!(error.message().contains("nothing was copied on any shard"), "{error}");
    let error = loop {
        match stream.next().await {
            Ok(row) => drop(row.expect("it must not end as if it were whole")),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(stream.next().await.expect("over").is_none());
    let busy = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%agents%' AND state <> 'idle' AND pid <> pg_backend_pid()";
    for at in [0, 2] {
        let node = clusters[at].primary();
        until("it is free", async || node.value(busy).await.is_ok_and(|n| n == "0")).await;
        assert_eq!(counted(at).await, before[at]);
    }

    // A migration is not begun while a shard cannot say what it has, and finishes once it can.
    let more = ("2_more.sql", "ALTER TABLE agents ADD COLUMN more text");
    let second = Migrations::from_files([agents, more]).expect("a set");
    let error = db.migrator(&second).run().await.expect_err("a shard is dead");
    assert!(error.message().contains("nothing was changed"), "{error}");
    let state = db.migrator(&second).status().await.expect("a report");
    assert!(state.shards[1].error.is_some() && state.shards[0].pending == [2], "{state}");
    clusters[1].primary().start().await.expect("back");
    until("it answers", async || db.ping().await.is_ok()).await;
    assert!(db.migrator(&second).run().await.expect("migrated").is_complete());
    assert_eq!(counted(1).await, before[1]);
}

#[tokio::test]
async fn a_copy_that_is_dropped_at_any_await_copies_nothing_or_all() {
    let held = databases(3, SCHEMA).await;
    let db = builder(held.iter().map(resonant_testkit::postgres::TempDatabase::url)).pool(small());
    let db = db.connect().await.expect("shards");
    let count = async || {
        let sql = "SELECT count(*) FROM agents";
        let rows = db.query_all(sql, params![]).await.expect("counted");
        rows.decode::<i64>().expect("one")[0]
    };
    const ROWS: i64 = 60;
    let (mut finished, mut dropped) = (false, 0);
    for polls in [0, 1, 2, 3, 4, 6, 8, 11, 15, 20, 30, 50, 100, 1_000, 10_000] {
        if finished {
            break;
        }
        let data = stream::iter((0..ROWS).map(|n| Ok::<_, Infallible>(rows(n, 1))));
        let mut copying = Box::pin(db.copy_in(COPY, data));
        for _ in 0..=polls {
            let poll = futures::poll!(&mut copying);
            if let std::task::Poll::Ready(report) = poll {
                assert_eq!(report.expect("copied").rows, ROWS as u64);
                finished = true;
                break;
            }
            tokio::time::sleep(Duration::from_micros(300)).await;
        }
        drop(copying);
        dropped += usize::from(!finished);
        let copied = count().await;
        // Dropped between the commits, some shards have theirs: each all or nothing.
        for database in &held {
            let own = database.value("SELECT count(DISTINCT id) = count(*) FROM agents").await;
            assert_eq!(own.expect("asked"), "t");
        }
        assert!(copied == 0 || copied == ROWS || polls > 10, "{copied} after {polls} polls");
        for database in &held {
            database.sql("TRUNCATE agents").await.expect("emptied");
        }
    }
    assert!(finished && dropped > 3, "{dropped} were dropped");
}
