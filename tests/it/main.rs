//! Tests that need more than one crate.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../snippets/mod.rs"]
mod snippets;

mod app;
mod deploy;
mod findings;
mod http;
mod servers;
mod telemetry;
mod workers;
