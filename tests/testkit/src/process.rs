//! A server's process, with everything it spawned.
//!
//! Servers are direct children, started by a thread that lives as long as the test process ([`spawner`]), and on Linux the
//! kernel kills them when that thread ends. Kill and freeze act on the whole tree ([`tree`]): a PostgreSQL backend, for one,
//! is in a process group of its own, and freezing only its parent freezes nothing that a client sees.

mod command;
mod slot;
mod spawner;
mod tool;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;

pub(crate) use self::command::Launch;
pub(crate) use self::slot::Slot;
pub(crate) use self::tool::run_tool;
pub(crate) use self::tree::command_line;
use crate::error::{Error, ErrorKind, Result};
use crate::reaper;
use crate::wait::{LIMIT, Wait};

/// How much of a log an error quotes.
const LOG_LINES: usize = 60;

/// How long a destructor waits for what it killed.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// One running (or ended) server. Dropping it kills the tree.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    pid: u32,
    log: PathBuf,
    child: Mutex<Child>,
    frozen: AtomicBool,
}

impl Process {
    /// Starts a program in the background, its output in the launch's log file.
    pub(crate) fn start(launch: Launch) -> Result<Self> {
        let name = launch.name().to_owned();
        let log = launch.log_path().to_owned();
        let command = launch.into_command()?;
        let child =
            spawner::spawn(command).map_err(|e| Error::io(format!("starting {name}"), e))?;
        let pid = child.id();
        reaper::add(pid);
        tracing::debug!(name, pid, "started");
        Ok(Self { name, pid, log, child: Mutex::new(child), frozen: AtomicBool::new(false) })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether the process itself still runs; a frozen one does.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.child().try_wait(), Ok(None))
    }

    /// Whether it runs and nobody has frozen it: whether a question to it may be answered.
    pub(crate) fn is_responsive(&self) -> bool {
        !self.frozen.load(Ordering::SeqCst) && self.is_running()
    }

    /// The processes below this one.
    pub(crate) fn descendants(&self) -> Vec<u32> {
        if self.is_running() { tree::descendants(self.pid) } else { Vec::new() }
    }

    /// Fails once the process has ended, quoting the end of its log.
    pub(crate) fn check(&self) -> Result<()> {
        match self.child().try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => {
                Err(Error::new(ErrorKind::Exited, format!("{} ended: {status}", self.name))
                    .with_log(tail(&self.log)))
            }
            Err(e) => Err(Error::io(format!("looking at {}", self.name), e)),
        }
    }

    /// Signals the process itself, not its children.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        if !self.is_running() {
            return Err(Error::new(ErrorKind::Lost, format!("{} is not running", self.name)));
        }
        tree::send(self.pid, signal);
        Ok(())
    }

    /// Stops every process of the tree in its tracks. Connections stay; nothing answers.
    pub(crate) fn freeze(&self) -> Result<()> {
        self.check()?;
        self.frozen.store(true, Ordering::SeqCst);
        tree::freeze(self.pid);
        Ok(())
    }

    /// Stops the process itself, not its children.
    pub(crate) fn freeze_alone(&self) -> Result<()> {
        self.frozen.store(true, Ordering::SeqCst);
        self.signal(Signal::STOP)
    }

    /// Lets a frozen tree go on.
    pub(crate) fn thaw(&self) -> Result<()> {
        self.check()?;
        tree::signal_all(self.pid, Signal::CONT);
        self.frozen.store(false, Ordering::SeqCst);
        Ok(())
    }

    /// Kills the whole tree at once, as a power cut of the process would, and waits until all of it is gone.
    pub(crate) async fn kill(&self) -> Result<()> {
        let pids = self.kill_tree();
        let mut wait = Wait::new(format!("the end of {}", self.name), LAST_WAIT * 4);
        while self.is_running() || pids.iter().any(|pid| tree::is_alive(*pid)) {
            wait.pause("still there").await?;
        }
        Ok(())
    }

    /// Waits until the process has ended by itself.
    pub(crate) async fn ended(&self, limit: Duration) -> Result<()> {
        let mut wait = Wait::new(format!("the end of {}", self.name), limit);
        while self.is_running() {
            wait.pause("still running").await?;
        }
        Ok(())
    }

    /// Waits in a destructor, briefly, for a process that was told to end; `false` when it has not.
    pub(crate) fn ended_soon(&self) -> bool {
        wait_blocking(|| !self.is_running())
    }

    fn kill_tree(&self) -> Vec<u32> {
        if !self.is_running() {
            return Vec::new();
        }
        tree::kill(self.pid)
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let pids = self.kill_tree();
        wait_blocking(|| !self.is_running() && !pids.iter().any(|pid| tree::is_alive(*pid)));
        reaper::remove(self.pid);
    }
}

/// Waits until processes that are not our own children, orphans for instance, have ended.
pub(crate) async fn all_ended(what: &str, pids: &[u32]) -> Result<()> {
    let mut wait = Wait::new(format!("the end of {what}"), LIMIT);
    while pids.iter().any(|pid| tree::is_alive(*pid)) {
        wait.pause("still there").await?;
    }
    Ok(())
}

/// Kills a tree and waits, in a destructor, until it is gone.
fn end_tree(root: u32) {
    let pids = tree::kill(root);
    wait_blocking(|| !pids.iter().any(|pid| tree::is_alive(*pid)));
}

/// The last lines of a log file, or nothing when it cannot be read.
pub(crate) fn tail(log: &Path) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

#[expect(
    clippy::disallowed_methods,
    reason = "a destructor cannot await; it waits for a process it has just killed"
)]
fn wait_blocking(mut done: impl FnMut() -> bool) -> bool {
    const STEP: Duration = Duration::from_millis(2);
    for _ in 0..LAST_WAIT.as_millis() / STEP.as_millis() {
        if done() {
            return true;
        }
        std::thread::sleep(STEP);
    }
    done()
}
