//! The checker through its public API, most of it under a paused clock.

#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod drain;
mod handlers;
mod probes;
mod redaction;
mod run_all;
mod schedule;
mod support;
mod telemetry;
mod timeouts;
mod watchdogs;
mod wire;
