//! The one thread that writes: it commits what all callers want in groups.
//!
//! While a transaction is being made durable, which is what takes time, new work gathers; the next transaction takes all
//! of it. So the price of a sync is shared by everybody who waits, and nobody waits for company.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

use super::file::failed;
use super::state::State;
use super::wakes::Wakes;
use crate::clock;
use crate::error::{Error, ErrorKind, Result, closed};

/// Calls in one transaction at most.
const GROUP: usize = 512;

/// Calls that may wait for the thread, those of callers that were dropped included.
const CALLS: usize = 4096;

/// How long a caller waits for its transaction.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often an idle writer looks whether another process has written.
const LOOK: Duration = Duration::from_millis(20);

/// How often an idle writer tidies up.
const TIDY: Duration = Duration::from_secs(1);

/// Why a call did not do its work.
#[derive(Debug)]
pub(super) enum Fault {
    /// The call was refused before it changed anything; others in its transaction go on.
    Refused(Error),
    /// The engine failed: the whole transaction is undone.
    Engine(rusqlite::Error),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Fault::Engine(error)
    }
}

/// What a call works with inside the transaction.
pub(super) struct Tx<'a> {
    pub(super) conn: &'a Connection,
    pub(super) state: &'a mut State,
    /// Milliseconds since 1970.
    pub(super) now: u64,
    /// Partition ids with something new to read.
    pub(super) touched: &'a mut BTreeSet<i64>,
    /// Whether messages were removed.
    pub(super) freed: &'a mut bool,
}

/// A call on its way through the writer.
trait Job: Send {
    fn run(&mut self, tx: &mut Tx<'_>) -> rusqlite::Result<()>;
    fn answer(self: Box<Self>, failure: Option<&Error>);
}

struct Call<F, R> {
    operation: &'static str,
    work: Option<F>,
    result: Option<Result<R>>,
    reply: oneshot::Sender<Result<R>>,
    _place: OwnedSemaphorePermit,
}

impl<F, R> Job for Call<F, R>
where
    F: FnOnce(&mut Tx<'_>) -> Result<R, Fault> + Send,
    R: Send,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> rusqlite::Result<()> {
        let Some(work) = self.work.take() else { return Ok(()) };
        self.result = match work(tx) {
            Ok(value) => Some(Ok(value)),
            Err(Fault::Refused(error)) => Some(Err(error)),
            Err(Fault::Engine(error)) => return Err(error),
        };
        Ok(())
    }

    fn answer(self: Box<Self>, failure: Option<&Error>) {
        let answer = match (failure, self.result) {
            (Some(error), _) => Err(error.clone()),
            (None, Some(result)) => result,
            (None, None) => Err(closed(self.operation)),
        };
        // Nobody listening means the caller was dropped; the work is done all the same.
        let _ = self.reply.send(answer);
    }
}

/// Hands calls to the writer. The thread ends when the last of these is dropped.
#[derive(Clone)]
pub(super) struct Writer {
    jobs: Sender<Box<dyn Job>>,
    places: Arc<Semaphore>,
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(
        conn: Connection,
        wakes: Arc<Wakes>,
        exclusive: bool,
        keep: Arc<std::fs::File>,
    ) -> Result<Self> {
        let (jobs, inbox) = channel();
        let thread = std::thread::Builder::new().name("resonant-queue-writer".into());
        thread
            .spawn(move || {
                Thread {
                    conn,
                    state: State::default(),
                    wakes,
                    exclusive,
                    version: None,
                    next_due: None,
                }
                .run(&inbox);
                drop(keep);
            })
            .map_err(|error| {
                Error::new(
                    ErrorKind::Unavailable,
                    "open",
                    "cannot start a thread; look at the limit of threads",
                )
                .with_source(error)
            })?;
        Ok(Self { jobs, places: Arc::new(Semaphore::new(CALLS)) })
    }

    /// Runs `work` inside a transaction and returns once that is durable.
    ///
    /// A dropped future leaves it done or not done: once handed over it is carried out. Waits while too much was handed
    /// over already.
    pub(super) async fn call<R: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&mut Tx<'_>) -> Result<R, Fault> + Send + 'static,
    ) -> Result<R> {
        let deadline = Instant::now() + PATIENCE;
        let place = tokio::time::timeout_at(deadline, Arc::clone(&self.places).acquire_owned());
        let _place = match place.await {
            Ok(place) => place.map_err(|_| closed(operation))?,
            Err(_) => return Err(silent(operation)),
        };
        let (reply, answer) = oneshot::channel();
        let call = Call { operation, work: Some(work), result: None, reply, _place };
        self.jobs.send(Box::new(call)).map_err(|_| closed(operation))?;
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(closed(operation)),
            Err(_) => Err(silent(operation).with_may_have_applied()),
        }
    }
}

/// The thread did not get round to a call.
pub(super) fn silent(operation: &'static str) -> Error {
    let message = "the file did not answer for a minute; look at its disk and at who else writes";
    Error::new(ErrorKind::Unavailable, operation, message)
}

struct Thread {
    conn: Connection,
    state: State,
    wakes: Arc<Wakes>,
    exclusive: bool,
    /// Changes when another connection has written.
    version: Option<i64>,
    /// When the next delayed message falls due.
    next_due: Option<u64>,
}

impl Thread {
    fn run(mut self, inbox: &Receiver<Box<dyn Job>>) {
        let mut tidied = clock::now_millis();
        self.next_due = self.first_due();
        loop {
            let now = clock::now_millis();
            if self.next_due.is_some_and(|due| due <= now) {
                self.transact(Vec::new(), inbox);
                continue;
            }
            let longest = if self.exclusive { TIDY } else { LOOK };
            let until_due = self.next_due.map(|due| Duration::from_millis(due - now));
            match inbox.recv_timeout(until_due.map_or(longest, |wait| wait.min(longest))) {
                Ok(job) => self.transact(vec![job], inbox),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    if self.others_wrote() {
                        self.next_due = self.first_due();
                        self.wakes.all();
                    }
                }
            }
            let now = clock::now_millis();
            if now.saturating_sub(tidied) >= clock::as_millis(TIDY) {
                tidied = now;
                self.tidy();
            }
        }
    }

    /// Commits these jobs and all that gathered meanwhile, then answers them.
    fn transact(&mut self, mut jobs: Vec<Box<dyn Job>>, inbox: &Receiver<Box<dyn Job>>) {
        let (mut touched, mut freed) = (BTreeSet::new(), false);
        let result = self.attempt(&mut jobs, inbox, &mut touched, &mut freed);
        let failure = match result {
            Ok(()) => None,
            Err((error, committing)) => {
                self.state.forget();
                if !self.conn.is_autocommit() {
                    let _ = self.conn.execute_batch("ROLLBACK");
                }
                let error =
                    failed(Path::new(self.conn.path().unwrap_or_default()), "commit", error);
                Some(if committing { error.with_may_have_applied() } else { error })
            }
        };
        for job in jobs {
            job.answer(failure.as_ref());
        }
        if failure.is_none() {
            self.wakes.partitions(&touched);
            if freed {
                self.wakes.room();
            }
        } else {
            // Whatever was due, or was just moved and now is not, is looked at again soon, not at once.
            self.next_due = Some(clock::now_millis() + 1000);
        }
    }

    fn attempt(
        &mut self,
        jobs: &mut Vec<Box<dyn Job>>,
        inbox: &Receiver<Box<dyn Job>>,
        touched: &mut BTreeSet<i64>,
        freed: &mut bool,
    ) -> Result<(), (rusqlite::Error, bool)> {
        let before = |error| (error, false);
        self.conn
            .prepare_cached("BEGIN IMMEDIATE")
            .and_then(|mut begin| begin.execute([]))
            .map_err(before)?;
        if self.others_wrote() {
            self.next_due = self.first_due();
            self.wakes.all();
        }
        let now = clock::now_millis();
        let mut tx = Tx { conn: &self.conn, state: &mut self.state, now, touched, freed };
        let due = if self.next_due.is_some_and(|due| due <= now) {
            Some(super::publish::promote(&mut tx).map_err(before)?)
        } else {
            None
        };
        for job in jobs.iter_mut() {
            job.run(&mut tx).map_err(before)?;
        }
        while jobs.len() < GROUP
            && let Ok(mut job) = inbox.try_recv()
        {
            let ran = job.run(&mut tx);
            jobs.push(job);
            ran.map_err(before)?;
        }
        if let Some(next) = due {
            self.next_due = next;
        }
        self.next_due = [self.next_due, tx.state.take_due()].into_iter().flatten().min();
        self.state.flush(&self.conn).map_err(before)?;
        self.conn
            .prepare_cached("COMMIT")
            .and_then(|mut commit| commit.execute([]))
            .map_err(|error| (error, true))?;
        self.state.committed();
        Ok(())
    }

    fn others_wrote(&mut self) -> bool {
        if self.exclusive {
            return false;
        }
        let version = self
            .conn
            .prepare_cached("PRAGMA data_version")
            .and_then(|mut pragma| pragma.query_row([], |row| row.get(0)))
            .ok();
        let changed = self.version.is_some() && self.version != version;
        self.version = version;
        if changed {
            // Here and not where it is asked: whoever sees the change first is the only one to see it.
            self.state.forget();
        }
        changed
    }

    fn first_due(&self) -> Option<u64> {
        let due: Option<i64> = self
            .conn
            .prepare_cached("SELECT min(due) FROM delayed")
            .and_then(|mut first| first.query_row([], |row| row.get(0)))
            .ok()
            .flatten();
        due.and_then(|due| u64::try_from(due).ok())
    }

    /// Keeps small what would grow: forgets keys that were not heard of for long.
    fn tidy(&mut self) {
        if let Err(error) = self.state.prune_keys(&self.conn) {
            tracing::debug!(error = %error, "tidying the queue's file failed and is tried again");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt;

    use super::*;
    use crate::Sqlite;

    /// Callers that give up while the disk stalls do not pile up work without end.
    #[tokio::test]
    async fn a_stalled_file_gathers_only_so_many_calls() -> Result<()> {
        let directory = tempfile::tempdir().map_err(|_| closed("test"))?;
        let file = Sqlite::open(directory.path().join("q.db")).await?;
        let writer = file.shared.writer.clone();
        let (go_on, stall) = channel::<()>();
        let stalled = writer.call("test", move |_| {
            let _ = stall.recv();
            Ok(())
        });
        let mut stalled = Box::pin(stalled);
        assert!((&mut stalled).now_or_never().is_none());
        let ran = Arc::new(AtomicUsize::new(0));
        for _ in 0..3 * CALLS {
            let ran = Arc::clone(&ran);
            let call = writer.call("test", move |_| {
                ran.fetch_add(1, Ordering::SeqCst);
                Ok(())
            });
            // As far as it goes, whatever the runtime thinks is fair.
            let _ = tokio::task::unconstrained(call).now_or_never();
        }
        drop(go_on);
        stalled.await?;
        writer.call("test", |_| Ok(())).await?;
        assert_eq!(ran.load(Ordering::SeqCst), CALLS - 1, "what was handed over is carried out");
        Ok(())
    }
}
