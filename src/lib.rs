//! The primitives a Rust service needs to scale, from one dependency.
//!
//! Each module is a crate of its own that can be added alone; this crate gathers them behind features. What it adds is
//! [`telemetry`]: the joint between what the crates count and trace and what a service exports.
//!
//! | module | feature | crate | what it gives |
//! |---|---|---|---|
#![cfg_attr(
    feature = "db",
    doc = "| [`db`] | `db` | `resonant-db` | `ConnectionPool`, `Database`, `ShardedDatabase` |"
)]
#![cfg_attr(
    feature = "cache",
    doc = "| [`cache`] | `cache` | `resonant-cache` | `DistributedCache` |"
)]
#![cfg_attr(
    feature = "queue",
    doc = "| [`queue`] | `queue` | `resonant-queue` | `PartitionedQueue` |"
)]
#![cfg_attr(feature = "ha", doc = "| [`ha`] | `ha` | `resonant-ha` | `FailoverManager` |")]
#![cfg_attr(
    feature = "batch",
    doc = "| [`batch`] | `batch` | `resonant-batch` | `BatchProcessor`, `process_all` |"
)]
#![cfg_attr(
    feature = "health",
    doc = "| [`health`] | `health` | `resonant-health` | `HealthChecker` |"
)]
#![cfg_attr(
    feature = "scale",
    doc = "| [`scale`] | `scale` | `resonant-scale` | `Autoscaler`, `WorkerPool` |"
)]
//!
//! All seven are on by default, and so are the engines `postgres` and `redis`. Off by default: `tls` encrypts their
//! connections, `sqlite` adds the embedded durable engine to the database and the queue, `sharding` adds `ShardedDatabase`
//! with its SQL router, `axum` the routes of the health checker, `http` the HTTP API and the status page,
//! `kubernetes` Deployments as targets of the scaler, and `app` builds a whole service from one file.
//!
//! [`join`] holds the plain values the primitives exchange.

#[cfg(feature = "batch")]
pub use resonant_batch as batch;
#[cfg(feature = "cache")]
pub use resonant_cache as cache;
#[cfg(feature = "db")]
pub use resonant_db as db;
#[cfg(feature = "ha")]
pub use resonant_ha as ha;
#[cfg(feature = "health")]
pub use resonant_health as health;
#[cfg(feature = "queue")]
pub use resonant_queue as queue;
#[cfg(feature = "scale")]
pub use resonant_scale as scale;

pub use resonant_common::join;

#[cfg(feature = "app")]
pub mod app;
#[cfg(feature = "http")]
pub mod http;
pub mod telemetry;
