//! Worker processes, kept running: one that is killed is started again, as an orchestrator would.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::addresses::Addresses;
use super::hand::{TASK, Task};
use crate::failure::{Failure, While};
use crate::say;
use crate::worker::CONCURRENCY;

/// How long a worker may take to finish what it has in hand.
const DRAIN: Duration = Duration::from_secs(40);

/// The worker processes of a job.
#[derive(Debug)]
pub(crate) struct Processes {
    keepers: Vec<JoinHandle<()>>,
    /// To all keepers: let it finish.
    ending: watch::Sender<bool>,
    failed: Mutex<mpsc::Receiver<Failure>>,
    /// To the keeper of one: kill it.
    kills: Vec<mpsc::Sender<()>>,
}

impl Processes {
    /// Starts so many.
    pub(super) fn start(addresses: &Addresses, workers: usize) -> Result<Self, Failure> {
        let concurrency = CONCURRENCY.div_ceil(workers);
        let task = Task { addresses: addresses.clone(), concurrency };
        let task = serde_json::to_string(&task).doing("writing a worker's task")?;
        let ending = watch::Sender::new(false);
        let (fail, failed) = mpsc::channel(workers);
        let (mut keepers, mut kills) = (Vec::new(), Vec::new());
        for name in 0..workers {
            let (kill, killed) = mpsc::channel(1);
            let running = Running::spawn(&task)?;
            let keeper = Keeper { name, task: task.clone(), killed, ending: ending.subscribe() };
            let fail = fail.clone();
            keepers.push(tokio::spawn(async move {
                if let Err(failure) = keeper.keep(running).await {
                    // Nobody listens any more when the job has ended.
                    let _ = fail.send(failure).await;
                }
            }));
            kills.push(kill);
        }
        Ok(Self { keepers, ending, failed: Mutex::new(failed), kills })
    }

    /// Returns when one cannot be kept running.
    pub(crate) async fn failed(&self) -> Failure {
        match self.failed.lock().await.recv().await {
            Some(failure) => failure,
            // All keepers have ended, so all workers were let go.
            None => std::future::pending().await,
        }
    }

    /// What kills one of them, which is started again.
    pub(crate) fn kill(&self) -> Option<mpsc::Sender<()>> {
        self.kills.first().cloned()
    }

    /// Lets all finish what they have in hand.
    pub(crate) async fn drain(self) {
        self.ending.send_replace(true);
        for keeper in self.keepers {
            // One that panicked has let go of its process, which is killed with that.
            let _ = keeper.await;
        }
        drop(self.kills);
    }
}

struct Keeper {
    name: usize,
    task: String,
    killed: mpsc::Receiver<()>,
    ending: watch::Receiver<bool>,
}

impl Keeper {
    async fn keep(mut self, mut running: Running) -> Result<(), Failure> {
        loop {
            let ended = tokio::select! {
                ended = running.child.wait() => ended.doing("waiting for a worker process")?,
                Some(()) = self.killed.recv() => {
                    running.child.start_kill().doing("killing a worker process")?;
                    continue;
                }
                () = told(&mut self.ending) => return self.end(running).await,
            };
            self.died(ended)?;
            running = Running::spawn(&self.task)?;
        }
    }

    /// A worker that was killed may be started again; one that gave up has said why, and would again.
    fn died(&self, ended: ExitStatus) -> Result<(), Failure> {
        if ended.code().is_some() {
            let message = format!("worker {} gave up ({ended})", self.name);
            return Err(Failure::Step { doing: "keeping the workers", source: message.into() });
        }
        say::note(&format!("worker {} was killed ({ended}); it is started again", self.name));
        Ok(())
    }

    async fn end(self, running: Running) -> Result<(), Failure> {
        let Running { mut child, input } = running;
        drop(input);
        if timeout(DRAIN, child.wait()).await.is_err() {
            say::note(&format!("worker {} does not end; it is killed", self.name));
            child.kill().await.doing("killing a worker process")?;
        }
        Ok(())
    }
}

async fn told(ending: &mut watch::Receiver<bool>) {
    // Whoever would tell is gone: that is told as well.
    let _ = ending.wait_for(|ending| *ending).await;
}

/// A worker process.
struct Running {
    child: Child,
    /// It works until this is let go; apart from the child, which lets go of it to wait.
    input: Option<ChildStdin>,
}

impl Running {
    fn spawn(task: &str) -> Result<Self, Failure> {
        let program = std::env::current_exe().doing("finding the program")?;
        let mut command = Command::new(program);
        command.env(TASK, task).stdin(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true);
        // Ctrl-C is for the job, which lets its workers finish.
        #[cfg(unix)]
        command.process_group(0);
        let mut child = command.spawn().doing("starting a worker process")?;
        let input = child.stdin.take();
        Ok(Self { child, input })
    }
}
