//! A cache line of its own.

use std::ops::Deref;

/// What is written all the time, so that whoever reads what lies beside it does not wait for it each time.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Apart<T>(T);

impl<T> Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
