//! The one integration test binary of this crate.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod conformance;
mod kubernetes;
mod manager;
mod secrets;
mod servers;
mod simulation;
mod voters;
