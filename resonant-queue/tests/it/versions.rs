//! What messages look like changes, while programs of both versions run.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use resonant_queue::backend::Backend;
use resonant_queue::{
    Delivery, ErrorKind, HandlerError, Key, Memory, ParkedKey, PartitionedQueue, Poison,
    PublishOptions, Sqlite,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Debug, Serialize, Deserialize)]
struct First {
    name: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Third {
    first: String,
    last: String,
    age: u32,
}

async fn first(backend: impl Backend) -> PartitionedQueue<First> {
    let builder = PartitionedQueue::builder("people").partitions(2).key(|_: &First| "all");
    builder.backend(backend).build().await.unwrap()
}

/// Version 2 split the name, version 3 added the age.
async fn third(backend: impl Backend) -> PartitionedQueue<Third> {
    let builder = PartitionedQueue::builder("people").partitions(2).key(|_: &Third| "all");
    let split = |old: Value| {
        let name = old["name"].as_str().ok_or("there is no name")?;
        let (first, last) = name.split_once(' ').ok_or("it is no full name")?;
        Ok(json!({ "first": first, "last": last }))
    };
    let aged = |mut old: Value| {
        old["age"] = 40.into();
        Ok(old)
    };
    let builder = builder.version(3).upcast(1, split).upcast(2, aged);
    builder.backend(backend).build().await.unwrap()
}

/// Handles all until nothing is ready, and returns what was seen.
async fn handle<T>(queue: &PartitionedQueue<T>) -> Vec<T>
where
    T: DeserializeOwned + Send + Sync + 'static,
{
    let seen = Arc::new(Mutex::new(Vec::new()));
    let handler = {
        let seen = Arc::clone(&seen);
        async move |delivery: Delivery<T>| {
            seen.lock().unwrap().push(delivery.into_message());
            Ok::<(), HandlerError>(())
        }
    };
    let worker = queue.worker(handler).start().await.unwrap();
    let idle = async {
        loop {
            let depth = queue.depth().await.unwrap();
            if depth.ready + depth.in_flight == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), idle).await.unwrap();
    worker.drain().await.unwrap();
    std::mem::take(&mut seen.lock().unwrap())
}

/// The key that is parked with so many messages. Another process may have parked it, and this one hears of it a moment
/// later.
async fn parked<T>(queue: &PartitionedQueue<T>, messages: u64) -> ParkedKey {
    let seen = async {
        loop {
            let parked = queue.parked(10).await.unwrap();
            match &parked[..] {
                [one] if one.messages == messages => return one.clone(),
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), seen).await.expect("it is parked")
}

fn person(first: &str, last: &str, age: u32) -> Third {
    Third { first: first.into(), last: last.into(), age }
}

/// Programs of both versions beside each other.
pub(crate) async fn both_versions(backend: impl Backend + Clone) {
    let (old, new) = (first(backend.clone()).await, third(backend.clone()).await);
    old.publish(&First { name: "Ada Lovelace".into() }).await.unwrap();
    // Another program says what its message is.
    let second = PublishOptions::new().header("schema-version", "2");
    new.publish_with(&person("Alan", "Turing", 0), second).await.unwrap();
    new.publish(&person("Grace", "Hopper", 85)).await.unwrap();
    let seen = handle(&new).await;
    let expected = [
        person("Ada", "Lovelace", 40),
        person("Alan", "Turing", 40),
        person("Grace", "Hopper", 85),
    ];
    assert_eq!(seen, expected, "in order, and brought up to date");

    // What the old program cannot know waits for one that does, and what comes after it waits, too.
    new.publish(&person("Edsger", "Dijkstra", 72)).await.unwrap();
    old.publish(&First { name: "Donald Knuth".into() }).await.unwrap();
    assert!(handle(&old).await.is_empty());
    let parked = parked(&new, 2).await;
    assert!(parked.error.contains("knows versions up to 1"), "{parked:?}");
    new.resume_key(parked.key.as_str()).await.unwrap();
    assert_eq!(
        handle(&new).await,
        [person("Edsger", "Dijkstra", 72), person("Donald", "Knuth", 40)]
    );

    // Nor is that lost to a policy that gives up what fails; without a key nothing can wait for it.
    let builder = PartitionedQueue::<First>::builder("people").partitions(2).key(|_: &First| "all");
    let builder = builder.poison(Poison::DeadLetter);
    let hasty = builder.backend(backend.clone()).build().await.unwrap();
    new.publish(&person("Barbara", "Liskov", 85)).await.unwrap();
    let loose = PublishOptions::new().unkeyed();
    new.publish_with(&person("Tony", "Hoare", 90), loose).await.unwrap();
    assert!(handle(&hasty).await.is_empty());
    assert_eq!(self::parked(&new, 1).await.key.as_str(), "all");
    assert_eq!(new.redrive(10).await.unwrap(), 1);
    new.resume_key("all").await.unwrap();
    let mut read = handle(&new).await;
    read.sort_by_key(|person| person.age);
    assert_eq!(read, [person("Barbara", "Liskov", 85), person("Tony", "Hoare", 90)]);

    // What an upcast refuses cannot be read.
    old.publish(&First { name: "Plato".into() }).await.unwrap();
    assert!(handle(&new).await.is_empty());
    let parked = new.parked(10).await.unwrap();
    assert!(parked[0].error.contains("it is no full name"), "{parked:?}");
    assert_eq!(parked[0].key, Key::from("all"));
}

#[tokio::test]
async fn both_versions_of_a_message_are_read_and_later_ones_parked() {
    both_versions(Memory::new()).await;
    let directory = tempfile::tempdir().unwrap();
    both_versions(Sqlite::open(directory.path().join("q.db")).await.unwrap()).await;
}

#[tokio::test]
async fn an_upcast_to_nowhere_is_refused() {
    for (version, from, rule) in
        [(0, 1, "numbered from 1"), (1, 1, "upcast(1)"), (3, 3, "upcast(3)"), (3, 0, "upcast(0)")]
    {
        let builder = PartitionedQueue::<u64>::builder("q").version(version).upcast(from, Ok);
        let error = builder.backend(Memory::new()).build().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(rule), "{error}");
    }
}
