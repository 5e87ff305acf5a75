//! This binary run again as another process, to be frozen, thawed and killed.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use resonant_queue::{Delivery, HandlerError, PartitionedQueue};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{sleep, timeout};

const LIMIT: Duration = Duration::from_secs(60);

/// A process that runs one test of this binary.
pub(crate) struct OtherProcess {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl OtherProcess {
    /// Runs the test of this name, which finds `value` in the variable.
    pub(crate) fn run(test: &str, variable: &str, value: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(variable, value)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Waits until it says something with this text.
    pub(crate) async fn line_with(&mut self, text: &str) -> String {
        let find = async {
            loop {
                let line =
                    self.lines.next_line().await.unwrap().expect("the child ended by itself");
                if line.contains(text) {
                    return line;
                }
            }
        };
        timeout(LIMIT, find).await.expect("the child says what is waited for")
    }

    pub(crate) async fn freeze(&self) {
        self.signal("-STOP").await;
    }

    pub(crate) async fn thaw(&self) {
        self.signal("-CONT").await;
    }

    async fn signal(&self, name: &str) {
        let id = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args([name, &id]).status().await.unwrap().success());
    }

    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }
}

/// What the other process does: begins messages, finishes none before there is a file "go on", and says when its partition
/// was taken from it.
pub(crate) async fn hold_messages(queue: PartitionedQueue<u64>, directory: &Path) {
    let go_on = directory.join("go on");
    let handler = async move |delivery: Delivery<u64>| {
        println!("\nbegan {} at {}", delivery.message(), delivery.epoch());
        while !go_on.exists() {
            // Without an await: it cannot be stopped, and finishes what it holds.
            std::thread::park_timeout(Duration::from_millis(5));
        }
        println!("\nfinished {}", delivery.message());
        Ok::<(), HandlerError>(())
    };
    let worker = queue.worker(handler).start().await.unwrap();
    while worker.report().fenced == 0 {
        sleep(Duration::from_millis(5)).await;
    }
    println!("\nfenced");
    std::future::pending::<()>().await;
}
