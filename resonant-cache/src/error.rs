//! What a cache call can fail with.

use resonant_common::error::Kind;

/// Why a cache call failed, named for what the caller does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The cache was closed: build a new one.
    Closed,
    /// The codec could not encode a value: the value or the codec is at fault.
    Codec,
    /// A setting breaks a rule; the message names it.
    Config,
    /// The key is longer than `max_key_bytes`: shorten or hash it.
    KeyTooLong,
    /// The loader returned an error or panicked; its error is the source.
    Load,
    /// The key is known to have no value: a negative entry, or the loader said so.
    NotFound,
    /// A limit of loaders, callers or namespaces is reached: slow down, or raise it.
    Overloaded,
    /// The argument can never succeed, such as a counter that would overflow.
    Rejected,
    /// A deadline passed: the loader's, the store's, or the wait for a loader's turn.
    TimedOut,
    /// The store could not be reached.
    Unavailable,
    /// What was asked for is not compiled in; the message names the feature.
    Unsupported,
    /// The encoded value is larger than `max_value_bytes`.
    ValueTooLarge,
}

/// Any error of this crate.
pub type Error = resonant_common::error::Error<ErrorKind>;

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Kind for ErrorKind {
    fn code(self) -> &'static str {
        match self {
            ErrorKind::Closed => "cache.closed",
            ErrorKind::Codec => "cache.codec",
            ErrorKind::Config => "cache.config",
            ErrorKind::KeyTooLong => "cache.key_too_long",
            ErrorKind::Load => "cache.load",
            ErrorKind::NotFound => "cache.not_found",
            ErrorKind::Overloaded => "cache.overloaded",
            ErrorKind::Rejected => "cache.rejected",
            ErrorKind::TimedOut => "cache.timed_out",
            ErrorKind::Unavailable => "cache.unavailable",
            ErrorKind::Unsupported => "cache.unsupported",
            ErrorKind::ValueTooLarge => "cache.value_too_large",
        }
    }

    fn is_transient(self) -> bool {
        matches!(
            self,
            ErrorKind::Load | ErrorKind::Overloaded | ErrorKind::TimedOut | ErrorKind::Unavailable
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_stable_and_only_what_may_pass_is_transient() {
        let table = [
            (ErrorKind::Closed, "cache.closed", false),
            (ErrorKind::Codec, "cache.codec", false),
            (ErrorKind::Config, "cache.config", false),
            (ErrorKind::KeyTooLong, "cache.key_too_long", false),
            (ErrorKind::Load, "cache.load", true),
            (ErrorKind::NotFound, "cache.not_found", false),
            (ErrorKind::Overloaded, "cache.overloaded", true),
            (ErrorKind::Rejected, "cache.rejected", false),
            (ErrorKind::TimedOut, "cache.timed_out", true),
            (ErrorKind::Unavailable, "cache.unavailable", true),
            (ErrorKind::Unsupported, "cache.unsupported", false),
            (ErrorKind::ValueTooLarge, "cache.value_too_large", false),
        ];
        for (kind, code, transient) in table {
            assert_eq!((kind.code(), kind.is_transient()), (code, transient));
        }
    }
}
