//! SIGKILL at random moments: this binary runs itself as a child and kills it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::RngExt;
use resonant_queue::{HandlerError, PartitionedQueue, Run, SequenceCheck, Sqlite};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

const CHILD: &str = "RESONANT_QUEUE_KILL_CHILD";
const KEYS: u64 = 7;
const CHUNK: u64 = 50;
const KILLS: usize = 6;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Step {
    key: String,
    number: u64,
}

fn chunk(first: u64) -> Vec<Step> {
    (first..first + CHUNK)
        .map(|number| Step { key: format!("key-{}", number % KEYS), number: number / KEYS })
        .collect()
}

async fn open(directory: &Path) -> PartitionedQueue<Step> {
    let file = Sqlite::builder(directory.join("queue.db")).exclusive(true).open().await.unwrap();
    let queue = PartitionedQueue::builder("kill").partitions(4).partition_key("key").backend(file);
    queue.build().await.unwrap()
}

/// The child: publishes chunks, says which are confirmed, and handles, writing down every message before it answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(argument) = std::env::var(CHILD) else { return };
    let (directory, first) = argument.rsplit_once(':').unwrap();
    let queue = open(Path::new(directory)).await;
    let log =
        std::fs::File::options().append(true).open(Path::new(directory).join("handled")).unwrap();
    let log = Arc::new(Mutex::new(log));
    let handler = async move |run: Run<Step>| {
        let lines: String = run
            .iter()
            .map(|delivery| format!("{} {}\n", delivery.message().key, delivery.message().number))
            .collect();
        // One write: a kill cannot tear it, and the file survives the process.
        log.lock().unwrap().write_all(lines.as_bytes()).unwrap();
        tokio::task::yield_now().await;
        Ok::<(), HandlerError>(())
    };
    let worker = queue.worker_runs(16, handler).start().await.unwrap();
    let mut next: u64 = first.parse().unwrap();
    loop {
        queue.publish_many(chunk(next)).await.unwrap();
        println!("confirmed {next}");
        next += CHUNK;
        assert!(worker.report().fenced == 0, "nobody else is here");
    }
}

/// Everything confirmed is handled, in order per key, however often the process is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_confirmed_is_lost_by_kills() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("handled"), "").unwrap();
    let mut confirmed: Vec<u64> = Vec::new();
    let mut first = 0;
    for _ in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::child", "--nocapture"])
            .env(CHILD, format!("{}:{first}", directory.path().display()))
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // A number of confirmations, then some time: the kill comes at any point of the next transactions.
        let (count, micros) = {
            let mut rng = rand::rng();
            (rng.random_range(1..30), rng.random_range(0..20_000))
        };
        let wait = async {
            let mut seen = 0;
            while seen < count {
                let line = lines.next_line().await.unwrap().expect("the child ended by itself");
                seen += u64::from(note(&line, &mut confirmed));
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait).await.expect("the child confirms");
        tokio::time::sleep(Duration::from_micros(micros)).await;
        child.start_kill().unwrap();
        while let Ok(Some(line)) = lines.next_line().await {
            note(&line, &mut confirmed);
        }
        child.wait().await.unwrap();
        // What was not confirmed may be stored all the same: the next child leaves a gap rather than guess.
        first = confirmed.last().map_or(0, |last| last + 2 * CHUNK);
    }
    let handled = finish(directory.path()).await;
    check(&handled, &confirmed);
}

fn note(line: &str, confirmed: &mut Vec<u64>) -> bool {
    // The harness may have begun the line.
    let chunk: Option<u64> =
        line.split("confirmed ").nth(1).and_then(|number| number.trim().parse().ok());
    confirmed.extend(chunk);
    chunk.is_some()
}

/// Handles what is left and returns all that was ever handled.
async fn finish(directory: &Path) -> Vec<(String, u64)> {
    let queue = open(directory).await;
    let (rest, check) = (Arc::new(Mutex::new(Vec::new())), SequenceCheck::new("kill"));
    let handler = {
        let (rest, check) = (Arc::clone(&rest), check.clone());
        async move |run: Run<Step>| {
            for delivery in run {
                check.observe(&delivery);
                let step = delivery.into_message();
                rest.lock().unwrap().push((step.key, step.number));
            }
            Ok::<(), HandlerError>(())
        }
    };
    let worker = queue.worker_runs(64, handler).start().await.unwrap();
    let empty = async {
        while queue.depth().await.unwrap().unfinished() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), empty)
        .await
        .expect("the rest is handled at once");
    worker.drain().await.unwrap();
    assert!(check.report().in_order(), "{:?}", check.report());
    let text = std::fs::read_to_string(directory.join("handled")).unwrap();
    let before = text.lines().filter_map(|line| line.split_once(' '));
    let mut handled: Vec<_> =
        before.map(|(key, number)| (key.to_owned(), number.parse().unwrap())).collect();
    handled.append(&mut rest.lock().unwrap());
    handled
}

fn check(handled: &[(String, u64)], confirmed: &[u64]) {
    let mut keys: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for (key, number) in handled {
        let numbers = keys.entry(key).or_default();
        // What comes for the first time comes after all that came before; what comes again is a repeat.
        let highest = numbers.last().copied();
        assert!(
            numbers.contains(number) || highest.is_none_or(|highest| highest < *number),
            "{key}: {number} came for the first time after {highest:?}"
        );
        numbers.insert(*number);
    }
    let was_handled = |step: &Step| {
        keys.get(step.key.as_str()).is_some_and(|numbers| numbers.contains(&step.number))
    };
    for first in confirmed {
        assert!(
            chunk(*first).iter().all(was_handled),
            "of the confirmed chunk {first} something is lost"
        );
    }
    // Batches whose confirmation the kill cut off are there as a whole or not at all.
    let most = confirmed.last().copied().unwrap_or_default() + 2 * CHUNK;
    for first in (0..most).step_by(usize::try_from(CHUNK).unwrap()) {
        let there = chunk(first).iter().filter(|step| was_handled(step)).count() as u64;
        assert!(there == 0 || there == CHUNK, "{there} of the chunk {first}");
    }
    println!("{} kills, {} chunks confirmed, {} deliveries", KILLS, confirmed.len(), handled.len());
}
