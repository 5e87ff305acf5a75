//! What can go wrong between a file and a service.

use std::fmt;
use std::path::PathBuf;

use resonant_common::error::{BoxError, Kind};

/// What went wrong, named for what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The file or the environment holds mistakes. The source is a [`Mistakes`]. Correct them.
    Config,
    /// A system call failed, such as binding the port. The source says why.
    Io,
    /// The file names no such part, or this one was opened with another type. Add it to the file, or ask for what it names.
    Missing,
    /// A part refused to open or to start. The source is its error.
    Part,
}

impl Kind for ErrorKind {
    fn code(self) -> &'static str {
        match self {
            Self::Config => "app.config",
            Self::Io => "app.io",
            Self::Missing => "app.missing",
            Self::Part => "app.part",
        }
    }

    fn is_transient(self) -> bool {
        false
    }
}

/// An error of the [`app`](crate::app) module.
pub type Error = resonant_common::error::Error<ErrorKind>;

/// What the [`app`](crate::app) module's methods return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A part that refused, in its own words.
pub(super) fn part(
    operation: &'static str,
    what: impl fmt::Display,
    error: impl Into<BoxError>,
) -> Error {
    let error = error.into();
    Error::new(ErrorKind::Part, operation, format!("{what}: {error}")).with_source(error)
}

/// Where a setting was given.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// The file as a whole: a setting that is not there, or a file that cannot be read.
    File(PathBuf),
    /// A line of the file, counted from 1.
    Line(PathBuf, usize),
    /// A variable of the environment.
    Variable(String),
    /// What the program said itself, as by [`Reader::set`](super::Reader::set).
    Program,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Line(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Program => f.write_str("command line"),
        }
    }
}

/// One mistake: where it stands, at which setting, and what is expected. Never holds a value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mistake {
    /// Where the setting was given.
    pub place: Place,
    /// The setting, such as `database.pool.max_size`. Empty where the file as a whole is meant.
    pub key: String,
    /// What is expected.
    pub expected: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.expected)
    }
}

/// All mistakes of a file and of the environment over it, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes(pub(super) Vec<Mistake>);

impl Mistakes {
    /// Each of them; at least one.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Mistake> {
        self.0.iter()
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(f, "{count} mistake{} in the settings", if count == 1 { "" } else { "s" })?;
        self.0.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

impl std::error::Error for Mistakes {}

impl From<Mistakes> for Error {
    fn from(mistakes: Mistakes) -> Self {
        Error::new(ErrorKind::Config, "from_file", mistakes.to_string()).with_source(mistakes)
    }
}
