//! `--chaos`: a worker process, a Redis primary, a RabbitMQ node and a shard's primary are killed in the middle of the work.
//!
//! Each blow falls while flights are published and stored; the publisher is held back between two of them, so that there is
//! work left for the next. What was killed is brought back or replaced meanwhile, as an operator would.

use futures::future::{BoxFuture, FutureExt, try_join_all};
use resonant_testkit::{PostgresCluster, RabbitMq, RedisCluster, Result};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::servers::Servers;
use crate::failure::{Failure, While};
use crate::pace::Pace;
use crate::say;

const BLOWS: u64 = 4;

/// What is struck.
#[derive(Debug)]
pub(super) struct Chaos<'a> {
    pub(super) servers: &'a Servers,
    /// Kills a worker process, which is started again.
    pub(super) worker: mpsc::Sender<()>,
}

impl Chaos<'_> {
    /// Strikes one after the other while so many flights are stored. Returns when all is back.
    pub(super) async fn reign(&self, pace: &Pace, flights: u64) -> Result<(), Failure> {
        let blows: [BoxFuture<'_, Result<()>>; BLOWS as usize] = [
            self.worker().boxed(),
            cache(&self.servers.cache).boxed(),
            broker(&self.servers.broker).boxed(),
            shard(&self.servers.shards[0]).boxed(),
        ];
        let timed = (1..).zip(blows).map(async |(number, blow): (u64, _)| {
            pace.until_stored(flights * number / (BLOWS + 1)).await;
            // The publisher goes on as the blow falls.
            pace.allow(limit(number, flights));
            blow.await
        });
        try_join_all(timed).await.doing("the chaos itself").map(drop)
    }

    async fn worker(&self) -> Result<()> {
        say::note("chaos: a worker process is killed");
        // It is gone only when the job has ended.
        let _ = self.worker.send(()).await;
        Ok(())
    }
}

/// How far publishing may go until the blow after this one: halfway between that one and the next.
pub(super) fn limit(blow: u64, flights: u64) -> u64 {
    if blow >= BLOWS { u64::MAX } else { flights * (2 * blow + 3) / (2 * BLOWS + 2) }
}

/// A primary of the cache dies; its replica is elected; it comes back as a replica.
async fn cache(cache: &RedisCluster) -> Result<()> {
    let dead = cache.owner_of("airport").await?;
    say::note("chaos: a Redis primary is killed");
    let killed = Instant::now();
    dead.kill().await?;
    cache.new_owner_of("airport", &dead).await?;
    back("its replica was elected", killed);
    dead.start().await
}

/// The node that leads a partition dies and is started again; others are elected meanwhile.
async fn broker(broker: &RabbitMq) -> Result<()> {
    let dead = broker.leader_of("/", "flights.p.0").await?;
    say::note("chaos: the RabbitMQ node that leads partition 0 is killed");
    let killed = Instant::now();
    dead.kill().await?;
    dead.start().await?;
    back("the RabbitMQ node is back", killed);
    Ok(())
}

/// The primary dies; the replica its commits waited for is promoted, the other one follows it, and the old primary comes
/// back as a replica.
async fn shard(shard: &PostgresCluster) -> Result<()> {
    let dead = shard.primary();
    let heir = shard.replica(0);
    say::note("chaos: the primary of shard_0 is killed");
    let killed = Instant::now();
    dead.kill().await?;
    heir.promote().await?;
    back("a replica was promoted", killed);
    shard.repoint_all().await?;
    shard.rejoin_by_rewind(dead.index()).await?;
    back("the old primary is back as a replica", killed);
    Ok(())
}

fn back(what: &str, since: Instant) {
    say::note(&format!("chaos: {what} after {:.1} s", since.elapsed().as_secs_f64()));
}
