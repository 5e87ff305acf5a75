//! Who holds a partition while they publish, and for how long.

use std::sync::Arc;
use std::time::Duration;

use resonant_db::{Database, PoolConfig, Transaction};
use resonant_queue::backend::{Backend, Fetch, QueueSpec, QueueStore, Settlement};
use resonant_queue::{
    Delivery, HandlerError, Key, Outgoing, PartitionedQueue, Postgres, PublishOptions,
};
use resonant_testkit::postgres::PgSession;
use resonant_testkit::{FaultProxy, PostgresCluster};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::{LIMIT, Seen, database, postgres, queue, until};

/// Keeps what the session has locked, and is never idle: the server itself is busy. Ends with the statement, or when the
/// server ends it.
fn hold(session: PgSession) -> JoinHandle<()> {
    let mut session = session.limit(LIMIT);
    tokio::spawn(async move {
        let _ = session.sql("SELECT pg_sleep(50)").await;
    })
}

/// A delayed message falls due behind a transaction that has published and is still open: what is ready is handed out all
/// the same, and the delayed one comes once the transaction is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_ready_is_read_beside_an_open_outbox_transaction() {
    let cluster = PostgresCluster::builder().start().await.unwrap();
    let node = cluster.primary();
    let postgres = Postgres::connect(node.url()).create_tables(true).await.unwrap();
    // Each read brings few, so that all are not in memory before it falls due.
    let builder = PartitionedQueue::<u64>::builder("numbers").partitions(4).prefetch(16);
    let builder = builder.lease_ttl(Duration::from_secs(2)).key(|number: &u64| number % 10);
    let queue = builder.backend(postgres).build().await.unwrap();
    queue.publish_many((0..300).map(|turn| turn * 10 + 1)).await.unwrap();
    let soon = PublishOptions::new().delay(Duration::from_millis(1));
    queue.publish_with(&5001, soon).await.unwrap();
    let mut session = node.session().await.unwrap();
    session.sql("BEGIN; SELECT resonant_publish('numbers', '1', '4001')").await.unwrap();
    let busy = hold(session);
    let seen = Seen::default();
    let handler = {
        let seen = seen.clone();
        async move |delivery: Delivery<u64>| {
            seen.push(delivery.into_message());
            Ok::<(), HandlerError>(())
        }
    };
    let began = Instant::now();
    let worker = queue.worker(handler).start().await.unwrap();
    until("what is ready is handled", async || seen.count() == 300).await;
    let took = began.elapsed();
    assert!(!busy.is_finished(), "beside the open transaction");
    println!("FIGURE 300 messages beside an open outbox transaction took {took:?}");
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'";
    node.sql(end).await.unwrap();
    busy.await.unwrap();
    let ended = Instant::now();
    until("the delayed one comes", async || seen.count() == 301).await;
    println!("FIGURE the delayed one came {:?} after the transaction", ended.elapsed());
    worker.drain().await.unwrap();
    assert_eq!(seen.all().last(), Some(&5001));
}

/// Whoever moves what fell due is told when a publisher holds the partition, and can go on in its transaction, with its own
/// limits.
#[tokio::test]
async fn what_fell_due_waits_for_a_publisher_for_a_moment_only() {
    let cluster = PostgresCluster::builder().start().await.unwrap();
    let node = cluster.primary();
    let queue = queue(&Postgres::connect(node.url()).create_tables(true).await.unwrap(), 1).await;
    let soon = PublishOptions::new().delay(Duration::from_millis(1));
    queue.publish_with(&1, soon).await.unwrap();
    let part = "(SELECT base FROM resonant_queue.queues WHERE name = 'numbers')";
    // What a publisher locks, without the limit on how long it may be idle.
    let mut publisher = node.session().await.unwrap();
    let lock =
        format!("BEGIN; SELECT * FROM resonant_queue.heads WHERE partition = {part} FOR UPDATE");
    publisher.sql(&lock).await.unwrap();
    let mut session = node.session().await.unwrap();
    for (limit, held) in [("0", true), ("77ms", true), ("1min", true), ("1min", false)] {
        if !held {
            publisher.sql("COMMIT").await.unwrap();
        }
        session.sql(&format!("SET lock_timeout = '{limit}'; BEGIN")).await.unwrap();
        let promote = format!("SELECT resonant_queue.promote({part})");
        let moved = session.value(&promote).await.unwrap();
        assert_eq!(moved, if held { "-1" } else { "1" }, "{limit}");
        assert_eq!(session.value("SHOW lock_timeout").await.unwrap(), limit);
        session.sql("COMMIT").await.unwrap();
    }
    assert_eq!(queue.depth().await.unwrap().ready, 1);
}

/// A batch for several partitions that cannot get a lock is refused alone: another one that was on its way with it, and
/// touches none of its partitions, is stored.
#[tokio::test]
async fn a_batch_is_refused_for_its_own_partitions_only() {
    let cluster = PostgresCluster::builder().start().await.unwrap();
    let node = cluster.primary();
    let queue = queue(&Postgres::connect(node.url()).create_tables(true).await.unwrap(), 4).await;
    let of = |partition: u32| {
        (0..10_u64).find(|number| Key::from(*number).partition(4) == partition).unwrap()
    };
    queue.publish_many(0..10).await.unwrap();
    let mut session = node.session().await.unwrap();
    let held = of(0);
    let publish = format!("BEGIN; SELECT resonant_publish('numbers', '{held}', '{held}')");
    session.sql(&publish).await.unwrap();
    let busy = hold(session);
    let began = Instant::now();
    let stored = async |first, second| {
        let published = queue.publish_many([of(first), of(second)]).await;
        (published, began.elapsed())
    };
    // They are asked for at once, so that they share a transaction.
    let ((refused, _), (fine, took)) = tokio::join!(stored(0, 1), stored(2, 3));
    assert!(!busy.is_finished(), "beside the open transaction");
    let refused = refused.unwrap_err();
    assert!(refused.is_transient() && !refused.may_have_applied(), "{refused:?}");
    fine.unwrap();
    println!("FIGURE a batch beside one that was refused for a lock took {took:?}");
    busy.abort();
}

async fn settle(store: &Arc<dyn QueueStore>, partition: u32, sequence: u64) -> Duration {
    let began = Instant::now();
    let done = Arc::new(vec![Settlement::Done { sequence }]);
    store.settle(partition, 1, done).await.unwrap();
    began.elapsed()
}

/// One partition's settlements wait for a lock that somebody holds: those of another, which are sent at the same time, do not
/// wait with them, and from then on not even for a moment.
#[tokio::test]
async fn a_settlement_that_waits_takes_no_neighbour_along() {
    let cluster = PostgresCluster::builder().start().await.unwrap();
    let node = cluster.primary();
    let postgres = Postgres::connect(node.url()).create_tables(true).await.unwrap();
    let store = postgres.declare(&QueueSpec::new("raw", 2)).await.unwrap();
    let (mut openings, mut sequences) = (Vec::new(), Vec::new());
    for partition in 0..2 {
        let one = Outgoing::new(partition, Some(Key::from("a")), "1".into());
        store.publish(Arc::new(vec![one; 10])).await.unwrap();
        let opened = store.open(partition, 1).await.unwrap();
        let fetched = opened.feed.fetch(Fetch::after(0, 100)).await.unwrap();
        sequences.push(fetched.messages.iter().map(|it| it.sequence).collect::<Vec<_>>());
        openings.push(opened);
    }
    let mut session = node.session().await.unwrap();
    let lock = "BEGIN; SELECT * FROM resonant_queue.owners WHERE partition =
        (SELECT base FROM resonant_queue.queues WHERE name = 'raw') FOR UPDATE";
    session.sql(lock).await.unwrap();
    let busy = hold(session);
    let waits = tokio::spawn({
        let (store, sequence) = (Arc::clone(&store), sequences[0][0]);
        async move {
            while store.settle(0, 1, Arc::new(vec![Settlement::Done { sequence }])).await.is_err() {
            }
        }
    });
    let mut took = Vec::new();
    for sequence in &sequences[1] {
        // With what the other one asks, if it may go together with it.
        tokio::task::yield_now().await;
        took.push(timeout(LIMIT, settle(&store, 1, *sequence)).await.expect("it waits for none"));
    }
    assert!(!busy.is_finished() && !waits.is_finished(), "while the lock is held");
    println!("FIGURE settlements beside one that waits for a lock took {took:?}");
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'";
    node.sql(end).await.unwrap();
    timeout(LIMIT, waits).await.unwrap().unwrap();
    assert_eq!(store.stored().await.unwrap().ready, 9);
    drop(openings);
}

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
