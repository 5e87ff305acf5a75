//! Effects exactly once: what a handler writes, the acknowledgement and the fence in one transaction.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use resonant_db::params;
use resonant_queue::backend::Backend;
use resonant_queue::{
    Backoff, Delivery, Effects, ErrorKind, HandlerError, Memory, PartitionedQueue, Postgres,
    RetryConfig, Worker,
};
use resonant_testkit::FaultProxy;
use resonant_testkit::postgres::TempDatabase;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::sync::Semaphore;

use super::{LIMIT, database, postgres, until};

const CHILD: &str = "RESONANT_QUEUE_EFFECTS_CHILD";
const ACCOUNTS: i64 = 10;
const TRANSFERS: i64 = 600;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Transfer {
    id: i64,
    from: i64,
    to: i64,
    cents: i64,
}

/// Transfer `id`; every account pays into others of chance.
fn transfer(id: i64) -> Transfer {
    Transfer { id, from: id % ACCOUNTS, to: (id * 7 + 3) % ACCOUNTS, cents: 1 + id % 97 }
}

async fn bank() -> TempDatabase {
    let database = database().await;
    let tables = "CREATE TABLE account (id bigint PRIMARY KEY, cents bigint NOT NULL);
        CREATE TABLE applied (id bigint NOT NULL);
        INSERT INTO account SELECT g, 100000 FROM generate_series(0, 9) g";
    database.sql(tables).await.unwrap();
    database
}

async fn transfers(postgres: &Postgres) -> PartitionedQueue<Transfer> {
    let backoff =
        Backoff { initial: Duration::from_millis(5), max: Duration::from_millis(50), factor: 2.0 };
    let builder = PartitionedQueue::builder("transfers")
        .partitions(4)
        .lease_ttl(Duration::from_millis(400))
        .retry(RetryConfig { max_attempts: 1000, backoff });
    builder.partition_key("from").backend(postgres.clone()).build().await.unwrap()
}

async fn receipts(postgres: &Postgres) -> PartitionedQueue<i64> {
    let builder = PartitionedQueue::builder("receipts").partitions(2).key(|id: &i64| id % 5);
    builder.backend(postgres.clone()).build().await.unwrap()
}

/// A worker that moves the money and publishes a receipt, all in the transaction that finishes the message.
async fn clerk(postgres: &Postgres) -> Worker {
    let queue = transfers(postgres).await;
    let effects = postgres.effects(&queue);
    let outbox = postgres.outbox(&receipts(postgres).await);
    let handler = async move |delivery: Delivery<Transfer>| {
        let Transfer { id, from, to, cents } = delivery.message().clone();
        effects
            .apply(&delivery, async move |tx| {
                let (low, high) = (from.min(to), from.max(to));
                let lock = "SELECT 1 FROM account WHERE id IN ($1, $2) ORDER BY id FOR UPDATE";
                tx.query(lock, params![low, high]).await?;
                let add = "UPDATE account SET cents = cents + $2 WHERE id = $1";
                tx.execute(add, params![from, -cents]).await?;
                tx.execute(add, params![to, cents]).await?;
                tx.execute("INSERT INTO applied VALUES ($1)", params![id]).await?;
                outbox.publish(tx, &id).await
            })
            .await?;
        Ok(())
    };
    queue.worker(handler).concurrency(8).start().await.unwrap()
}

/// Every transfer moved its money once, and sent one receipt.
async fn audit(database: &TempDatabase) {
    let value = async |sql: &str| database.value(sql).await.unwrap();
    let done = "SELECT count(*) || ' ' || count(DISTINCT id) || ' ' || max(id) FROM applied";
    assert_eq!(value(done).await, format!("{TRANSFERS} {TRANSFERS} {}", TRANSFERS - 1));
    let mut expected = [100_000; 10];
    for transfer in (0..TRANSFERS).map(transfer) {
        expected[usize::try_from(transfer.from).unwrap()] -= transfer.cents;
        expected[usize::try_from(transfer.to).unwrap()] += transfer.cents;
    }
    let found = value("SELECT string_agg(cents::text, ',' ORDER BY id) FROM account").await;
    let expected: Vec<_> = expected.iter().map(i64::to_string).collect();
    assert_eq!(found, expected.join(","));
    let sent = "SELECT count(*) || ' ' || count(DISTINCT m.body) FROM resonant_queue.messages m
        JOIN resonant_queue.queues q ON m.partition >= q.base AND m.partition < q.base + q.partitions WHERE q.name = 'receipts'";
    assert_eq!(value(sent).await, format!("{TRANSFERS} {TRANSFERS}"));
    assert_eq!(value("SELECT count(*) FROM resonant_queue.tallies").await, "0", "all are counted");
}

async fn all_applied(queue: &PartitionedQueue<Transfer>) {
    until("all is applied", async || {
        queue.depth().await.is_ok_and(|depth| depth.unfinished() == 0)
    })
    .await;
}

/// The connections of a worker are cut after so many bytes, at forty points of what it sends and hears: between any two
/// statements, within them, and between a commit and its answer. Sums are exact.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn effects_are_exact_when_connections_are_cut() {
    let database = bank().await;
    let (host, rest) =
        database.url().split_once("127.0.0.1").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let port: u16 = rest.trim_start_matches(':').split('/').next().unwrap().parse().unwrap();
    let proxy = FaultProxy::start(([127, 0, 0, 1], port).into()).await.unwrap();
    let through = format!("{host}127.0.0.1:{}/{}", proxy.port(), rest.split_once('/').unwrap().1);

    let direct = postgres(&database.url()).await;
    let queue = transfers(&direct).await;
    let clerks = postgres(&through).await;
    let worker = clerk(&clerks).await;
    let batches = (0..TRANSFERS).map(transfer).collect::<Vec<_>>();
    let mut cuts = 0;
    for (point, some) in batches.chunks(15).enumerate() {
        queue.publish_many(some).await.unwrap();
        let direction = if point % 2 == 0 {
            resonant_testkit::proxy::Direction::ToServer
        } else {
            resonant_testkit::proxy::Direction::ToClient
        };
        let before = proxy.stats();
        proxy.cut_after(direction, 40 + 67 * point as u64).await.unwrap();
        let cut = async || {
            let now = proxy.stats();
            now.open < before.open || now.connections > before.connections
        };
        let wait = async {
            while !cut().await {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        cuts += u32::from(tokio::time::timeout(Duration::from_secs(1), wait).await.is_ok());
        proxy.heal().await.unwrap();
    }
    all_applied(&queue).await;
    let report = tokio::time::timeout(LIMIT, worker.drain()).await.unwrap().unwrap();
    println!("{cuts} of 40 points were reached; {report:?}");
    assert!(cuts >= 30, "only {cuts} points were reached");
    audit(&database).await;
}

/// The child: a worker until it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(url) = std::env::var(CHILD) else { return };
    let worker = clerk(&postgres(&url).await).await;
    println!("working");
    std::future::pending::<()>().await;
    drop(worker);
}

/// Workers are killed thirty times, whatever they are doing. Sums are exact.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn effects_are_exact_when_workers_are_killed() {
    let database = bank().await;
    let direct = postgres(&database.url()).await;
    let queue = transfers(&direct).await;
    let batches = (0..TRANSFERS).map(transfer).collect::<Vec<_>>();
    for (kill, some) in batches.chunks(20).enumerate() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "servers::postgres::effects::child", "--nocapture"])
            .env(CHILD, database.url())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let working = async {
            while !lines.next_line().await.unwrap().is_none_or(|line| line.contains("working")) {}
        };
        tokio::time::timeout(LIMIT, working).await.expect("the child works");
        let before = queue.depth().await.unwrap().unfinished();
        queue.publish_many(some).await.unwrap();
        if kill % 3 != 0 {
            // In the middle of something: the first of them was finished.
            until("something is applied", async || {
                queue.depth().await.unwrap().unfinished() < before + some.len() as u64
            })
            .await;
        }
        tokio::time::sleep(Duration::from_micros(rand::random::<u64>() % 20_000)).await;
        child.start_kill().unwrap();
        child.wait().await.unwrap();
    }
    let worker = clerk(&direct).await;
    all_applied(&queue).await;
    worker.drain().await.unwrap();
    audit(&database).await;
}

/// An owner that was superseded while its handler ran: its transaction is refused, whatever it wrote is undone, and the new
/// owner did not wait for it.
#[tokio::test]
async fn a_zombies_transaction_is_refused() {
    let database = bank().await;
    let zombie = postgres(&database.url()).await;
    let builder = PartitionedQueue::<i64>::builder("fence").partitions(1).key(|_| "k");
    let queue = builder.backend(zombie.clone()).build().await.unwrap();
    let effects: Effects = zombie.effects(&queue);
    let (inside, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (say, mut said) = tokio::sync::mpsc::unbounded_channel();
    let handler = {
        let (inside, go) = (Arc::clone(&inside), Arc::clone(&go));
        async move |delivery: Delivery<i64>| {
            let work = async move |tx: &mut resonant_db::Transaction<'_>| {
                tx.execute("INSERT INTO applied VALUES (1)", params![]).await?;
                inside.add_permits(1);
                let _ = go.acquire().await;
                Ok(())
            };
            let applied = effects.apply(&delivery, work).await;
            let _ = say.send((delivery.epoch(), applied.as_ref().map_err(|e| e.kind()).copied()));
            applied?;
            Ok::<(), HandlerError>(())
        }
    };
    let worker = queue.worker(handler).start().await.unwrap();
    queue.publish(&1).await.unwrap();
    inside.acquire().await.unwrap().forget();
    // Another process takes the partition over, by the lease table's count of epochs.
    let heir = postgres(&database.url()).await;
    let store = heir.declare(&resonant_queue::backend::QueueSpec::new("fence", 1)).await.unwrap();
    let began = tokio::time::Instant::now();
    store.open(0, 1000).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "the heir does not wait for the handler");
    go.add_permits(10);
    let (epoch, applied) = tokio::time::timeout(LIMIT, said.recv()).await.unwrap().unwrap();
    assert!(epoch < 1000);
    assert_eq!(applied, Err(ErrorKind::Fenced));
    assert_eq!(database.value("SELECT count(*) FROM applied").await.unwrap(), "0");
    assert_eq!(store.stored().await.unwrap().ready, 1, "the message is the heir's");
    drop(worker);
}

/// A message that was finished before is not applied again, although its handler runs again.
#[tokio::test]
async fn a_repeated_message_has_its_effect_once() {
    let database = bank().await;
    let postgres = postgres(&database.url()).await;
    let queue = transfers(&postgres).await;
    let effects = postgres.effects(&queue);
    let (say, mut said) = tokio::sync::mpsc::unbounded_channel();
    let handler = async move |delivery: Delivery<Transfer>| {
        let work = async move |tx: &mut resonant_db::Transaction<'_>| {
            tx.execute("INSERT INTO applied VALUES (1)", params![]).await
        };
        let applied = effects.apply(&delivery, work).await?;
        let _ = say.send(applied);
        // The handler fails after its transaction was committed.
        if applied.is_some() { Err(HandlerError::retry("late")) } else { Ok(()) }
    };
    let worker = queue.worker(handler).start().await.unwrap();
    queue.publish(&transfer(1)).await.unwrap();
    assert_eq!(said.recv().await, Some(Some(1)));
    assert_eq!(said.recv().await, Some(None));
    worker.drain().await.unwrap();
    assert_eq!(database.value("SELECT count(*) FROM applied").await.unwrap(), "1");
    let depth = queue.depth().await.unwrap();
    assert_eq!((depth.unfinished(), depth.dead), (0, 0));
}

/// A relay from an outbox to a queue of another engine sends some messages twice; by the inbox each has its effect once.
#[tokio::test]
async fn a_relay_that_repeats_has_effects_once() {
    let database = bank().await;
    let postgres = postgres(&database.url()).await;
    let (outgoing, target) = (receipts(&postgres).await, {
        let builder = PartitionedQueue::<i64>::builder("elsewhere").partitions(2);
        builder.key(|id: &i64| id % 5).backend(Memory::new()).build().await.unwrap()
    });
    let outbox = postgres.outbox(&outgoing);
    for id in 0..60 {
        let undo = id % 3 == 0;
        let outbox = outbox.clone();
        let done = postgres.database().transaction(async move |tx| {
            outbox.publish(tx, &id).await?;
            let error = resonant_db::Error::new(resonant_db::ErrorKind::Refused, "test", "undone");
            if undo { Err(error) } else { Ok(()) }
        });
        assert_eq!(done.await.is_err(), undo);
    }
    let relay = {
        let target = target.clone();
        outgoing.worker(async move |delivery: Delivery<i64>| {
            target.publish(delivery.message()).await?;
            // It died after it had published and before it could say so.
            let again = delivery.message() % 4 == 0 && delivery.attempt() == 1;
            if again {
                Err(HandlerError::retry_after(Duration::from_millis(1), "died"))
            } else {
                Ok(())
            }
        })
    };
    let relay = relay.start().await.unwrap();
    let inbox = postgres.inbox("ledger");
    let handler = {
        let (db, inbox) = (postgres.database().clone(), inbox.clone());
        async move |delivery: Delivery<i64>| {
            let (id, inbox) = (*delivery.message(), inbox.clone());
            db.transaction(async move |tx| {
                if inbox.first_time(tx, &id.to_string()).await? {
                    tx.execute("INSERT INTO applied VALUES ($1)", params![id]).await?;
                }
                Ok(())
            })
            .await?;
            Ok(())
        }
    };
    let consumer = target.worker(handler).start().await.unwrap();
    until("all is relayed", async || {
        outgoing.depth().await.unwrap().unfinished() + target.depth().await.unwrap().unfinished()
            == 0
    })
    .await;
    relay.drain().await.unwrap();
    let done = consumer.drain().await.unwrap().done;
    assert!(done > 40, "some came twice: {done}");
    let value =
        "SELECT count(*) || ' ' || count(DISTINCT id) || ' ' || bool_and(id % 3 <> 0) FROM applied";
    assert_eq!(database.value(value).await.unwrap(), "40 40 true");
    assert_eq!(inbox.forget(Duration::from_secs(3600)).await.unwrap(), 0);
    assert_eq!(inbox.forget(Duration::ZERO).await.unwrap_or(0), 40);
}

/// A run's effects and its acknowledgement are one transaction: what of it was finished before is left out, and what is
/// finished as a whole does not run again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_has_its_effects_once() {
    let database = database().await;
    database.sql("CREATE TABLE applied (id bigint NOT NULL)").await.unwrap();
    let postgres = postgres(&database.url()).await;
    let queue = receipts(&postgres).await;
    let effects = postgres.effects(&queue);
    let insert = async |tx: &mut resonant_db::Transaction<'_>, ids: Vec<i64>| {
        for id in ids {
            tx.execute("INSERT INTO applied VALUES ($1)", params![id]).await?;
        }
        Ok(())
    };
    let runs = Arc::new(std::sync::Mutex::new(Vec::new()));
    let handler = {
        let runs = Arc::clone(&runs);
        async move |run: resonant_queue::Run<i64>| {
            let ids: Vec<i64> = run.iter().map(|delivery| *delivery.message()).collect();
            // One in the middle was finished by an earlier attempt whose answer was lost.
            if let Some(one) = run.iter().nth(1) {
                let id = ids[1];
                effects.apply(one, async move |tx| insert(tx, vec![id]).await).await?;
            }
            let picked = ids.clone();
            let work = async move |tx: &mut resonant_db::Transaction<'_>, left: Vec<usize>| {
                assert!(!left.contains(&1), "it is finished");
                insert(tx, left.into_iter().map(|place| picked[place]).collect()).await
            };
            assert!(effects.apply_run(&run, work.clone()).await?.is_some());
            assert!(effects.apply_run(&run, work).await?.is_none(), "nothing of it is left");
            runs.lock().unwrap().push(ids.len());
            Ok::<(), HandlerError>(())
        }
    };
    queue.publish_many(0..200).await.unwrap();
    let worker = queue.worker_runs(50, handler).start().await.unwrap();
    until("all is applied", async || {
        queue.depth().await.is_ok_and(|depth| depth.unfinished() == 0)
    })
    .await;
    worker.drain().await.unwrap();
    assert!(runs.lock().unwrap().iter().any(|run| *run > 1), "{runs:?}");
    let value = "SELECT count(*) || ' ' || count(DISTINCT id) FROM applied";
    assert_eq!(database.value(value).await.unwrap(), "200 200");
    let tallies = "SELECT count(*) FROM resonant_queue.tallies";
    until("all are counted", async || database.value(tallies).await.unwrap() == "0").await;
}

/// A part of a run that another attempt finishes meanwhile costs the run no attempt: its transaction runs again without it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_partly_finished_meanwhile_goes_on_with_the_rest() {
    let database = database().await;
    database.sql("CREATE TABLE applied (id bigint NOT NULL)").await.unwrap();
    let postgres = postgres(&database.url()).await;
    let builder = PartitionedQueue::<i64>::builder("runs").partitions(1).key(|_| "k");
    let queue = builder.backend(postgres.clone()).build().await.unwrap();
    let effects = postgres.effects(&queue);
    let (say, mut said) = tokio::sync::mpsc::unbounded_channel();
    let handler = async move |run: resonant_queue::Run<i64>| {
        let ids: Vec<i64> = run.iter().map(|delivery| *delivery.message()).collect();
        let (turns, middle) = (Arc::new(std::sync::Mutex::new(Vec::new())), run.iter().nth(1));
        let (noted, other) = (Arc::clone(&turns), effects.clone());
        let picked = ids.clone();
        let work = async move |tx: &mut resonant_db::Transaction<'_>, left: Vec<usize>| {
            noted.lock().unwrap().push(left.len());
            for place in &left {
                tx.execute("INSERT INTO applied VALUES ($1)", params![picked[*place]]).await?;
            }
            if let Some(one) = middle
                && left.contains(&1)
            {
                let insert = "INSERT INTO applied VALUES (1)";
                let apply = other.apply(one, async move |tx| tx.execute(insert, params![]).await);
                assert_eq!(apply.await.unwrap(), Some(1));
            }
            Ok(())
        };
        let applied = effects.apply_run(&run, work).await;
        let attempts = run.iter().map(Delivery::attempt).max();
        let turns = turns.lock().unwrap().clone();
        let _ = say.send((turns, applied.as_ref().map_err(|e| e.to_string()).copied(), attempts));
        applied?;
        Ok::<(), HandlerError>(())
    };
    queue.publish_many(0..4).await.unwrap();
    let worker = queue.worker_runs(4, handler).start().await.unwrap();
    let told = tokio::time::timeout(LIMIT, said.recv()).await.unwrap().unwrap();
    assert_eq!(told, (vec![4, 3], Ok(Some(())), Some(1)));
    worker.drain().await.unwrap();
    let value = "SELECT string_agg(id::text, ',' ORDER BY id) FROM applied";
    assert_eq!(database.value(value).await.unwrap(), "0,1,2,3");
}
