//! Tables, the order of commits, publishing from SQL, ids.

use std::sync::Arc;
use std::time::Duration;

use resonant_queue::backend::{Backend, Fetch, QueueSpec};
use resonant_queue::{
    ErrorKind, Key, Memory, Outgoing, PartitionedQueue, Postgres, PublishOptions, SequenceCheck,
};
use tokio::time::{Instant, sleep, timeout};

use super::{LIMIT, Seen, database, postgres, queue, until, work};

/// Nothing is created unasked, and what is missing is said with the next step; asked, several processes may create it at
/// once; the way down leaves nothing.
#[tokio::test]
async fn tables_are_created_only_when_asked_for() {
    let database = resonant_testkit::Postgres::temp().await.unwrap();
    let error = Postgres::connect(database.url()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    let text = error.to_string();
    assert!(text.contains("create_tables(true)") && text.contains("schema_sql(1)"), "{text}");
    let objects = "SELECT (SELECT count(*) FROM pg_namespace WHERE nspname = 'resonant_queue')
        + (SELECT count(*) FROM pg_proc WHERE proname = 'resonant_publish')";
    assert_eq!(database.value(objects).await.unwrap(), "0");

    let all = (0..4).map(|_| Postgres::connect(database.url()).create_tables(true).into_future());
    for made in futures::future::join_all(all).await {
        made.unwrap();
    }
    assert_eq!(database.value(objects).await.unwrap(), "2");
    let postgres = postgres(&database.url()).await;
    queue(&postgres, 2).await.publish(&1).await.unwrap();

    let schema = Postgres::schema_sql(1).unwrap();
    assert!(Postgres::schema_sql(2).is_none());
    database.sql(schema.down).await.unwrap();
    assert_eq!(database.value(objects).await.unwrap(), "0");
    database.sql(schema.up).await.unwrap();
    database.sql("UPDATE resonant_queue.layout SET version = 3, oldest = 1").await.unwrap();
    Postgres::connect(database.url()).await.unwrap();
    database.sql("UPDATE resonant_queue.layout SET oldest = 2").await.unwrap();
    let error = Postgres::connect(database.url()).await.unwrap_err();
    assert!(error.to_string().contains("update the program"), "{error}");
}

/// A queue that a transaction made with its first publish is gone with the transaction: what is published later goes to the
/// queue that has its place since, only if that is the one.
#[tokio::test]
async fn an_outbox_forgets_a_queue_that_was_rolled_back() {
    let database = database().await;
    let postgres = postgres(&database.url()).await;
    let elsewhere = PartitionedQueue::<u64>::builder("undone").partitions(2).key(|n: &u64| n % 10);
    let elsewhere = elsewhere.backend(Memory::new()).build().await.unwrap();
    let outbox = postgres.outbox(&elsewhere);
    let publish = async |undo: bool| {
        let outbox = outbox.clone();
        let done = postgres.database().transaction(async move |tx| {
            outbox.publish(tx, &1).await?;
            outbox.publish(tx, &2).await?;
            let undone = resonant_db::ErrorKind::Refused;
            if undo { Err(resonant_db::Error::new(undone, "test", "undone")) } else { Ok(()) }
        });
        assert_eq!(done.await.is_err(), undo);
    };
    publish(true).await;
    let other = queue(&postgres, 2).await;
    publish(false).await;
    assert_eq!(other.depth().await.unwrap().ready, 0, "they are not for this one");
    let builder = PartitionedQueue::<u64>::builder("undone").partitions(2).key(|n: &u64| n % 10);
    let declared = builder.backend(postgres.clone()).build().await.unwrap();
    assert_eq!(declared.depth().await.unwrap().ready, 2);
}

/// A transaction that is slow to commit holds back later messages of its partition instead of being overtaken: no message
/// appears behind the owner's cursor.
#[tokio::test]
async fn a_slow_commit_is_not_overtaken() {
    let database = database().await;
    let postgres = postgres(&database.url()).await;
    let store = postgres.declare(&QueueSpec::new("raw", 1)).await.unwrap();
    let feed = store.open(0, 1).await.unwrap().feed;
    let outgoing = || Arc::new(vec![Outgoing::new(0, Some(Key::from("a")), "2".into())]);

    let slow = postgres.database().clone();
    let (began, holds) = tokio::sync::oneshot::channel();
    let (go, went) = tokio::sync::oneshot::channel::<()>();
    let (began, went) = (
        Arc::new(std::sync::Mutex::new(Some(began))),
        Arc::new(tokio::sync::Mutex::new(Some(went))),
    );
    let slow = tokio::spawn(async move {
        slow.transaction(async move |tx| {
            let sql = "SELECT resonant_publish('raw', 'a', '1')";
            let sequence: i64 = tx.query_one_as(sql, &[]).await?;
            let _ = began.lock().unwrap().take().unwrap().send(());
            let _ = went.lock().await.take().unwrap().await;
            Ok(sequence)
        })
        .await
        .unwrap()
    });
    holds.await.unwrap();
    let later = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.publish(outgoing()).await.unwrap() }
    });
    let early = timeout(Duration::from_millis(400), feed.fetch(Fetch::after(0, 10))).await;
    assert!(early.is_err(), "nothing is visible before the first commit: {early:?}");
    assert!(!later.is_finished());
    go.send(()).unwrap();
    let first = slow.await.unwrap();
    let second = later.await.unwrap()[0].sequence.unwrap();
    assert!(u64::try_from(first).unwrap() < second);
    let mut bodies = Vec::new();
    let mut after = 0;
    while bodies.len() < 2 {
        let fetch = feed.fetch(Fetch::after(after, 10));
        for message in timeout(LIMIT, fetch).await.unwrap().unwrap().messages {
            after = message.sequence;
            bodies.push(message.body);
        }
    }
    assert_eq!(bodies, ["1", "2"]);
}

/// Sixteen writers of eight connections whose transactions end after chance delays, some by a rollback, while a worker
/// reads: every committed message comes, in order, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_in_any_order_lose_nothing() {
    const WRITERS: u64 = 16;
    const EACH: u64 = 40;
    let database = database().await;
    let postgres = postgres(&database.url()).await;
    let queue = queue(&postgres, 4).await;
    let (seen, check) = (Seen::default(), SequenceCheck::new("numbers"));
    let worker = work(&queue, &seen, &check).await;
    let other = super::postgres(&database.url()).await;
    let writers = (0..WRITERS).map(|writer| {
        let db = other.database().clone();
        tokio::spawn(async move {
            let mut committed = Vec::new();
            for turn in 0..EACH {
                // Keys of several writers are the same; numbers of one key rise only within a writer.
                let number = (turn * WRITERS + writer) * 10 + writer % 10;
                let (pause, undo) =
                    (rand::random::<u64>() % 8, rand::random::<u64>().is_multiple_of(8));
                let done = db
                    .transaction(async move |tx| {
                        let sql = "SELECT resonant_publish('numbers', $1, $2::text::json)";
                        let (key, body) = ((number % 10).to_string(), number.to_string());
                        tx.query(sql, resonant_db::params![key, body]).await?;
                        sleep(Duration::from_millis(pause)).await;
                        let refused =
                            resonant_db::Error::new(resonant_db::ErrorKind::Refused, "test", "no");
                        if undo { Err(refused) } else { Ok(()) }
                    })
                    .await;
                assert_eq!(done.is_err(), undo, "{done:?}");
                if !undo {
                    committed.push(number);
                }
            }
            committed
        })
    });
    let mut committed = Vec::new();
    for writer in futures::future::join_all(writers).await {
        committed.extend(writer.unwrap());
    }
    until("all came", async || seen.count() >= committed.len()).await;
    worker.drain().await.unwrap();
    let mut all = seen.all();
    for writer in 0..WRITERS {
        let of: Vec<_> = all.iter().filter(|number| (**number / 10) % WRITERS == writer).collect();
        assert!(of.is_sorted(), "writer {writer}: {of:?}");
    }
    all.sort_unstable();
    committed.sort_unstable();
    assert_eq!(all, committed);
    assert!(check.report().in_order(), "{:?}", check.report());
    assert_eq!(queue.depth().await.unwrap().unfinished(), 0);
}

/// The partition of a key is the same in SQL, whatever the key.
#[tokio::test]
async fn keys_have_the_same_partition_in_sql() {
    let database = database().await;
    let mut keys: Vec<String> =
        ["", "a", "agent_123", "DFW", "ORD", "Zürich", "7", "日本語"].map(String::from).into();
    for length in 0..120 {
        let key = (0..length).map(|at| char::from(b'!' + ((at * 31 + length * 7) % 90) as u8));
        keys.push(key.collect());
    }
    let quoted: Vec<_> = keys.iter().map(|key| format!("'{}'", key.replace('\'', "''"))).collect();
    for partitions in [1, 16, 4096] {
        let sql = format!(
            "SELECT resonant_queue.partition_of(key, {partitions}) FROM unnest(ARRAY[{}]) key",
            quoted.join(",")
        );
        let rows = database.sql(&sql).await.unwrap();
        assert_eq!(rows.len(), keys.len());
        for (key, row) in keys.iter().zip(&rows) {
            let expected = Key::from(key.as_str()).partition(partitions).to_string();
            assert_eq!(row.get(0), Some(expected.as_str()), "{key:?} of {partitions}");
        }
    }
}

/// Any program publishes by calling a function: with headers, a delay, a unique id, without a key; a queue that is full or
/// not there is an error of its transaction.
#[tokio::test]
async fn sql_publishes_with_everything() {
    let database = database().await;
    let postgres = postgres(&database.url()).await;
    let builder = PartitionedQueue::<u64>::builder("numbers").partitions(4).max_depth(5);
    let queue = builder.key(|n: &u64| n % 10).backend(postgres.clone()).build().await.unwrap();
    let publish = async |arguments: &str| {
        database.sql(&format!("SELECT resonant_publish({arguments})")).await
    };
    publish("'numbers', '1', '1', '{\"traceparent\":\"t\"}'").await.unwrap();
    publish("'numbers', '2', '2', delay => '300 ms'").await.unwrap();
    publish("'numbers', NULL, '3'").await.unwrap();
    publish("'numbers', '4', '4', unique_id => 'four'").await.unwrap();
    publish("'numbers', '4', '44', unique_id => 'four'").await.unwrap();
    let four = PublishOptions::new().unique_id("four");
    assert!(
        queue.publish_with(&444, four).await.unwrap().duplicate,
        "ids are those of all publishers"
    );
    database.sql("BEGIN; SELECT resonant_publish('numbers', '5', '5'); ROLLBACK").await.unwrap();
    let depth = queue.depth().await.unwrap();
    assert_eq!((depth.ready, depth.delayed), (3, 1));
    publish("'numbers', '6', '6'").await.unwrap();
    let full = publish("'numbers', '7', '7'").await.unwrap_err().to_string();
    assert!(full.contains("full"), "{full}");
    let unknown = publish("'others', '1', '1'").await.unwrap_err().to_string();
    assert!(unknown.contains("no queue"), "{unknown}");

    let seen = Seen::default();
    let headers = Arc::new(std::sync::Mutex::new(Vec::new()));
    let handler = {
        let (seen, headers) = (seen.clone(), Arc::clone(&headers));
        async move |delivery: resonant_queue::Delivery<u64>| {
            let header = delivery.header("traceparent").map(str::to_owned);
            headers.lock().unwrap().push((*delivery.message(), delivery.key().is_some(), header));
            seen.push(delivery.into_message());
            Ok(())
        }
    };
    let worker = queue.worker(handler).start().await.unwrap();
    until("all came", async || seen.count() == 5).await;
    worker.drain().await.unwrap();
    let mut headers = headers.lock().unwrap().clone();
    headers.sort();
    let rest = [(2, true, None), (3, false, None), (4, true, None), (6, true, None)];
    assert_eq!(headers[0], (1, true, Some("t".into())));
    assert_eq!(headers[1..], rest);
}

/// An owner that waits is woken at once by another process, and before long when notifications do not come.
#[tokio::test]
async fn a_waiting_owner_is_woken() {
    let database = database().await;
    let owner = postgres(&database.url()).await;
    let (seen, check) = (Seen::default(), SequenceCheck::new("numbers"));
    let worker = work(&queue(&owner, 4).await, &seen, &check).await;
    let other = postgres(&database.url()).await;
    let publisher = queue(&other, 4).await;
    let listening = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'";
    until("it listens", async || database.value(listening).await.unwrap() == "1").await;
    let mut waits = Vec::new();
    for number in 0..20 {
        // The owner sleeps meanwhile.
        sleep(Duration::from_millis(30)).await;
        let published = Instant::now();
        publisher.publish(&number).await.unwrap();
        until("it is handled", async || seen.count() as u64 == number + 1).await;
        waits.push(published.elapsed());
    }
    waits.sort_unstable();
    println!("FIGURE woken by another process: median {:?}, slowest {:?}", waits[10], waits[19]);
    // By itself it looks once a second while it can hear: half of them would take longer.
    assert!(waits[16] < Duration::from_millis(500), "woken, not found by a look: {waits:?}");
    // The sessions of both are thrown out, that of the listener too; the owner looks by itself and listens again.
    let out = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    database.sql(out).await.unwrap();
    for number in 20..40 {
        until("it is stored", async || publisher.publish(&number).await.is_ok()).await;
    }
    until("all are handled", async || seen.count() == 40).await;
    worker.drain().await.unwrap();
    seen.assert_in_order();
    assert!(check.report().in_order(), "{:?}", check.report());
}

/// One id from eight publishers at once is stored once, and all of them are told the same place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_published_by_many_at_once_is_stored_once() {
    let database = database().await;
    let mut publishers = Vec::new();
    for _ in 0..2 {
        publishers.push(queue(&postgres(&database.url()).await, 4).await);
    }
    let asks = (0..100).map(|number| {
        let options = PublishOptions::new().unique_id("same").key(format!("{}", number % 8));
        tokio::spawn(publishers[number as usize % 2].publish_with(&number, options))
    });
    let mut receipts = Vec::new();
    for receipt in futures::future::join_all(asks).await {
        receipts.push(receipt.unwrap().unwrap());
    }
    assert_eq!(receipts.iter().filter(|receipt| !receipt.duplicate).count(), 1);
    let place = (receipts[0].partition, receipts[0].sequence);
    assert!(receipts.iter().all(|receipt| (receipt.partition, receipt.sequence) == place));
    assert_eq!(publishers[0].depth().await.unwrap().ready, 1);
}

/// Batches that share a transaction stay apart: one that does not fit or cannot be stored is refused alone.
#[tokio::test]
async fn batches_that_share_a_transaction_fail_alone() {
    let database = database().await;
    let postgres = postgres(&database.url()).await;
    let spec = QueueSpec::new("raw", 1);
    let store = postgres.declare(&spec).await.unwrap();
    let batch = |key: &str, count: usize| {
        let one = Outgoing::new(0, Some(Key::from(key)), "1".into());
        Arc::new(vec![one; count])
    };
    let (good, bad) = (batch("a", 2), batch("nul \0", 1));
    let long = batch(&"x".repeat(1025), 1);
    let all = [&good, &bad, &good, &long, &good].map(|batch| store.publish(Arc::clone(batch)));
    let answers = futures::future::join_all(all).await;
    let kinds: Vec<_> =
        answers.iter().map(|answer| answer.as_ref().err().map(|error| error.kind())).collect();
    assert_eq!(kinds, [None, Some(ErrorKind::Encoding), None, Some(ErrorKind::Key), None]);
    let mut sequences: Vec<_> =
        answers.into_iter().flatten().flatten().filter_map(|receipt| receipt.sequence).collect();
    sequences.sort_unstable();
    sequences.dedup();
    assert_eq!(sequences.len(), 6);
    assert_eq!(store.stored().await.unwrap().ready, 6);
}
