//! What users see of the crate.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cancel;
mod conformance;
mod faults;
mod guide;
mod history;
mod kubernetes;
mod logs;
mod manual;
mod pool;
mod query;
mod scaler;
mod storm;
mod tracking;
