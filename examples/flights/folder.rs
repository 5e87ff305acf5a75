//! Where the job keeps its data, and that only one job at a time does.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::failure::{Failure, While};

/// The job's folder, locked against others.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// Let go by the system when the process ends, however it ends.
    _lock: File,
    /// Removed at the end.
    temporary: Option<TempDir>,
}

impl Folder {
    /// The folder at `path`, made if it is not there; or a temporary one.
    ///
    /// # Errors
    ///
    /// [`Failure::Input`] where it cannot be made or written to, or another job is at work in it.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let (path, temporary) = match path {
            Some(path) => {
                std::fs::create_dir_all(path).map_err(|error| unfit(path, &error))?;
                (path.to_owned(), None)
            }
            None => {
                let made = tempfile::Builder::new().prefix("flights-").tempdir();
                let made = made.doing("making a temporary folder")?;
                (made.path().to_owned(), Some(made))
            }
        };
        let lock = File::create(path.join("lock")).map_err(|error| unfit(&path, &error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock, temporary }),
            Err(TryLockError::WouldBlock) => {
                let message = "another job is at work in this data folder; wait for its end or give another --data-dir";
                Err(Failure::Input(format!("{}: {message}", path.display())))
            }
            Err(TryLockError::Error(error)) => Err(unfit(&path, &error)),
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What to do after an interruption.
    pub(crate) fn afterwards(&self) -> &'static str {
        match self.temporary {
            None => "run again with the same --data-dir to go on",
            Some(_) => "nothing is kept, because no --data-dir was given",
        }
    }
}

fn unfit(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Input(format!("cannot keep data in {}: {error}", path.display()))
}
