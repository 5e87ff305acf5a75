//! The server's codes as kinds of ours, and what is known of a statement that failed.
//!
//! | the server says | kind | the connection |
//! |---|---|---|
//! | 23… integrity | `Constraint`, with kind and name | goes on |
//! | 40001, 40P01, 55P03: a concurrent transaction | `Conflict` | goes on |
//! | 57014 | `TimedOut` | goes on |
//! | 25006 on a connection that reads | `Rejected` | goes on |
//! | 25006 on a connection that writes: the node takes no writes any more | `Unavailable` | is closed |
//! | 08…, 57P01 to 57P05, 58…, any fatal one | `Unavailable` | is closed |
//! | 53300, 53400: full | `Overloaded` | goes on |
//! | 53100, 53200: disk, memory | `Unavailable` | goes on |
//! | 28…, 3D000 at the login | `Config` | . |
//! | others | `Rejected` | goes on |
//!
//! Whether it may have been applied: an answer with an error means no (the server undoes the statement before it
//! answers), except 08007 and 40003, which mean that it does not know. No answer means no as long as nothing was sent, or
//! the connection only reads, or a transaction was open and this was not its end; otherwise it is unknown.

use tokio_postgres::error::DbError;

use crate::backend::{ConstraintKind, SqlState, Violation};
use crate::{Error, ErrorKind};

/// How a call failed, before it is put into words.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The driver failed, or the server said something.
    Driver(tokio_postgres::Error),
    /// Nothing came for so long.
    Silent(std::time::Duration),
    /// Refused here, nothing was sent.
    Refused(String),
    /// The statement took its parameters for what they no longer are.
    Outdated,
}

impl From<tokio_postgres::Error> for Trouble {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Driver(error)
    }
}

impl Trouble {
    pub(super) fn said(&self) -> Option<&DbError> {
        match self {
            Self::Driver(error) => error.as_db_error(),
            _ => None,
        }
    }

    pub(super) fn code(&self) -> Option<&str> {
        self.said().map(|said| said.code().code())
    }

    /// Whether the server knows the statement differently from when it was prepared: the schema has changed.
    pub(super) fn is_stale(&self) -> bool {
        let Some(said) = self.said() else { return false };
        match said.code().code() {
            "26000" => true,
            // The words are translated, the place in the server's code is not.
            "0A000" => said.routine() == Some("RevalidateCachedQuery"),
            // A statement that was fine when it was prepared.
            code => code.starts_with("42") && code != "42501",
        }
    }

    /// Whether a parameter did not fit the type it was thought to have.
    pub(super) fn doubts_types(&self) -> bool {
        match self {
            Self::Refused(_) => true,
            _ => self
                .code()
                .is_some_and(|code| matches!(code, "22003" | "22007" | "22P02" | "22P03")),
        }
    }

    /// Whether a statement does no longer fit the schema it was prepared for, so that the transaction is lost with it.
    pub(super) fn is_outdated(&self) -> bool {
        if matches!(self, Self::Outdated) {
            return true;
        }
        self.is_stale() && self.code().is_some_and(|code| matches!(code, "0A000" | "26000"))
    }

    /// Whether it was refused here.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_))
    }

    /// Whether the connection is done with after this.
    pub(super) fn is_fatal(&self, writes: bool) -> bool {
        match self {
            Self::Refused(_) | Self::Outdated => false,
            Self::Silent(_) => true,
            Self::Driver(error) => match error.as_db_error() {
                Some(said) => {
                    use tokio_postgres::error::Severity;
                    let code = said.code().code();
                    matches!(said.parsed_severity(), Some(Severity::Fatal | Severity::Panic))
                        || code.starts_with("08")
                        || code.starts_with("57P")
                        || code.starts_with("58")
                        || (code == "25006" && writes)
                }
                None => true,
            },
        }
    }
}

/// The facts an error is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) operation: &'static str,
    pub(super) node: &'a str,
    /// The statement could write: neither the connection nor the transaction is a reading one.
    pub(super) writes: bool,
    /// If no answer comes, it may have been applied all the same.
    pub(super) in_doubt: bool,
    /// Why the session ended, as far as the driver knows.
    pub(super) cause: &'a Option<String>,
}

pub(super) fn translate(place: Place<'_>, trouble: &Trouble) -> Error {
    let Place { operation, node, .. } = place;
    match trouble {
        Trouble::Refused(message) => Error::new(ErrorKind::Rejected, operation, message.clone()),
        Trouble::Outdated => {
            let message =
                "the schema changed under a prepared statement; run the transaction again";
            Error::new(ErrorKind::Conflict, operation, message)
        }
        Trouble::Silent(limit) => {
            let message = format!(
                "{node}: no sign of life for {limit:?}; the connection is given up. Check the network and the node, or \
                 raise statement_timeout"
            );
            doubt(Error::new(ErrorKind::TimedOut, operation, message), place.in_doubt)
        }
        Trouble::Driver(error) => match error.as_db_error() {
            Some(said) => answer(place, said),
            None => lost(place, error),
        },
    }
}

fn doubt(error: Error, in_doubt: bool) -> Error {
    if in_doubt { error.with_may_have_applied() } else { error }
}

/// The connection broke.
fn lost(place: Place<'_>, error: &tokio_postgres::Error) -> Error {
    let cause = match (place.cause, std::error::Error::source(error)) {
        (Some(cause), _) => cause.clone(),
        (None, Some(source)) => source.to_string(),
        (None, None) => error.to_string(),
    };
    let message = format!("{}: the connection was lost ({cause})", place.node);
    doubt(Error::new(ErrorKind::Unavailable, place.operation, message), place.in_doubt)
}

/// The server refused.
fn answer(place: Place<'_>, said: &DbError) -> Error {
    let code = said.code().code();
    let words = words(said);
    let kind = classify(code, place.writes);
    let message = match (kind, code) {
        (ErrorKind::Rejected, "25006") => {
            "this connection only reads; send writes through write() or transaction()".to_owned()
        }
        (ErrorKind::Unavailable, "25006") => format!(
            "{}: the node takes no writes: it is a standby or read-only now; point primary to the node that does",
            place.node
        ),
        (ErrorKind::TimedOut, _) => {
            format!(
                "{}: the statement was stopped ({words}); raise statement_timeout if it may run longer",
                place.node
            )
        }
        (ErrorKind::Rejected | ErrorKind::Constraint, _) => words.clone(),
        _ => format!("{}: {words}", place.node),
    };
    let error = Error::new(kind, place.operation, message);
    let error = doubt(error, matches!(code, "08007" | "40003"));
    let state = SqlState::new(code, words);
    match kind {
        ErrorKind::Constraint => {
            let named = said.constraint().or(said.column()).map(str::to_owned);
            error.with_source(Violation::new(constraint_kind(code), named).with_source(state))
        }
        _ => error.with_source(state),
    }
}

fn classify(code: &str, writes: bool) -> ErrorKind {
    match code {
        "55P03" => ErrorKind::Conflict,
        "40003" => ErrorKind::Unavailable,
        "57014" => ErrorKind::TimedOut,
        "25006" if writes => ErrorKind::Unavailable,
        "53300" | "53400" => ErrorKind::Overloaded,
        _ => match code.get(..2) {
            Some("23" | "44") => ErrorKind::Constraint,
            Some("40") => ErrorKind::Conflict,
            Some("08" | "53" | "57" | "58") => ErrorKind::Unavailable,
            Some("25") if code == "25P03" => ErrorKind::Unavailable,
            _ => ErrorKind::Rejected,
        },
    }
}

fn constraint_kind(code: &str) -> ConstraintKind {
    match code {
        "23502" => ConstraintKind::NotNull,
        "23503" => ConstraintKind::ForeignKey,
        "23505" => ConstraintKind::Unique,
        "23514" | "44000" => ConstraintKind::Check,
        _ => ConstraintKind::Other,
    }
}

/// The server's message without any value. Its detail, which is full of them, is left out; a data exception quotes the
/// value it stumbled over, so there what is in quotes is left out too.
pub(super) fn words(said: &DbError) -> String {
    let message = said.message();
    let mut words =
        if said.code().code().starts_with("22") { unquoted(message) } else { message.to_owned() };
    if let (Some(tokio_postgres::error::ErrorPosition::Original(place)), false) =
        (said.position(), said.code().code().starts_with("22"))
    {
        words.push_str(&format!(" (at character {place})"));
    }
    words
}

fn unquoted(message: &str) -> String {
    let mut parts = message.split('"');
    let mut shown = parts.next().unwrap_or_default().to_owned();
    let Some(last) = parts.next_back() else { return shown };
    shown.push('…');
    // A quote inside the value would end it too early: only what is behind the last one is safe.
    shown.push_str(last);
    shown
}

/// Why no session could be opened.
pub(super) fn refused_login(node: &str, error: &tokio_postgres::Error) -> Error {
    let Some(said) = error.as_db_error() else {
        let source = std::error::Error::source(error).map(ToString::to_string);
        let cause = source.unwrap_or_else(|| error.to_string());
        // What the driver finds wrong by itself: a password that is missing, channel binding that is required.
        let wrong =
            ["authentication error", "invalid configuration"].contains(&error.to_string().as_str());
        let kind = if wrong { ErrorKind::Config } else { ErrorKind::Unavailable };
        return Error::new(
            kind,
            "connect",
            format!("{node}: the session could not be opened ({cause})"),
        );
    };
    let code = said.code().code();
    let kind = match code {
        // A pooler that does not take the options of the URL.
        "08P01" if said.message().contains("startup parameter") => ErrorKind::Unsupported,
        "3D000" => ErrorKind::Config,
        _ if code.starts_with("28") => ErrorKind::Config,
        // A parameter of the session that the server does not know or take.
        "22023" | "42704" => ErrorKind::Config,
        _ => match classify(code, true) {
            ErrorKind::Rejected => ErrorKind::Unavailable,
            kind => kind,
        },
    };
    let words = words(said);
    Error::new(kind, "connect", format!("{node}: {words}")).with_source(SqlState::new(code, words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_its_kind() {
        use ErrorKind::*;
        let cases = [
            ("08006", Unavailable),
            ("08P01", Unavailable),
            ("0A000", Rejected),
            ("22012", Rejected),
            ("22P02", Rejected),
            ("23502", Constraint),
            ("23505", Constraint),
            ("23P01", Constraint),
            ("25P02", Rejected),
            ("25P03", Unavailable),
            ("40001", Conflict),
            ("40P01", Conflict),
            ("40003", Unavailable),
            ("42601", Rejected),
            ("42501", Rejected),
            ("44000", Constraint),
            ("53100", Unavailable),
            ("53300", Overloaded),
            ("55P03", Conflict),
            ("57014", TimedOut),
            ("57P01", Unavailable),
            ("57P03", Unavailable),
            ("58030", Unavailable),
            ("P0001", Rejected),
            ("XX000", Rejected),
        ];
        for (code, expected) in cases {
            assert_eq!(classify(code, true), expected, "{code}");
        }
        assert_eq!(classify("25006", true), Unavailable);
        assert_eq!(classify("25006", false), Rejected);
    }

    #[test]
    fn constraints_are_told_apart() {
        let kinds = ["23502", "23503", "23505", "23514", "23P01"].map(constraint_kind);
        use ConstraintKind::*;
        assert_eq!(kinds, [NotNull, ForeignKey, Unique, Check, Other]);
    }

    #[test]
    fn what_is_quoted_is_not_repeated() {
        let said = "invalid input syntax for type integer: \"s3\"cr3t\"";
        assert_eq!(unquoted(said), "invalid input syntax for type integer: …");
        assert_eq!(unquoted("division by zero"), "division by zero");
        assert_eq!(unquoted("value \"s3cr3t\" is out of range"), "value … is out of range");
    }
}
