//! The integration tests of the crate, in one binary.

mod database;
mod pool;
mod sharding;
