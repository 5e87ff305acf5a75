//! Building parts only to see whether they can be built.
//!
//! The crates check what their settings say when a part is built, and a part that was built has tasks that connect. Here it is
//! built inside a runtime that nobody drives, so the tasks never take a step, and nothing is connected to.

use std::fmt;
use std::io;

use tokio::runtime::{Builder, Runtime};

pub(super) struct Rehearsal {
    runtime: Option<Runtime>,
}

impl Rehearsal {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { runtime: Some(Builder::new_current_thread().enable_all().build()?) })
    }

    /// Builds something and throws it away.
    pub(super) fn of<T, K: resonant_common::error::Kind>(
        &self,
        build: impl FnOnce() -> Result<T, resonant_common::error::Error<K>>,
    ) -> Result<(), String> {
        let _inside = self.runtime.as_ref().map(Runtime::enter);
        build().map(drop).map_err(|error| error.message().to_owned())
    }
}

impl Drop for Rehearsal {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // It may be dropped inside another one, where waiting is not allowed.
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for Rehearsal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rehearsal").finish_non_exhaustive()
    }
}
