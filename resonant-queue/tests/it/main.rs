//! The one integration test binary of this crate.

mod conformance;
