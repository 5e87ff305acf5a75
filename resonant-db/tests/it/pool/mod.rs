//! The pool against a scripted server, with the clock paused.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod adapter;
mod cancellation;
mod close;
mod connects;
mod cost;
mod errors;
mod fairness;
mod health;
mod hygiene;
mod lifetimes;
mod live;
mod metrics;
mod settings;

use std::time::Duration;

use resonant_db::Result;
use resonant_db::pool::testing::Scripted;
use resonant_db::pool::{ConnectionPool, PoolConfig, Pooled};
use tokio::task::JoinHandle;

type Pool = ConnectionPool<Scripted>;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn sizes(min: u32, max: u32) -> PoolConfig {
    PoolConfig::default().min_size(min).max_size(max)
}

fn pool(config: PoolConfig) -> (Scripted, Pool) {
    let server = Scripted::new();
    let pool = ConnectionPool::new("main", server.clone(), config).expect("good settings");
    (server, pool)
}

async fn warm(config: PoolConfig) -> (Scripted, Pool) {
    let (server, pool) = pool(config);
    pool.warm_up().await.expect("a server that works");
    (server, pool)
}

/// Lets every other task run until none can go on without time passing.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// Takes as many connections, each of which must be idle or openable.
async fn hold(pool: &Pool, count: usize) -> Vec<Pooled<Scripted>> {
    let mut held = Vec::new();
    for _ in 0..count {
        held.push(pool.get().await.expect("a connection"));
    }
    held
}

/// Joins the queue; the connection goes back as soon as it has come.
async fn queue_up(pool: &Pool) -> JoinHandle<Result<u64>> {
    let pool = pool.clone();
    let waiter = tokio::spawn(async move { pool.get().await.map(|connection| connection.number) });
    settle().await;
    waiter
}
