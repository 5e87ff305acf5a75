//! Two threads that read, each with a connection of its own, so that a slow read stops neither writes nor other reads.

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::file::{Options, failed, open_reader};
use super::writer::silent;
use crate::error::{Error, ErrorKind, Result, closed};

const THREADS: usize = 2;

/// How long a caller waits for its read.
const PATIENCE: Duration = Duration::from_secs(60);

type Job = Box<dyn FnOnce(&Connection) + Send>;

/// Hands reads to the threads. They end when the last of these is dropped.
#[derive(Clone)]
pub(super) struct Reader {
    jobs: Sender<Job>,
}

impl Reader {
    pub(super) fn start(options: &Options, keep: &Arc<std::fs::File>) -> Result<Self> {
        let (jobs, inbox) = channel::<Job>();
        let inbox = Arc::new(Mutex::new(inbox));
        for _ in 0..THREADS {
            let (conn, inbox, keep) = (open_reader(options)?, Arc::clone(&inbox), Arc::clone(keep));
            std::thread::Builder::new()
                .name("resonant-queue-reader".into())
                .spawn(move || {
                    serve(&conn, &inbox);
                    drop((conn, keep));
                })
                .map_err(|error| {
                    Error::new(
                        ErrorKind::Unavailable,
                        "open",
                        "cannot start a thread; look at the limit of threads",
                    )
                    .with_source(error)
                })?;
        }
        Ok(Self { jobs })
    }

    /// Runs `work` on one of the threads.
    pub(super) async fn call<R: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Connection) -> rusqlite::Result<R> + Send + 'static,
    ) -> Result<R> {
        let (reply, answer) = oneshot::channel();
        let job = move |conn: &Connection| {
            // Nobody waits any more: not worth reading.
            if !reply.is_closed() {
                let path = Path::new(conn.path().unwrap_or_default());
                let _ = reply.send(work(conn).map_err(|error| failed(path, operation, error)));
            }
        };
        self.jobs.send(Box::new(job)).map_err(|_| closed(operation))?;
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(closed(operation)),
            Err(_) => Err(silent(operation)),
        }
    }
}

fn serve(conn: &Connection, inbox: &Mutex<Receiver<Job>>) {
    loop {
        // One thread waits inside the lock, the other for the lock: either way the next job wakes one.
        let job = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            Ok(job) => job(conn),
            Err(_) => return,
        }
    }
}
