//! A check in its place in a checker: its settings, its state, its run in flight.

use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::{BoxFuture, Shared};
use resonant_common::duration::after;
use tokio::time::Instant;

use crate::check::Criticality;
use crate::code;
use crate::lock::lock;
use crate::meter::CheckMeter;
use crate::report::{CheckKind, CheckReport, Status, Transition};
use crate::track::{Policy, Shift, Track};
use crate::work::{Seen, Work};

/// A run others can wait for too.
pub(crate) type Flight = Shared<BoxFuture<'static, Seen>>;

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: Arc<str>,
    criticality: Criticality,
    policy: Policy,
    history: usize,
    pub(crate) timeout: Duration,
    pub(crate) work: Work,
    pub(crate) meter: CheckMeter,
    /// Set while the probe really runs, which may be longer than the run is waited for.
    pub(crate) running: Arc<AtomicBool>,
    /// The run others can join.
    pub(crate) flight: Mutex<Option<Flight>>,
    cell: Mutex<Cell>,
}

#[derive(Debug)]
struct Cell {
    track: Track,
    /// When the next scheduled run starts.
    due: Instant,
    last: Option<(Seen, Instant)>,
    /// Why the state is not pass.
    cause: Option<&'static str>,
    history: VecDeque<Transition>,
    transitions: u64,
    row: Arc<CheckReport>,
}

impl Entry {
    pub(crate) fn new(
        name: Arc<str>,
        criticality: Criticality,
        (policy, timeout): (Policy, Duration),
        history: usize,
        work: Work,
        now: Instant,
    ) -> Self {
        let row = CheckReport {
            code: Some(code::NEVER_RAN),
            ..CheckReport::blank(&name, CheckKind::Dependency, criticality)
        };
        let cell = Cell {
            track: Track::new(),
            due: now,
            last: None,
            cause: Some(code::NEVER_RAN),
            history: VecDeque::new(),
            transitions: 0,
            row: Arc::new(row),
        };
        Self {
            meter: CheckMeter::new(&name),
            name,
            criticality,
            policy,
            history,
            timeout,
            work,
            running: Arc::default(),
            flight: Mutex::default(),
            cell: Mutex::new(cell),
        }
    }

    /// The settled state, as last published.
    pub(crate) fn row(&self) -> Arc<CheckReport> {
        Arc::clone(&lock(&self.cell).row)
    }

    /// The state as one run saw it.
    pub(crate) fn row_of(&self, seen: &Seen) -> CheckReport {
        let settled = self.row();
        CheckReport { status: seen.status, code: seen.code, ..self.filled(&settled, seen) }
    }

    /// Takes a run's result, plans the next, and returns the changes of state.
    ///
    /// Without a schedule a state goes stale between two questions as a matter of course: then only the change from
    /// the last known state to the new one is told.
    pub(crate) fn record(&self, seen: &Seen, now: Instant, scheduled: bool) -> Vec<Shift> {
        let cell = &mut *lock(&self.cell);
        let before = cell.track.state();
        let expired = cell.track.expire(now, &self.policy);
        let observed = cell.track.observe(seen.status, now, &self.policy);
        cell.due = after(now, cell.track.delay(&self.policy, &mut rand::rng()));
        let shifts: Vec<_> = match (expired, observed) {
            (Some(_), Some(Shift { to, .. })) if !scheduled => {
                (before != to).then_some(Shift { from: before, to }).into_iter().collect()
            }
            (expired, observed) => expired.into_iter().chain(observed).collect(),
        };
        for shift in &shifts {
            cell.cause = if shift.to == Status::Unknown { Some(code::STALE) } else { seen.code };
            cell.note(*shift, self.history);
        }
        if seen.status == cell.track.state() {
            cell.cause = seen.code;
        }
        cell.last = Some((seen.clone(), now));
        self.redraw(cell);
        shifts
    }

    /// Forgets a state that has gone stale.
    pub(crate) fn expire(&self, now: Instant) -> Option<Shift> {
        let cell = &mut *lock(&self.cell);
        let shift = cell.track.expire(now, &self.policy)?;
        cell.cause = Some(code::STALE);
        cell.note(shift, self.history);
        self.redraw(cell);
        Some(shift)
    }

    /// When the next scheduled run starts. It stays in the past while one is in flight.
    pub(crate) fn due(&self) -> Instant {
        lock(&self.cell).due
    }

    /// Plans a run at once.
    pub(crate) fn plan(&self, now: Instant) {
        lock(&self.cell).due = now;
    }

    /// Why the state is what it is: for the log.
    pub(crate) fn cause(&self) -> (Option<&'static str>, Option<String>) {
        let cell = lock(&self.cell);
        let detail = cell.last.as_ref().and_then(|(seen, _)| seen.detail.as_ref());
        (cell.cause, detail.map(|detail| detail.as_str().to_owned()))
    }

    fn redraw(&self, cell: &mut Cell) {
        let status = cell.track.state();
        let Some((seen, at)) = &cell.last else { return };
        let row = self.filled(&cell.row, seen);
        cell.row = Arc::new(CheckReport {
            status,
            code: if status == Status::Pass { None } else { cell.cause },
            history: cell.history.iter().cloned().collect(),
            transitions: cell.transitions,
            stale_at: at.checked_add(self.policy.stale_after()),
            ..row
        });
    }

    fn filled(&self, row: &CheckReport, seen: &Seen) -> CheckReport {
        CheckReport {
            criticality: self.criticality,
            outcome: Some(seen.outcome),
            took: Some(seen.took),
            at: Some(seen.at),
            findings: Arc::clone(&seen.findings),
            detail: seen.detail.clone(),
            ..row.clone()
        }
    }
}

impl Cell {
    fn note(&mut self, shift: Shift, keep: usize) {
        if shift.from != Status::Unknown || self.transitions > 0 {
            self.transitions += 1;
        }
        let code = if shift.to == Status::Pass { None } else { self.cause };
        let at = resonant_common::wall::now();
        self.history.push_back(Transition { from: shift.from, to: shift.to, code, at });
        while self.history.len() > keep {
            self.history.pop_front();
        }
    }
}
