//! Adding checks and watchdogs, and what becomes of those that break a rule.

use std::future::Future;
use std::sync::Arc;

use resonant_common::error::BoxError;
use resonant_common::join::Finding;
use tokio::time::Instant;

use crate::check::{Check, is_public_name};
use crate::checker::HealthChecker;
use crate::config::HealthConfig;
use crate::core::Members;
use crate::entry::Entry;
use crate::report::CheckKind;
use crate::watchdog::{Dog, Watchdog};
use crate::work::Work;

impl HealthChecker {
    /// Adds a required check: it passes when the future returns `Ok`. With other settings: [`with`](HealthChecker::with).
    ///
    /// A registration that breaks a rule (a name given twice, a name with other characters than letters, digits, `_`,
    /// `-`, `.`) keeps its place in every report as a failure, and [`start`](HealthChecker::start) refuses it.
    #[must_use]
    pub fn check<F, Fut, E>(self, name: &str, probe: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.with(Check::new(name, probe))
    }

    /// Adds what a primitive says of itself, as a required check: `.findings("db", move || db.findings())`.
    #[must_use]
    pub fn findings<F>(self, name: &str, read: F) -> Self
    where
        F: Fn() -> Vec<Finding> + Send + Sync + 'static,
    {
        self.with(Check::findings(name, read))
    }

    /// Adds a check with settings of its own. Also possible after [`start`](HealthChecker::start).
    #[must_use]
    pub fn with(self, check: Check) -> Self {
        let wanted = check.name.clone();
        self.enlist(&wanted, |config, name, defect| {
            let (policy, timeout) = check.resolve(config);
            if let Some(rule) = policy.broken_rule(timeout) {
                defect.get_or_insert_with(|| rule.to_owned());
            }
            let work = if defect.is_some() { Work::Refused } else { check.work };
            let settings = if defect.is_some() {
                (config.policy(), config.timeout)
            } else {
                (policy, timeout)
            };
            let (history, now) = (config.history, Instant::now());
            let entry = Entry::new(name, check.criticality, settings, history, work, now);
            Member::Entry(Arc::new(entry))
        });
        self
    }

    /// Adds a watchdog that counts for liveness and readiness.
    ///
    /// Liveness takes watchdogs alone. A check of a dependency has another type, so a database outage cannot make an
    /// orchestrator restart a healthy fleet. This does not compile:
    ///
    /// ```compile_fail,E0308
    /// use resonant_health::{Check, HealthChecker};
    ///
    /// let health = HealthChecker::new()
    ///     .live(Check::new("database", || async { Ok::<(), std::io::Error>(()) }));
    /// ```
    ///
    /// This does:
    ///
    /// ```
    /// use std::time::Duration;
    /// use resonant_health::{HealthChecker, Watchdog};
    ///
    /// let (heartbeat, watchdog) = Watchdog::heartbeat("consumer", Duration::from_secs(30));
    /// let health = HealthChecker::new().live(watchdog);
    /// heartbeat.beat(); // in the loop
    /// ```
    #[must_use]
    pub fn live(self, watchdog: Watchdog) -> Self {
        self.watch(watchdog, CheckKind::Live)
    }

    /// Adds a watchdog that counts for readiness only: what it tells should stop traffic, but no restart cures it.
    #[must_use]
    pub fn local(self, watchdog: Watchdog) -> Self {
        self.watch(watchdog, CheckKind::Local)
    }

    fn watch(self, watchdog: Watchdog, kind: CheckKind) -> Self {
        self.enlist(&watchdog.name, |_, name, _| {
            Member::Dog(Arc::new(Dog { name, kind, fact: watchdog.fact }))
        });
        self
    }

    /// Adds a member under its name, or under a made-up one with a note of the rule it breaks.
    fn enlist(
        &self,
        wanted: &str,
        make: impl FnOnce(&HealthConfig, Arc<str>, &mut Option<String>) -> Member,
    ) {
        let config = &self.core.config;
        self.core.change_members(|members| {
            let count = members.entries.len() + members.dogs.len();
            if count > config.max_checks {
                return; // the one before has said so
            }
            let mut defect = None;
            let name = if count == config.max_checks {
                defect = Some(format!("more than {count} checks; raise max_checks or merge some"));
                free_name(members, "over-limit", count + 1)
            } else if !is_public_name(wanted) {
                defect = Some(
                    "a check's name has 1 to 64 letters, digits, '_', '-' or '.'".to_owned(),
                );
                free_name(members, "check", count + 1)
            } else if members.has(wanted) {
                defect = Some(format!("the name {wanted:?} is given twice"));
                free_name(members, wanted, 2)
            } else {
                wanted.into()
            };
            let member = make(config, Arc::clone(&name), &mut defect);
            if let Some(rule) = defect {
                tracing::warn!(target: "resonant::health", check = &*name, rule, "registration refused");
                members.defects.push(format!("{name}: {rule}"));
            }
            match member {
                Member::Entry(entry) => members.entries.push(entry),
                Member::Dog(dog) => members.dogs.push(dog),
            }
        });
        self.core.publish(false);
        self.core.wake.notify_one();
    }
}

enum Member {
    Entry(Arc<Entry>),
    Dog(Arc<Dog>),
}

impl Members {
    fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|entry| &*entry.name == name)
            || self.dogs.iter().any(|dog| &*dog.name == name)
    }
}

/// `base-2` and so on.
fn free_name(members: &Members, base: &str, from: usize) -> Arc<str> {
    let base = base.get(..56).unwrap_or(base);
    (from..)
        .map(|n| format!("{base}-{n}"))
        .find(|name| !members.has(name))
        .unwrap_or_default()
        .into()
}
