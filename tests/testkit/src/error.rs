//! One error for the whole kit: what failed, what to do about it, and the end of the log that says why.

use std::error::Error as StdError;
use std::{fmt, io};

/// The result of everything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, named for what the reader does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A builder, a setting or an environment variable asks for something that cannot be.
    Config,
    /// A server or a tool ended instead of doing what it was asked; [`Error::log`] has its last words.
    Exited,
    /// The operating system refused: files, ports, processes.
    Io,
    /// The server cannot be reached or went away in the middle. Often what a test wants to see.
    Lost,
    /// A program is not installed; the message names it and the package that brings it.
    MissingBinary,
    /// The server answered with an error; [`Error::code`] has its code.
    Rejected,
    /// A state was not reached within its limit.
    TimedOut,
    /// This version of an engine, or this system, cannot do it.
    Unsupported,
}

/// The error of this crate.
///
/// `Display` is one line. `Debug` adds the causes and the end of the server's log, because that is what a test prints
/// when it returns an error.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    code: Option<String>,
    log: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), code: None, log: None, source: None }))
    }

    /// An operating-system error with what was being done.
    pub(crate) fn io(doing: impl fmt::Display, source: io::Error) -> Self {
        Self::new(ErrorKind::Io, doing.to_string()).caused_by(source)
    }

    /// A connection that could not be made or broke.
    pub(crate) fn lost(doing: impl fmt::Display, source: io::Error) -> Self {
        Self::new(ErrorKind::Lost, doing.to_string()).caused_by(source)
    }

    pub(crate) fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    pub(crate) fn with_code(mut self, code: impl Into<String>) -> Self {
        self.0.code = Some(code.into());
        self
    }

    pub(crate) fn with_log(mut self, log: impl Into<String>) -> Self {
        let log = log.into();
        self.0.log = (!log.is_empty()).then_some(log);
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The server's own code where it gave one: an SQLSTATE, the first word of a Redis error.
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// The last lines of the log of the server or tool that failed.
    pub fn log(&self) -> Option<&str> {
        self.0.log.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.0.message)?;
        if let Some(code) = &self.0.code {
            write!(f, " (code {code})")?;
        }
        let mut cause = self.source();
        while let Some(error) = cause {
            write!(f, "\n  caused by: {error}")?;
            cause = error.source();
        }
        match &self.0.log {
            Some(log) => write!(f, "\n  its log ends with:\n{log}"),
            None => Ok(()),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}
