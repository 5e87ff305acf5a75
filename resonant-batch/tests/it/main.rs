//! Tests through the public API.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cancel;
mod ending;
mod failures;
mod guide;
mod many;
mod pressure;
mod regressions;
mod sharing;
mod support;
mod telemetry;
mod traces;
