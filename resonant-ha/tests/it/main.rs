//! The one integration test binary of this crate.

mod manager;
mod servers;
mod simulation;
mod voters;
