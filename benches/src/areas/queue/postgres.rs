//! Messages a second through PostgreSQL, from the publish to the settled end, beside a queue as one writes it by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use resonant_queue::{PartitionedQueue, Postgres};
use resonant_testkit::PostgresCluster;
use tokio::runtime::Runtime;
use tokio_postgres::NoTls;

use super::peers::Peer;
use super::{By, Task, drain, fill, wake};
use crate::Outcome;
use crate::harness::{Case, now};
use crate::report::Report;

/// Messages of one turn, and how many publishers share them.
const MESSAGES: usize = 10_000;
const PUBLISHERS: usize = 4;
const WORKERS: usize = 4;

pub(super) fn run(runtime: &Runtime, report: &mut Report) -> Outcome {
    let names = [
        "queue.postgres.vs_best_peer",
        "queue.postgres.vs_skip_locked",
        "queue.postgres.wake_p99_us",
    ];
    if !names.iter().any(|name| report.wants(name)) {
        return Ok(());
    }
    let server = runtime.block_on(Server::start())?;
    if report.wants(names[0])
        && let Some(mut apalis) = Peer::start("postgres", &server.cluster.primary().url())?
    {
        let about = "PostgreSQL, the same publishes and messages through job queues";
        Case::new(names[0], about, "messages")
            .goal(3.0)
            .turns(5)
            .run("PartitionedQueue", || runtime.block_on(server.ours()))
            .run("apalis-postgres", || apalis.turn())
            .measure(report)?;
    }
    let about = "PostgreSQL, publish by hundreds and consume at once";
    Case::new("queue.postgres.vs_skip_locked", about, "messages")
        .turns(5)
        .run("PartitionedQueue", || runtime.block_on(server.ours()))
        .run("SKIP LOCKED by hand", || runtime.block_on(server.skip_locked()))
        .measure(report)?;
    wake::case(
        "queue.postgres.wake_p99_us",
        "PostgreSQL, a handler that waits gets a message of another process",
    )
    .goal(5000.0)
    .run("PartitionedQueue", || runtime.block_on(server.wake()))
    .measure(report)
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

struct Server {
    ours: Postgres,
    pool: deadpool_postgres::Pool,
    cluster: PostgresCluster,
}

impl Server {
    /// A server that syncs its commits, as in production.
    async fn start() -> Outcome<Self> {
        let builder = PostgresCluster::builder().durable().setting("max_connections", "200");
        let cluster = builder.setting("autovacuum_naptime", "5s").start().await?;
        let url = cluster.primary().url();
        let ours = Postgres::connect(&url).create_tables(true).await?;
        let table = "CREATE TABLE job (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text NOT NULL)";
        cluster.primary().sql(table).await?;
        let manager = deadpool_postgres::Manager::new(url.parse()?, NoTls);
        let pool = deadpool_postgres::Pool::builder(manager).max_size(16).build()?;
        Ok(Self { ours, pool, cluster })
    }

    async fn ours(&self) -> Outcome<f64> {
        let builder = PartitionedQueue::builder("bench").partitions(16).partition_key("agent_id");
        let queue = builder.backend(self.ours.clone()).build().await?;
        let started = now();
        drain(&queue, MESSAGES, By::Message, async {
            let publishers: Vec<_> = (0..PUBLISHERS)
                .map(|task| {
                    let queue = queue.clone();
                    tokio::spawn(async move { fill(&queue, task, MESSAGES / PUBLISHERS).await })
                })
                .collect();
            for publisher in publishers {
                publisher.await??;
            }
            Ok(())
        })
        .await?;
        Ok(MESSAGES as f64 / started.elapsed().as_secs_f64())
    }

    /// As one writes it by hand: bulk inserts, a hundred rows at a time taken with SKIP LOCKED and deleted when they were
    /// handled. It keeps no order, and what a dead worker had taken comes back by its rollback.
    async fn skip_locked(&self) -> Outcome<f64> {
        const INSERT: &str = "INSERT INTO job (body) SELECT unnest($1::text[])";
        const TAKE: &str = "DELETE FROM job WHERE id IN (SELECT id FROM job ORDER BY id LIMIT 100 FOR UPDATE SKIP LOCKED) RETURNING body";
        let started = now();
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|task| {
                let pool = self.pool.clone();
                tokio::spawn(async move {
                    for some in 0..MESSAGES / PUBLISHERS / 100 {
                        let task = |n| serde_json::to_string(&Task::new(task + some * 100 + n));
                        let bodies: Vec<_> = (0..100).map(task).collect::<Result<_, _>>()?;
                        let client = pool.get().await?;
                        let insert = client.prepare_cached(INSERT).await?;
                        client.execute(&insert, &[&bodies]).await?;
                    }
                    Ok::<(), Failure>(())
                })
            })
            .collect();
        let handled = Arc::new(AtomicUsize::new(0));
        let workers: Vec<_> = (0..WORKERS)
            .map(|_| {
                let (pool, handled) = (self.pool.clone(), Arc::clone(&handled));
                tokio::spawn(async move {
                    while handled.load(Ordering::Relaxed) < MESSAGES {
                        let mut client = pool.get().await?;
                        let tx = client.transaction().await?;
                        let take = tx.prepare_cached(TAKE).await?;
                        let rows = tx.query(&take, &[]).await?;
                        for row in &rows {
                            std::hint::black_box(serde_json::from_str::<Task>(row.get(0))?);
                        }
                        tx.commit().await?;
                        handled.fetch_add(rows.len(), Ordering::Relaxed);
                        if rows.is_empty() {
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                    }
                    Ok::<(), Failure>(())
                })
            })
            .collect();
        for task in publishers.into_iter().chain(workers) {
            task.await?.map_err(|error| error.to_string())?;
        }
        Ok(MESSAGES as f64 / started.elapsed().as_secs_f64())
    }

    async fn wake(&self) -> Outcome<f64> {
        // Connections of its own, as another process has them.
        let other = Postgres::connect(self.cluster.primary().url()).await?;
        wake::between(other, self.ours.clone()).await
    }
}
