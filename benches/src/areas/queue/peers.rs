//! Job queues people use, as a program of their own (`benches/peers`), which is built when they are measured: what they depend
//! on would hold back what the workspace is built with. A contender's turn is a line to it and a line back.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::Outcome;

/// The program at work on a server.
pub(in super::super) struct Peer {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    /// Builds and starts it: `postgres` or `rabbitmq`, and where that is. `None` if it cannot be built here.
    pub(in super::super) fn start(which: &str, url: &str) -> Outcome<Option<Self>> {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/Cargo.toml");
        let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".into());
        let built = Command::new("cargo")
            .args(["build", "--release", "--quiet", "--manifest-path", manifest])
            .args(["--target-dir", &format!("{target}/peers")])
            .status()?;
        if !built.success() {
            eprintln!("bench: benches/peers cannot be built; the comparison with it is left out");
            return Ok(None);
        }
        let mut child = Command::new(format!("{target}/peers/release/queue-peers"))
            .args([which, url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let ask = child.stdin.take().ok_or("it has no input")?;
        let answers = BufReader::new(child.stdout.take().ok_or("it has no output")?);
        Ok(Some(Self { child, ask, answers }))
    }

    /// Messages a second.
    pub(in super::super) fn turn(&mut self) -> Outcome<f64> {
        writeln!(self.ask)?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        line.trim().parse().map_err(|_| "the peer has ended".into())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
