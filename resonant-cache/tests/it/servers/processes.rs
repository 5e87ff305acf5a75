//! Processes of their own: this program, started again for one test that does as the environment says. They meet in the server,
//! where what they do is counted.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use resonant_cache::{CacheConfig, NamespaceConfig, Result};
use resonant_testkit::redis::RedisConnection;
use tokio::time::Instant;

use super::{SOON, cache, cluster, config, rounds, server, started};

const CHILD: &str = "RESONANT_CACHE_CHILD";
const PROCESSES: i64 = 8;
const CALLERS: i64 = 250;
const LOAD: Duration = Duration::from_millis(200);
/// What a load of the process that is killed may take: a lease lasts for all of it, and four calls to the store.
const HARD: Duration = Duration::from_secs(5);
const QUEUE: Duration = Duration::from_secs(1);
const COMMAND: Duration = Duration::from_secs(2);

/// What a process is told: what to do, the names it counts under, and where.
fn settings(job: &str, prefix: &str, nodes: Vec<String>) -> CacheConfig {
    let mut config = config(nodes, true);
    config.key_prefix = prefix.to_owned();
    config.defaults.ttl_jitter = 0.0;
    if job == "leader" {
        config.command_timeout = COMMAND;
        config.defaults = NamespaceConfig {
            hard_load_timeout: HARD,
            load_queue_timeout: QUEUE,
            ..config.defaults
        };
    }
    config
}

/// Ends with the test, however that ends.
struct Process(Child);

impl Process {
    fn start(job: &str, prefix: &str, nodes: &[String], board: &str) -> Self {
        let told = [job, prefix, board, &nodes.join(",")].join(" ");
        let child = Command::new(started(std::env::current_exe()))
            .args(["--exact", "servers::processes::child", "--nocapture"])
            .env(CHILD, told)
            .stdout(Stdio::null())
            .stdin(Stdio::null())
            .spawn();
        Self(started(child))
    }

    /// By SIGKILL: nothing in it has a last word.
    fn kill(&mut self) {
        started(self.0.kill());
        started(self.0.wait());
    }

    async fn ends(mut self) {
        let begun = Instant::now();
        loop {
            if let Some(status) = started(self.0.try_wait()) {
                assert!(status.success(), "a process failed: {status}");
                return;
            }
            assert!(begun.elapsed() < SOON, "a process does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where processes tell each other how far they are: keys of a server that nobody hurts.
struct Board {
    connection: RedisConnection,
    run: String,
}

impl Board {
    async fn open(address: &str, run: &str) -> Self {
        let connection = started(RedisConnection::connect(started(address.parse())).await);
        Self { connection, run: run.to_owned() }
    }

    async fn add(&mut self, name: &str, by: i64) -> i64 {
        let key = format!("{}-{name}", self.run);
        let reply = started(self.connection.command(["INCRBY", &key, &by.to_string()]).await);
        reply.integer().unwrap_or_default()
    }

    async fn at_least(&mut self, name: &str, count: i64) {
        let begun = Instant::now();
        loop {
            let now = self.add(name, 0).await;
            if now >= count {
                return;
            }
            assert!(begun.elapsed() < SOON * 2, "{name} is {now} of {count}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// One of the processes. Does nothing where it is a test like any other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() -> Result<()> {
    let Ok(told) = std::env::var(CHILD) else { return Ok(()) };
    let words: Vec<&str> = told.split(' ').collect();
    let [job, prefix, address, nodes] = words[..] else { panic!("{told}") };
    let config = settings(job, prefix, nodes.split(',').map(str::to_owned).collect());
    let cache = cache(config).await;
    let users = cache.namespace::<i64>("n");
    let mut board = Board::open(address, prefix).await;
    let me = board.add("ready", 1).await;
    let loader = async |key: String, ends: bool| {
        let (address, run) = (address.to_owned(), prefix.to_owned());
        async move || {
            let mut board = Board::open(&address, &run).await;
            board.add(&format!("loads-{key}"), 1).await;
            if !ends {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(LOAD).await;
            Ok::<_, std::io::Error>(me)
        }
    };
    match job.split_once('=').unwrap_or((job, "")) {
        ("rounds", count) => {
            for round in 0..count.parse::<i64>().unwrap_or_default() {
                let key = format!("cold{round}");
                board.at_least("go", round + 1).await;
                let mut callers = Vec::new();
                for _ in 0..CALLERS {
                    let (users, key, load) =
                        (users.clone(), key.clone(), loader(key.clone(), true).await);
                    callers.push(tokio::spawn(async move { users.get_or_load(&key, load).await }));
                }
                let mut value = None;
                for caller in callers {
                    let loaded = *started(started(caller.await));
                    assert_eq!(*value.get_or_insert(loaded), loaded, "one value for all");
                }
                let value = value.unwrap_or_default();
                board.add(&format!("sum-{key}"), value).await;
                board.add(&format!("squares-{key}"), value * value).await;
                board.add(&format!("done-{key}"), 1).await;
            }
        }
        ("leader", _) => {
            let load = loader("lost".into(), false).await;
            users.get_or_load("lost", load).await?;
        }
        ("follower", _) => {
            board.at_least("loads-lost", 1).await;
            let mut callers = Vec::new();
            for _ in 0..50 {
                let (users, load) = (users.clone(), loader("lost".into(), true).await);
                callers.push(tokio::spawn(async move { users.get_or_load("lost", load).await }));
            }
            // Each has begun to wait, or is about to.
            tokio::task::yield_now().await;
            board.add("waiting", 1).await;
            for caller in callers {
                started(started(caller.await));
            }
        }
        _ => panic!("{job}"),
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_processes_of_250_callers_make_one_load_of_a_cold_key() {
    let (nodes, address) = (cluster().await.urls(), server().await.address().to_string());
    let prefix = format!("p{:08x}", rand::random::<u32>());
    let rounds = rounds(4);
    let job = format!("rounds={rounds}");
    let processes: Vec<_> =
        (0..PROCESSES).map(|_| Process::start(&job, &prefix, &nodes, &address)).collect();
    let mut board = Board::open(&address, &prefix).await;
    board.at_least("ready", PROCESSES).await;
    let mut slowest = Duration::ZERO;
    for round in 0..rounds {
        let begun = Instant::now();
        board.add("go", 1).await;
        board.at_least(&format!("done-cold{round}"), PROCESSES).await;
        slowest = slowest.max(begun.elapsed());
        assert_eq!(board.add(&format!("loads-cold{round}"), 0).await, 1, "loads of one key");
        let sum = board.add(&format!("sum-cold{round}"), 0).await;
        let squares = board.add(&format!("squares-cold{round}"), 0).await;
        // So it is when all numbers are the same, and only then.
        assert_eq!(squares * PROCESSES, sum * sum, "not all got what was loaded");
    }
    for process in processes {
        process.ends().await;
    }
    println!(
        "FIGURE {rounds} rounds of {PROCESSES} processes with {CALLERS} callers each, loader {LOAD:?}: one load each; the \
         slowest round took {slowest:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_killed_while_it_loads_costs_one_more_load() {
    let (nodes, address) = (cluster().await.urls(), server().await.address().to_string());
    let prefix = format!("p{:08x}", rand::random::<u32>());
    let start = |job: &str| Process::start(job, &prefix, &nodes, &address);
    let followers: Vec<_> = (0..3).map(|_| start("follower")).collect();
    let mut board = Board::open(&address, &prefix).await;
    board.at_least("ready", 3).await;
    let mut leader = start("leader");
    board.at_least("waiting", 3).await;
    assert_eq!(board.add("loads-lost", 0).await, 1, "the leader's lease keeps the others waiting");
    leader.kill();
    let killed = Instant::now();
    board.at_least("loads-lost", 2).await;
    let again = killed.elapsed();
    for follower in followers {
        follower.ends().await;
    }
    assert_eq!(board.add("loads-lost", 0).await, 2, "one more load, and no more");
    let lease = HARD + QUEUE + COMMAND * 4;
    println!(
        "FIGURE a leader killed by SIGKILL with a lease of {lease:?}: the next load began {again:?} later"
    );
}
