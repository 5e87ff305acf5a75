//! What a caller is told of a fault.

use std::fmt;

use super::driver::Fault;
use crate::error::{Error, ErrorKind};

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(text) => write!(f, "the server refused: {}", without_values(text)),
            Self::Broken(text) => write!(f, "the connection broke: {text}"),
            Self::TimedOut(limit) => write!(f, "no answer within {limit:?}"),
            Self::Down(cause) => f.write_str(cause),
        }
    }
}

impl Fault {
    /// The first word of a refusal.
    pub(super) fn code(&self) -> &str {
        match self {
            Self::Refused(text) => text.split(' ').next().unwrap_or_default(),
            _ => "",
        }
    }

    /// Whether the command may have been carried out all the same.
    pub(super) fn may_have_applied(&self) -> bool {
        matches!(self, Self::Broken(_) | Self::TimedOut(_))
    }

    pub(super) fn into_error(self, operation: &'static str, writes: bool) -> Error {
        let kind = match &self {
            Self::TimedOut(_) => ErrorKind::TimedOut,
            Self::Refused(text) if text.contains("would overflow") => ErrorKind::Rejected,
            Self::Refused(text) if text.contains("cluster support disabled") => ErrorKind::Config,
            Self::Refused(_) | Self::Broken(_) | Self::Down(_) => ErrorKind::Unavailable,
        };
        let message = match &self {
            Self::Refused(_) if kind == ErrorKind::Rejected => {
                "the counter would overflow 64 bits; nothing was changed".into()
            }
            Self::Refused(_) if kind == ErrorKind::Config => {
                "the server is not part of a Redis Cluster; set cluster_mode(false)".into()
            }
            Self::Refused(text) if text.starts_with("MOVED") => {
                "the server is part of a Redis Cluster; set cluster_mode(true)".into()
            }
            other => format!("the store does not answer: {other}"),
        };
        let error = Error::new(kind, operation, message);
        if writes && self.may_have_applied() { error.with_may_have_applied() } else { error }
    }
}

/// A server may repeat arguments in its refusals; its first words say enough.
fn without_values(text: &str) -> &str {
    let end = text.find(['\'', '`', '"']).unwrap_or(text.len());
    text[..end].trim_end_matches([' ', ','])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_fault_has_its_kind() {
        let refused = |text: &str| Fault::Refused(text.into());
        let cases = [
            (refused("ERR increment or decrement would overflow"), ErrorKind::Rejected, false),
            (refused("ERR This instance has cluster support disabled"), ErrorKind::Config, false),
            (refused("NOPERM User x has no permissions"), ErrorKind::Unavailable, false),
            (refused("WRONGPASS invalid username-password pair"), ErrorKind::Unavailable, false),
            (refused("OOM command not allowed"), ErrorKind::Unavailable, false),
            (refused("CLUSTERDOWN Hash slot not served"), ErrorKind::Unavailable, false),
            (Fault::Broken("reset".into()), ErrorKind::Unavailable, true),
            (Fault::Down("h:1: refused".into()), ErrorKind::Unavailable, false),
            (Fault::TimedOut(Duration::from_secs(1)), ErrorKind::TimedOut, true),
        ];
        for (fault, kind, may_have_applied) in cases {
            let error = fault.clone().into_error("write", true);
            assert_eq!(
                (error.kind(), error.may_have_applied()),
                (kind, may_have_applied),
                "{fault:?}"
            );
            assert!(!fault.into_error("read", false).may_have_applied());
        }
    }

    #[test]
    fn values_in_a_refusal_are_not_repeated() {
        let fault =
            Fault::Refused("ERR unknown command 'X', with args beginning with: 'secret'".into());
        assert!(!fault.into_error("read", false).to_string().contains("secret"));
    }
}
