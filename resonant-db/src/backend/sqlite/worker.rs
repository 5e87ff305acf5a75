//! The thread a connection lives on, and the async side's handle to it.
//!
//! A thread of its own rather than a task on the runtime's blocking pool: the connection stays where its statements are,
//! a dropped caller takes nothing with it, and the jobs of one connection run in the order they were given.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use crate::backend::Target;
use crate::{Error, ErrorKind, Result};

use super::engine::{Engine, Facts};
use super::options::Options;
use super::tidy::{Counted, Tally};

/// How often a statement that has to stop is told so: an interrupt that comes before the statement began is lost.
const NUDGE: Duration = Duration::from_millis(5);

/// How long a stopped statement may take to end before the connection is given up.
const GRACE: Duration = Duration::from_secs(1);

type Job = Box<dyn FnOnce(&mut Engine) + Send>;

pub(super) struct Worker {
    jobs: mpsc::Sender<Job>,
    interrupt: rusqlite::InterruptHandle,
    facts: Arc<Facts>,
    limit: Option<Duration>,
    /// A job was given and its answer was not taken.
    pending: bool,
}

impl Worker {
    /// Starts a thread and opens the connection on it.
    pub(super) async fn start(
        options: Options,
        target: &Target,
        tally: Arc<Tally>,
    ) -> Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (opened, open) = oneshot::channel();
        let facts = Arc::<Facts>::default();
        let (node, access, shared) = (Arc::clone(&target.name), target.access, Arc::clone(&facts));
        let body = move || {
            let counted = Counted::new(tally, &options, access);
            let mut engine = match Engine::open(&options, node, access, shared, counted) {
                Ok(engine) => engine,
                Err(error) => {
                    let _ = opened.send(Err(error));
                    return;
                }
            };
            if opened.send(Ok(engine.interrupt_handle())).is_err() {
                return;
            }
            while let Ok(job) = queue.recv() {
                job(&mut engine);
            }
            engine.close();
        };
        let unavailable = |message: String| Error::new(ErrorKind::Unavailable, "connect", message);
        std::thread::Builder::new().name("resonant-sqlite".into()).spawn(body).map_err(
            |fault| {
                unavailable(format!("{}: no thread could be started", target.name))
                    .with_source(fault)
            },
        )?;
        let interrupt = open.await.map_err(|_| {
            unavailable(format!("{}: the connection's thread ended while opening", target.name))
        })??;
        Ok(Self { jobs, interrupt, facts, limit: target.statement_timeout, pending: false })
    }

    /// Runs a job within the statement limit.
    ///
    /// A dropped future interrupts the statement and leaves the worker [pending](Worker::is_pending).
    pub(super) async fn run<T: Send + 'static>(
        &mut self,
        operation: &'static str,
        job: impl FnOnce(&mut Engine) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let mut answer = self.give(job);
        let limit = self.limit;
        self.pending = true;
        let waiting = Waiting(self);
        let result = match limit {
            None => (&mut answer).await,
            Some(limit) => match timeout(limit, &mut answer).await {
                Ok(result) => result,
                Err(_) => match waiting.0.stop(&mut answer).await {
                    Some(result) => result,
                    None => {
                        waiting.0.facts.broken.store(true, Ordering::Release);
                        let message = format!(
                            "the statement ran into its limit of {limit:?} and did not stop"
                        );
                        let error = Error::new(ErrorKind::TimedOut, operation, message);
                        return Err(error.with_may_have_applied());
                    }
                },
            },
        };
        waiting.0.pending = false;
        drop(waiting);
        match result {
            Ok(result) => result,
            Err(_) => Err(self.gone(operation)),
        }
    }

    pub(super) fn limit(&self) -> Option<Duration> {
        self.limit
    }

    /// Begins a job that goes on by itself. The worker is [pending](Worker::is_pending) until it has [`ended`](Worker::ended).
    pub(super) fn begin<T: Send + 'static>(
        &mut self,
        job: impl FnOnce(&mut Engine) -> Result<T> + Send + 'static,
    ) -> oneshot::Receiver<Result<T>> {
        self.pending = true;
        self.give(job)
    }

    /// Waits for the end of such a job; one that is `late` is stopped.
    pub(super) async fn ended<T>(
        &mut self,
        operation: &'static str,
        mut answer: oneshot::Receiver<Result<T>>,
        late: bool,
    ) -> Result<T> {
        let ended = match late {
            false => Some(answer.await),
            true => self.stop(&mut answer).await,
        };
        match ended {
            Some(Ok(result)) => {
                self.pending = false;
                // That it has come to an end meanwhile is no answer: what it had to say is lost.
                if late && result.is_ok() {
                    let message = "the statement ran into its limit and was stopped";
                    return Err(Error::new(ErrorKind::TimedOut, operation, message));
                }
                result
            }
            Some(Err(_)) => Err(self.gone(operation)),
            None => {
                self.facts.broken.store(true, Ordering::Release);
                let message = "the statement ran into its limit and did not stop";
                Err(Error::new(ErrorKind::TimedOut, operation, message))
            }
        }
    }

    /// Stops what runs and brings the session back to its beginning.
    pub(super) async fn reset(&mut self) -> Result<()> {
        let mut answer = self.give(Engine::reset);
        self.pending = true;
        match self.stop(&mut answer).await {
            Some(Ok(result)) => {
                self.pending = false;
                result
            }
            Some(Err(_)) => Err(self.gone("clean")),
            None => {
                self.facts.broken.store(true, Ordering::Release);
                Err(Error::new(ErrorKind::Unavailable, "clean", "the statement did not stop"))
            }
        }
    }

    /// Whether an answer is owed that nobody waits for.
    pub(super) fn is_pending(&self) -> bool {
        self.pending
    }

    pub(super) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Lets go of the thread after it has closed the connection.
    pub(super) async fn close(mut self) {
        self.abandon();
        let (done, closed) = oneshot::channel::<()>();
        // The thread drops the sender last of all, with the connection.
        let _ = self.jobs.send(Box::new(move |engine| engine.tell_when_closed(done)));
        // The one that was there is dropped, which ends the thread.
        self.jobs = mpsc::channel().0;
        let _ = closed.await;
    }

    /// Stops what runs while nobody waits for it. An interrupt alone is lost where it comes before the statement began; what
    /// is noted here is seen by the statement itself.
    fn abandon(&self) {
        if self.pending {
            self.facts.abandoned.store(true, Ordering::Release);
            self.interrupt.interrupt();
        }
    }

    fn give<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Engine) -> Result<T> + Send + 'static,
    ) -> oneshot::Receiver<Result<T>> {
        let (reply, answer) = oneshot::channel();
        // A thread that is gone drops the job and with it the sender, which is how the caller learns of it.
        let _ = self.jobs.send(Box::new(move |engine| {
            // Nobody waits any more: what has not begun does not begin.
            if !reply.is_closed() {
                let _ = reply.send(job(engine));
            }
        }));
        answer
    }

    /// Interrupts until the answer is there, for as long as the grace lasts.
    async fn stop<T>(
        &self,
        answer: &mut oneshot::Receiver<T>,
    ) -> Option<std::result::Result<T, oneshot::error::RecvError>> {
        let end = Instant::now() + GRACE;
        while Instant::now() < end {
            self.interrupt.interrupt();
            if let Ok(result) = timeout_at(Instant::now() + NUDGE, &mut *answer).await {
                return Some(result);
            }
        }
        None
    }

    fn gone(&self, operation: &'static str) -> Error {
        self.facts.broken.store(true, Ordering::Release);
        let message = "the connection's thread has ended";
        Error::new(ErrorKind::Unavailable, operation, message).with_may_have_applied()
    }
}

/// A connection may go without having been cleaned or closed, as when its pool has given it up.
impl Drop for Worker {
    fn drop(&mut self) {
        self.abandon();
    }
}

/// Interrupts the statement when its caller goes away.
struct Waiting<'a>(&'a mut Worker);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.0.pending {
            self.0.interrupt.interrupt();
        }
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("facts", &self.facts).finish_non_exhaustive()
    }
}
