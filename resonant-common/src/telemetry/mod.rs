//! Telemetry: one table of names, and handles that bind when a recorder exists.
//!
//! Every crate of the family emits through [`Counter`], [`Gauge`] and [`Histogram`] made from a row of [`names`]. From
//! that table come the HELP texts, the docs, the alert rules and the dashboards, so a renamed metric cannot be missed.
//!
//! A handle of the `metrics` crate that was made before a recorder was installed counts nothing, for ever. Primitives
//! are often built before a service sets up telemetry, so ours bind on first use *after* a recorder exists.
//! We never install a recorder unasked.
//!
//! Series are bounded: a label whose values are names given in code takes 64 of them (checks 256, endpoints 128), and what
//! comes after is `other`, counted by `resonant_telemetry_overflow_total`.

#[cfg(feature = "testing")]
mod attention;
mod handle;
pub mod names;
#[cfg(feature = "process")]
pub mod process;
#[cfg(feature = "prometheus")]
pub mod prometheus;
mod requests;
mod series;
pub mod trace;

#[cfg(feature = "testing")]
pub use self::attention::keep_attention;
pub use self::handle::{Counter, Gauge, Histogram};
pub use self::names::{Instrument, Metric};
pub use self::requests::Requests;
