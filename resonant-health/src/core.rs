//! What a checker's handle, its schedule and its runs share.
//!
//! `runs` starts checks and takes their results, `board` makes them known.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::board::{Told, unless_stale};
use crate::config::HealthConfig;
use crate::entry::Entry;
use crate::report::Report;
use crate::runs::Round;
use crate::watchdog::Dog;

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: HealthConfig,
    members: RwLock<Arc<Members>>,
    pub(crate) draining: AtomicBool,
    pub(crate) started: AtomicBool,
    /// Gates that have not been opened.
    pub(crate) gates: AtomicUsize,
    /// How many schedules run: one, or for a moment two while one ends.
    pub(crate) schedules: AtomicUsize,
    /// Whether it was said that nobody started it.
    minded: AtomicBool,
    pub(crate) permits: Semaphore,
    pub(crate) threads: Arc<Semaphore>,
    pub(crate) board: watch::Sender<Report>,
    /// What was published last.
    pub(crate) told: Mutex<Told>,
    pub(crate) round: Mutex<Option<Round>>,
    /// Wakes the schedule when something is due earlier than it thinks.
    pub(crate) wake: Notify,
    /// Cancelled when the last handle is dropped.
    pub(crate) token: CancellationToken,
}

/// Who is watched. Replaced as a whole, so that readers never wait for a registration.
#[derive(Debug, Default, Clone)]
pub(crate) struct Members {
    pub(crate) entries: Vec<Arc<Entry>>,
    pub(crate) dogs: Vec<Arc<Dog>>,
    /// The rules that registrations broke.
    pub(crate) defects: Vec<String>,
}

impl Core {
    pub(crate) fn new(config: HealthConfig) -> Self {
        let empty = Report { rows: Arc::new([]), started: false, draining: false };
        Self {
            permits: Semaphore::new(config.max_concurrency),
            threads: Arc::new(Semaphore::new(config.blocking_threads)),
            config,
            members: RwLock::default(),
            draining: AtomicBool::new(false),
            started: AtomicBool::new(false),
            gates: AtomicUsize::new(0),
            schedules: AtomicUsize::new(0),
            minded: AtomicBool::new(false),
            board: watch::Sender::new(empty),
            told: Mutex::new(Told::new()),
            round: Mutex::default(),
            wake: Notify::new(),
            token: CancellationToken::new(),
        }
    }

    pub(crate) fn members(&self) -> Arc<Members> {
        Arc::clone(&self.members.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn change_members(&self, change: impl FnOnce(&mut Members)) {
        let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
        change(Arc::make_mut(&mut members));
    }

    /// The settled state now. Runs nothing and waits for nothing.
    pub(crate) fn snapshot(&self) -> Report {
        let now = Instant::now();
        let members = self.members();
        let dogs = members.dogs.iter().map(|dog| Arc::new(dog.row(now)));
        let checks = members.entries.iter().map(|entry| unless_stale(entry.row(), now));
        Report {
            rows: dogs.chain(checks).collect(),
            started: self.started.load(Ordering::Acquire),
            draining: self.draining.load(Ordering::Acquire),
        }
    }

    pub(crate) fn is_scheduled(&self) -> bool {
        self.schedules.load(Ordering::Acquire) > 0
    }

    /// Says once that probes are asked of a checker nobody started: they would answer 503 for ever.
    pub(crate) fn mind_the_schedule(&self, report: &Report) {
        let idle = !self.is_scheduled() && !report.started;
        if idle && !self.minded.swap(true, Ordering::AcqRel) {
            tracing::warn!(target: "resonant::health", "probes are asked but the checker is not started; call start()");
        }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Report> {
        self.board.subscribe()
    }
}
