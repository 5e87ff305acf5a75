//! The one integration test binary of this crate.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod broken;
mod conformance;
mod dropping;
mod endings;
mod handlers;
mod kill;
mod million;
mod other_process;
mod owners;
mod pushing;
mod servers;
mod service;
mod shared;
mod takeover;
mod telemetry;
mod versions;
mod wrap;
