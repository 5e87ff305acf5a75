//! COMMIT means committed, and what is unknown says so.

use resonant_db::backend::postgres::Postgres;
use resonant_db::backend::{Access, Backend, BeginOptions, ErrorExt, Isolation, ParamRows, Target};
use resonant_db::pool::Verdict;
use resonant_db::{ErrorKind, params};
use resonant_testkit::proxy::Direction;
use resonant_testkit::{FaultProxy, PostgresCluster};

use super::{connect, database};

fn plain() -> BeginOptions {
    BeginOptions::new(Isolation::Engine, Access::ReadWrite)
}

#[tokio::test]
async fn a_commit_that_rolled_back_is_an_error() {
    let database = database().await;
    let mut connection = connect(&database.url()).await;
    connection.batch("CREATE TABLE t (n int)").await.expect("create");
    connection.begin(plain()).await.expect("begin");
    connection.execute("INSERT INTO t VALUES (1)", &[]).await.expect("insert");
    connection.query("SELECT 1 / 0", &[]).await.expect_err("division");
    let error = connection.commit().await.expect_err("it rolled back");
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert!(error.to_string().contains("rolled back") && !error.may_have_applied(), "{error}");
    assert_eq!(connection.verdict(), Verdict::Reuse);
    assert_eq!(database.value("SELECT count(*) FROM t").await.expect("count"), "0");
}

#[tokio::test]
async fn a_constraint_that_is_checked_at_the_commit_is_an_error_and_nothing_is_in_doubt() {
    let database = database().await;
    let mut connection = connect(&database.url()).await;
    connection
        .batch("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (a int CONSTRAINT b_of_a REFERENCES a DEFERRABLE INITIALLY DEFERRED)")
        .await
        .expect("create");
    connection.begin(plain()).await.expect("begin");
    connection.execute("INSERT INTO b VALUES (9)", &[]).await.expect("insert");
    let error = connection.commit().await.expect_err("nobody to refer to");
    assert!(error.is_foreign_key_violation() && !error.may_have_applied(), "{error}");
    assert_eq!((error.constraint(), error.sqlstate()), (Some("b_of_a"), Some("23503")));
    connection.rollback().await.expect("nothing left to roll back");
    assert_eq!(connection.verdict(), Verdict::Reuse);
}

#[tokio::test]
async fn a_statement_that_ends_the_transaction_by_itself_is_found_out() {
    let database = database().await;
    let mut connection = connect(&database.url()).await;
    connection.batch("CREATE TABLE t (n int)").await.expect("create");
    connection.begin(plain()).await.expect("begin");
    connection.execute("COMMIT", &[]).await.expect_err("that is not its to do");
    connection.execute("INSERT INTO t VALUES (1)", &[]).await.expect_err("no transaction is open");
    connection.commit().await.expect_err("nothing to commit");
    connection.rollback().await.expect("back to a known state");
    connection.execute("INSERT INTO t VALUES (2)", &[]).await.expect("goes on");
    assert_eq!(database.value("SELECT string_agg(n::text, '') FROM t").await.expect("rows"), "2");
}

/// The link is cut at some byte of a write's or commit's way there or back: whatever the answer says of the outcome is so.
#[tokio::test]
async fn a_write_whose_link_is_cut_says_what_is_known_of_it() {
    let cluster = PostgresCluster::builder().start().await.expect("a server");
    let node = cluster.primary();
    node.sql("CREATE TABLE t (n int)").await.expect("create");
    let proxy = FaultProxy::start(node.address()).await.expect("a proxy");
    let url = node.url_through(&proxy);
    let backend = Postgres::from_url(&url).expect("a good URL");
    let target = Target::new(&url, Access::ReadWrite, None);
    let (mut known, mut unknown) = (0, 0);
    for turn in 0..60_i64 {
        let direction = if turn % 2 == 0 { Direction::ToServer } else { Direction::ToClient };
        let bytes = turn as u64 / 2;
        let mut connection = backend.connect(&target).await.expect("a connection");
        let insert = "INSERT INTO t VALUES ($1)";
        connection.execute(insert, params![-1]).await.expect("prepared");
        let result = match turn % 3 {
            0 => {
                connection.begin(plain()).await.expect("begin");
                connection.execute(insert, params![turn]).await.expect("insert");
                proxy.cut_after(direction, bytes).await.expect("a cut");
                connection.commit().await
            }
            1 => {
                proxy.cut_after(direction, bytes).await.expect("a cut");
                connection.execute(insert, params![turn]).await.map(drop)
            }
            _ => {
                let mut rows = ParamRows::new(1);
                for _ in 0..3 {
                    rows.push(params![turn]).expect("a row");
                }
                proxy.cut_after(direction, bytes * 4).await.expect("a cut");
                connection.execute_many(insert, rows).await.map(drop)
            }
        };
        proxy.heal().await.expect("healed");
        if result.is_err() {
            assert_eq!(connection.verdict(), Verdict::Discard, "turn {turn}");
        }
        drop(connection);
        let here = format!("127.0.0.1:{}", proxy.port());
        assert!(!format!("{result:?}").contains("secret"), "{here}");
        // What was under way ends with its session.
        super::until("the session has ended", async || {
            let alive = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
            node.value(alive).await.expect("count") == "0"
        })
        .await;
        let stored =
            node.value(&format!("SELECT count(*) FROM t WHERE n = {turn}")).await.expect("count");
        match &result {
            Ok(()) => assert_ne!(stored, "0", "turn {turn}: acknowledged and lost"),
            Err(error) if error.may_have_applied() => unknown += 1,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "turn {turn}: {error}");
                assert_eq!(stored, "0", "turn {turn}: said not to have happened: {error}");
                known += 1;
            }
        }
        assert!(["0", "1", "3"].contains(&stored.as_str()), "turn {turn}: half of it: {stored}");
    }
    assert!(unknown > 0, "no case was in doubt: {known} {unknown}");
}
