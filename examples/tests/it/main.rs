//! The examples, run as a user would run them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod flights;
mod program;
