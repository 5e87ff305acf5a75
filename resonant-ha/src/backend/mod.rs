//! Regions as they come: PostgreSQL with streaming replication, and services without data.

#[cfg(feature = "postgres")]
pub mod postgres;
mod service;

pub use self::service::ServiceRegion;
