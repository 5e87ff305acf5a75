//! The conformance suite run against the stores of this crate, and against broken ones it must catch.

mod lease;
