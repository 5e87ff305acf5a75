//! The reference service as its users run it: processes that are asked over HTTP and told to end by signals.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod check;
mod embedded;
mod mistakes;
mod process;
mod servers;
