//! The examples, run as a user would run them, and the pure parts of the main job with their own tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code)]
#[path = "../../flights/failure.rs"]
mod failure;
#[allow(dead_code)]
#[path = "../../flights/flight.rs"]
mod flight;
#[allow(dead_code)]
#[path = "../../flights/input.rs"]
mod input;
#[allow(dead_code)]
#[path = "../../flights/interrupt.rs"]
mod interrupt;
#[allow(dead_code)]
#[path = "../../flights/proof.rs"]
mod proof;
#[allow(dead_code)]
#[path = "../../flights/say.rs"]
mod say;

mod flights;
mod pages;
mod program;
