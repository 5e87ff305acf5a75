//! What one caller leaves behind for the next.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::timeout;

use super::Place;
use super::kit::{ENDLESS, LIMIT, ask_one, begin, good, kind, open, reader, set_up, writer};
use crate::backend::{Access, Connection, ParamRows};
use crate::pool::Verdict;
use crate::{ErrorKind, params};

/// Polls a future a few times, so that it gets under way, and drops it. Answers whether it was cut off.
async fn drop_midway<F: Future>(polls: u32, future: F) -> bool {
    let mut future = pin!(future);
    let mut begun = false;
    for _ in 0..polls {
        begun = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await;
        if !begun {
            break;
        }
        tokio::task::yield_now().await;
    }
    begun
}

/// Brings a connection back as a pool would.
async fn give_back(connection: &mut dyn Connection) {
    match connection.verdict() {
        Verdict::Reuse => {}
        Verdict::Clean => {
            let cleaned = timeout(LIMIT, connection.clean()).await;
            good("clean", cleaned.unwrap_or_else(|_| panic!("cleaning took too long")));
        }
        Verdict::Discard => panic!("the connection was not lost"),
    }
    assert_eq!(connection.verdict(), Verdict::Reuse);
}

/// A connection that comes back inside a transaction says so, and cleaning rolls it back.
pub async fn a_connection_left_in_a_transaction_is_cleaned(place: &dyn Place) {
    let mut connection = writer(place).await;
    set_up(&mut *connection, "CREATE TABLE t (n BIGINT)").await;
    begin(&mut *connection).await;
    good("insert", connection.execute("INSERT INTO t VALUES (1)", &[]).await);
    assert_eq!(connection.verdict(), Verdict::Clean);
    give_back(&mut *connection).await;
    assert_eq!(ask_one::<i64>(&mut *connection, "SELECT count(*) FROM t").await, 0);
}

/// A statement whose caller went away stops, and the next caller is not stopped with it.
pub async fn a_dropped_statement_is_stopped_and_cleaned(place: &dyn Place) {
    if !place.backend().capabilities().stops_statements {
        return;
    }
    let mut connection = reader(place).await;
    for turn in 0..60 {
        let endless = connection.query(ENDLESS, &[]);
        let cut_off = match turn % 4 {
            // By then it has most likely begun; if it has not, this is one more of the other turns.
            3 => timeout(Duration::from_millis(10), endless).await.is_err(),
            polls => drop_midway(polls, endless).await,
        };
        if cut_off {
            assert_ne!(
                connection.verdict(),
                Verdict::Reuse,
                "nobody may use it before it is cleaned"
            );
        }
        give_back(&mut *connection).await;
        let answer = timeout(LIMIT, ask_one::<i64>(&mut *connection, "SELECT 42")).await;
        assert_eq!(answer.unwrap_or_else(|_| panic!("the statement runs on")), 42);
    }
}

/// Dropped at any point, a write has happened as a whole or not at all, and nothing stays open.
pub async fn a_dropped_write_is_whole_or_nothing(place: &dyn Place) {
    let mut connection = writer(place).await;
    set_up(&mut *connection, "CREATE TABLE t (turn BIGINT, n BIGINT)").await;
    let mut other = reader(place).await;
    for turn in 0..40_i64 {
        let mut rows = ParamRows::new(2);
        for n in 0..50_i64 {
            good("push", rows.push(params![turn, n]));
        }
        let polls = u32::try_from(turn).unwrap_or(0) % 4;
        let many = "INSERT INTO t VALUES ($1, $2)";
        match turn % 4 {
            0 => {
                drop_midway(polls, connection.execute_many(many, rows)).await;
            }
            1 => {
                let sql = "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 49) \
                           SELECT $1, i FROM n";
                drop_midway(turn as u32 % 3, connection.execute(sql, params![turn])).await;
            }
            2 => {
                let work = async {
                    begin(&mut *connection).await;
                    good(many, connection.execute_many(many, rows).await);
                    good("commit", connection.commit().await);
                };
                drop_midway(polls * 2, work).await;
            }
            _ => {
                let lines: Vec<String> =
                    (0..50).map(|n| format!("INSERT INTO t VALUES ({turn}, {n})")).collect();
                drop_midway(turn as u32 % 3, connection.batch(&lines.join(";"))).await;
            }
        }
        give_back(&mut *connection).await;
    }
    let halves =
        "SELECT count(*) FROM (SELECT turn FROM t GROUP BY turn HAVING count(*) <> 50) AS half";
    assert_eq!(ask_one::<i64>(&mut *other, halves).await, 0);
    // Nothing is locked and nothing is open.
    good("insert", connection.execute("INSERT INTO t VALUES (99, 1)", &[]).await);
    assert_eq!(ask_one::<i64>(&mut *other, "SELECT count(*) FROM t WHERE turn = 99").await, 1);
}

/// A statement that runs for too long is stopped and says so; the connection lives.
pub async fn a_statement_runs_into_its_limit(place: &dyn Place) {
    if !place.backend().capabilities().stops_statements {
        return;
    }
    let mut connection = open(place, Access::ReadOnly, Some(Duration::from_millis(100))).await;
    for _ in 0..3 {
        let answer = timeout(LIMIT, connection.query(ENDLESS, &[])).await;
        let answer = answer.unwrap_or_else(|_| panic!("the limit is not kept"));
        kind("endless", answer, ErrorKind::TimedOut);
        give_back(&mut *connection).await;
        assert_eq!(ask_one::<i64>(&mut *connection, "SELECT 1").await, 1);
    }
}

/// What one caller changes in the session, the next does not meet: the connection is cleaned or done with.
pub async fn nobody_meets_what_others_set(place: &dyn Place) {
    let mut connection = writer(place).await;
    let sql = "CREATE TEMPORARY TABLE mine (n BIGINT)";
    // Or it does not let itself be set in the first place.
    if let Err(error) = connection.execute(sql, &[]).await {
        assert_eq!(error.kind(), ErrorKind::Rejected, "{sql}: {error}");
    }
    match connection.verdict() {
        Verdict::Discard => {}
        Verdict::Reuse | Verdict::Clean => {
            give_back(&mut *connection).await;
            kind("select", connection.query("SELECT * FROM mine", &[]).await, ErrorKind::Rejected);
        }
    }
}

/// Where an engine tells positions, a later one has reached every earlier one, and a reader that has reached the writer's
/// sees what it wrote.
pub async fn positions_only_rise(place: &dyn Place) {
    let (mut connection, mut other) = (writer(place).await, reader(place).await);
    set_up(&mut *connection, "CREATE TABLE t (n BIGINT)").await;
    let mut before = None;
    for n in 1..=20_i64 {
        good("insert", connection.execute("INSERT INTO t VALUES ($1)", params![n]).await);
        let Some(after) = good("position", connection.position().await) else { return };
        if let Some(before) = before.replace(after) {
            assert_eq!(after.has_reached(&before), Some(true), "{after} after {before}");
        }
        let sql = "SELECT max(n) FROM t";
        let seen = good(sql, other.query_after(&after, sql, &[]).await);
        let at_once = place.backend().capabilities().commits_visible_at_once;
        match seen {
            Some(rows) => assert_eq!(good(sql, rows.decode::<i64>()), [n]),
            None => assert!(!at_once, "every commit is visible at once, they say"),
        }
    }
}
