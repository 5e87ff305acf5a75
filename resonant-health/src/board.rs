//! Making states known: gauges, log lines, the startup gate, subscribers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use crate::core::{Core, Members};
use crate::entry::Entry;
use crate::lock::lock;
use crate::meter::StateGauges;
use crate::report::{CheckReport, Report, Status};
use crate::track::Shift;
use crate::verdict::{self, Probe};

/// What was published last, to tell a change from a repetition.
#[derive(Debug)]
pub(crate) struct Told {
    probes: [Status; 3],
    gauges: [StateGauges; 3],
    dogs: Vec<(Arc<str>, Status)>,
}

/// A change of state the log should hear of, once no lock is held.
enum News {
    Check(Arc<Entry>, Shift),
    Dog { name: Arc<str>, from: Status, to: Status, code: Option<&'static str> },
    Probe { probe: Probe, from: Status, to: Status, code: Option<&'static str> },
}

impl Core {
    /// Brings gauges, the startup gate and the subscribers up to date. With `latch` the gate may open.
    pub(crate) fn publish(&self, latch: bool) {
        let mut told = lock(&self.told);
        let now = Instant::now();
        let members = self.members();
        let mut news = Vec::new();
        // A checker that is only asked now and then goes stale between two questions; that is no news.
        for entry in members.entries.iter().filter(|_| self.is_scheduled()) {
            let shift = entry.expire(now);
            news.extend(shift.map(|shift| News::Check(Arc::clone(entry), shift)));
        }
        let mut report = self.snapshot();
        let gates = self.gates.load(Ordering::Acquire);
        if latch && !report.started && gates == 0 && verdict::all_required_work(&report) {
            self.started.store(true, Ordering::Release);
            report.started = true;
        }
        let checks = report.rows.iter().skip(members.dogs.len());
        for (entry, row) in members.entries.iter().zip(checks) {
            entry.meter.is(row.status);
        }
        told.probes(&report, &mut news);
        told.dogs(&report, &members, &mut news);
        // Under the lock, so that an older report never replaces a newer one.
        self.board.send_if_modified(|board| {
            let changed = differs(board, &report);
            *board = report;
            changed
        });
        drop(told);
        news.iter().for_each(News::tell);
    }

    /// Tells the log of a check's change of state.
    pub(crate) fn tell(entry: &Arc<Entry>, shift: Shift) {
        News::Check(Arc::clone(entry), shift).tell();
    }
}

impl Told {
    pub(crate) fn new() -> Self {
        Self {
            probes: [Status::Unknown; 3],
            gauges: Probe::ALL.map(StateGauges::of_probe),
            dogs: Vec::new(),
        }
    }

    fn probes(&mut self, report: &Report, news: &mut Vec<News>) {
        for ((probe, gauge), last) in Probe::ALL.into_iter().zip(&self.gauges).zip(&mut self.probes)
        {
            let verdict = report.verdict(probe);
            gauge.set(verdict.status);
            let (from, to) = (std::mem::replace(last, verdict.status), verdict.status);
            if from != to && from != Status::Unknown {
                news.push(News::Probe { probe, from, to, code: verdict.code });
            }
        }
    }

    fn dogs(&mut self, report: &Report, members: &Members, news: &mut Vec<News>) {
        for row in report.checks().take(members.dogs.len()) {
            let from = match self.dogs.iter_mut().find(|(name, _)| *name == row.name) {
                Some((_, last)) => std::mem::replace(last, row.status),
                None => {
                    self.dogs.push((Arc::clone(&row.name), row.status));
                    Status::Pass
                }
            };
            if from != row.status {
                let (name, to, code) = (Arc::clone(&row.name), row.status, row.code);
                news.push(News::Dog { name, from, to, code });
            }
        }
    }
}

impl News {
    /// One line per change of state: a warning, but for a first pass and for probes, which only follow.
    fn tell(&self) {
        match self {
            News::Check(entry, Shift { from, to }) => {
                entry.meter.changed(*to);
                let (check, from, to) = (&*entry.name, from.as_str(), to.as_str());
                let (code, error) = entry.cause();
                let (code, error) = (code.unwrap_or_default(), error.unwrap_or_default());
                match (from, to) {
                    ("unknown", "pass") => {
                        tracing::info!(target: "resonant::health", check, from, to, "check passes");
                    }
                    (_, "pass") => {
                        tracing::warn!(target: "resonant::health", check, from, to, "check recovered");
                    }
                    _ => {
                        tracing::warn!(target: "resonant::health", check, from, to, code, error, "check changed");
                    }
                }
            }
            News::Dog { name, from, to, code } => {
                let (watchdog, from, to) = (&**name, from.as_str(), to.as_str());
                let code = code.unwrap_or_default();
                tracing::warn!(target: "resonant::health", watchdog, from, to, code, "watchdog changed");
            }
            News::Probe { probe, from, to, code } => {
                let (probe, from, to) = (probe.as_str(), from.as_str(), to.as_str());
                let code = code.unwrap_or_default();
                tracing::info!(target: "resonant::health", probe, from, to, code, "probe changed");
            }
        }
    }
}

/// The row, or what is left of it once it is too old.
pub(crate) fn unless_stale(row: Arc<CheckReport>, now: Instant) -> Arc<CheckReport> {
    if row.stale_at.is_none_or(|at| now <= at) {
        return row;
    }
    let (status, code) = (Status::Unknown, Some(crate::code::STALE));
    Arc::new(CheckReport { status, code, ..CheckReport::clone(&row) })
}

/// Whether a subscriber should hear of it: a state changed, not merely a time.
fn differs(one: &Report, other: &Report) -> bool {
    fn states(report: &Report) -> impl Iterator<Item = (&str, Status, Option<&'static str>)> {
        report.checks().map(|row| (row.name(), row.status, row.code))
    }
    (one.started, one.draining) != (other.started, other.draining) || !states(one).eq(states(other))
}
