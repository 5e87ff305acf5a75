//! The plain values primitives exchange, so that none of them depends on another.
//!
//! A `FailoverManager` publishes a [`Topology`], a `Database` follows it; a cache fill carries the [`Position`] it was
//! read at; anything can be asked for its [`Finding`]s; whoever needs a fenced lease takes a [`LeaseStore`].

mod finding;
mod lease;
mod position;
mod topology;

#[cfg(feature = "testing")]
pub mod testing;

pub use self::finding::{Finding, Severity};
pub use self::lease::{
    Acquired, Lease, LeaseError, LeaseErrorKind, LeaseStore, LeaseView, MemoryLeaseStore,
};
pub use self::position::Position;
pub use self::topology::{Node, Topology};
