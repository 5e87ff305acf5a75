//! Notifications, also over lost connections.

use std::time::Duration;

use resonant_db::{Database, ErrorKind, Event, Listener, params};
use resonant_testkit::{FaultProxy, PostgresCluster};

use super::{LIMIT, database};

async fn next(listener: &mut Listener) -> Event {
    tokio::time::timeout(LIMIT, listener.next()).await.expect("an event").expect("no error")
}

async fn payload(listener: &mut Listener) -> String {
    match next(listener).await {
        Event::Notification(said) => said.payload,
        event => panic!("{event:?}"),
    }
}

#[tokio::test]
async fn notifications_are_heard_in_order_and_nothing_else_is() {
    let database = database().await;
    let db = Database::connect(database.url()).await.expect("connect");
    let mut listener = db.listen(["one", "Two \"quoted\""]).await.expect("listens");
    for n in 0..2000_i64 {
        let notify = "SELECT pg_notify($1, $2)";
        let channel = if n % 2 == 0 { "one" } else { "Two \"quoted\"" };
        db.write().query(notify, params![channel, n.to_string()]).await.expect("notified");
        db.write().query(notify, params!["three", "unheard"]).await.expect("notified");
    }
    for n in 0..2000 {
        assert_eq!(payload(&mut listener).await, n.to_string());
    }
    // A future that is dropped loses nothing.
    for _ in 0..50 {
        let waits = tokio::time::timeout(Duration::from_millis(1), listener.next()).await;
        assert!(waits.is_err());
    }
    db.write().query("SELECT pg_notify('one', 'last')", params![]).await.expect("notified");
    assert_eq!(payload(&mut listener).await, "last");
}

#[tokio::test]
async fn a_lost_connection_is_a_gap_and_no_silence() {
    let database = database().await;
    let db = Database::connect(database.url()).await.expect("connect");
    let mut listener = db.listen(["x"]).await.expect("listens");
    let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                WHERE datname = current_database() AND query LIKE 'LISTEN%'";
    for round in 0..20 {
        assert_eq!(database.value(kill).await.expect("killed"), "1");
        assert_eq!(next(&mut listener).await, Event::Gap);
        let notify = format!("SELECT pg_notify('x', '{round}')");
        db.write().query(&notify, params![]).await.expect("notified");
        assert_eq!(payload(&mut listener).await, round.to_string());
    }
    db.close(LIMIT).await.expect("closed");
    assert_eq!(database.value(kill).await.expect("killed"), "1");
    let error =
        tokio::time::timeout(LIMIT, listener.next()).await.expect("told").expect_err("closed");
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
}

#[tokio::test]
async fn a_server_that_goes_and_comes_back_is_listened_to_again() {
    let cluster = PostgresCluster::builder().start().await.expect("a server");
    let proxy = FaultProxy::start(cluster.primary().address()).await.expect("a proxy");
    let db = Database::connect(cluster.primary().url_through(&proxy)).await.expect("connect");
    let mut listener = db.listen(["x"]).await.expect("listens");
    cluster.primary().kill().await.expect("killed");
    let (event, started) = tokio::join!(next(&mut listener), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        cluster.primary().start().await
    });
    started.expect("started");
    assert_eq!(event, Event::Gap);
    cluster.primary().sql("SELECT pg_notify('x', 'back')").await.expect("notified");
    assert_eq!(payload(&mut listener).await, "back");
}
