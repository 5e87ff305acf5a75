//! Short locks that a panic elsewhere does not jam.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What we keep behind locks is valid after every statement, so a poisoned lock is no reason to stop.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
