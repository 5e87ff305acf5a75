//! Rows piece by piece, where the engine can.

use tokio::time::timeout;

use super::Place;
use super::kit::{LIMIT, ask_one, bad, begin, good, reader, set_up, writer};
use crate::backend::{Connection, Streaming};
use crate::pool::Verdict;
use crate::{Param, params};

const NUMBERS: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1) SELECT i FROM n";

fn flow(connection: &mut dyn Connection) -> &mut dyn Streaming {
    match connection.streaming() {
        Some(flow) => flow,
        None => panic!("the engine could stream a moment ago"),
    }
}

/// The numbers of the pieces that are left.
async fn rest(connection: &mut dyn Connection) -> Vec<i64> {
    let mut all = Vec::new();
    while let Some(piece) = good("next_rows", flow(connection).next_rows().await) {
        assert!(!piece.is_empty(), "a piece has rows");
        all.extend(good("decode", piece.decode::<i64>()));
    }
    all
}

async fn cleaned(connection: &mut dyn Connection) {
    if connection.verdict() == Verdict::Clean {
        let cleaned = timeout(LIMIT, connection.clean()).await;
        good("clean", cleaned.unwrap_or_else(|_| panic!("cleaning took too long")));
    }
    assert_eq!(connection.verdict(), Verdict::Reuse);
}

/// All rows come, in their order and in more than one piece, and the connection is as it was.
pub async fn rows_come_in_pieces(place: &dyn Place) {
    let mut connection = reader(place).await;
    if connection.streaming().is_none() {
        return;
    }
    for count in [1_i64, 5_000] {
        good("open_rows", flow(&mut *connection).open_rows(NUMBERS, params![count]).await);
        let first = good("next_rows", flow(&mut *connection).next_rows().await);
        let first = first.unwrap_or_else(|| panic!("there are rows"));
        let mut all = good("decode", first.decode::<i64>());
        assert!(count == 1 || (all.len() as i64) < count, "they do not all come at once");
        all.extend(rest(&mut *connection).await);
        assert_eq!(all, (1..=count).collect::<Vec<_>>());
        assert_eq!(connection.verdict(), Verdict::Reuse);
    }
    good("open_rows", flow(&mut *connection).open_rows("SELECT 1 AS n WHERE 1 = 0", &[]).await);
    assert!(rest(&mut *connection).await.is_empty());
    assert_eq!(ask_one::<i64>(&mut *connection, "SELECT 7").await, 7);
}

/// Rows that nobody takes to their end are stopped, and the next caller meets nothing of them.
pub async fn a_stream_that_is_given_up_is_cleaned(place: &dyn Place) {
    let mut connection = reader(place).await;
    if connection.streaming().is_none() {
        return;
    }
    for pieces in 0..3 {
        let many: [Param<'_>; 1] = [Param::Int(2_000_000_000)];
        good("open_rows", flow(&mut *connection).open_rows(NUMBERS, &many).await);
        // The server may count for ever before the first one comes.
        for _ in 0..pieces {
            let next = flow(&mut *connection).next_rows();
            let _ = timeout(std::time::Duration::from_millis(5), next).await;
        }
        assert_eq!(connection.verdict(), Verdict::Clean);
        cleaned(&mut *connection).await;
        assert_eq!(ask_one::<i64>(&mut *connection, "SELECT 7").await, 7);
    }
}

/// An error ends a stream where it is opened or on the way, and a stream that writes nothing leaves the transaction as it is.
pub async fn a_stream_ends_with_its_error(place: &dyn Place) {
    let mut connection = writer(place).await;
    if connection.streaming().is_none() {
        return;
    }
    set_up(&mut *connection, "CREATE TABLE t (n BIGINT); INSERT INTO t VALUES (1), (2), (3)").await;
    let opened = flow(&mut *connection).open_rows("SELECT n FROM nowhere", &[]).await;
    bad("a table that is not there", opened);
    cleaned(&mut *connection).await;
    // In a transaction it sees what that has written, and more can be done after it.
    begin(&mut *connection).await;
    good("insert", connection.execute("INSERT INTO t VALUES (4)", &[]).await);
    let sql = "SELECT n FROM t ORDER BY n";
    good("open_rows", flow(&mut *connection).open_rows(sql, &[]).await);
    assert_eq!(rest(&mut *connection).await, [1, 2, 3, 4]);
    good("insert", connection.execute("INSERT INTO t VALUES (5)", &[]).await);
    good("commit", connection.commit().await);
    assert_eq!(connection.verdict(), Verdict::Reuse);
    assert_eq!(ask_one::<i64>(&mut *connection, "SELECT count(*) FROM t").await, 5);
}
