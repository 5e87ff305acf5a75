//! What the job says. Whoever reads it may close the pipe early, as `head` does; the work goes on all the same.

use std::io::{self, ErrorKind, Write};

use crate::failure::{Failure, While};

/// Prints a part of the result.
///
/// # Errors
///
/// [`Failure::Step`] where it cannot be written, unless nobody reads it any more.
pub(crate) fn result(text: &str) -> Result<(), Failure> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).doing("printing"),
        _ => Ok(()),
    }
}

/// Tells the user something beside the result: progress, notes, errors.
pub(crate) fn note(line: &str) {
    // Where even this cannot be written there is nobody left to tell.
    let _ = writeln!(io::stderr().lock(), "{line}");
}
