//! All or nothing, and who sees it when.

use super::Place;
use super::kit::{ask_one, begin, good, kind, reader, set_up, writer};
use crate::backend::{Access, BeginOptions, Isolation, ParamRows};
use crate::pool::Verdict;
use crate::{ErrorKind, params};

const COUNT: &str = "SELECT count(*) FROM t";

/// What was committed is seen by others, what was not is not, and a rollback leaves nothing.
pub async fn a_commit_is_seen_and_a_rollback_is_not(place: &dyn Place) {
    let mut connection = writer(place).await;
    set_up(&mut *connection, "CREATE TABLE t (n BIGINT)").await;
    let mut other = reader(place).await;
    begin(&mut *connection).await;
    good("insert", connection.execute("INSERT INTO t VALUES (1)", &[]).await);
    assert_eq!(ask_one::<i64>(&mut *connection, COUNT).await, 1, "one's own write");
    // An engine whose readers wait for the writer gives up here: a conflict is an answer, the row is not.
    match other.query(COUNT, &[]).await {
        Ok(rows) => assert_eq!(good(COUNT, rows.decode::<i64>()), [0], "not committed yet"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
    }
    good("commit", connection.commit().await);
    assert_eq!(ask_one::<i64>(&mut *other, COUNT).await, 1, "committed");

    begin(&mut *connection).await;
    good("delete", connection.execute("DELETE FROM t", &[]).await);
    good("rollback", connection.rollback().await);
    good("rollback of nothing", connection.rollback().await);
    assert_eq!(ask_one::<i64>(&mut *connection, COUNT).await, 1, "rolled back");
    kind("commit of nothing", connection.commit().await, ErrorKind::Rejected);
    assert_eq!(connection.verdict(), Verdict::Reuse);
}

/// A bulk that fails at its last row has stored none.
pub async fn a_failed_bulk_leaves_nothing(place: &dyn Place) {
    let mut connection = writer(place).await;
    set_up(&mut *connection, "CREATE TABLE t (n BIGINT PRIMARY KEY)").await;
    let sql = "INSERT INTO t VALUES ($1)";
    let mut rows = ParamRows::new(1);
    for n in [1, 2, 3, 1] {
        good("push", rows.push(params![n]));
    }
    kind(sql, connection.execute_many(sql, rows.clone()).await, ErrorKind::Constraint);
    assert_eq!(ask_one::<i64>(&mut *connection, COUNT).await, 0);
    assert_eq!(connection.verdict(), Verdict::Reuse);
    // In a transaction it is the transaction that decides.
    begin(&mut *connection).await;
    kind(sql, connection.execute_many(sql, rows).await, ErrorKind::Constraint);
    good("rollback", connection.rollback().await);
    assert_eq!(ask_one::<i64>(&mut *connection, COUNT).await, 0);
}

/// Several statements are applied as a whole or not at all.
pub async fn batches_are_all_or_none(place: &dyn Place) {
    let mut connection = writer(place).await;
    set_up(&mut *connection, "CREATE TABLE t (n BIGINT PRIMARY KEY)").await;
    let sql = "INSERT INTO t VALUES (1); INSERT INTO t VALUES (2); INSERT INTO t VALUES (1)";
    kind(sql, connection.batch(sql).await, ErrorKind::Constraint);
    assert_eq!(ask_one::<i64>(&mut *connection, COUNT).await, 0);
    set_up(&mut *connection, "INSERT INTO t VALUES (1); INSERT INTO t VALUES (2);").await;
    assert_eq!(ask_one::<i64>(&mut *connection, COUNT).await, 2);
}

/// What a savepoint encloses can be undone alone.
pub async fn a_savepoint_undoes_its_part(place: &dyn Place) {
    let mut connection = writer(place).await;
    set_up(&mut *connection, "CREATE TABLE t (n BIGINT PRIMARY KEY)").await;
    begin(&mut *connection).await;
    for sql in ["INSERT INTO t VALUES (1)", "SAVEPOINT s", "INSERT INTO t VALUES (2)"] {
        good(sql, connection.execute(sql, &[]).await);
    }
    let twice = "INSERT INTO t VALUES (1)";
    kind(twice, connection.execute(twice, &[]).await, ErrorKind::Constraint);
    for sql in ["ROLLBACK TO s", "RELEASE s", "INSERT INTO t VALUES (3)"] {
        good(sql, connection.execute(sql, &[]).await);
    }
    good("commit", connection.commit().await);
    assert_eq!(ask_one::<i64>(&mut *connection, "SELECT sum(n) FROM t").await, 4);
}

/// `execute` answers how many rows it changed, also when none, and nothing for other statements.
pub async fn affected_rows_are_counted(place: &dyn Place) {
    let mut connection = writer(place).await;
    set_up(&mut *connection, "CREATE TABLE t (n BIGINT)").await;
    let mut rows = ParamRows::new(1);
    for n in 0..10 {
        good("push", rows.push(params![n]));
    }
    let insert = "INSERT INTO t VALUES ($1)";
    assert_eq!(good(insert, connection.execute_many(insert, rows).await), 10);
    for (sql, affected) in [
        ("UPDATE t SET n = n + 1 WHERE n >= 5", 5),
        ("UPDATE t SET n = n WHERE n < 0", 0),
        ("INSERT INTO t SELECT n FROM t WHERE n < 3", 3),
        ("CREATE TABLE other (n BIGINT)", 0),
        ("DELETE FROM t WHERE n < 3 RETURNING n", 6),
        ("WITH gone AS (SELECT 3 AS n) DELETE FROM t WHERE n IN (SELECT n FROM gone)", 1),
    ] {
        assert_eq!(good(sql, connection.execute(sql, &[]).await), affected, "{sql}");
    }
}

/// A transaction opened by hand is refused, and what it did is undone.
pub async fn a_bare_begin_leaves_nothing_open(place: &dyn Place) {
    let mut connection = writer(place).await;
    set_up(&mut *connection, "CREATE TABLE t (n BIGINT)").await;
    kind("bare begin", connection.execute("BEGIN", &[]).await, ErrorKind::Rejected);
    if connection.verdict() == Verdict::Clean {
        good("clean", connection.clean().await);
    }
    good("insert", connection.execute("INSERT INTO t VALUES (1)", &[]).await);
    assert_eq!(
        ask_one::<i64>(&mut *reader(place).await, COUNT).await,
        1,
        "it was committed at once"
    );
    assert_eq!(connection.verdict(), Verdict::Reuse);
}

/// A transaction that is to read only cannot write, also on a connection that could.
pub async fn a_read_only_transaction_refuses_writes(place: &dyn Place) {
    let mut connection = writer(place).await;
    set_up(&mut *connection, "CREATE TABLE t (n BIGINT)").await;
    let options = BeginOptions::new(Isolation::RepeatableRead, Access::ReadOnly);
    good("begin", connection.begin(options).await);
    kind("insert", connection.execute("INSERT INTO t VALUES (1)", &[]).await, ErrorKind::Rejected);
    good("rollback", connection.rollback().await);
    good("begin", connection.begin(options).await);
    assert_eq!(ask_one::<i64>(&mut *connection, COUNT).await, 0);
    good("commit", connection.commit().await);
    good("insert", connection.execute("INSERT INTO t VALUES (1)", &[]).await);
    assert_eq!(connection.verdict(), Verdict::Reuse, "and it can write again");
}

/// A repeatable-read transaction sees one state from its first statement on.
pub async fn readers_see_one_state(place: &dyn Place) {
    let mut connection = writer(place).await;
    set_up(&mut *connection, "CREATE TABLE t (n BIGINT)").await;
    let mut reader = reader(place).await;
    let options = BeginOptions::new(Isolation::RepeatableRead, Access::ReadOnly);
    good("begin", reader.begin(options).await);
    assert_eq!(ask_one::<i64>(&mut *reader, COUNT).await, 0);
    // An engine whose readers and writer wait for each other gives up here: a conflict is an answer, a change is not.
    let wrote = connection.execute("INSERT INTO t VALUES (1)", &[]).await;
    if let Err(error) = &wrote {
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    }
    assert_eq!(ask_one::<i64>(&mut *reader, COUNT).await, 0, "the same state");
    good("commit", reader.commit().await);
    assert_eq!(ask_one::<i64>(&mut *reader, COUNT).await, i64::from(wrote.is_ok()));
}

/// Read-then-write transactions of two connections lose no update: one waits, or is told of the conflict.
pub async fn writers_do_not_lose_updates(place: &dyn Place) {
    let mut connection = writer(place).await;
    set_up(&mut *connection, "CREATE TABLE t (n BIGINT); INSERT INTO t VALUES (0)").await;
    let mut others = Vec::new();
    for _ in 0..2 {
        let mut connection = writer(place).await;
        others.push(async move {
            let mut done = 0;
            while done < 20 {
                let options = BeginOptions::new(Isolation::Serializable, Access::ReadWrite);
                let step = async {
                    connection.begin(options).await?;
                    let rows = connection.query("SELECT n FROM t", &[]).await?;
                    let n: i64 = rows.decode::<i64>()?.into_iter().sum();
                    tokio::task::yield_now().await;
                    connection.execute("UPDATE t SET n = $1", params![n + 1]).await?;
                    connection.commit().await
                };
                match step.await {
                    Ok(()) => done += 1,
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
                        good("rollback", connection.rollback().await);
                    }
                }
            }
        });
    }
    futures::future::join_all(others).await;
    assert_eq!(ask_one::<i64>(&mut *connection, "SELECT n FROM t").await, 40);
}
