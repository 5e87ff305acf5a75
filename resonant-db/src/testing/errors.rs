//! What is refused, and how.

use super::Place;
use super::kit::{ask_one, good, kind, reader, set_up, writer};
use crate::backend::{ConstraintKind, ErrorExt, ParamRows};
use crate::pool::Verdict;
use crate::{ErrorKind, params};

/// Each constraint has its kind, and the message does not repeat the data.
pub async fn a_constraint_says_its_kind(place: &dyn Place) {
    let mut connection = writer(place).await;
    set_up(
        &mut *connection,
        "CREATE TABLE org (id BIGINT PRIMARY KEY); \
         CREATE TABLE member (id BIGINT PRIMARY KEY, email TEXT UNIQUE, name TEXT NOT NULL, \
             age BIGINT CHECK (age >= 0), org BIGINT REFERENCES org (id)); \
         INSERT INTO org VALUES (1); INSERT INTO member VALUES (1, 's3cr3t', 'Ada', 36, 1)",
    )
    .await;
    let sql = "INSERT INTO member (id, email, name, age, org) VALUES ($1, $2, $3, $4, $5)";
    let cases = [
        (params![1, "b", "B", 1, 1].to_vec(), ConstraintKind::Unique),
        (params![2, "s3cr3t", "B", 1, 1].to_vec(), ConstraintKind::Unique),
        (params![2, "b", None::<&str>, 1, 1].to_vec(), ConstraintKind::NotNull),
        (params![2, "b", "B", -1, 1].to_vec(), ConstraintKind::Check),
        (params![2, "b", "B", 1, 9].to_vec(), ConstraintKind::ForeignKey),
    ];
    for (values, expected) in cases {
        let error = kind(sql, connection.execute(sql, &values).await, ErrorKind::Constraint);
        assert_eq!(error.constraint_kind(), Some(expected), "{error}");
        assert!(!format!("{error} {error:?}").contains("s3cr3t"), "{error:?}");
        assert!(!error.is_transient() && !error.may_have_applied(), "{error:?}");
    }
    let gone = connection.execute("DELETE FROM org WHERE id = 1", &[]).await;
    assert!(kind("delete", gone, ErrorKind::Constraint).is_foreign_key_violation());
    let count: i64 = ask_one(&mut *connection, "SELECT count(*) FROM member").await;
    assert_eq!(count, 1);
}

/// A statement the engine cannot run is `Rejected`, at once, and the connection goes on.
pub async fn a_wrong_statement_is_rejected_and_hurts_nobody(place: &dyn Place) {
    let mut connection = writer(place).await;
    for sql in
        ["SELEC 1", "SELECT * FROM nowhere", "INSERT INTO nowhere VALUES (1)", "SELECT nothing"]
    {
        kind(sql, connection.query(sql, &[]).await, ErrorKind::Rejected);
        kind(sql, connection.execute(sql, &[]).await, ErrorKind::Rejected);
        kind(sql, connection.batch(sql).await, ErrorKind::Rejected);
    }
    assert_eq!(connection.verdict(), Verdict::Reuse);
    assert_eq!(ask_one::<i64>(&mut *connection, "SELECT 1").await, 1);
}

/// A connection that was opened to read cannot write, whatever the statement looks like.
pub async fn a_read_only_connection_refuses_writes(place: &dyn Place) {
    let mut connection = writer(place).await;
    set_up(&mut *connection, "CREATE TABLE r (n BIGINT); INSERT INTO r VALUES (1)").await;
    let mut reader = reader(place).await;
    for sql in [
        "INSERT INTO r VALUES (2)",
        "UPDATE r SET n = 2",
        "DELETE FROM r",
        "DROP TABLE r",
        "CREATE TABLE other (n BIGINT)",
        "INSERT INTO r VALUES (2) RETURNING n",
    ] {
        kind(sql, reader.query(sql, &[]).await, ErrorKind::Rejected);
        kind(sql, reader.execute(sql, &[]).await, ErrorKind::Rejected);
        kind(sql, reader.batch(sql).await, ErrorKind::Rejected);
    }
    let mut rows = ParamRows::new(1);
    good("push", rows.push(params![2]));
    let sql = "INSERT INTO r VALUES ($1)";
    kind(sql, reader.execute_many(sql, rows).await, ErrorKind::Rejected);
    assert_eq!(ask_one::<i64>(&mut *reader, "SELECT sum(n) FROM r").await, 1);
}

/// Of several statements in one call none is run; `batch` takes them.
pub async fn one_call_runs_one_statement(place: &dyn Place) {
    let mut connection = writer(place).await;
    set_up(&mut *connection, "CREATE TABLE o (n BIGINT); INSERT INTO o VALUES (1);").await;
    let sql = "DELETE FROM o; INSERT INTO o VALUES (2)";
    kind(sql, connection.execute(sql, &[]).await, ErrorKind::Rejected);
    kind(sql, connection.query(sql, &[]).await, ErrorKind::Rejected);
    assert_eq!(ask_one::<i64>(&mut *connection, "SELECT n FROM o").await, 1);
    // A closing semicolon and a comment are no second statement.
    assert_eq!(ask_one::<i64>(&mut *connection, "SELECT n FROM o; -- all of it").await, 1);
}

/// Too many or too few parameters are `Rejected` before anything happens.
pub async fn parameters_must_fit_the_statement(place: &dyn Place) {
    let mut connection = writer(place).await;
    set_up(&mut *connection, "CREATE TABLE f (a BIGINT, b BIGINT)").await;
    let sql = "INSERT INTO f (a, b) VALUES ($1, $2)";
    for values in [params![], params![1], params![1, 2, 3]] {
        kind(sql, connection.execute(sql, values).await, ErrorKind::Rejected);
        kind(sql, connection.query(sql, values).await, ErrorKind::Rejected);
        let mut rows = ParamRows::new(values.len());
        good("push", rows.push(values));
        kind(sql, connection.execute_many(sql, rows).await, ErrorKind::Rejected);
    }
    kind("none taken", connection.query("SELECT 1", params![1]).await, ErrorKind::Rejected);
    assert_eq!(ask_one::<i64>(&mut *connection, "SELECT count(*) FROM f").await, 0);
}
