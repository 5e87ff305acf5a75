//! What the cases are made of.

use std::time::Duration;

use serde::de::DeserializeOwned;

use super::Place;
use crate::backend::{Access, BeginOptions, Connection, Isolation, Target};
use crate::{Error, ErrorKind, Param, Result};

/// A statement that runs for minutes unless it is stopped.
pub(super) const ENDLESS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000000000) \
                                  SELECT count(*) FROM n";

/// How long a case waits for something that should happen.
pub(super) const LIMIT: Duration = Duration::from_secs(30);

pub(super) async fn writer(place: &dyn Place) -> Box<dyn Connection> {
    open(place, Access::ReadWrite, None).await
}

pub(super) async fn reader(place: &dyn Place) -> Box<dyn Connection> {
    open(place, Access::ReadOnly, None).await
}

pub(super) async fn open(
    place: &dyn Place,
    access: Access,
    statement_timeout: Option<Duration>,
) -> Box<dyn Connection> {
    let target = Target::new(&place.url(), access, statement_timeout);
    good("connect", place.backend().connect(&target).await)
}

/// The value, or a panic that says what was under way.
pub(super) fn good<T>(what: &str, result: Result<T>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{what}: {error} ({error:?})"),
    }
}

/// The error, or a panic that says what should have failed.
pub(super) fn bad<T>(what: &str, result: Result<T>) -> Error {
    match result {
        Ok(_) => panic!("{what} should have failed"),
        Err(error) => error,
    }
}

/// Asserts the kind of an error.
pub(super) fn kind<T>(what: &str, result: Result<T>, expected: ErrorKind) -> Error {
    let error = bad(what, result);
    assert_eq!(error.kind(), expected, "{what}: {error}");
    error
}

/// Runs a statement and decodes its rows.
pub(super) async fn ask<T: DeserializeOwned>(
    connection: &mut dyn Connection,
    sql: &str,
    params: &[Param<'_>],
) -> Vec<T> {
    let rows = good(sql, connection.query(sql, params).await);
    good(sql, rows.decode())
}

/// Runs a statement and decodes its only value.
pub(super) async fn ask_one<T: DeserializeOwned>(connection: &mut dyn Connection, sql: &str) -> T {
    let mut values = ask(connection, sql, &[]).await;
    assert_eq!(values.len(), 1, "{sql}");
    match values.pop() {
        Some(value) => value,
        None => panic!("{sql}: no row"),
    }
}

/// Runs statements that prepare a case.
pub(super) async fn set_up(connection: &mut dyn Connection, sql: &str) {
    good(sql, connection.batch(sql).await);
}

/// Begins an ordinary transaction.
pub(super) async fn begin(connection: &mut dyn Connection) {
    let options = BeginOptions::new(Isolation::Engine, Access::ReadWrite);
    good("begin", connection.begin(options).await);
}
