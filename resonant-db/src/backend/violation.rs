//! Which constraint refused the data.

use std::error::Error as StdError;
use std::fmt;

use resonant_common::error::BoxError;

use crate::Error;

/// The kind of a constraint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConstraintKind {
    /// A check of the schema.
    Check,
    /// A row that is referred to is missing, or still referred to.
    ForeignKey,
    /// NULL where none is allowed.
    NotNull,
    /// Something else: a trigger, a type, an exclusion.
    Other,
    /// A value that must be unique is there already; also a primary key.
    Unique,
}

/// What a backend gives as the source of an error of kind [`ErrorKind::Constraint`](crate::ErrorKind::Constraint).
#[derive(Debug)]
pub struct Violation {
    kind: ConstraintKind,
    constraint: Option<String>,
    source: Option<BoxError>,
}

impl Violation {
    /// A violation of a constraint, with its name where the engine says it.
    pub fn new(kind: ConstraintKind, constraint: Option<String>) -> Self {
        Self { kind, constraint, source: None }
    }

    /// Adds the driver's error.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ConstraintKind::Check => "a check",
            ConstraintKind::ForeignKey => "a foreign key",
            ConstraintKind::NotNull => "a not-null constraint",
            ConstraintKind::Other => "a constraint",
            ConstraintKind::Unique => "a unique constraint",
        };
        match &self.constraint {
            Some(name) => write!(f, "{kind} refused the data: {name}"),
            None => write!(f, "{kind} refused the data"),
        }
    }
}

impl StdError for Violation {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// What an engine with standard codes said: what a backend gives as the source of an error, so that
/// [`sqlstate`](ErrorExt::sqlstate) finds the code.
#[derive(Debug)]
pub struct SqlState {
    code: Box<str>,
    message: String,
}

impl SqlState {
    /// A code and the engine's words, without anything that holds a value.
    pub fn new(code: impl Into<Box<str>>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SQLSTATE {}: {}", self.code, self.message)
    }
}

impl StdError for SqlState {}

/// What an [`Error`] of a database can be asked besides what every error of the family answers.
pub trait ErrorExt: private::Sealed {
    /// The kind of the constraint that refused the data.
    fn constraint_kind(&self) -> Option<ConstraintKind>;

    /// The constraint that refused the data: its name, or its columns where the engine names those (SQLite:
    /// `users.email`).
    fn constraint(&self) -> Option<&str>;

    /// The code the engine gave its refusal, as the SQL standard has them: `23505`, `40001`. None from an engine without
    /// such codes (SQLite), and none when it was not the engine that failed.
    fn sqlstate(&self) -> Option<&str>;

    /// Whether a value that must be unique is there already.
    fn is_unique_violation(&self) -> bool {
        self.constraint_kind() == Some(ConstraintKind::Unique)
    }

    /// Whether a row that is referred to is missing, or still referred to.
    fn is_foreign_key_violation(&self) -> bool {
        self.constraint_kind() == Some(ConstraintKind::ForeignKey)
    }
}

impl ErrorExt for Error {
    fn constraint_kind(&self) -> Option<ConstraintKind> {
        find::<Violation>(self).map(|violation| violation.kind)
    }

    fn constraint(&self) -> Option<&str> {
        find::<Violation>(self)?.constraint.as_deref()
    }

    fn sqlstate(&self) -> Option<&str> {
        find::<SqlState>(self).map(|state| &*state.code)
    }
}

/// The first source of a type.
fn find<T: StdError + 'static>(error: &Error) -> Option<&T> {
    let mut next = StdError::source(error);
    while let Some(source) = next {
        if let Some(found) = source.downcast_ref() {
            return Some(found);
        }
        next = source.source();
    }
    None
}

mod private {
    pub trait Sealed {}
    impl Sealed for crate::Error {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn the_violation_is_found_below_other_errors() {
        let violation = Violation::new(ConstraintKind::Unique, Some("users.email".into()))
            .with_source(std::io::Error::other("driver"));
        let inner = Error::new(ErrorKind::Constraint, "execute", "refused").with_source(violation);
        let outer = Error::new(ErrorKind::Constraint, "transaction", "refused").with_source(inner);
        assert!(outer.is_unique_violation() && !outer.is_foreign_key_violation());
        assert_eq!(outer.constraint(), Some("users.email"));
        let other = Error::new(ErrorKind::Rejected, "execute", "syntax");
        assert_eq!((other.constraint_kind(), other.sqlstate()), (None, None));
    }

    #[test]
    fn the_code_is_found_below_a_violation() {
        let violation = Violation::new(ConstraintKind::Check, Some("positive".into()))
            .with_source(SqlState::new("23514", "refused"));
        let error = Error::new(ErrorKind::Constraint, "execute", "refused").with_source(violation);
        assert_eq!(error.sqlstate(), Some("23514"));
    }
}
