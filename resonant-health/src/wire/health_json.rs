//! `application/health+json`: the form of the IETF draft "Health Check Response Format for HTTP APIs", version 06.

use std::collections::BTreeMap;

use resonant_common::join::{Finding, Severity};
use serde::Serialize;

use super::body::{Body, Pairs, Scope, milliseconds, public_part};
use crate::check::Criticality;
use crate::report::{CheckKind, CheckReport, Status};
use resonant_common::wall::rfc3339;

impl Body<'_> {
    /// The IETF draft's form: arrays of objects by component.
    pub(super) fn health_json(&self) -> impl Serialize {
        let mut checks: Vec<(String, Vec<Component<'_>>)> = Vec::new();
        for row in &self.rows {
            checks.push((row.name.to_string(), vec![Component::of_row(row, self.scope)]));
            if self.scope < Scope::Everything {
                continue;
            }
            let mut parts: BTreeMap<String, Vec<Component<'_>>> = BTreeMap::new();
            for (index, finding) in row.findings.iter().enumerate() {
                let key = format!("{}:{}", row.name, public_part(finding, index));
                parts.entry(key).or_default().push(Component::of_finding(finding));
            }
            checks.extend(parts);
        }
        HealthJson {
            status: two_of_three(self.verdict.status, true),
            output: self.verdict.code,
            checks: self.shown().then_some(Pairs(checks)),
        }
    }
}

#[derive(Serialize)]
struct HealthJson<'a> {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checks: Option<Pairs<String, Vec<Component<'a>>>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Component<'a> {
    component_type: &'static str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    observed_value: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    observed_unit: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<&'a str>,
}

impl<'a> Component<'a> {
    fn of_row(row: &'a CheckReport, scope: Scope) -> Self {
        let required = row.criticality == Criticality::Required;
        let timed = if scope >= Scope::Everything { milliseconds(row) } else { None };
        let text = if scope == Scope::ErrorTexts { row.detail() } else { None };
        Self {
            component_type: match row.kind {
                CheckKind::Dependency => "component",
                CheckKind::Live | CheckKind::Local => "system",
            },
            status: two_of_three(row.status, required),
            observed_value: timed,
            observed_unit: timed.map(|_| "ms"),
            time: if scope >= Scope::Everything { row.at.map(rfc3339) } else { None },
            output: text.or(row.code),
        }
    }

    fn of_finding(finding: &Finding) -> Self {
        Self {
            component_type: "component",
            status: match finding.severity {
                Severity::Ok => "pass",
                Severity::Warn => "warn",
                _ => "fail",
            },
            observed_value: None,
            observed_unit: None,
            time: None,
            output: (finding.severity != Severity::Ok).then_some(finding.code),
        }
    }
}

/// The draft has no word for unknown: it is a failure of what is required and a warning elsewhere.
fn two_of_three(status: Status, required: bool) -> &'static str {
    match status {
        Status::Unknown if required => "fail",
        Status::Unknown => "warn",
        known => known.as_str(),
    }
}
