//! Where lines go that are no flights: `<input>.rejected`, one line each with its number and reason, its bytes unchanged.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::failure::{Failure, While};

/// Collects rejected lines; the file is made with the first one.
#[derive(Debug)]
pub(crate) struct Rejects {
    path: PathBuf,
    fallback: PathBuf,
    file: Option<BufWriter<File>>,
}

impl Rejects {
    /// Rejects of `input`, written beside it, or, where that folder cannot be written to, into the current one.
    pub(crate) fn of(input: &Path) -> Self {
        let beside = |path: &Path| {
            let mut name = path.as_os_str().to_owned();
            name.push(".rejected");
            PathBuf::from(name)
        };
        let fallback = beside(Path::new(input.file_name().unwrap_or(input.as_os_str())));
        Self { path: beside(input), fallback, file: None }
    }

    /// Writes one line.
    pub(crate) fn write(&mut self, number: u64, reason: &str, bytes: &[u8]) -> Result<(), Failure> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let file = File::create(&self.path).or_else(|_| {
                    self.path.clone_from(&self.fallback);
                    File::create(&self.path)
                });
                self.file.insert(BufWriter::new(file.doing("creating the file of rejected lines")?))
            }
        };
        write!(file, "line {number}: {reason}: ")
            .and_then(|()| file.write_all(bytes))
            .and_then(|()| file.write_all(b"\n"))
            .doing("writing a rejected line")
    }

    /// Finishes the file. Its path, if there was anything to write.
    pub(crate) fn finish(self) -> Result<Option<PathBuf>, Failure> {
        match self.file {
            None => Ok(None),
            Some(file) => {
                let file = file.into_inner().map_err(std::io::IntoInnerError::into_error);
                file.and_then(|file| file.sync_all()).doing("writing the rejected lines")?;
                Ok(Some(self.path))
            }
        }
    }
}
