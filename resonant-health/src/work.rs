//! One run of a probe: started once, bounded in time, its panics caught.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use resonant_common::duration::after;
use resonant_common::error::BoxError;
use resonant_common::join::{Finding, Severity};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::code;
use crate::detail::Detail;
use crate::report::{Outcome, Status};

/// A future that never yields cannot be dropped by the timer inside its own task. How long after the timeout it is
/// given up from outside.
const GRACE: Duration = Duration::from_millis(20);

/// The most findings kept of one run.
const MOST_FINDINGS: usize = 64;

type Return = Result<Vec<Finding>, Detail>;

/// What a check does when it runs.
#[derive(Clone)]
pub(crate) enum Work {
    Future(Arc<dyn Fn() -> BoxFuture<'static, Return> + Send + Sync>),
    Blocking(Arc<dyn Fn() -> Return + Send + Sync>),
    /// A registration that breaks a rule keeps its place in the report as a failure.
    Refused,
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Work::Future(_) => "Future",
            Work::Blocking(_) => "Blocking",
            Work::Refused => "Refused",
        })
    }
}

impl Work {
    pub(crate) fn from_future<F, Fut, E>(probe: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        Work::Future(Arc::new(move || {
            let future = probe();
            async move { returned(future.await) }.boxed()
        }))
    }

    pub(crate) fn from_blocking<F, E>(probe: F) -> Self
    where
        F: Fn() -> Result<(), E> + Send + Sync + 'static,
        E: Into<BoxError>,
    {
        Work::Blocking(Arc::new(move || returned(probe())))
    }

    pub(crate) fn from_findings<F>(read: F) -> Self
    where
        F: Fn() -> Vec<Finding> + Send + Sync + 'static,
    {
        Work::Future(Arc::new(move || {
            let mut findings = read();
            findings.truncate(MOST_FINDINGS);
            std::future::ready(Ok(findings)).boxed()
        }))
    }

    /// Runs once. `running` is let go when the probe has really ended, which may be long after this returns.
    pub(crate) async fn run(
        &self,
        running: Running,
        limit: Duration,
        threads: &Arc<Semaphore>,
    ) -> End {
        match self {
            Work::Future(probe) => run_future(Arc::clone(probe), running, limit).await,
            Work::Blocking(probe) => run_blocking(Arc::clone(probe), running, limit, threads).await,
            Work::Refused => End::Refused,
        }
    }
}

fn returned<E: Into<BoxError>>(result: Result<(), E>) -> Return {
    result.map(|()| Vec::new()).map_err(|error| Detail::of_error(&error.into()))
}

async fn run_future(
    probe: Arc<dyn Fn() -> BoxFuture<'static, Return> + Send + Sync>,
    running: Running,
    limit: Duration,
) -> End {
    // A task of its own keeps panics, and futures that never yield, away from the schedule.
    let task = AbortOnDropHandle::new(tokio::spawn(async move {
        let _running = running; // declared first, dropped last: after the probe's future
        timeout(limit, async move { probe().await }).await
    }));
    match timeout(limit.saturating_add(GRACE), task).await {
        Ok(Ok(Ok(result))) => End::Returned(result),
        // Given up by the timer inside the task, or from outside it.
        Ok(Ok(Err(_))) | Err(_) => End::TimedOut,
        Ok(Err(error)) => match error.try_into_panic() {
            Ok(payload) => End::Panicked(Detail::of_panic(&*payload)),
            Err(_aborted) => End::Cancelled,
        },
    }
}

/// Threads of our own instead of Tokio's blocking pool, because a runtime waits for that pool when it shuts down: one
/// hung check would keep the process from ending.
async fn run_blocking(
    probe: Arc<dyn Fn() -> Return + Send + Sync>,
    running: Running,
    limit: Duration,
    threads: &Arc<Semaphore>,
) -> End {
    let until = after(Instant::now(), limit);
    let Ok(Ok(permit)) = timeout_at(until, Arc::clone(threads).acquire_owned()).await else {
        return End::Saturated;
    };
    let (send, receive) = oneshot::channel();
    let runtime = Handle::current();
    let thread = std::thread::Builder::new().name("resonant-health".into()).spawn(move || {
        let result = {
            let _inside = runtime.enter();
            catch_unwind(AssertUnwindSafe(|| probe()))
        };
        // Let go before answering, so that whoever hears the answer can start the next run.
        drop((probe, running, permit));
        // Nobody listens any more if it took too long.
        let _ = send.send(result.map_err(|payload| Detail::of_panic(&*payload)));
    });
    if thread.is_err() {
        return End::Saturated;
    }
    match timeout_at(until, receive).await {
        Ok(Ok(Ok(result))) => End::Returned(result),
        Ok(Ok(Err(panic))) => End::Panicked(panic),
        Ok(Err(_)) => End::Cancelled,
        Err(_elapsed) => End::TimedOut,
    }
}

/// Held by a probe for as long as it really runs, so that no second copy of it starts.
#[derive(Debug)]
pub(crate) struct Running(Arc<AtomicBool>);

impl Running {
    /// `None` while an earlier run has not ended.
    pub(crate) fn begin(flag: &Arc<AtomicBool>) -> Option<Self> {
        (!flag.swap(true, Ordering::AcqRel)).then(|| Self(Arc::clone(flag)))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// How a run ended.
#[derive(Debug)]
pub(crate) enum End {
    Returned(Return),
    TimedOut,
    StillRunning,
    Panicked(Detail),
    Saturated,
    Cancelled,
    NoRuntime,
    PastDeadline,
    Refused,
}

/// A run as it enters a report.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) status: Status,
    pub(crate) outcome: Outcome,
    pub(crate) code: Option<&'static str>,
    pub(crate) detail: Option<Detail>,
    pub(crate) findings: Arc<[Finding]>,
    pub(crate) took: Duration,
    pub(crate) at: SystemTime,
}

impl Seen {
    pub(crate) fn of(end: End, took: Duration) -> Self {
        let at = resonant_common::wall::now();
        let failed = |outcome, code, detail| Self {
            status: Status::Fail,
            outcome,
            code: Some(code),
            detail,
            findings: Arc::default(),
            took,
            at,
        };
        match end {
            End::Returned(Ok(findings)) => Self::of_findings(findings, took, at),
            End::Returned(Err(detail)) => failed(Outcome::Error, code::ERROR, Some(detail)),
            End::TimedOut => failed(Outcome::Timeout, code::TIMEOUT, None),
            End::StillRunning => failed(Outcome::Timeout, code::STILL_RUNNING, None),
            End::PastDeadline => failed(Outcome::Timeout, code::DEADLINE, None),
            End::Panicked(detail) => failed(Outcome::Panic, code::PANIC, Some(detail)),
            End::Saturated => failed(Outcome::Rejected, code::SATURATED, None),
            End::Cancelled => failed(Outcome::Cancelled, code::CANCELLED, None),
            End::NoRuntime => failed(Outcome::Rejected, code::NO_RUNTIME, None),
            End::Refused => failed(Outcome::Rejected, code::REFUSED, None),
        }
    }

    fn of_findings(findings: Vec<Finding>, took: Duration, at: SystemTime) -> Self {
        let severity = Finding::worst(&findings);
        let code = findings.iter().find(|finding| finding.severity == severity);
        let code = code.map(|finding| finding.code);
        let (status, outcome, code) = match severity {
            Severity::Ok => (Status::Pass, Outcome::Ok, None),
            Severity::Warn => (Status::Warn, Outcome::Ok, code),
            // Fail, and whatever graver severity may come to be.
            _ => (Status::Fail, Outcome::Error, code),
        };
        Self { status, outcome, code, detail: None, findings: findings.into(), took, at }
    }
}
