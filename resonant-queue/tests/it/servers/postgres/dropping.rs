//! Futures dropped at every await: a call is done or not done.

use std::sync::Arc;
use std::time::Duration;

use resonant_db::params;
use resonant_queue::backend::{Backend, Fetch, QueueSpec, Settlement};
use resonant_queue::{
    Delivery, HandlerError, Key, Outgoing, PartitionedQueue, PublishOptions, RetryConfig,
};

use super::{database, postgres, queue, until};
use crate::dropping::drop_after;

/// Batches, and messages with an id, are stored whole or not at all, whenever their publisher goes away.
#[tokio::test]
async fn a_dropped_publish_stores_all_or_nothing() {
    let database = database().await;
    let queue = queue(&postgres(&database.url()).await, 4).await;
    let mut before = 0;
    for polls in 0..8 {
        let whole = drop_after(polls, queue.publish_many(0..5)).await;
        // What was handed over is carried out, and this goes the same way behind it.
        queue.publish_many(5..10).await.unwrap();
        let after = queue.depth().await.unwrap().ready;
        assert!(after == before + 5 || after == before + 10, "{before} became {after}");
        assert!(whole.is_none() || after == before + 10);
        before = after;
    }
    for polls in 0..8 {
        let id = || PublishOptions::new().unique_id(format!("id {polls}"));
        drop_after(polls, queue.publish_with(&1, id())).await;
        let receipt = queue.publish_with(&1, id()).await.unwrap();
        let again = queue.publish_with(&1, id()).await.unwrap();
        assert_eq!((again.duplicate, again.sequence), (true, receipt.sequence));
        before += 1;
        assert_eq!(queue.depth().await.unwrap().ready, before);
    }
}

/// A settlement that was dropped is applied or not, and is repeated without harm; a read that was dropped takes nothing.
#[tokio::test]
async fn a_dropped_settlement_or_read_loses_nothing() {
    let database = database().await;
    let postgres = postgres(&database.url()).await;
    let store = postgres.declare(&QueueSpec::new("raw", 1)).await.unwrap();
    let one = || Outgoing::new(0, Some(Key::from("a")), "1".into());
    store.publish(Arc::new((0..32).map(|_| one()).collect())).await.unwrap();
    let feed = store.open(0, 1).await.unwrap().feed;
    for polls in 0..8 {
        drop_after(polls, feed.fetch(Fetch::after(0, 4))).await;
        let read = feed.fetch(Fetch::after(0, 4)).await.unwrap().messages;
        assert_eq!(read.len(), 4);
        let done = read.iter().map(|message| Settlement::Done { sequence: message.sequence });
        let done: Arc<Vec<_>> = Arc::new(done.collect());
        let left = 32 - 4 * polls as u64;
        drop_after(polls, store.settle(0, 1, Arc::clone(&done))).await;
        let ready = store.stored().await.unwrap().ready;
        assert!(ready == left || ready == left - 4, "{left} became {ready}");
        store.settle(0, 1, done).await.unwrap();
        assert_eq!(store.stored().await.unwrap().ready, left - 4);
    }
}

/// A handler that is stopped anywhere in its transaction has both its effect and its acknowledgement, or neither.
#[tokio::test]
async fn a_dropped_transaction_has_effect_and_acknowledgement_or_neither() {
    let database = database().await;
    database.sql("CREATE TABLE applied (id bigint NOT NULL)").await.unwrap();
    let postgres = postgres(&database.url()).await;
    let retry = RetryConfig { max_attempts: 10_000, ..RetryConfig::default() };
    let builder = PartitionedQueue::<u64>::builder("numbers").partitions(1).retry(retry);
    let builder = builder.key(|number: &u64| number % 10).backend(postgres.clone());
    let queue = builder.build().await.unwrap();
    let effects = postgres.effects(&queue);
    let handler = async move |delivery: Delivery<u64>| {
        let id = i64::try_from(*delivery.message())?;
        let work = async move |tx: &mut resonant_db::Transaction<'_>| {
            tx.execute("INSERT INTO applied VALUES ($1)", params![id]).await
        };
        // It is stopped later at each attempt.
        let polls = delivery.attempt() as usize;
        match drop_after(polls, effects.apply(&delivery, work)).await {
            Some(applied) => applied.map(drop).map_err(HandlerError::from),
            None => Err(HandlerError::retry_after(Duration::from_millis(1), "stopped")),
        }
    };
    let worker = queue.worker(handler).start().await.unwrap();
    queue.publish_many(0..20).await.unwrap();
    until("all are applied", async || queue.depth().await.unwrap().unfinished() == 0).await;
    worker.drain().await.unwrap();
    let value = "SELECT count(*) || ' ' || count(DISTINCT id) FROM applied";
    assert_eq!(database.value(value).await.unwrap(), "20 20");
}
