//! What a checker has to say: a report with one row per check.
//!
//! `Serialize` writes the public form: states, classes, codes, times. The text of errors and panics is not in it; code
//! reads it with [`CheckReport::detail`].

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use resonant_common::join::Finding;
use serde::{Serialize, Serializer};
use tokio::time::Instant;

use crate::check::Criticality;
use crate::detail::Detail;
use crate::verdict::{self, Probe, Verdict};
use crate::wire::{Body, Scope};

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Pass,
    /// Works, but somebody should look. Answered with 200.
    Warn,
    /// Does not do its work. Answered with 503.
    Fail,
    /// Has not run yet, or not for too long. Counts as failed for what is required.
    Unknown,
}

impl Status {
    pub(crate) const ALL: [Status; 4] = [Status::Pass, Status::Warn, Status::Fail, Status::Unknown];

    /// The word used in bodies and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Pass => "pass",
            Status::Warn => "warn",
            Status::Fail => "fail",
            Status::Unknown => "unknown",
        }
    }

    /// Whether traffic may come: pass and warn.
    pub fn is_up(self) -> bool {
        matches!(self, Status::Pass | Status::Warn)
    }

    /// 200 for pass and warn, 503 for fail and unknown.
    pub fn http_status(self) -> http::StatusCode {
        if self.is_up() { http::StatusCode::OK } else { http::StatusCode::SERVICE_UNAVAILABLE }
    }
}

/// How a run of a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Outcome {
    /// It was given up by the checker itself: the checker or its runtime ended.
    Cancelled,
    /// The probe returned an error, or a finding of severity fail.
    Error,
    /// The probe returned well.
    Ok,
    /// The probe panicked.
    Panic,
    /// The probe was not started: every thread for blocking checks was taken, or the registration was refused.
    Rejected,
    /// The probe took too long, or its last run still hangs.
    Timeout,
}

impl Outcome {
    pub(crate) const ALL: [Outcome; 6] = [
        Outcome::Cancelled,
        Outcome::Error,
        Outcome::Ok,
        Outcome::Panic,
        Outcome::Rejected,
        Outcome::Timeout,
    ];

    /// The word used in bodies and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Cancelled => "cancelled",
            Outcome::Error => "error",
            Outcome::Ok => "ok",
            Outcome::Panic => "panic",
            Outcome::Rejected => "rejected",
            Outcome::Timeout => "timeout",
        }
    }
}

/// What a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckKind {
    /// Something outside this process, watched by a check. Never counts for liveness.
    Dependency,
    /// A watchdog of the process itself that counts for liveness and readiness.
    Live,
    /// A watchdog of the process itself that counts for readiness only.
    Local,
}

/// A change of a check's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Transition {
    /// The state before.
    pub from: Status,
    /// The state after.
    pub to: Status,
    /// Why, where the new state is not pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    /// When, by the wall clock.
    #[serde(rename = "time", serialize_with = "rfc3339")]
    pub at: SystemTime,
}

fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&resonant_common::wall::rfc3339(*time))
}

/// What is known of one check.
#[derive(Debug, Clone)]
pub struct CheckReport {
    pub(crate) name: Arc<str>,
    pub(crate) kind: CheckKind,
    pub(crate) criticality: Criticality,
    pub(crate) status: Status,
    pub(crate) code: Option<&'static str>,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) took: Option<Duration>,
    pub(crate) at: Option<SystemTime>,
    pub(crate) findings: Arc<[Finding]>,
    pub(crate) history: Arc<[Transition]>,
    pub(crate) transitions: u64,
    pub(crate) detail: Option<Detail>,
    pub(crate) stale_at: Option<Instant>,
}

impl CheckReport {
    /// A row that nothing is known of.
    pub(crate) fn blank(name: &Arc<str>, kind: CheckKind, criticality: Criticality) -> Self {
        Self {
            name: Arc::clone(name),
            kind,
            criticality,
            status: Status::Unknown,
            code: None,
            outcome: None,
            took: None,
            at: None,
            findings: Arc::default(),
            history: Arc::default(),
            transitions: 0,
            detail: None,
            stale_at: None,
        }
    }

    /// The name it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is about.
    pub fn kind(&self) -> CheckKind {
        self.kind
    }

    /// How much it counts.
    pub fn criticality(&self) -> Criticality {
        self.criticality
    }

    /// How it is: in a report of [`run_all`](crate::HealthChecker::run_all) what that run saw, in a
    /// [`snapshot`](crate::HealthChecker::snapshot) the settled state.
    pub fn status(&self) -> Status {
        self.status
    }

    /// The stable, searchable code of what is wrong, such as `health.check.timeout`; `None` while it passes.
    pub fn code(&self) -> Option<&'static str> {
        self.code
    }

    /// How the last run ended; `None` before the first, and for watchdogs.
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome
    }

    /// How long the last run took.
    pub fn duration(&self) -> Option<Duration> {
        self.took
    }

    /// When the last run ended, by the wall clock.
    pub fn at(&self) -> Option<SystemTime> {
        self.at
    }

    /// What the primitive said of its parts, if the check reads findings.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The last changes of state, oldest first.
    pub fn history(&self) -> &[Transition] {
        &self.history
    }

    /// How often the state has changed, the first result not counted.
    pub fn transitions(&self) -> u64 {
        self.transitions
    }

    /// The text of the last run's error or panic. **It may hold anything the probe's author or its driver wrote**: show
    /// it to operators only. It appears in no public body, in no `Debug` output, metric or span.
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_ref().map(Detail::as_str)
    }
}

/// The state of a service: one row per check and watchdog, and what follows from them for each probe.
///
/// Cheap to clone. `Serialize` writes plain JSON without any text from errors; see [`CheckReport::detail`].
#[derive(Debug, Clone)]
pub struct Report {
    pub(crate) rows: Arc<[Arc<CheckReport>]>,
    pub(crate) started: bool,
    pub(crate) draining: bool,
}

impl Report {
    /// The state of the whole: that of the ready probe.
    pub fn status(&self) -> Status {
        self.probe(Probe::Ready)
    }

    /// Whether traffic may come: the status is pass or warn.
    pub fn is_up(&self) -> bool {
        self.status().is_up()
    }

    /// What a probe answers.
    pub fn probe(&self, probe: Probe) -> Status {
        self.verdict(probe).status
    }

    /// The code of what is wrong with the whole, if anything is.
    pub fn code(&self) -> Option<&'static str> {
        self.verdict(Probe::Ready).code
    }

    /// Whether the startup gate has opened.
    pub fn is_started(&self) -> bool {
        self.started
    }

    /// Whether [`begin_drain`](crate::HealthChecker::begin_drain) was called.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Every check and watchdog, in the order they were added, watchdogs first.
    pub fn checks(&self) -> impl ExactSizeIterator<Item = &CheckReport> {
        self.rows.iter().map(|row| &**row)
    }

    /// The row of one check.
    pub fn get(&self, name: &str) -> Option<&CheckReport> {
        self.checks().find(|row| row.name() == name)
    }

    pub(crate) fn verdict(&self, probe: Probe) -> Verdict {
        verdict::judge(self, probe, &[])
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Body::of_report(self, Scope::Everything).json().serialize(serializer)
    }
}
