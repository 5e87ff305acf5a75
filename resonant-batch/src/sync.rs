//! The lock of the standard library, or the model checker's in its place.

#[cfg(not(all(test, resonant_model)))]
pub(crate) use std::sync::{Mutex, MutexGuard};

#[cfg(all(test, resonant_model))]
pub(crate) use loom::sync::{Mutex, MutexGuard};
