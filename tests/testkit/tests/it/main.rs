//! Each fault, seen to happen on the real engine.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking"
)]

mod everything;
mod leftovers;
mod nginx;
mod pgbouncer;
mod postgres_failover;
mod postgres_faults;
mod postgres_temp;
mod postgres_tls;
mod proxy;
mod rabbitmq;
mod rabbitmq_cluster;
mod redis_cluster;
mod redis_server;
mod servers;
mod support;
