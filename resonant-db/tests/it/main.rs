//! The integration tests of the crate, in one binary.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod database;
mod pool;
mod replica_set;
mod servers;
mod sharding;
