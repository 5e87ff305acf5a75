//! Workers in this process.
//!
//! The pool starts them by one closure and lets them finish by another. A worker that is taken away is handed to the second
//! closure whole; with a queue's `drain` that means: it takes no more messages, ends those it has, and nothing is lost.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt as _;
use resonant_common::duration::FOR_EVER;
use resonant_common::error::BoxError;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{ScaleTarget, TargetState};
use crate::error::{Error, ErrorKind, Result};
use crate::hpa::Scale;

/// Default of [`WorkerPool::most_ending`].
const MOST_ENDING: usize = 1000;
/// Default of [`WorkerPool::end_within`].
const END_WITHIN: Duration = Duration::from_secs(600);

type Starting<W> = Pin<Box<dyn Future<Output = Result<W, BoxError>> + Send>>;
type Ending = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

/// A number of workers of type `W` in this process. Clones are the same pool.
///
/// ```
/// # use resonant_scale::{ScaleTarget, WorkerPool};
/// # struct Worker; impl Worker { async fn drain(self) -> Result<(), std::io::Error> { Ok(()) } }
/// # #[derive(Clone)] struct Queue; impl Queue { async fn start_worker(self) -> Result<Worker, std::io::Error> { Ok(Worker) } }
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let queue = Queue;
/// let workers = WorkerPool::new(
///     move || queue.clone().start_worker(),       // queue.worker(handler).start()
///     |worker: Worker| worker.drain(),
/// );
/// workers.set(3).await?;
/// assert_eq!(workers.running(), 3);
/// workers.close().await;                          // waits until all have finished
/// # Ok(()) }
/// ```
///
/// The last clone dropped drops the workers, and those that still finish with them; [`close`](Self::close) waits for them.
pub struct WorkerPool<W> {
    shared: Arc<Shared<W>>,
}

struct Shared<W> {
    start: Box<dyn Fn() -> Starting<W> + Send + Sync>,
    end: Arc<dyn Fn(W) -> Ending + Send + Sync>,
    /// One change at a time.
    turn: tokio::sync::Mutex<()>,
    crew: Mutex<Crew<W>>,
}

struct Crew<W> {
    running: Vec<W>,
    ending: JoinSet<()>,
    /// How many may finish at once before no more are started.
    most_ending: usize,
    /// How long one may take to finish.
    end_within: Duration,
    failures: u64,
    cut_off: u64,
    closed: bool,
}

impl<W: Send + 'static> WorkerPool<W> {
    /// No workers yet; `start` makes one, `end` lets one finish. What `end` answers with is not looked at: where it tells of work
    /// that was left undone, as the report of a queue's drain does, count that in the closure, or make an error of it.
    pub fn new<S, StartFut, StartError, D, EndFut, EndOk, EndError>(start: S, end: D) -> Self
    where
        S: Fn() -> StartFut + Send + Sync + 'static,
        StartFut: Future<Output = Result<W, StartError>> + Send + 'static,
        StartError: Into<BoxError>,
        D: Fn(W) -> EndFut + Send + Sync + 'static,
        EndFut: Future<Output = Result<EndOk, EndError>> + Send + 'static,
        EndError: Into<BoxError>,
    {
        Self {
            shared: Arc::new(Shared {
                start: Box::new(move || {
                    let starting = start();
                    Box::pin(async move { starting.await.map_err(Into::into) })
                }),
                end: Arc::new(move |worker| {
                    let ending = end(worker);
                    Box::pin(async move { ending.await.map(drop).map_err(Into::into) })
                }),
                turn: tokio::sync::Mutex::new(()),
                crew: Mutex::new(Crew {
                    running: Vec::new(),
                    ending: JoinSet::new(),
                    most_ending: MOST_ENDING,
                    end_within: END_WITHIN,
                    failures: 0,
                    cut_off: 0,
                    closed: false,
                }),
            }),
        }
    }

    /// How many may be finishing before no more are started, so that workers that never finish do not pile up while others
    /// come and go. Default 1000.
    #[must_use]
    pub fn most_ending(self, most: usize) -> Self {
        self.shared.crew().most_ending = most;
        self
    }

    /// How long a worker that is taken away may take to finish. One that takes longer is dropped where it is, which is warned
    /// of and counted as [`cut_off`](Self::cut_off); what that leaves behind is the worker's to say: a queue hands its
    /// unfinished messages out again. Default 10 minutes. Make it longer than the worker's own limit, such as a queue's
    /// `drain_timeout` of 30 s, which ends in better order. Holds for workers taken away from now on.
    #[must_use]
    pub fn end_within(self, limit: Duration) -> Self {
        self.shared.crew().end_within = limit;
        self
    }

    /// How many run, those that finish not counted.
    pub fn running(&self) -> usize {
        self.shared.crew().running.len()
    }

    /// How many were taken away and have not finished.
    pub fn ending(&self) -> usize {
        let mut crew = self.shared.crew();
        while crew.ending.try_join_next().is_some() {}
        crew.ending.len()
    }

    /// How many workers did not end well, panics included. Each was warned of.
    pub fn failures(&self) -> u64 {
        self.shared.crew().failures
    }

    /// How many workers were dropped because they took longer to finish than [`end_within`](Self::end_within) allows.
    pub fn cut_off(&self) -> u64 {
        self.shared.crew().cut_off
    }

    /// Takes all workers away and waits until they have finished, or were cut off. The pool starts no more.
    ///
    /// # Cancel safety
    ///
    /// A dropped `close` has begun all the same; call it again to wait.
    pub async fn close(&self) {
        let _turn = self.shared.turn.lock().await;
        let mut ending = {
            let mut crew = self.shared.crew();
            crew.closed = true;
            while let Some(worker) = crew.running.pop() {
                self.shared.finish(&mut crew, worker);
            }
            Returned { shared: &self.shared, ending: std::mem::take(&mut crew.ending) }
        };
        while ending.ending.join_next().await.is_some() {}
    }
}

/// Gives the unfinished back if the wait for them is dropped.
struct Returned<'a, W> {
    shared: &'a Shared<W>,
    ending: JoinSet<()>,
}

impl<W> Drop for Returned<'_, W> {
    fn drop(&mut self) {
        let mut crew = self.shared.crew();
        if crew.ending.is_empty() {
            crew.ending = std::mem::take(&mut self.ending);
        }
    }
}

impl<W> Shared<W> {
    fn crew(&self) -> MutexGuard<'_, Crew<W>> {
        self.crew.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: Send + 'static> Shared<W> {
    /// Lets a worker finish in a task of the pool's own, which also calls the closure: it may look at the pool, and panic.
    fn finish(self: &Arc<Self>, crew: &mut Crew<W>, worker: W) {
        while crew.ending.try_join_next().is_some() {}
        let (end, shared) = (Arc::clone(&self.end), Arc::downgrade(self));
        let limit = crew.end_within.min(FOR_EVER);
        crew.ending.spawn(async move {
            let ended = AssertUnwindSafe(async { end(worker).await }).catch_unwind();
            // What takes too long is dropped here, with the worker in it.
            let ended = timeout(limit, ended).await;
            let cut_off = ended.is_err();
            let error = match ended {
                Ok(Ok(Ok(()))) => return,
                Ok(Ok(Err(error))) => error,
                Ok(Err(_)) => BoxError::from("it panicked"),
                Err(_) => format!("it did not finish within {limit:?} and was dropped").into(),
            };
            tracing::warn!(target: "resonant::scale", %error, "a worker did not end well");
            if let Some(shared) = shared.upgrade() {
                let mut crew = shared.crew();
                if cut_off {
                    crew.cut_off += 1;
                } else {
                    crew.failures += 1;
                }
            }
        });
    }
}

#[async_trait]
impl<W: Send + 'static> ScaleTarget for WorkerPool<W> {
    async fn read(&self) -> Result<TargetState> {
        let crew = self.shared.crew();
        if crew.closed {
            return Err(Error::new(ErrorKind::Closed, "read", "the pool is closed"));
        }
        let running = u32::try_from(crew.running.len()).unwrap_or(u32::MAX);
        // Those that finish take no more work, so the share of each is reckoned without them.
        // What runs is what counts as asked for: where a start failed, the next evaluation sees the difference.
        Ok(Scale::steady(running).into())
    }

    /// Starts workers one after the other, or lets the youngest finish in the background.
    ///
    /// # Cancel safety
    ///
    /// A dropped call has started as many as it had come to, and the number asked for is then that of those that run.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](ErrorKind::Unavailable) if a worker does not start, or too many still finish; those that started go on,
    /// and the error then says that it may have been applied.
    async fn set(&self, replicas: u32) -> Result<()> {
        let _turn = self.shared.turn.lock().await;
        {
            let mut crew = self.shared.crew();
            if crew.closed {
                return Err(Error::new(ErrorKind::Closed, "set", "the pool is closed"));
            }
            while crew.running.len() > replicas as usize {
                if let Some(worker) = crew.running.pop() {
                    self.shared.finish(&mut crew, worker);
                }
            }
        }
        let before = self.running();
        let failed = |message: String| {
            let error = Error::new(ErrorKind::Unavailable, "set", message);
            if self.running() == before { error } else { error.with_may_have_applied() }
        };
        while self.running() < replicas as usize {
            let (ending, most) = (self.ending(), self.shared.crew().most_ending);
            if ending > most {
                return Err(failed(format!("{ending} workers still finish; at most {most} may")));
            }
            match (self.shared.start)().await {
                Ok(worker) => self.shared.crew().running.push(worker),
                Err(error) => {
                    let running = self.running();
                    let message = format!("a worker did not start; {running} of {replicas} run");
                    return Err(failed(message).with_source(error));
                }
            }
        }
        Ok(())
    }

    /// None run before the first change, and none when no start succeeds: that is no switch. To switch a pool off,
    /// [pause](crate::Autoscaler::pause) its scaler.
    fn zero_is_off(&self) -> bool {
        false
    }
}

impl<W> Clone for WorkerPool<W> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<W> fmt::Debug for WorkerPool<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let crew = self.shared.crew();
        f.debug_struct("WorkerPool")
            .field("running", &crew.running.len())
            .field("ending", &crew.ending.len())
            .finish_non_exhaustive()
    }
}
