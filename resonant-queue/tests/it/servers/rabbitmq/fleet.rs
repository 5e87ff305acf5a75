//! Worker processes killed one after another while messages come: nothing is lost, every key stays in order, and only what a
//! killed one had in hand comes twice. This binary runs itself as the workers.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use resonant_queue::{Delivery, Durability, HandlerError, PartitionedQueue, RabbitMq, Sqlite};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use super::broker;
use super::support::until;

const CHILD: &str = "RESONANT_QUEUE_RABBIT_FLEET";
const KEYS: u64 = 40;

async fn open(url: &str, directory: &Path) -> PartitionedQueue<u64> {
    let leases = Sqlite::builder(directory.join("leases.db")).durability(Durability::Normal);
    let leases = leases.open().await.unwrap().leases();
    let rabbit = RabbitMq::connect([url]).leases(leases).heartbeat(Duration::from_secs(2));
    let builder = PartitionedQueue::builder("fleet").partitions(8);
    let builder = builder.key(|number: &u64| number % KEYS).lease_ttl(Duration::from_secs(1));
    builder.backend(rabbit.await.unwrap()).build().await.unwrap()
}

/// A worker: writes down every message before it answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(argument) = std::env::var(CHILD) else { return };
    let [url, directory, name] = argument.split(' ').collect::<Vec<_>>()[..] else { return };
    let queue = open(url, Path::new(directory)).await;
    let file = std::fs::File::options().append(true).open(Path::new(directory).join("handled"));
    let (file, name) = (Arc::new(Mutex::new(file.unwrap())), name.to_owned());
    let handler = async move |delivery: Delivery<u64>| {
        // One write: a kill cannot tear it, and the file survives the process.
        let line = format!("{name} {}\n", delivery.message());
        file.lock().unwrap().write_all(line.as_bytes()).unwrap();
        sleep(Duration::from_millis(2)).await;
        Ok::<(), HandlerError>(())
    };
    let _worker = queue.worker(handler).start().await.unwrap();
    std::future::pending::<()>().await;
}

fn spawn(url: &str, directory: &Path, name: usize) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "servers::rabbitmq::fleet::child", "--nocapture"])
        .env(CHILD, format!("{url} {} {name}", directory.display()))
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

fn handled(directory: &Path) -> Vec<(usize, u64)> {
    let text = std::fs::read_to_string(directory.join("handled")).unwrap();
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.map(|(name, number)| (name.parse().unwrap(), number.parse().unwrap())).collect()
}

async fn killed(kills: usize) {
    let vhost = broker().await.vhost().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    std::fs::write(path.join("handled"), "").unwrap();
    let queue = open(&vhost.url(), path).await;
    let mut workers: Vec<_> = (0..3).map(|name| (name, spawn(&vhost.url(), path, name))).collect();
    let (stop, stopped) = (tokio_util::sync::CancellationToken::new(), Arc::new(Mutex::new(0)));
    let publisher = tokio::spawn({
        let (queue, stop, stopped) = (queue.clone(), stop.clone(), Arc::clone(&stopped));
        async move {
            let mut first = 0;
            while !stop.is_cancelled() {
                queue.publish_many(first..first + KEYS).await.unwrap();
                first += KEYS;
                *stopped.lock().unwrap() = first;
                sleep(Duration::from_millis(20)).await;
            }
        }
    });
    until("work has begun", async || handled(path).len() > 100).await;
    let mut dead = BTreeSet::new();
    for kill in 0..kills {
        let (name, mut child) = workers.remove(0);
        child.kill().await.unwrap();
        dead.insert(name);
        workers.push((3 + kill, spawn(&vhost.url(), path, 3 + kill)));
        sleep(Duration::from_secs(2)).await;
    }
    stop.cancel();
    publisher.await.unwrap();
    let total = *stopped.lock().unwrap();
    let stopped = Instant::now();
    let all = async || {
        let numbers: BTreeSet<_> = handled(path).into_iter().map(|(_, number)| number).collect();
        numbers.len() as u64 == total
    };
    until("all is handled", all).await;
    let caught_up = stopped.elapsed();
    until("all is settled", async || {
        queue.depth().await.is_ok_and(|depth| depth.unfinished() == 0)
    })
    .await;
    let (mut first_by, mut highest) = (BTreeMap::new(), BTreeMap::<u64, u64>::new());
    let mut repeats = 0;
    for (name, number) in handled(path) {
        match first_by.insert(number, name) {
            Some(before) => {
                repeats += 1;
                assert!(dead.contains(&before), "{number} was in the hands of {before}, who lives");
            }
            None => {
                let before = highest.insert(number % KEYS, number);
                assert!(before.is_none_or(|before| before < number), "{before:?} before {number}");
            }
        }
    }
    println!(
        "FIGURE {kills} workers killed in {total} messages: none lost, none out of order, {repeats} in hand came again, caught up {caught_up:?} after the last publish"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_by_workers_that_are_killed() {
    killed(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes five minutes: scripts/soak rabbitmq"]
async fn nothing_is_lost_by_workers_killed_for_five_minutes() {
    killed(150).await;
}
