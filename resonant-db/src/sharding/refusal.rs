//! Why a statement is not sent anywhere.

use std::borrow::Cow;
use std::fmt;

use crate::{Error, ErrorKind};

/// The reason a statement is refused, and how to write it instead. Holds names from the statement, never values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    reason: Cow<'static, str>,
    rewrite: Cow<'static, str>,
}

pub(crate) type Checked<T = ()> = Result<T, Refusal>;

impl Refusal {
    pub(crate) fn new(
        reason: impl Into<Cow<'static, str>>,
        rewrite: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { reason: reason.into(), rewrite: rewrite.into() }
    }

    pub(crate) fn error(&self, operation: &'static str) -> Error {
        Error::new(ErrorKind::Refused, operation, self.to_string())
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.reason.len() + self.rewrite.len()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.reason, self.rewrite)
    }
}

/// A refusal as a failed result.
pub(crate) fn refuse<T>(
    reason: impl Into<Cow<'static, str>>,
    rewrite: impl Into<Cow<'static, str>>,
) -> Checked<T> {
    Err(Refusal::new(reason, rewrite))
}
