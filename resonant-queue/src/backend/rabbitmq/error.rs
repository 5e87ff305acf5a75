//! From the driver's errors to ours. No driver type leaves this module.

use std::fmt;

use crate::error::{Error, ErrorKind};

/// Why a step at the broker failed.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// The driver or the broker said so.
    Driver(lapin::Error),
    /// No answer in time.
    Late(&'static str),
    /// The broker took a message and could not route it: its queue is gone.
    Unroutable(String),
    /// The broker refused to store a message.
    Refused,
    /// The broker takes no messages for now: its memory or disk is used up.
    Blocked,
    /// A queue is missing and is not to be created.
    Missing(String),
    /// No address could be reached.
    Unreachable(String),
}

impl From<lapin::Error> for Fault {
    fn from(error: lapin::Error) -> Self {
        Fault::Driver(error)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Driver(error) => write!(f, "{error}"),
            Fault::Late(what) => write!(f, "no answer in time to {what}"),
            Fault::Unroutable(queue) => write!(f, "the queue {queue} is gone"),
            Fault::Missing(queue) => write!(f, "there is no queue {queue}"),
            Fault::Refused => f.write_str("the broker refused to store it"),
            Fault::Blocked => {
                f.write_str("the broker takes no messages, its memory or disk is used up")
            }
            Fault::Unreachable(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Fault {}

impl Fault {
    /// Whether the broker says that there is no such queue, and not merely that it cannot be reached now.
    pub(super) fn is_missing(&self) -> bool {
        self.reply_code() == Some(404) && self.to_string().contains("no queue")
    }

    /// Whether the broker does not know the user or the password.
    pub(super) fn is_access_refused(&self) -> bool {
        self.reply_code() == Some(403)
    }

    fn reply_code(&self) -> Option<u16> {
        match self {
            Fault::Driver(error) => match error.kind() {
                lapin::ErrorKind::ProtocolError(error) => Some(error.get_id()),
                _ => None,
            },
            _ => None,
        }
    }

    /// The error a caller sees.
    pub(super) fn into_error(self, operation: &'static str) -> Error {
        let (kind, text) = match self.reply_code() {
            None if matches!(self, Fault::Missing(_)) => (
                ErrorKind::NotFound,
                "a queue is missing in RabbitMQ and create_queues(false) forbids to make it; declare it as the format says",
            ),
            Some(403 | 530) => (
                ErrorKind::Config,
                "RabbitMQ refuses the user, its permissions or the virtual host; check the URL and the grants",
            ),
            // The code stands for a channel's mistakes, too: those pass with the channel.
            Some(406) if self.to_string().contains("inequivalent arg") => (
                ErrorKind::Incompatible,
                "an object of this name exists in RabbitMQ with other settings; use another queue name, or delete it if it is not needed",
            ),
            _ => (ErrorKind::Unavailable, "RabbitMQ does not answer as it should; try again"),
        };
        let message = format!("{text} ({self})");
        Error::new(kind, operation, message).with_source(self)
    }
}

/// A fault after which some of a batch may be stored.
#[derive(Debug)]
pub(super) struct Partly {
    pub(super) fault: Fault,
    /// Whether some of it may be stored.
    pub(super) may_have_applied: bool,
}

impl Partly {
    pub(super) fn nothing(fault: Fault) -> Self {
        Self { fault, may_have_applied: false }
    }

    pub(super) fn into_error(self, operation: &'static str) -> Error {
        let error = self.fault.into_error(operation);
        if self.may_have_applied { error.with_may_have_applied() } else { error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_say_what_to_do_next() {
        let refused =
            lapin::Error::from(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
        let error = Fault::from(refused).into_error("publish");
        assert_eq!((error.kind(), error.is_transient()), (ErrorKind::Unavailable, true));
        let late = Partly { fault: Fault::Late("a publish"), may_have_applied: true };
        let error = late.into_error("publish");
        assert!(error.may_have_applied() && error.to_string().contains("in time"), "{error}");
        assert!(Fault::Blocked.into_error("publish").to_string().contains("memory"));
    }
}
