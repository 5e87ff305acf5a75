//! Resolved, never built; see Cargo.toml.
