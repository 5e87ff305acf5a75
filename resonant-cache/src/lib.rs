//! A cache that loads each missing value once, over any store.
//!
//! placeholder
mod builder;
mod cache;
mod codec;
mod config;
mod envelope;
mod epochs;
mod error;
mod fence;
mod flight;
mod freshness;
mod gate;
mod inflight;
mod key;
mod l1;
mod load;
mod local;
mod metrics;
mod namespace;
mod options;

pub mod backend;

pub use self::backend::Version;
pub use self::builder::DistributedCacheBuilder;
pub use self::cache::{DistributedCache, Usage};
pub use self::codec::{Codec, Json, Raw};
pub use self::config::{CacheConfig, NamespaceConfig};
pub use self::error::{Error, ErrorKind, Result};
pub use self::namespace::{Namespace, NamespaceBuilder};
pub use self::options::{Loaded, Served, SetOptions, Swap, Tier, Versioned, Written};
