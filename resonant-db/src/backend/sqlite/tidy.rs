//! Folds the log into the file when the last connection goes.
//!
//! SQLite does that by itself when the connection that closes last may write. Here a reading one may be last, and would
//! leave the file in three parts that have to be copied together.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::backend::Access;

use super::engine;
use super::options::{Location, Mode, Options};

/// The connections of one backend that are open.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    open: usize,
    /// One of them could write.
    written: bool,
}

/// One open connection. Drop it after the connection.
pub(super) struct Counted {
    tally: Arc<Tally>,
    options: Options,
}

impl Counted {
    pub(super) fn new(tally: Arc<Tally>, options: &Options, access: Access) -> Self {
        let mut counts = tally.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.open += 1;
        counts.written |= access == Access::ReadWrite && options.mode != Mode::Read;
        drop(counts);
        Self { tally, options: Options { mode: Mode::Existing, ..options.clone() } }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        // Held while folding: whoever opens the next one waits until the file is whole.
        let mut counts = self.tally.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.open -= 1;
        if counts.open == 0 && std::mem::take(&mut counts.written) && has_log(&self.options) {
            // Others may still have it open, or the disk may be full: then the log stays, and is read with the next opening.
            let _ = engine::fold(&self.options);
        }
    }
}

fn has_log(options: &Options) -> bool {
    let Location::File(path) = &options.location else { return false };
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    PathBuf::from(log).exists()
}
