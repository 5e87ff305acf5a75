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

/// What an [`Error`] of a database can be asked besides what every error of the family answers.
pub trait ErrorExt: private::Sealed {
    /// The kind of the constraint that refused the data.
    fn constraint_kind(&self) -> Option<ConstraintKind>;

    /// The constraint that refused the data: its name, or its columns where the engine names those (SQLite:
    /// `users.email`).
    fn constraint(&self) -> Option<&str>;

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
        violation(self).map(|violation| violation.kind)
    }

    fn constraint(&self) -> Option<&str> {
        violation(self)?.constraint.as_deref()
    }
}

fn violation(error: &Error) -> Option<&Violation> {
    let mut next = StdError::source(error);
    while let Some(source) = next {
        if let Some(violation) = source.downcast_ref() {
            return Some(violation);
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
        assert_eq!(other.constraint_kind(), None);
    }
}
