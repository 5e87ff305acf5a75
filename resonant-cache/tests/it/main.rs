//! The integration tests of resonant-cache.

#![expect(clippy::panic, reason = "the helpers of tests fail by panicking too")]

mod basics;
mod bounds;
mod cancellation;
mod conformance;
mod degraded;
mod fleet;
mod freshness;
mod guide;
mod invalidation;
mod journal;
mod many;
mod servers;
mod single_flight;
mod support;
mod switches;
mod telemetry;
mod traces;
