//! The routes for machines.

/// OpenAPI 3.1, held against the handlers by a test.
pub(super) const DOCUMENT: &str = include_str!("openapi.json");
