//! Watchdogs: facts about this very process, the only thing liveness may rest on.
//!
//! A watchdog holds no closure and no future. It reads atomics that the process itself writes, so no dependency can
//! slip into the live probe, and judging one costs nanoseconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::check::Criticality;
use crate::code;
use crate::lock::lock;
use crate::report::{CheckKind, CheckReport, Status};

/// A watch over this process itself. Add it with [`live`](crate::HealthChecker::live) or
/// [`local`](crate::HealthChecker::local).
#[derive(Debug)]
#[must_use = "a watchdog does nothing until it is added to a checker"]
pub struct Watchdog {
    pub(crate) name: String,
    pub(crate) fact: Arc<Fact>,
}

impl Watchdog {
    /// Watches a loop: it fails once the [`Heartbeat`] was silent for longer than `max_silence`. The first beat is due
    /// that long after this call.
    pub fn heartbeat(name: &str, max_silence: Duration) -> (Heartbeat, Watchdog) {
        let fact = Arc::new(Fact::Beat(Beat::new(max_silence, true)));
        (Heartbeat(Arc::clone(&fact)), Self { name: name.to_owned(), fact })
    }

    /// Watches the executor: it fails once the checker's own schedule, a task like yours, was not run for `max_stall`.
    /// Armed while the schedule runs. It shows in the probes if they are answered on another thread or runtime than
    /// the one that stalls; on a single stalled thread the probe itself goes unanswered, which says the same.
    pub fn executor(name: &str, max_stall: Duration) -> Watchdog {
        Self { name: name.to_owned(), fact: Arc::new(Fact::Executor(Beat::new(max_stall, false))) }
    }

    /// Watches a [`Flag`] the process raises when it finds itself beyond repair.
    pub fn flag(name: &str) -> (Flag, Watchdog) {
        let fact = Arc::new(Fact::Raised(std::sync::Mutex::new(None)));
        (Flag(Arc::clone(&fact)), Self { name: name.to_owned(), fact })
    }
}

/// The beating end of [`Watchdog::heartbeat`]. If it is dropped no more beats come, so the watchdog fails; end a loop in
/// good order with [`retire`](Heartbeat::retire).
#[derive(Debug)]
pub struct Heartbeat(Arc<Fact>);

impl Heartbeat {
    /// Says that the loop still turns. Costs an atomic store and a look at the clock.
    pub fn beat(&self) {
        if let Fact::Beat(beat) = &*self.0 {
            beat.beat(Instant::now());
        }
    }

    /// Ends the watch: the loop has ended as it should.
    pub fn retire(self) {
        if let Fact::Beat(beat) = &*self.0 {
            beat.armed.store(false, Ordering::Relaxed);
        }
    }
}

/// The raising end of [`Watchdog::flag`].
#[derive(Debug, Clone)]
pub struct Flag(Arc<Fact>);

impl Flag {
    /// Fails the watchdog with a stable code of yours, such as `app.log_writer.gone`. The code is public.
    pub fn raise(&self, code: &'static str) {
        self.set(Some(code));
    }

    /// Takes it back.
    pub fn lower(&self) {
        self.set(None);
    }

    fn set(&self, code: Option<&'static str>) {
        if let Fact::Raised(raised) = &*self.0 {
            *lock(raised) = code;
        }
    }
}

#[derive(Debug)]
pub(crate) enum Fact {
    Beat(Beat),
    Executor(Beat),
    Raised(std::sync::Mutex<Option<&'static str>>),
}

impl Fact {
    /// What is wrong now.
    pub(crate) fn judge(&self, now: Instant) -> Option<&'static str> {
        match self {
            Fact::Beat(beat) | Fact::Executor(beat) => beat.is_silent(now).then_some(code::SILENT),
            Fact::Raised(raised) => *lock(raised),
        }
    }

    /// The schedule ran at `now`. Returns how soon it must run again.
    pub(crate) fn tick(&self, now: Instant) -> Option<Duration> {
        let Fact::Executor(beat) = self else { return None };
        beat.beat(now);
        beat.armed.store(true, Ordering::Relaxed);
        Some(beat.longest / 4)
    }

    /// The schedule has stopped.
    pub(crate) fn disarm(&self) {
        if let Fact::Executor(beat) = self {
            beat.armed.store(false, Ordering::Relaxed);
        }
    }
}

#[derive(Debug)]
pub(crate) struct Beat {
    born: Instant,
    longest: Duration,
    /// Milliseconds after `born`.
    last: AtomicU64,
    armed: AtomicBool,
}

impl Beat {
    fn new(longest: Duration, armed: bool) -> Self {
        let born = Instant::now();
        Self { born, longest, last: AtomicU64::new(0), armed: AtomicBool::new(armed) }
    }

    fn beat(&self, now: Instant) {
        self.last.store(self.age(now), Ordering::Relaxed);
    }

    fn is_silent(&self, now: Instant) -> bool {
        let silent = self.age(now).saturating_sub(self.last.load(Ordering::Relaxed));
        self.armed.load(Ordering::Relaxed) && u128::from(silent) > self.longest.as_millis()
    }

    fn age(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.born).as_millis()).unwrap_or(u64::MAX)
    }
}

/// A watchdog in its place in a checker.
#[derive(Debug)]
pub(crate) struct Dog {
    pub(crate) name: std::sync::Arc<str>,
    pub(crate) kind: CheckKind,
    pub(crate) fact: Arc<Fact>,
}

impl Dog {
    pub(crate) fn row(&self, now: Instant) -> CheckReport {
        let code = self.fact.judge(now);
        CheckReport {
            status: if code.is_some() { Status::Fail } else { Status::Pass },
            code,
            ..CheckReport::blank(&self.name, self.kind, Criticality::Required)
        }
    }
}
