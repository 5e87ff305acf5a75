//! Placeholder docs.
mod builder;
mod config;
mod core;
mod crew;
mod desk;
mod door;
mod drain;
mod error;
mod isolate;
mod key;
mod metrics;
mod output;
mod process;
mod processor;
mod submit;
mod submitted;
mod tray;
mod worker;

pub use self::builder::Builder;
pub use self::config::{BatchConfig, Policy};
pub use self::drain::DrainReport;
pub use self::error::{Error, ErrorKind, Result};
pub use self::key::Key;
pub use self::output::{BatchOutput, PerItem};
pub use self::processor::{BatchProcessor, Stats, WithKey};
pub use self::submit::Rejected;
pub use self::submitted::Submitted;
