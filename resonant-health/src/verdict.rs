//! What a report means for each probe. Pure.
//!
//! | probe | fails when |
//! |---|---|
//! | live | a live watchdog fails |
//! | ready | draining; startup not over; a live or local watchdog or a required check fails or is unknown |
//! | startup | it has not opened yet; it opens once and for all |
//!
//! A failed or unknown degrading check turns ready to warn, which is still 200. Informational checks never count.

use crate::check::Criticality;
use crate::code;
use crate::report::{CheckKind, CheckReport, Report, Status};

/// The three questions an orchestrator asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Probe {
    /// Is the process itself beyond repair, so that a restart is the cure? Knows no dependency.
    Live,
    /// Should traffic come here now?
    Ready,
    /// Has it finished starting? Opens once.
    Startup,
}

impl Probe {
    pub(crate) const ALL: [Probe; 3] = [Probe::Live, Probe::Ready, Probe::Startup];

    /// The word used in paths and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Probe::Live => "live",
            Probe::Ready => "ready",
            Probe::Startup => "startup",
        }
    }
}

/// An answer, and the code of what is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) status: Status,
    pub(crate) code: Option<&'static str>,
}

impl Verdict {
    const PASS: Verdict = Verdict { status: Status::Pass, code: None };

    fn fail(code: &'static str) -> Self {
        Self { status: Status::Fail, code: Some(code) }
    }
}

/// The answer of a probe, without the rows named in `excluded`.
pub(crate) fn judge(report: &Report, probe: Probe, excluded: &[&str]) -> Verdict {
    let counted = report.checks().filter(|row| !excluded.contains(&row.name()));
    match probe {
        Probe::Live => worst(counted.filter(|row| row.kind == CheckKind::Live)),
        Probe::Ready if report.draining => Verdict::fail(code::DRAINING),
        Probe::Ready if !report.started => Verdict::fail(code::STARTING),
        Probe::Ready => worst(counted),
        Probe::Startup if report.started => Verdict::PASS,
        Probe::Startup => Verdict::fail(code::STARTING),
    }
}

/// Whether everything required works, which opens the startup gate.
pub(crate) fn all_required_work(report: &Report) -> bool {
    worst(report.checks()).status.is_up()
}

/// What a row's own state means for the whole.
fn weight(row: &CheckReport) -> Status {
    match (row.criticality, row.status) {
        (Criticality::Informational, _) | (_, Status::Pass) => Status::Pass,
        (Criticality::Degrading, _) | (Criticality::Required, Status::Warn) => Status::Warn,
        (Criticality::Required, Status::Fail | Status::Unknown) => Status::Fail,
    }
}

fn worst<'a>(rows: impl Iterator<Item = &'a CheckReport>) -> Verdict {
    rows.fold(Verdict::PASS, |worst, row| {
        let status = weight(row);
        if status > worst.status { Verdict { status, code: row.code } } else { worst }
    })
}
