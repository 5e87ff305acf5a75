//! What the server refuses: the right kind, its code, and no secret.

use std::time::Duration;

use resonant_db::backend::postgres::Postgres;
use resonant_db::backend::{Access, Backend, BeginOptions, ErrorExt, Isolation, Target};
use resonant_db::pool::Verdict;
use resonant_db::{Database, Error, ErrorKind, params};
use resonant_testkit::PostgresCluster;

use super::{connect, database, open};

#[tokio::test]
async fn errors_carry_their_code_and_the_constraints_name_and_no_value() {
    let database = database().await;
    let mut connection = connect(&database.url()).await;
    connection
        .batch(
            "CREATE TYPE mood AS ENUM ('fine'); \
             CREATE TABLE t (id int CONSTRAINT t_key PRIMARY KEY, email text CONSTRAINT t_email UNIQUE, \
             n int NOT NULL DEFAULT 1 CONSTRAINT t_positive CHECK (n > 0), during int4range, \
             CONSTRAINT t_overlap EXCLUDE USING gist (during WITH &&)); \
             INSERT INTO t VALUES (1, 's3cr3t', 1, '[1,5)')",
        )
        .await
        .expect("create");
    let cases: &[(&str, &str, Option<&str>)] = &[
        ("INSERT INTO t (id, email) VALUES (2, $1)", "23505", Some("t_email")),
        ("INSERT INTO t (id, email, n) VALUES (3, $1, -1)", "23514", Some("t_positive")),
        ("INSERT INTO t (id, email, n) VALUES (3, $1 || 'x', NULL)", "23502", Some("n")),
        (
            "INSERT INTO t (id, email, during) VALUES (3, $1 || 'x', '[4,6)')",
            "23P01",
            Some("t_overlap"),
        ),
        ("SELECT $1::text::int", "22P02", None),
        ("SELECT $1::uuid", "22P02", None),
        ("SELECT $1::mood", "22P02", None),
        ("SELECT $1::text::date", "22007", None),
        ("SELECT nothing FROM t WHERE email = $1", "42703", None),
        ("SELECT 1 / (length($1) - length($1))", "22012", None),
        ("SELECT $1::text || chr(0)", "54000", None),
    ];
    for (sql, code, constraint) in cases {
        let error = connection.query(sql, params!["s3cr3t"]).await.expect_err(sql);
        assert_eq!(error.sqlstate(), Some(*code), "{sql}: {error}");
        assert_eq!(error.constraint(), *constraint, "{sql}: {error}");
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("s3cr3t"), "{sql}: {shown}");
    }
    for refused in [
        connection.execute("SELECT '\0'", &[]).await.map(drop),
        connection.execute("SET a.b = '\0'", &[]).await.map(drop),
        connection.batch("SELECT '\0'").await,
    ] {
        assert_eq!(refused.expect_err("a NUL").kind(), ErrorKind::Rejected);
    }
    assert_eq!(connection.verdict(), Verdict::Reuse);
}

#[tokio::test]
async fn a_deadlock_and_a_lock_that_is_held_are_conflicts() {
    let database = database().await;
    database
        .sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2)")
        .await
        .expect("create");
    let (mut one, mut two) = (connect(&database.url()).await, connect(&database.url()).await);
    let lock = "SELECT * FROM t WHERE id = $1 FOR UPDATE";
    let plain = BeginOptions::new(Isolation::Engine, Access::ReadWrite);
    one.begin(plain).await.expect("begin");
    two.begin(plain).await.expect("begin");
    one.query(lock, params![1]).await.expect("a lock");
    two.query(lock, params![2]).await.expect("a lock");
    let nowait =
        two.query("SELECT * FROM t WHERE id = 1 FOR UPDATE NOWAIT", &[]).await.expect_err("held");
    assert_eq!((nowait.kind(), nowait.sqlstate()), (ErrorKind::Conflict, Some("55P03")));
    two.rollback().await.expect("rollback");
    two.begin(plain).await.expect("begin");
    two.query(lock, params![2]).await.expect("a lock");
    let (first, second) = tokio::join!(async { one.query(lock, params![2]).await }, async {
        let answer = two.query(lock, params![1]).await;
        // Whoever gave up lets the other go on.
        if answer.is_err() {
            two.rollback().await.expect("rollback");
        }
        answer
    });
    let lost: Vec<Error> = [first, second].into_iter().filter_map(Result::err).collect();
    assert!(!lost.is_empty(), "a deadlock has a victim");
    for error in lost {
        assert_eq!(
            (error.kind(), error.sqlstate()),
            (ErrorKind::Conflict, Some("40P01")),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_statement_at_its_limit_is_stopped_by_the_server() {
    let database = database().await;
    let limit = Some(Duration::from_millis(100));
    let mut connection = open(&database.url(), Access::ReadWrite, limit).await;
    let error = connection.execute("SELECT pg_sleep(60)", &[]).await.expect_err("too long");
    assert_eq!((error.kind(), error.sqlstate()), (ErrorKind::TimedOut, Some("57014")));
    assert!(!error.may_have_applied(), "the server undid it: {error:?}");
    assert_eq!(connection.verdict(), Verdict::Reuse);
}

#[tokio::test]
async fn who_cannot_log_in_is_told_why_at_once() {
    let cluster =
        PostgresCluster::builder().login("app", "s3cret").start().await.expect("a server");
    let node = cluster.primary();
    let good = node.url_as("app").expect("a login");
    let open = async |url: String| {
        let backend = Postgres::from_url(&url).expect("a good URL");
        backend.connect(&Target::new(&url, Access::ReadWrite, None)).await.map(drop)
    };
    open(good.clone()).await.expect("logged in");
    let nowhere = "postgresql://app:s3cret@127.0.0.1:1/postgres".to_owned();
    let cases = [
        (good.replace("s3cret", "gu3ss"), ErrorKind::Config, Some("28P01")),
        (good.replace("/postgres", "/nowhere"), ErrorKind::Config, Some("3D000")),
        (good.replace(":s3cret", ""), ErrorKind::Config, None),
        (format!("{good}?options=-c%20nonsense%3D1"), ErrorKind::Config, Some("42704")),
        (nowhere.clone(), ErrorKind::Unavailable, None),
        ("postgresql://app@no.such.host.invalid/db".to_owned(), ErrorKind::Unavailable, None),
    ];
    for (url, kind, code) in cases {
        let error = open(url.clone()).await.expect_err(&url);
        assert_eq!((error.kind(), error.sqlstate()), (kind, code), "{error}");
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("s3cret") && !shown.contains("gu3ss"), "{shown}");
    }
    // Through the pool it is the same, and not a time-out that hides the cause.
    let error =
        Database::connect(good.replace("s3cret", "gu3ss")).await.expect_err("a wrong password");
    assert_eq!((error.kind(), error.sqlstate()), (ErrorKind::Config, Some("28P01")), "{error}");
    let error = Database::connect(nowhere).await.expect_err("nobody there");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    // Several hosts: the first that answers.
    let both = good.replace("@127.0.0.1", "@127.0.0.1:1,127.0.0.1");
    open(both).await.expect("the second host");
}
