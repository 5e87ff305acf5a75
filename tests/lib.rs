//! Tests across the crates: `it/` runs them, `snippets/` holds what users type, in the places where they type it.

/// The README's pieces of code, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[derive(Debug)]
pub struct Readme;
