//! Who holds a partition while they publish, and for how long.

use std::time::Duration;

use resonant_db::{Database, PoolConfig, Transaction};
use resonant_queue::Postgres;
use resonant_testkit::{FaultProxy, PostgresCluster};
use tokio::time::{Instant, timeout};

use super::{LIMIT, database, postgres, queue, until};

/// A pool of one connection is enough: all a publish in a transaction asks, it asks in that transaction.
#[tokio::test]
async fn an_outbox_needs_no_second_connection() {
    let database = database().await;
    let elsewhere = queue(&postgres(&database.url()).await, 2).await;
    let pool = PoolConfig::default().min_size(0).max_size(1);
    let db = Database::builder().primary(database.url()).pool(pool).connect().await.unwrap();
    let postgres = Postgres::over(db).await.unwrap();
    // Nothing is known here of a queue that was built elsewhere.
    let outbox = postgres.outbox(&elsewhere);
    for number in 0..2 {
        let published = postgres
            .database()
            .transaction(async |tx: &mut Transaction<'_>| outbox.publish(tx, &number).await);
        // Waiting for a second connection ends by the pool's own limit only.
        timeout(Duration::from_secs(10), published).await.expect("it waits for nobody").unwrap();
    }
    assert_eq!(elsewhere.depth().await.unwrap().ready, 2);
}

/// A client that froze after it had published in a transaction is ended by the server: others wait for seconds, not for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_that_froze_holds_up_others_for_seconds() {
    let cluster = PostgresCluster::builder().start().await.unwrap();
    let node = cluster.primary();
    let proxy = FaultProxy::start(node.address()).await.unwrap();
    let other = queue(&Postgres::connect(node.url()).create_tables(true).await.unwrap(), 4).await;
    let freezes = postgres(&node.url_through(&proxy)).await;
    let outbox = freezes.outbox(&queue(&freezes, 4).await);
    let (published, mut holds) = tokio::sync::mpsc::unbounded_channel();
    let frozen = tokio::spawn({
        let db = freezes.database().clone();
        async move {
            db.transaction(async move |tx: &mut Transaction<'_>| {
                outbox.publish(tx, &1).await?;
                let _ = published.send(());
                std::future::pending::<resonant_db::Result<()>>().await
            })
            .await
        }
    });
    holds.recv().await.unwrap();
    proxy.black_hole().await.unwrap();
    let began = Instant::now();
    timeout(LIMIT, other.publish(&11)).await.expect("it is not held up for ever").unwrap();
    println!("FIGURE a publish waited {:?} for a client that froze", began.elapsed());
    assert_eq!(other.depth().await.unwrap().ready, 1, "the frozen transaction is undone");
    frozen.abort();
}

/// A transaction that published and stays busy is not ended; others that publish there are refused after a while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_behind_a_long_transaction_is_refused() {
    let cluster = PostgresCluster::builder().start().await.unwrap();
    let node = cluster.primary();
    let queue = queue(&Postgres::connect(node.url()).create_tables(true).await.unwrap(), 4).await;
    let mut session = node.session().await.unwrap();
    session.sql("BEGIN; SELECT resonant_publish('numbers', '1', '1')").await.unwrap();
    // The server itself is busy: however late this program is, its transaction is never idle.
    let busy = tokio::spawn(async move {
        let _ = session.sql("SELECT pg_sleep(20)").await;
    });
    let (began, refused) = (Instant::now(), timeout(LIMIT, queue.publish(&11)).await);
    let refused = refused.expect("it does not wait for ever").unwrap_err();
    assert!(refused.is_transient() && !refused.may_have_applied(), "{refused:?}");
    println!("FIGURE a publish behind a long transaction was refused after {:?}", began.elapsed());
    queue.publish(&2).await.unwrap();
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(20)'";
    node.sql(end).await.unwrap();
    busy.await.unwrap();
    until("it is stored later", async || queue.publish(&11).await.is_ok()).await;
}

/// Limits of the caller that are shorter stay, and those for locks are the caller's again after the publish.
#[tokio::test]
async fn shorter_limits_of_the_caller_stay() {
    let cluster = PostgresCluster::builder().start().await.unwrap();
    let node = cluster.primary();
    let queue = queue(&Postgres::connect(node.url()).create_tables(true).await.unwrap(), 4).await;
    let mut session = node.session().await.unwrap();
    for (locks, idle, idle_after) in [("0", "0", "5s"), ("77ms", "2s", "2s"), ("1min", "1h", "5s")]
    {
        let begin = format!(
            "SET lock_timeout = '{locks}'; SET idle_in_transaction_session_timeout = '{idle}';
             BEGIN; SELECT resonant_publish('numbers', '1', '1')"
        );
        session.sql(&begin).await.unwrap();
        assert_eq!(session.value("SHOW lock_timeout").await.unwrap(), locks);
        let shown = session.value("SHOW idle_in_transaction_session_timeout").await.unwrap();
        assert_eq!(shown, idle_after);
        session.sql("COMMIT").await.unwrap();
        let shown = session.value("SHOW idle_in_transaction_session_timeout").await.unwrap();
        assert_eq!(shown, idle, "it lasts as long as the transaction");
    }
    assert_eq!(queue.depth().await.unwrap().ready, 3);
}
