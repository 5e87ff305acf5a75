//! What a key must be.

use std::hash::Hash;

/// What the key of a [`BatchProcessor`](crate::BatchProcessor) must be. Every type that can be implements it.
pub trait Key: Hash + Eq + Clone + Send + 'static {}

impl<T: Hash + Eq + Clone + Send + 'static> Key for T {}
