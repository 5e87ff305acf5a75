//! One opaque error shape for the whole family.
//!
//! Every crate names its own [`Kind`] and aliases [`Error`] to it, so that `resonant_queue::Error` and
//! `resonant_cache::Error` answer the same questions: what should the caller do next, could the same call succeed
//! later, may it have been applied, when to try again. A kind has a stable [code](Error::code) the docs can be searched
//! for. Drivers' errors never appear by type: they travel as [`source`](std::error::Error::source).
//!
//! Messages name the node, the cause and the next step. They never hold passwords or parameter values.
//!
//! Errors are cheap to clone, because a single failed load or batch is reported to everyone who waited for it.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Any error a user's closure may return.
pub type BoxError = Box<dyn StdError + Send + Sync + 'static>;

/// What went wrong, named for what the caller does next. Each crate has one enum of these.
pub trait Kind: fmt::Debug + Copy + Eq + Send + Sync + 'static {
    /// The stable, searchable code, such as `queue.closed`.
    fn code(self) -> &'static str;

    /// Whether the same call could succeed later without anybody changing anything.
    fn is_transient(self) -> bool;
}

/// An error with a kind, the operation that met it, a message for a person and, where there is one, its source.
#[derive(Clone)]
pub struct Error<K> {
    inner: Arc<Inner<K>>,
}

#[derive(Clone)]
struct Inner<K> {
    kind: K,
    operation: &'static str,
    message: String,
    may_have_applied: bool,
    retries_exhausted: bool,
    retry_after: Option<Duration>,
    source: Option<Arc<dyn StdError + Send + Sync + 'static>>,
}

impl<K: Kind> Error<K> {
    /// An error met by `operation` (the public method's name); `message` is lower-case, names the cause and the next
    /// step, and holds no secret.
    pub fn new(kind: K, operation: &'static str, message: impl Into<String>) -> Self {
        Self {
            inner: Arc::new(Inner {
                kind,
                operation,
                message: message.into(),
                may_have_applied: false,
                retries_exhausted: false,
                retry_after: None,
                source: None,
            }),
        }
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.facts().source = Some(Arc::from(source.into()));
        self
    }

    /// Marks that the operation may have taken effect although it failed: a reply was lost, a commit was cut off.
    #[must_use]
    pub fn with_may_have_applied(mut self) -> Self {
        self.facts().may_have_applied = true;
        self
    }

    /// Marks that this layer has already retried as often as its budget allows.
    #[must_use]
    pub fn with_retries_exhausted(mut self) -> Self {
        self.facts().retries_exhausted = true;
        self
    }

    /// Adds how long to wait before trying again.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.facts().retry_after = Some(after);
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> K {
        self.inner.kind
    }

    /// The stable, searchable code of the kind, such as `queue.closed`.
    pub fn code(&self) -> &'static str {
        self.inner.kind.code()
    }

    /// The public method that failed.
    pub fn operation(&self) -> &'static str {
        self.inner.operation
    }

    /// The message alone, without operation and code.
    pub fn message(&self) -> &str {
        &self.inner.message
    }

    /// Whether the same call could succeed later.
    pub fn is_transient(&self) -> bool {
        self.inner.kind.is_transient()
    }

    /// Whether the operation may have taken effect although it failed. Retry only what is idempotent.
    pub fn may_have_applied(&self) -> bool {
        self.inner.may_have_applied
    }

    /// Whether a layer below has already retried: do not multiply.
    pub fn retries_exhausted(&self) -> bool {
        self.inner.retries_exhausted
    }

    /// How long to wait before trying again, where the failing side said so.
    pub fn retry_after(&self) -> Option<Duration> {
        self.inner.retry_after
    }

    fn facts(&mut self) -> &mut Inner<K> {
        Arc::make_mut(&mut self.inner)
    }
}

impl<K: Kind> fmt::Display for Error<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} [{}]", self.inner.operation, self.inner.message, self.code())
    }
}

impl<K: Kind> fmt::Debug for Error<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Error");
        debug.field("code", &self.code()).field("operation", &self.inner.operation);
        debug.field("message", &self.inner.message);
        if self.inner.may_have_applied {
            debug.field("may_have_applied", &true);
        }
        if let Some(source) = &self.inner.source {
            debug.field("source", source);
        }
        debug.finish()
    }
}

impl<K: Kind> StdError for Error<K> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Sample {
        Closed,
        Unavailable,
    }

    impl Kind for Sample {
        fn code(self) -> &'static str {
            match self {
                Sample::Closed => "sample.closed",
                Sample::Unavailable => "sample.unavailable",
            }
        }
        fn is_transient(self) -> bool {
            self == Sample::Unavailable
        }
    }

    #[test]
    fn one_line_names_operation_message_and_code() {
        let error = Error::new(Sample::Closed, "publish", "the queue is closed; build a new one");
        assert_eq!(
            error.to_string(),
            "publish: the queue is closed; build a new one [sample.closed]"
        );
        assert!(!error.is_transient());
        assert!(StdError::source(&error).is_none());
    }

    #[test]
    fn facts_survive_cloning_and_the_source_is_kept() {
        let error = Error::new(Sample::Unavailable, "commit", "the connection broke")
            .with_may_have_applied()
            .with_retry_after(Duration::from_secs(1))
            .with_source(std::io::Error::other("reset"));
        let copy = error.clone().with_retries_exhausted();
        assert!(copy.may_have_applied() && copy.is_transient() && copy.retries_exhausted());
        assert!(!error.retries_exhausted());
        assert_eq!(copy.retry_after(), Some(Duration::from_secs(1)));
        assert_eq!(StdError::source(&copy).map(ToString::to_string), Some("reset".into()));
    }
}
