//! A program in another language at the same queue, after what the format says: publishers and consumers in turn, every key
//! in order.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use resonant_common::join::{Acquired, LeaseStore, MemoryLeaseStore};
use resonant_queue::{PartitionedQueue, RabbitMq};
use tokio::process::Command;
use tokio::time::timeout;

use super::broker;
use super::support::{LIMIT, Seen, until, work};

const PARTITIONS: u32 = 4;

/// An interpreter that knows pika: the one that `RESONANT_PYTHON` names, else the first in the PATH, else Debian's.
async fn interpreter() -> String {
    let named = std::env::var("RESONANT_PYTHON").ok();
    let candidates =
        named.map_or_else(|| vec!["python3".into(), "/usr/bin/python3".into()], |it| vec![it]);
    let mut knowing = None;
    for program in candidates {
        let asked = Command::new(&program).args(["-c", "import pika"]).output().await;
        if knowing.is_none() && asked.is_ok_and(|output| output.status.success()) {
            knowing = Some(program);
        }
    }
    knowing.expect(
        "the test needs Python 3 with pika: apt-get install python3-pika, or pip install pika",
    )
}

/// Runs the other program and returns what it printed.
async fn python(arguments: &[&str]) -> String {
    let program = interpreter().await;
    let script =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/servers/rabbitmq/other_program.py");
    let running = Command::new(program).arg(script).args(arguments).kill_on_drop(true).output();
    let output = timeout(LIMIT, running).await.expect("it ends").expect("python3 is there");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_publishes_and_consumes_in_order_beside_us() {
    let vhost = broker().await.vhost().await.unwrap();
    let (url, leases) = (vhost.url(), Arc::new(MemoryLeaseStore::new()));
    let rabbit = RabbitMq::connect([url.clone()])
        .leases(leases.clone())
        .creation_wait(Duration::ZERO)
        .await
        .unwrap();
    let queue: PartitionedQueue<u64> = PartitionedQueue::builder("shared")
        .partitions(PARTITIONS)
        .key(|number: &u64| number % 10)
        .backend(rabbit)
        .build()
        .await
        .unwrap();
    let partitions = PARTITIONS.to_string();
    let publish = async |first: u64, count: u64| {
        let (first, count) = (first.to_string(), count.to_string());
        python(&["publish", &url, "shared", &partitions, &first, &count]).await
    };
    // Both publish, we consume.
    publish(0, 200).await;
    queue.publish_many(200..400).await.unwrap();
    publish(400, 200).await;
    let seen = Seen::default();
    let (worker, check) = work(&queue, &seen).await;
    until("all are handled", async || seen.count() == 600).await;
    assert_eq!(seen.all().len(), 600);
    seen.assert_in_order();
    assert!(check.report().in_order(), "{:?}", check.report());
    until("all are settled", async || queue.depth().await.is_ok_and(|d| d.unfinished() == 0)).await;
    worker.drain().await.unwrap();

    // Both publish, it consumes, as owner of the partitions.
    queue.publish_many(600..800).await.unwrap();
    publish(800, 200).await;
    queue.publish_many(1000..1200).await.unwrap();
    let mut lines = String::new();
    for partition in 0..PARTITIONS {
        let name = format!("shared/partition/{partition}");
        let answer = leases.acquire(&name, "python", LIMIT).await.unwrap();
        let Acquired::Granted(lease) = answer else { panic!("{answer:?}") };
        let (number, epoch) = (partition.to_string(), lease.epoch.to_string());
        lines += &python(&["consume", &url, "shared", &number, &epoch]).await;
        leases.release(&lease).await.unwrap();
    }
    let mut keys: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for line in lines.lines() {
        let (key, number) = line.split_once(' ').unwrap();
        keys.entry(key.parse().unwrap()).or_default().push(number.parse().unwrap());
    }
    for key in 0..10 {
        let expected: Vec<_> = (600..1200).filter(|number| number % 10 == key).collect();
        assert_eq!(keys[&key], expected, "key {key}");
    }

    // And we again: nothing is left, what comes now is handled once.
    let seen = Seen::default();
    let (worker, _) = work(&queue, &seen).await;
    publish(1200, 50).await;
    until("the rest is handled", async || seen.count() == 50).await;
    assert_eq!(seen.all().iter().min(), Some(&1200));
    worker.drain().await.unwrap();
}
