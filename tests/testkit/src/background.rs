//! One thread with a runtime of the kit's own. What must outlive a test's runtime runs here: a proxy that several tests share,
//! and cleaning up from a destructor.

use std::sync::{Mutex, PoisonError};

use tokio::runtime::{Builder, Handle};

use crate::error::{Error, Result};

/// A handle to the kit's runtime, started at the first call.
pub(crate) fn handle() -> Result<Handle> {
    static HANDLE: Mutex<Option<Handle>> = Mutex::new(None);
    let mut handle = HANDLE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = handle.as_ref() {
        return Ok(handle.clone());
    }
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::io("building the kit's runtime", e))?;
    let made = runtime.handle().clone();
    std::thread::Builder::new()
        .name("testkit".to_owned())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))
        .map_err(|e| Error::io("starting the kit's thread", e))?;
    *handle = Some(made.clone());
    Ok(made)
}
