//! What the database said, in terms of the queue.

use std::future::Future;
use std::time::Duration;

use resonant_common::backoff::Backoff;
use resonant_db::backend::ErrorExt;

use crate::error::{Error, ErrorKind, Result, closed};

/// How often a call is made that the server undid because of others.
const ATTEMPTS: u32 = 8;
const PAUSES: Backoff =
    Backoff { initial: Duration::from_millis(5), max: Duration::from_millis(500), factor: 2.0 };

/// Translates an error of the database.
pub(super) fn fault(operation: &'static str, error: resonant_db::Error) -> Error {
    let (kind, message) = match (error.sqlstate(), error.kind()) {
        (Some("42P01" | "3F000" | "42883"), _) => (
            ErrorKind::Incompatible,
            "the tables of the queue are not in this database: call create_tables(true) once, or run what Postgres::schema_sql(1) gives in a migration".to_owned(),
        ),
        (Some("42501"), _) => (
            ErrorKind::Config,
            "the role lacks a right: grant it usage of the schema resonant_queue, execution of its functions and all on its tables; to create them it must be allowed to create schemas".to_owned(),
        ),
        (Some("22021" | "22P05"), _) => (
            ErrorKind::Encoding,
            "bodies, keys and headers must be UTF-8 without the character U+0000".to_owned(),
        ),
        (Some("54000"), _) => {
            (ErrorKind::Key, "a key or unique id is longer than 1,024 bytes".to_owned())
        }
        (_, resonant_db::ErrorKind::Closed) => {
            return closed(operation).with_source(error);
        }
        (_, resonant_db::ErrorKind::Config) => (ErrorKind::Config, error.message().to_owned()),
        (_, resonant_db::ErrorKind::Unsupported) => {
            (ErrorKind::Unsupported, error.message().to_owned())
        }
        _ => (ErrorKind::Unavailable, "the database does not do it now; it is worth another try".to_owned()),
    };
    let applied = error.may_have_applied();
    let translated = Error::new(kind, operation, message).with_source(error);
    if applied { translated.with_may_have_applied() } else { translated }
}

/// Whether a lock was waited for all the time that is allowed.
pub(super) fn is_lock(error: &Error) -> bool {
    let source = std::error::Error::source(error);
    let source = source.and_then(|source| source.downcast_ref::<resonant_db::Error>());
    source.is_some_and(|source| source.sqlstate() == Some("55P03"))
}

/// Makes a call that stands alone, again where the server undid it because of a concurrent one.
pub(super) async fn calling<T, F>(operation: &'static str, call: impl Fn() -> F + Send) -> Result<T>
where
    F: Future<Output = resonant_db::Result<T>> + Send,
{
    let mut attempt = 0;
    loop {
        match call().await {
            Err(error)
                if error.kind() == resonant_db::ErrorKind::Conflict
                    // A lock that was waited for all the time the schema allows.
                    && error.sqlstate() != Some("55P03")
                    && !error.may_have_applied()
                    && attempt + 1 < ATTEMPTS =>
            {
                let pause = PAUSES.wait(attempt, &mut rand::rng());
                attempt += 1;
                tokio::time::sleep(pause).await;
            }
            result => return result.map_err(|error| fault(operation, error)),
        }
    }
}
