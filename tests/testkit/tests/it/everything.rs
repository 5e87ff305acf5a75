//! How long a whole production takes to stand up. A measurement, so it is run by hand on a quiet machine:
//! `cargo test -p resonant-testkit --test it -- --ignored --nocapture --exact everything::side_by_side`

use resonant_testkit::{Nginx, PgBouncer, PostgresCluster, RabbitMq, RedisCluster, Result};
use tokio::time::{Duration, Instant};

/// A part, and when it was ready.
async fn timed<T>(what: &str, start: impl Future<Output = Result<T>>) -> Result<T> {
    let started = Instant::now();
    let part = start.await?;
    println!("FIGURE ready after {:.1?}: {what}", started.elapsed());
    Ok(part)
}

/// PostgreSQL with a pooler in front of it.
async fn database() -> Result<(PostgresCluster, PgBouncer)> {
    let pg = PostgresCluster::builder().replicas(2).start().await?;
    let pooler = PgBouncer::builder().in_front_of(pg.primary().address()).start().await?;
    Ok((pg, pooler))
}

#[tokio::test]
#[ignore = "half a minute, to be measured alone: scripts/soak testkit"]
async fn side_by_side() -> Result<()> {
    let started = Instant::now();
    let everything = tokio::try_join!(
        timed("a primary, two replicas and PgBouncer", database()),
        timed("four shards", PostgresCluster::builder().start_shards(4)),
        timed("a Redis Cluster of six", RedisCluster::start()),
        timed("a RabbitMQ cluster of three", RabbitMq::builder().nodes(3).start()),
        timed("nginx", Nginx::builder().http("server { listen {{listen}}; return 204; }").start()),
    )?;
    println!("FIGURE everything side by side: {:.1?}", started.elapsed());
    let ending = Instant::now();
    drop(everything);
    println!("FIGURE and ended: {:.1?}", ending.elapsed());
    // Far more than the figure: this is for finding it out, not for guarding it.
    assert!(started.elapsed() < Duration::from_secs(120));
    Ok(())
}
