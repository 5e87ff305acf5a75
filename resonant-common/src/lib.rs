//! What two crates of the Resonant family share today, and nothing else.
//!
//! You rarely depend on this crate by name: the primitives re-export what you meet. It holds
//!
//! - [`error`]: the one shape of error every crate of the family has;
//! - [`hash`]: the key hash that decides partitions, buckets and shards;
//! - [`backoff`], [`breaker`], [`budget`]: pure decisions about when to try again;
//! - [`duration`]: settings in human text (`"300s"`) or plain seconds;
//! - [`telemetry`]: the one table of metric names and handles that bind late;
//! - [`join`]: the plain values primitives exchange, and the [`join::LeaseStore`] trait;
//! - [`wall`]: timestamps for people.
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `process` | no | [`telemetry`]: `cpu_usage` and `memory_usage` of the process, by its control group |
//! | `prometheus` | no | [`telemetry`]: a recorder for services that have none |
//! | `testing` | no | the conformance suite of [`join::LeaseStore`] |

pub mod backoff;
pub mod breaker;
pub mod budget;
pub mod duration;
pub mod error;
pub mod hash;
pub mod join;
pub mod telemetry;
pub mod wall;
