//! Plain JSON: one object per check, by name.

use resonant_common::join::Severity;
use serde::Serialize;

use super::body::{Body, Pairs, Scope, milliseconds, public_part};
use crate::check::Criticality;
use crate::report::{CheckKind, CheckReport, Status, Transition};
use resonant_common::wall::rfc3339;

impl Body<'_> {
    /// Plain JSON: one object per check, by name.
    pub(crate) fn json(&self) -> impl Serialize {
        Json {
            status: self.verdict.status,
            code: self.verdict.code,
            started: self.report.map(|report| report.started),
            draining: self.report.map(|report| report.draining),
            checks: self.shown().then(|| {
                Pairs(
                    self.rows
                        .iter()
                        .map(|row| (&*row.name, JsonCheck::of(row, self.scope)))
                        .collect(),
                )
            }),
        }
    }
}

#[derive(Serialize)]
struct Json<'a> {
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    draining: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checks: Option<Pairs<&'a str, JsonCheck<'a>>>,
}

#[derive(Serialize)]
struct JsonCheck<'a> {
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    kind: CheckKind,
    criticality: Criticality,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    more: Option<JsonMore<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct JsonMore<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    findings: Vec<JsonFinding>,
    transitions: u64,
    #[serde(skip_serializing_if = "<[Transition]>::is_empty")]
    history: &'a [Transition],
}

#[derive(Serialize)]
struct JsonFinding {
    name: String,
    severity: Severity,
    code: &'static str,
}

impl<'a> JsonCheck<'a> {
    fn of(row: &'a CheckReport, scope: Scope) -> Self {
        let findings = row.findings.iter().enumerate().map(|(index, finding)| JsonFinding {
            name: public_part(finding, index),
            severity: finding.severity,
            code: finding.code,
        });
        let more = (scope >= Scope::Everything).then(|| JsonMore {
            outcome: row.outcome.map(|outcome| outcome.as_str()),
            duration_ms: milliseconds(row),
            time: row.at.map(rfc3339),
            findings: findings.collect(),
            transitions: row.transitions,
            history: &row.history,
        });
        let error = if scope == Scope::ErrorTexts { row.detail() } else { None };
        let (kind, criticality) = (row.kind, row.criticality);
        Self { status: row.status, code: row.code, kind, criticality, more, error }
    }
}
