//! What a primitive says of its own health.

use std::borrow::Cow;

use serde::Serialize;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Works, but somebody should look.
    Warn,
    /// Does not do its work.
    Fail,
}

/// One fact about a primitive's health: which part, how bad, and a stable code that says why.
///
/// A finding holds no free text from outside, so it can be shown to anybody.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Finding {
    /// The part, by the name it was given in code: a pool, a replica, a queue.
    pub name: Cow<'static, str>,
    /// How bad it is.
    pub severity: Severity,
    /// The stable, searchable code, such as `db.pool.saturated`.
    pub code: &'static str,
}

impl Finding {
    /// A finding about the part `name`.
    pub fn new(name: impl Into<Cow<'static, str>>, severity: Severity, code: &'static str) -> Self {
        Self { name: name.into(), severity, code }
    }

    /// The worst severity among findings; `Ok` of none.
    pub fn worst<'a>(findings: impl IntoIterator<Item = &'a Finding>) -> Severity {
        findings.into_iter().map(|finding| finding.severity).max().unwrap_or(Severity::Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_one_counts() {
        let findings = [
            Finding::new("replica-1", Severity::Warn, "db.replica.ejected"),
            Finding::new("primary", Severity::Ok, "db.node.ok"),
        ];
        assert_eq!(Finding::worst(&findings), Severity::Warn);
        assert_eq!(Finding::worst(&[]), Severity::Ok);
    }
}
