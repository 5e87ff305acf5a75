//! The thread that starts all servers. The kernel ties "kill me when my parent dies" to the *thread* that started the child,
//! and a test's thread ends with the test while a shared cluster goes on.

use std::io;
use std::process::{Child, Command};
use std::sync::mpsc::{self, Sender, SyncSender};
use std::sync::{Mutex, PoisonError};

#[derive(Debug)]
struct Job {
    command: Command,
    reply: SyncSender<io::Result<Child>>,
}

/// Starts the command from the long-lived thread.
pub(super) fn spawn(command: Command) -> io::Result<Child> {
    static THREAD: Mutex<Option<Sender<Job>>> = Mutex::new(None);
    let (reply, answer) = mpsc::sync_channel(1);
    {
        let mut thread = THREAD.lock().unwrap_or_else(PoisonError::into_inner);
        let jobs = match thread.take() {
            Some(jobs) => jobs,
            None => start_thread()?,
        };
        let sent = jobs.send(Job { command, reply });
        *thread = Some(jobs);
        sent.map_err(|_| ended())?;
    }
    answer.recv().map_err(|_| ended())?
}

fn start_thread() -> io::Result<Sender<Job>> {
    let (jobs, inbox) = mpsc::channel::<Job>();
    std::thread::Builder::new().name("testkit-spawner".to_owned()).spawn(move || {
        for mut job in inbox {
            // Whoever asked may be gone; then the child is killed by nobody but the reaper, so end it here.
            if let Err(mpsc::SendError(Ok(mut orphan))) = job.reply.send(job.command.spawn()) {
                let _ = orphan.kill();
                let _ = orphan.wait();
            }
        }
    })?;
    Ok(jobs)
}

fn ended() -> io::Error {
    io::Error::other("the thread that starts servers has ended")
}
