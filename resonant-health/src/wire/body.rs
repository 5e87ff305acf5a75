//! The view of a report that a body is written from, and its form as text.

use std::fmt::Write as _;

use resonant_common::join::Finding;
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use super::accept::Form;
use crate::check::is_public_name;
use crate::report::{CheckKind, CheckReport, Report, Status};
use crate::verdict::{self, Probe, Verdict};

/// How much of a report is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// The verdict alone.
    Verdict,
    /// And the state of each check.
    States,
    /// And times, findings, history.
    Everything,
    /// And the text of errors.
    ErrorTexts,
}

/// What a body says.
#[derive(Debug)]
pub(crate) struct Body<'a> {
    pub(super) verdict: Verdict,
    pub(super) rows: Vec<&'a CheckReport>,
    pub(super) scope: Scope,
    /// The flags of the whole, where the whole is asked for.
    pub(super) report: Option<&'a Report>,
}

impl<'a> Body<'a> {
    pub(crate) fn of_report(report: &'a Report, scope: Scope) -> Self {
        Self::of_probe(report, Probe::Ready, &[], scope).whole(report)
    }

    pub(crate) fn of_probe(
        report: &'a Report,
        probe: Probe,
        excluded: &[&str],
        scope: Scope,
    ) -> Self {
        let counted = |row: &&CheckReport| {
            !excluded.contains(&row.name()) && (probe != Probe::Live || row.kind == CheckKind::Live)
        };
        let rows = if scope == Scope::Verdict {
            vec![]
        } else {
            report.checks().filter(counted).collect()
        };
        Self { verdict: verdict::judge(report, probe, excluded), rows, scope, report: None }
    }

    pub(crate) fn of_row(row: &'a CheckReport, scope: Scope) -> Self {
        let verdict = Verdict { status: row.status, code: row.code };
        Self { verdict, rows: vec![row], scope, report: None }
    }

    pub(crate) fn whole(self, report: &'a Report) -> Self {
        Self { report: Some(report), ..self }
    }

    pub(crate) fn status(&self) -> Status {
        self.verdict.status
    }

    pub(crate) fn write(&self, form: Form) -> String {
        let written = match form {
            Form::HealthJson => serde_json::to_string(&self.health_json()),
            Form::Json => serde_json::to_string(&self.json()),
            Form::Text => return self.text(),
        };
        // Nothing here can fail to serialise; if it did, the status line still says the state.
        written.unwrap_or_default()
    }

    fn text(&self) -> String {
        let mut line = self.verdict.status.as_str().to_owned();
        if let Some(code) = self.verdict.code {
            let _ = write!(line, " ({code})");
        }
        for (index, row) in self.rows.iter().enumerate() {
            let mark = if index == 0 { ':' } else { ',' };
            let _ = write!(line, "{mark} {}={}", row.name, row.status.as_str());
            if let Some(code) = row.code {
                let _ = write!(line, " ({code})");
            }
        }
        line.push('\n');
        line
    }

    /// Whether checks are shown at all.
    pub(super) fn shown(&self) -> bool {
        self.scope > Scope::Verdict
    }
}

/// A map in the order of its pairs.
pub(super) struct Pairs<K, V>(pub(super) Vec<(K, V)>);

impl<K: Serialize, V: Serialize> Serialize for Pairs<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// A finding's part if its name is fit for the public, else its place in the list.
pub(super) fn public_part(finding: &Finding, index: usize) -> String {
    if is_public_name(&finding.name) {
        finding.name.clone().into_owned()
    } else {
        format!("part-{}", index + 1)
    }
}

pub(super) fn milliseconds(row: &CheckReport) -> Option<f64> {
    // Microseconds are as fine as anybody reads.
    row.took.map(|took| (took.as_secs_f64() * 1e6).round() / 1e3)
}
